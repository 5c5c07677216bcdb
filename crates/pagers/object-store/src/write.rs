//! Writing: bytes are kept in a spool, and a sync publishes a new version of the object, whole or not at all.
//!
//! ```text
//!   write_back(range) --> layers   top layer: a spool file, and which ranges of it are written
//!                           |      below: a layer that is being published, if one is; at the bottom the published version
//!   sync() ---------------> publish
//!                             plan    changed ranges become parts that are sent, all else parts that the store copies
//!                             s3      multipart upload: UploadPartCopy, UploadPart, CompleteMultipartUpload with If-Match
//!                             put     one conditional PUT: small objects, and stores without copies of ranges
//!                           |
//!                         layers   the published layer is dropped; its version is the bottom now
//! ```
//!
//! What is supplied comes from the top layer that has it.

mod body;
mod layers;
mod left;
mod plan;
mod publish;
mod put;
mod ranges;
mod s3;
mod spool;
mod target;
mod upload;

pub(crate) use body::Content;
pub(crate) use layers::{Layers, Origin};
pub use left::{LeftUpload, abort_upload, left_uploads};
pub(crate) use publish::Publisher;
pub use publish::Unchanged;
pub(crate) use target::{Target, generation, kept};
