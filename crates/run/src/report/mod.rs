//! What is told after a run: a [`History`](crate::history::History) as a text for a screen, as JSON for programs, and
//! as a page for a browser.
//!
//! All three tell the same numbers, which `summary` counts. None of them writes anything: they give a `String`, and
//! cannot fail. Names of files and arguments of programs may be any bytes; each form keeps them from being taken for
//! anything else than names.

mod html;
mod json;
mod names;
mod runs;
mod summary;
mod text;

pub use html::html;
pub use json::json;
pub use text::text;

#[cfg(test)]
mod tests;
