//! A small buffer pool with optimistic reads, after Leis et al., "Virtual-Memory Assisted Buffer Management", SIGMOD
//! 2023: one word for each page of the file, with a version; readers store nothing, and look at the word again when they
//! have read.
//!
//! What differs from the paper, since this crate has no unsafe code:
//!
//! * A page is not at a fixed address that is dropped by `madvise`; its word names one of a fixed number of frames in
//!   one anonymous array. That costs a reader nothing more, as it loads the word anyway, and spares the pool a system
//!   call and a fault for each eviction: the paper's would be slower there.
//! * A page is read into a buffer of the thread and copied word by word: 512 stores beside one read of a device.
//!
//! ```text
//!   word of a page:   version (32 bits) | frame (24 bits) | state (8 bits)
//!
//!   EVICTED --claim--> LOCKED --filled--> PRESENT --hand comes by--> MARKED --hand comes by again--> LOCKED --> EVICTED
//!                                            ^---- somebody reads -----'           version + 1
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::fs::OFlags;

use super::job::IndexJob;
use super::lookup::{Index, Nodes};
use super::node::{Found, NODE_WORDS, Words, find};
use crate::data::{PAGE_BYTES, WORD_BYTES};
use crate::job::Failure;

const STATE: u64 = 0xff;
const EVICTED: u64 = 0;
const LOCKED: u64 = 1;
const PRESENT: u64 = 2;
const MARKED: u64 = 3;
const FRAME_SHIFT: u32 = 8;
const VERSION_SHIFT: u32 = 32;
/// No page; the owner of a frame that is free or on its way to another page.
const NOBODY: u64 = u64::MAX;

/// The pool, with the file behind it.
pub struct Pool {
    file: File,
    /// The word of each page.
    pages: Vec<AtomicU64>,
    /// The frames, one behind the other.
    arena: Vec<AtomicU64>,
    /// The page in each frame.
    owners: Vec<AtomicU64>,
    /// Where the clock's hand is, counted on for ever.
    hand: AtomicU64,
    missed: AtomicU64,
}

impl Pool {
    /// A pool of the job's budget over the job's tree.
    pub fn open(job: &IndexJob) -> Result<Self, Failure> {
        let pages = job.shape().pages();
        let frames = (job.budget_bytes / PAGE_BYTES).min(pages);
        if frames == 0 || frames >= 1 << (VERSION_SHIFT - FRAME_SHIFT) {
            return Err(Failure::Failed(format!("{frames} frames: from 1 to 2^24 - 1 will do")));
        }
        let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&job.file);
        // A file system without O_DIRECT: through the kernel's page cache, which the cgroup bounds.
        let file = direct.or_else(|_| File::open(&job.file))?;
        let words = |count: u64, value| (0..count).map(|_| AtomicU64::new(value)).collect();
        Ok(Self {
            file,
            pages: words(pages, EVICTED),
            arena: words(frames * NODE_WORDS as u64, 0),
            owners: words(frames, NOBODY),
            hand: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        })
    }

    fn frame(&self, word: u64) -> Frame<'_> {
        let start = frame_of(word) as usize * NODE_WORDS;
        Frame(&self.arena[start..start + NODE_WORDS])
    }

    /// Whether what was read of the frame since `before` was loaded is the page it was then.
    #[inline]
    fn still(&self, page: u64, before: u64) -> bool {
        // What was read is read before the word is loaded again.
        fence(Ordering::Acquire);
        let now = self.pages[page as usize].load(Ordering::Relaxed);
        is_readable(now) && now & !STATE == before & !STATE
    }

    /// Takes the mark of a page away, which keeps it from being evicted next. It is a hint: it may fail.
    #[cold]
    fn unmark(&self, page: u64, word: u64) {
        let present = word & !STATE | PRESENT;
        let _ =
            self.pages[page as usize].compare_exchange(word, present, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Reads the page, if nobody else does: then waits a moment.
    #[cold]
    fn fill(&self, page: u64, word: u64, buffer: &mut Buffer) -> Result<(), Failure> {
        let claimed = word & !STATE | LOCKED;
        let slot = &self.pages[page as usize];
        let evicted = word & STATE == EVICTED;
        if !evicted || slot.compare_exchange(word, claimed, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
            return Ok(());
        }
        let outcome = buffer.read(&self.file, page);
        let Ok(bytes) = outcome else {
            slot.store(word, Ordering::Release);
            return outcome.map(|_| ()).map_err(Failure::from);
        };
        let frame = self.take_frame();
        let words = &self.arena[frame as usize * NODE_WORDS..][..NODE_WORDS];
        for (word, bytes) in words.iter().zip(bytes.as_chunks::<{ WORD_BYTES as usize }>().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
        let version = word >> VERSION_SHIFT << VERSION_SHIFT;
        slot.store(version | frame << FRAME_SHIFT | PRESENT, Ordering::Release);
        self.owners[frame as usize].store(page, Ordering::Release);
        Ok(())
    }

    /// A frame that nobody uses: by the clock, which passes a page twice before it takes its frame.
    fn take_frame(&self) -> u64 {
        loop {
            let at = self.hand.fetch_add(1, Ordering::Relaxed);
            let frame = at % self.owners.len() as u64;
            let owner = &self.owners[frame as usize];
            let page = owner.load(Ordering::Acquire);
            if page == NOBODY {
                // Free, once at the beginning; later it is being filled, and its round is far behind.
                if at < self.owners.len() as u64 {
                    return frame;
                }
                continue;
            }
            if self.evict(page, frame) {
                owner.store(NOBODY, Ordering::Relaxed);
                // Stores into the frame come after the page's new version: a reader that sees one sees the other.
                fence(Ordering::Release);
                return frame;
            }
        }
    }

    /// Marks the page in this frame or, if it was marked, evicts it.
    fn evict(&self, page: u64, frame: u64) -> bool {
        let slot = &self.pages[page as usize];
        let word = slot.load(Ordering::Relaxed);
        if frame_of(word) != frame {
            return false;
        }
        let (next, evicts) = match word & STATE {
            PRESENT => (word & !STATE | MARKED, false),
            MARKED => (((word >> VERSION_SHIFT).wrapping_add(1) << VERSION_SHIFT) | EVICTED, true),
            _ => return false,
        };
        slot.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() && evicts
    }
}

#[inline]
fn frame_of(word: u64) -> u64 {
    word >> FRAME_SHIFT & ((1 << (VERSION_SHIFT - FRAME_SHIFT)) - 1)
}

#[inline]
fn is_readable(word: u64) -> bool {
    word & STATE >= PRESENT
}

/// The words of one frame, which may change while they are read.
struct Frame<'a>(&'a [AtomicU64]);

impl Words for Frame<'_> {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }
}

