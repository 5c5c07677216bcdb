//! ELF images: from the headers of a file to what must be mapped where.
//!
//! ```text
//!   Source, ImageOptions --plan--> Need [a, b) --supply--> Need [c, d) --supply--> ImagePlan
//!                          the ELF header      pieces of the program headers       |
//!                                                                                  | placement   where, how aligned
//!                                                                                  | records     what callers are told
//!                                                                                  | steps       what a host does
//! ```
//!
//! The plan is that of mmapobj(2) of Solaris and illumos, for 64-bit and 32-bit little-endian ELF; the manual of
//! Solaris 11 and the source of illumos are the source of its semantics. Nothing here reads a file or touches
//! memory: the planner says which bytes it needs, never more than [`MOST_NEEDED_BYTES`] at once, and keeps what it
//! learns about phdrs that are loaded, at most 65,534 of them. So no header makes it allocate in proportion to a
//! file. In this module a *phdr* is what the ELF specification calls a segment; a segment is a mapped range.
//!
//! # What is loaded
//!
//! | File | Records | Where |
//! |---|---|---|
//! | ELF, `ET_DYN` | one for each phdr that is loaded | anywhere, at the largest alignment that a phdr asks for |
//! | ELF, `ET_EXEC` | the same | at the phdrs' own addresses |
//! | ELF, `ET_REL` and `ET_CORE` | one, the whole file, read-only | anywhere |
//! | not interpreted | the same | anywhere |
//!
//! Loaded are phdrs of type `PT_LOAD` and `PT_SUNWBSS` whose size in memory is not zero, in the order of the table.
//! With padding there are two records more, the first and the last one, of which no byte may be accessed.
//!
//! # Departures from mmapobj(2)
//!
//! * The first phdr of an `ET_DYN` that has file bytes is extended down to byte 0 of the file, so that the headers
//!   are mapped whatever it says. illumos leaves its address as it is, which moves the bytes away from the addresses
//!   that they were linked for; here the address goes down with the offset, and an image where it cannot is refused.
//! * A phdr of no file bytes gets all pages that it touches; illumos can leave out the last.
//! * Phdrs whose file bytes exceed their memory, or whose ranges overflow, are refused; illumos lacks the check.
//! * An empty file is [`ImageError::Empty`], interpreted or not.
//! * A file that is not interpreted has `r--` in its record; illumos tells a bit of the kernel's own, too.
//! * Of the wrong byte order is [`Unsupported::ByteOrder`]; there are no a.out files.

mod error;
mod header;
mod layout;
mod options;
mod plan;
mod planning;
mod record;

pub use error::{ImageError, Unsupported};
pub use options::{Execution, FileFacts, ImageOptions, Interpret, Model};
pub use plan::{AddressRange, ImagePlan, Placement, Step};
pub use planning::{MOST_NEEDED_BYTES, Need, PlanFailure, Planning, plan, plan_with};
pub use record::{ImageRecord, RecordKind};
