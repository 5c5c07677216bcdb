//! Runs unmodified programs whose file mappings are segments of memory objects.
#![forbid(unsafe_code)]

pub mod history;
pub mod record;
pub mod report;