/// Room for one page, aligned as O_DIRECT wants it.
struct Buffer(Vec<u8>);

impl Buffer {
    fn read(&mut self, file: &File, page: u64) -> std::io::Result<&[u8]> {
        let start = self.0.as_ptr().align_offset(PAGE_BYTES as usize);
        let aligned = &mut self.0[start..start + PAGE_BYTES as usize];
        file.read_exact_at(aligned, page * PAGE_BYTES)?;
        Ok(aligned)
    }
}

/// One thread of the pool.
pub struct PoolNodes<'a> {
    pool: &'a Pool,
    buffer: Buffer,
}

impl PoolNodes<'_> {
    /// What `look` says of the page: of one version of it.
    #[inline]
    fn read<R>(&mut self, page: u64, look: impl Fn(&Frame<'_>) -> R) -> Result<R, Failure> {
        loop {
            let word = self.pool.pages[page as usize].load(Ordering::Acquire);
            if !is_readable(word) {
                self.pool.fill(page, word, &mut self.buffer)?;
                continue;
            }
            if word & STATE == MARKED {
                self.pool.unmark(page, word);
            }
            let answer = look(&self.pool.frame(word));
            if self.pool.still(page, word) {
                return Ok(answer);
            }
        }
    }
}

impl Nodes for PoolNodes<'_> {
    #[inline]
    fn find(&mut self, node: u64, key: u64) -> Result<Found, Failure> {
        self.read(node, |frame| find(frame, key))
    }

    #[inline]
    fn load(&mut self, offset_bytes: u64) -> Result<u64, Failure> {
        let word = (offset_bytes % PAGE_BYTES / WORD_BYTES) as usize;
        self.read(offset_bytes / PAGE_BYTES, |frame| frame.word(word))
    }
}

impl Index for Pool {
    type Nodes<'a> = PoolNodes<'a>;

    fn nodes(&self) -> Result<Self::Nodes<'_>, Failure> {
        Ok(PoolNodes { pool: self, buffer: Buffer(vec![0; 2 * PAGE_BYTES as usize]) })
    }

    fn populate(&self, len_bytes: u64) -> Result<(), Failure> {
        let mut nodes = self.nodes()?;
        (0..len_bytes / PAGE_BYTES).try_for_each(|page| nodes.read(page, |_| ()))
    }

    fn missed_pages(&self) -> Result<Option<u64>, Failure> {
        Ok(Some(self.missed.load(Ordering::Relaxed)))
    }

    fn peak_frame_bytes(&self) -> Option<u64> {
        let used = self.owners.iter().filter(|owner| owner.load(Ordering::Relaxed) != NOBODY);
        Some(used.count() as u64 * PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::{IndexJob, Part, Share};
    use super::super::lookup::{Index, Nodes};
    use super::super::tree::{Shape, check_lookup, key_of, tree_file};
    use super::{PAGE_BYTES, Pool};
    use crate::trace::Random;

    #[test]
    fn threads_that_evict_from_one_another_find_every_key() {
        let directory = std::env::temp_dir().join(format!("memobj-bench-pool-{}", std::process::id()));
        let shape = Shape::of(100_000);
        let job = IndexJob {
            part: Part::Quarter,
            contestant: "vmcache".into(),
            threads: 4,
            share: Share::Same,
            file: tree_file(&directory, &shape).expect("a tree"),
            pairs: 100_000,
            budget_bytes: 8 * PAGE_BYTES,
            seconds: 0.0,
            seed: 1,
            cgroup: None,
        };
        let pool = Pool::open(&job).expect("a pool");
        let look_up = |thread| {
            let (mut nodes, mut random) = (pool.nodes().expect("a thread's state"), Random::new(thread));
            for _ in 0..5000 {
                let key = key_of(random.below(job.pairs));
                check_lookup(&shape, key, |node, key| nodes.find(node, key)).expect("the value of the key");
            }
        };
        std::thread::scope(|scope| {
            let look_up = &look_up;
            (0..4).for_each(|thread| {
                scope.spawn(move || look_up(thread));
            });
        });
        assert!(pool.missed_pages().is_ok_and(|missed| missed > Some(1000)), "8 frames are too few to hit");
        std::fs::remove_dir_all(directory).expect("the directory goes");
    }
}
