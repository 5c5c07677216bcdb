//! Programs that run under a tracer: ptrace(2), seccomp(2), and system calls made in their name.
//!
//! ```text
//!   spawn        the program starts traced, behind a filter that stops it before calls that map files
//!   wait         what happened to any traced thread
//!   Thread       one that is stopped: its registers, and what it is to do next
//!   halt         a thread that is stopped wherever it was, makes calls for its tracer, and goes on as if it had not
//!   calls        a few instructions, put where the kernel leaves room in every program (the end of the vDSO page),
//!                with which a stopped thread makes system calls that its tracer chose
//!   maps         what is mapped where, asked of the kernel address by address
//!   hand         descriptors of the tracer that such calls get
//! ```
//!
//! One thread, the tracer, makes all calls on traced threads. Numbers and registers are those of x86-64.
//! Sources: ptrace(2), seccomp(2), vdso(7), and for what a stop is, "Stopped states" in ptrace(2).

mod beats;
mod calls;
mod code;
mod filter;
mod front;
mod guard;
mod halt;
mod hand;
mod limits;
mod maps;
mod memory;
mod signals;
mod sites;
mod spawn;
#[cfg(test)]
mod tests;
mod thread;
mod wait;

pub use beats::Beats;
pub use calls::{By, Call, CallError, CallSite, MapCall, Mapped, far_away};
pub use filter::{MARK, Traced, Tracing};
pub use front::{Errors, Side, become_silent, is_readable_within, parent_may_end, split};
pub use guard::{Guard, close_to_others};
pub use halt::Halted;
pub use hand::is_same_file;
pub use limits::{Limits, most_descriptors, next_descriptor};
pub use maps::{MappedFile, Maps};
pub use memobj_linux::pagemap::Present;
pub use memory::{read_memory, read_string, write_memory};
pub use signals::{Forward, Handles, die_by};
pub use sites::Sites;
pub use spawn::{Program, Started, spawn};
pub use thread::{Registers, Resume, Thread};
pub use wait::{Happened, Heard, Stop, Waker, beat_by, is_reported, wait_any};

/// As the kernel counts processes and threads.
pub(crate) type Pid = i32;
