//! The pager by its public face, on real directories.

mod conformance;
mod damage;
mod helpers;
mod measure;
mod processes;
mod requests;
mod room;
mod versions;
