//! Objects of pagers as files: a file system of FUSE that this process serves, and that is mounted nowhere.
//!
//! ```text
//!   mount       the file system: a device to answer at, and a descriptor of its root
//!   tree        its folders and files, by the names that programs know them by; listing: what is in a folder
//!   object      an object, and its memory object while it is open: read(2) copies from it, mmap(2) maps its frames
//!   threads     read requests; wire, request, answer: the protocol
//!     service   what is answered
//!     recent    objects that were closed, and stay open for a while
//!     waiting   whose requests are under way, and who is killed meanwhile
//!   copies      what is done where there can be no such file system
//!   refused     error numbers, and lines about failures
//! ```

mod answer;
mod copies;
mod listing;
mod mount;
mod object;
mod recent;
mod refused;
mod request;
mod service;
mod system;
mod threads;
mod tree;
mod waiting;
mod wire;

pub(crate) use copies::Copies;
pub(crate) use object::Opened;
pub(crate) use system::{Behind, ObjectFiles, Objects};
pub use system::{ObjectsOnDemand, objects_on_demand};
