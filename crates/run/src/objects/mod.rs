//! Objects of pagers as files: a file system of FUSE that this process serves, and that is mounted nowhere.
//!
//! ```text
//!   target      what users of this library give: pagers, and folders of them
//!   mount       the file system: a device to answer at, and a descriptor of its root
//!   tree        its folders and files, by the names that programs know them by; listing: what is in a folder
//!   object      an object, and its memory object while it is open: read(2) copies from it, mmap(2) maps its frames
//!   threads     read requests; wire, request, answer: the protocol
//!     service   what is answered
//!     waiting   whose requests are under way, and who is killed meanwhile
//!   refused     error numbers, and lines about failures
//! ```

mod answer;
mod listing;
mod mount;
mod object;
mod refused;
mod request;
mod service;
mod system;
mod target;
mod threads;
mod tree;
mod waiting;
mod wire;

pub(crate) use object::Opened;
pub(crate) use system::{Behind, ObjectFiles};
pub use target::{Entry, EntryKind, MapTarget, ObjectFolder, OpenedObject};
