//! The system edge of memobj: with `memobj-tracer`, the only crate with `unsafe` code.
//!
//! ```text
//!   signal   SIGBUS handler, chained        uffd     missing-page faults
//!      |  calls back into the engine           |  copy, move, poison, wake
//!      v                                       v
//!   slots    lock-free tables that          area     one object's pages in this process: address range +
//!            a signal handler can read               page words; claim -> place | fail | abandon, evict, pin
//!                                              |
//!   ring     many reads at once             pool     recycled 2 MiB frames
//!            (io_uring, else threads)       region   owned mappings; chunks for I/O
//!                                           frame_file, huge_folder    files whose pages are frames
//!   line     owner <-> guest             remote   a guest's view of frames of another process
//!   fault_loop   the faults of others, many userfaultfds at once
//!
//!   space    a window in which segments of frames are placed
//!   image    address ranges taken and filled piece by piece: what an ELF image becomes
//! ```
//!
//! The engine (`memobj`) decides; this crate makes the decisions happen and keeps them memory-safe: a page is
//! written only by the owner of its claim, read through `&[u8]` only while pinned, and evicted only while
//! unpinned, and all three go through the page words that [`area::Area`] owns.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("memobj-linux runs on x86-64 Linux only so far");

pub mod area;
pub mod capability;
pub mod credentials;
pub mod eventfd;
pub mod exit;
pub mod fault_loop;
pub mod file;
pub mod fork;
pub mod frame_file;
pub mod futex;
pub mod huge_folder;
pub mod image;
pub mod journal;
pub mod lease;
pub mod line;
pub mod locks;
#[cfg(feature = "oracle")]
pub mod oracle;
pub mod pagemap;
#[cfg(feature = "peer")]
pub mod peer;
pub mod pool;
pub mod processor;
pub mod quiet;
pub mod region;
pub mod remote;
pub mod ring;
pub mod serves;
pub mod shared_words;
pub mod signal;
pub mod slots;
pub mod space;
pub mod standard;
#[cfg(feature = "testing")]
pub mod testing;
pub mod times;
pub mod uffd;
pub mod volatile;
pub mod zeroed_table;
