//! The reports of runs: what they say, how long they are, and that no name gets out of its place.

mod chromium;
mod html;
mod json;
mod sample;
mod text;
