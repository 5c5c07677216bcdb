//! What a caller can choose.

use std::time::Duration;

use crate::clock::EngineClock;

/// The constructor and the setters of options. A setter has the name of its field.
macro_rules! setters {
    ($options:ident { $($field:ident: $type:ty),* $(,)? }) => {
        impl $options {
            /// The defaults, to be changed by the setters.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $crate::options::setters!(only $($field: $type),*);
        }
    };
    (only $($field:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}
pub(crate) use setters;

/// For [`Cache::new`](crate::Cache::new).
///
/// ```
/// let options = memobj::CacheOptions::new().budget_bytes(64 << 20).workers(8);
/// assert_eq!((options.budget_bytes, options.workers), (64 << 20, 8));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheOptions {
    /// The most bytes of frames that exist at once, for all objects together.
    pub budget_bytes: u64,
    /// The most pager calls that run at once (each on a thread of its own, started when needed).
    pub workers: usize,
    /// How files are read.
    pub reads: Reads,
    /// The most events that wait to be received; further ones are counted and dropped.
    pub event_capacity: usize,
    /// What time-outs and pauses are measured by; tests have one of their own.
    pub clock: EngineClock,
}

impl Default for CacheOptions {
    /// 64 MiB, 16 workers, io_uring where it can be had, the system's clock.
    fn default() -> Self {
        Self {
            budget_bytes: 64 << 20,
            workers: 16,
            reads: Reads::Auto,
            event_capacity: 1024,
            clock: EngineClock::system(),
        }
    }
}

setters!(CacheOptions {
    budget_bytes: u64,
    workers: usize,
    reads: Reads,
    event_capacity: usize,
    clock: EngineClock,
});

/// How the engine reads files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reads {
    /// Through io_uring where the kernel allows it, else through threads.
    #[default]
    Auto,
    /// Through threads.
    Threads,
}

/// For [`Cache::open_file`](crate::Cache::open_file) and [`Cache::object`](crate::Cache::object).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectOptions {
    /// The size of the object's pages.
    pub frames: FrameSize,
    /// What is known of the accesses to come. It holds for all of the object until
    /// [`Mapping::advise`](crate::Mapping::advise) says otherwise. Unlike that, it is known when the size of pages is
    /// chosen. [`Advice::WillNeed`] and [`Advice::DontNeed`] say nothing here.
    pub advice: Advice,
    /// Who else can see the frames.
    pub visibility: FrameVisibility,
    /// What happens when a page cannot be supplied.
    pub policy: FailurePolicy,
    /// How long one pager call may take before it counts as failed; `None` is for ever.
    /// [`FailurePolicy::WaitForEver`] ignores it.
    pub supply_timeout: Option<Duration>,
    /// How long pins, copies, stores, syncs, commits and new lengths wait for pages that others pin or write back,
    /// whatever the policy. [`Duration::MAX`] is for ever. Then the error says whose pins they are.
    pub pin_timeout: Duration,
    /// Whether the object can be written, and what a crash leaves of what was written. An object that can be
    /// written has 4 KiB pages.
    pub writing: Writing,
    /// The most bytes that [`set_len`](crate::MemoryObject::set_len) may extend a mapped object to: so many
    /// addresses are set aside for it. By default twice its length when it is mapped, and at least 1 GiB.
    pub max_len: Option<u64>,
    /// How long the opening of a file for writing waits for whoever has it open for writing. If that is for commits,
    /// only an opening for commits waits; all others are refused at once.
    pub lock_timeout: Duration,
    /// What [`Cache::open_file`](crate::Cache::open_file) does where there is no file. An object that is read only is not
    /// created.
    pub create: Create,
    /// Whether [`Cache::open_file`](crate::Cache::open_file) goes through the host's page cache.
    pub cache_use: CacheUse,
}

impl Default for ObjectOptions {
    /// Small frames, nothing known of accesses, frames of this process alone, failures at once, 30 s for a pager call and
    /// 30 s for pins of others, read only, no waiting for locks.
    fn default() -> Self {
        Self {
            frames: FrameSize::Auto,
            advice: Advice::Normal,
            visibility: FrameVisibility::Local,
            policy: FailurePolicy::FailAtOnce,
            supply_timeout: Some(Duration::from_secs(30)),
            pin_timeout: Duration::from_secs(30),
            writing: Writing::ReadOnly,
            max_len: None,
            lock_timeout: Duration::ZERO,
            create: Create::Never,
            cache_use: CacheUse::Auto,
        }
    }
}

setters!(ObjectOptions {
    frames: FrameSize,
    advice: Advice,
    visibility: FrameVisibility,
    policy: FailurePolicy,
    supply_timeout: impl Into<Option<Duration>>,
    pin_timeout: Duration,
    writing: Writing,
    max_len: impl Into<Option<u64>>,
    lock_timeout: Duration,
    create: Create,
    cache_use: CacheUse,
});

/// What the opening of a file does where there is none. The bytes of a new file are zeros; a file that is there is never
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Create {
    /// It fails.
    #[default]
    Never,
    /// It makes one. A file that is there is opened, whatever its length.
    IfMissing {
        /// Bytes of a new file.
        length: u64,
    },
    /// It makes one. If there is a file, it fails (`AlreadyExists`).
    New {
        /// Bytes of the new file.
        length: u64,
    },
}

