//! Files as images: every segment of an ELF file mapped by one call, all or nothing.
//!
//! ```text
//!   File --plan_image--> ImagePlan --map_image--> MappedImage    unmaps on drop
//!          core::image                ImageHost    records: address, bytes, offset, protection, kind
//! ```
//!
//! What is mapped where is decided by [`memobj_vm::image`], which follows mmapobj(2) of Solaris. Here the plan is
//! applied to this process, by private kernel mappings of the file; [`Space::map_image`](crate::space::Space::map_image)
//! applies it to an address space, by segments of a [`MemoryObject`](crate::MemoryObject). An `ImageHost` does the
//! steps; the rest is one for both.
//!
//! ```
//! use memobj::image::{ImageMapOptions, map_image};
//!
//! let file = std::fs::File::open(std::env::current_exe()?)?;
//! let image = map_image(&file, &ImageMapOptions::default())?;
//! let mut magic = [0; 4];
//! image.read_at(image.records()[0].address, &mut magic)?;
//! assert_eq!(magic, *b"\x7fELF");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod host;
mod map;
mod mapped;
mod reservation;

pub use error::MapImageError;
#[cfg(feature = "spaces")]
pub(crate) use host::ImageHost;
#[cfg(feature = "spaces")]
pub(crate) use map::do_steps;
pub use map::{ImageMapOptions, check_descriptor, map_image, plan_image};
pub use mapped::MappedImage;
pub use memobj_core::address::VirtAddr;
pub use memobj_core::prot::Prot;
pub use memobj_vm::image::{
    AddressRange, ImageError, ImagePlan, ImageRecord, Interpret, Model, Placement, RecordKind, Step,
    Unsupported,
};
pub use reservation::Reservation;
