//! Address spaces in this process: segments of objects placed in a window of addresses, with the kernel's semantics.
//!
//! ```text
//!   verbs: map, unmap, protect, remap, advise
//!        |  core's AddressSpace decides, and says what changes; the kernel is told
//!        v
//!   window   |  reserved  | anonymous |  segment of an object  | reserved |     loads and stores, yours
//!                                        a private mapping of the file of frames that the object lends
//!                                          |  missing page: the thread sleeps
//!                                          v
//!   the event loop of the process looks the segment up, has the page supplied, wakes; or poisons it: the access traps
//! ```
//!
//! [`Space`] is for whoever wants addresses of his own choice: loaders, emulators, programs that map objects at fixed
//! places. Frames stay within the budget of the object's cache, and a page that is evicted is missing in all segments at
//! once; what a segment has stored to is a copy of its own, made by the kernel, **outside every budget**.
//!
//! | Segment | Shows | Stores |
//! |---|---|---|
//! | anonymous | zeros | its own |
//! | private | the object, until it is stored to, page by page | its own |
//! | shared | the object | refused: `max_prot` has no stores, however the object was opened |
//! | copy | the object at the instant of the mapping, whatever becomes of it | its own |
//!
//! A **copy segment** shows the object itself where its pager is [immutable](crate::pagers::Description::immutable), a
//! reflink of its file where the file system has those, else bytes that were copied to a temporary file, within
//! [`SpaceOptions::copy_bytes`]. Where none of these goes, the mapping is refused ([`NoCopy`]): never a mix.
//!
//! Objects are read only, and made with [`FrameVisibility::Shared`](crate::FrameVisibility::Shared) and
//! [`FrameSize::Small`](crate::FrameSize::Small). Of objects that can be written there are no segments yet, and neither
//! locks, guards, stacks nor forked spaces: children of fork have no addresses of the window, and get traps.
//!
//! ```
//! use memobj::space::{Place, Prot, SegmentRequest, SegmentSource, Sharing, Space, SpaceOptions};
//! use memobj::{Cache, CacheOptions, FrameSize, ObjectOptions, FrameVisibility};
//!
//! let cache = Cache::new(CacheOptions::new().budget_bytes(1 << 20))?;
//! let options = ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small);
//! let object = cache.open_file("Cargo.toml", options)?;
//! let space = Space::new(SpaceOptions::default())?;
//! let segment = space.map(&SegmentRequest::new(object.len(), SegmentSource::Object { object: &object, offset: 0 }, Prot::READ | Prot::WRITE, Sharing::Private))?;
//! space.write_at(segment.start, b"{package}")?;
//! let mut start = [0; 9];
//! space.read_at(segment.start, &mut start)?;
//! assert_eq!(&start, b"{package}"); // the file is as it was
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod apply;
mod copies;
mod error;
mod failures;
mod faults;
mod handle;
#[cfg(feature = "images")]
mod image;
mod objects;
mod options;
mod resolve;
mod state;

pub use copies::NoCopy;
pub use error::{TouchError, VerbError};
pub use handle::Space;
#[cfg(feature = "images")]
pub use image::SpaceImage;
pub use memobj_core::address::VirtAddr;
pub use memobj_core::prot::{Access, Prot};
pub use memobj_vm::fault::Trap;
pub use memobj_vm::space::{
    Advice, Backing, Limits, ObjectId, Pattern, Place, RemapTo, Segment, Sharing, SpaceError,
};
pub use options::{SegmentRequest, SegmentSource, SpaceOptions};