/// Whether a file is read and written through the host's page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CacheUse {
    /// Around it, unless the host has most of the file cached anyway or the file system cannot.
    #[default]
    Auto,
    /// Around it where the file system can.
    Direct,
    /// Through it.
    Buffered,
}

/// The size of an object's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FrameSize {
    /// 4 KiB, until somebody says that the object is read in sequence: then 2 MiB for objects of at least 16 MiB under a
    /// budget of at least 32 MiB, where they can be had. That is said by [`ObjectOptions::advice`], or by
    /// [`Mapping::advise`](crate::Mapping::advise) of the whole object. The latter comes too late for the mappings that
    /// exist: it counts, and advice of another kind too, when the object is mapped the next time, after its last mapping
    /// is gone. Sequences that nobody announces are read ahead in large pieces, into small pages.
    #[default]
    Auto,
    /// 4 KiB: for random access. A page that is missing is one read of 4 KiB.
    Small,
    /// 2 MiB: for sequential access. 4 KiB where the budget holds fewer than 16 of them, or they cannot be had:
    /// [`FrameVisibility::Local`] takes a kernel that moves frames (Linux 6.8), [`FrameVisibility::Shared`] the right to mount a tmpfs,
    /// if only in a user namespace.
    Large,
}

/// Who can see an object's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FrameVisibility {
    /// This process, through mappings with one way of fault delivery. Fastest.
    #[default]
    Local,
    /// All mappings, whatever their fault delivery; frames are pages of a file in memory. Of an object that can be
    /// written also other processes, which are [admitted](crate::MemoryObject::admit). A first store to a page costs
    /// a system call more for each further view and guest.
    Shared,
}

/// Whether and how an object can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Writing {
    /// Not at all.
    #[default]
    ReadOnly,
    /// In place: changes are written back whenever memory is wanted, and are durable after
    /// [`sync`](crate::Mapping::sync). After a crash each page is as it was at some moment since the last sync.
    InPlace,
    /// Through a log: changes since the last [`commit`](crate::MemoryObject::commit) become durable together or
    /// not at all, whatever crashes. Local files opened by [`Cache::open_file`](crate::Cache::open_file) only.
    Atomic,
}

/// Who sees what is stored through a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sharing {
    /// All other mappings of the object, at once; and its pager, in time.
    #[default]
    Shared,
    /// Nobody: the mapping has the object's bytes until it is stored to, page by page, and its own from then on.
    /// What was stored to is kept in a temporary file when memory is short, and is gone with the mapping.
    Private,
}

/// What happens when a page cannot be supplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The page fails; whoever waits gets the error. So does who stores while too much is Dirty and cannot be written.
    #[default]
    FailAtOnce,
    /// Errors that may pass are retried with growing pauses until so much time has gone by since the first try.
    RetryFor(Duration),
    /// As above, without an end. Errors that cannot pass fail.
    WaitForEver,
}

/// How touching an absent page reaches the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// The reader thread if it also serves system calls on this machine, else the faulting thread, else pins only.
    #[default]
    Auto,
    /// The faulting thread sleeps in the kernel, a thread of the cache resolves the fault. Works for system calls
    /// on the mapping too, if the process has the privilege. No signal handler is needed,
    /// but for [`touch_at`](crate::Mapping::touch_at) and shared frames.
    ReaderThread,
    /// The faulting thread resolves its fault in a SIGBUS handler: no thread has to be woken. System calls on
    /// absent pages answer EFAULT: populate or pin first.
    InThread,
    /// Not at all: bytes are pinned and copied, and the mapping has no address to touch. Needs no userfaultfd, and
    /// is what [`Auto`](Self::Auto) comes to on machines that have none.
    PinOnly,
}

/// For [`MemoryObject::map`](crate::MemoryObject::map).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MapOptions {
    /// How touching an absent page reaches the engine.
    pub delivery: Delivery,
    /// Who sees what is stored through the mapping.
    pub sharing: Sharing,
    /// The address of the first byte; `None` for any. It is taken as asked, or the mapping is refused:
    /// [`MapError::AddressTaken`](crate::MapError::AddressTaken) tells who is there, and nobody is mapped over.
    ///
    /// All mappings of an object that have frames in common are windows of one range of addresses, its home. The first
    /// mapping decides where it is: at this address less the beginning of the mapped range, a multiple of 2 MiB. It
    /// takes as many addresses as the object has bytes, or can grow to ([`ObjectOptions::max_len`]). A later mapping of
    /// the object is refused at any other place ([`MapError::MappedElsewhere`](crate::MapError::MappedElsewhere)). With
    /// [`FrameVisibility::Shared`] there is a home for each way of fault delivery; the first mapping places that of its own. A home is
    /// free again a moment after the last handle of its object is gone, when threads of the cache have let go of it too.
    pub at: Option<usize>,
}

setters!(MapOptions { delivery: Delivery, sharing: Sharing, at: impl Into<Option<usize>> });

/// What the caller knows of the accesses to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing: the engine watches for sequences.
    #[default]
    Normal,
    /// No read-ahead.
    Random,
    /// Read-ahead from the first fault on.
    Sequential,
    /// The range will be used: as prefetch.
    WillNeed,
    /// The range will not be used: evicts what is resident and not pinned.
    DontNeed,
}
