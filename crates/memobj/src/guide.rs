//! The documents of the project, with the interface that they are about.
//!
//! They link to one another as files of the repository.
#![allow(clippy::doc_lazy_continuation, reason = "the documents are wrapped as Markdown allows")]

#[doc = include_str!("../docs/writing.md")]
pub mod writing {}

#[doc = include_str!("../docs/failures.md")]
pub mod failures {}

#[doc = include_str!("../docs/async.md")]
pub mod asynchronous {}

#[doc = include_str!("../docs/streams.md")]
pub mod streams {}

#[cfg(feature = "images")]
#[doc = include_str!("../docs/images.md")]
pub mod images {}

#[doc = include_str!("../docs/address-spaces.md")]
#[cfg(feature = "spaces")]
pub mod address_spaces {}

#[doc = include_str!("../docs/commit-log.md")]
pub mod commit_log {}
