//! What tests share: objects whose every byte is known, and every way to read them.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use memobj::pagers::Pager;
use memobj::{
    AccessError, Cache, CacheOptions, Delivery, EngineClock, FrameSize, FrameVisibility, MapOptions, Mapping,
    ObjectOptions,
};

/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;
const SAMPLES: u64 = 24 * MIB;
/// How long tests wait for what has to happen. Only turns a hang into a failure, on the slowest machine.
pub const GUARD: Duration = Duration::from_secs(300);

/// The byte at `offset` of every sample; no two pages are alike, none is zero for long.
pub fn sample_byte(offset: u64) -> u8 {
    sample_word(offset / 8).to_le_bytes()[(offset % 8) as usize]
}

fn sample_word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// The first `length` bytes of every sample.
pub fn sample_bytes(length: u64) -> &'static [u8] {
    static BYTES: OnceLock<Arc<[u8]>> = OnceLock::new();
    &BYTES.get_or_init(|| (0..SAMPLES / 8).flat_map(|word| sample_word(word).to_le_bytes()).collect())
        [..length as usize]
}

/// A pager of sample bytes.
pub fn sample_pager(length: u64) -> memobj::pagers::Bytes {
    memobj::pagers::Bytes::new(sample_bytes(length))
}

/// Where tests may make files: with O_DIRECT if possible, writable for whoever runs the test.
pub fn folder() -> PathBuf {
    let beside_the_test = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let usable = |folder: &PathBuf| tempfile::tempfile_in(folder).is_ok();
    beside_the_test.filter(usable).unwrap_or_else(std::env::temp_dir)
}

/// A file of sample bytes, on a file system that has the features under test.
#[derive(Debug)]
pub struct Sample {
    file: tempfile::NamedTempFile,
}

impl Sample {
    /// The first `length` bytes of every sample.
    pub fn new(length: u64) -> Self {
        let mut file = tempfile::NamedTempFile::new_in(folder()).unwrap();
        file.write_all(sample_bytes(length)).unwrap();
        file.as_file().sync_all().unwrap();
        Self { file }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The open file, for those who change it.
    pub fn file(&self) -> &std::fs::File {
        self.file.as_file()
    }

    /// As [`check_sample`].
    pub fn check(&self, range: Range<u64>, bytes: &[u8], what: &str) {
        check_sample(range, bytes, what);
    }
}

/// Panics at the first byte of `bytes` that is not the sample's.
pub fn check_sample(range: Range<u64>, bytes: &[u8], what: &str) {
    assert_eq!(bytes.len() as u64, range.end - range.start, "{what}");
    let expected = &sample_bytes(range.end)[range.start as usize..];
    if bytes != expected {
        let at = bytes.iter().zip(expected).position(|(got, right)| got != right).unwrap_or(0);
        let (got, right) = (bytes[at], expected[at]);
        panic!("{what}: wrong byte at {}: {got:#x} instead of {right:#x}", range.start + at as u64);
    }
}

/// Waits for `condition`; panics when it does not come true for minutes.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < GUARD, "in vain waited until {what}");
        // waits: polls the condition.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until nothing is Dirty. A page is Clean a moment before it is counted so: a sync can end in that moment.
pub fn wait_until_clean(cache: &Cache) {
    wait_until("nothing is Dirty", || cache.metrics().dirty_bytes == 0);
}

/// Runs `work` on a thread of its own; panics when it hangs: when it is not done in ten times `seconds`, which are
/// plenty on a machine with nothing else to do.
pub fn within<R: Send + 'static>(seconds: u64, what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(Duration::from_secs(10 * seconds)) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            panic!("{what}: not done after {} s", 10 * seconds)
        }
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Tells the threads of a scope to stop when the scope's own work ends, by a panic too: the scope waits for them.
#[derive(Debug)]
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The three ways to the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// [`Mapping::pin`].
    Pin,
    /// [`Mapping::read_at`].
    Copy,
    /// [`Mapping::touch_at`].
    Touch,
}

impl Reading {
    /// All of them.
    pub const ALL: [Reading; 3] = [Reading::Pin, Reading::Copy, Reading::Touch];

    /// Reads `range` of `mapping`. What could not be read is 0xee in the buffer.
    pub fn read(self, mapping: &Mapping, range: Range<u64>) -> Result<Vec<u8>, AccessError> {
        let mut buffer = vec![0xee; (range.end - range.start) as usize];
        self.read_into(mapping, range.start, &mut buffer).map(|()| buffer)
    }

    /// Reads into `buffer`; a pin that fails leaves it as it is.
    pub fn read_into(self, mapping: &Mapping, offset: u64, buffer: &mut [u8]) -> Result<(), AccessError> {
        match self {
            Reading::Pin => {
                buffer.copy_from_slice(&mapping.pin(offset..offset + buffer.len() as u64)?);
                Ok(())
            }
            Reading::Copy => mapping.read_at(offset, buffer),
            Reading::Touch => mapping.touch_at(offset, buffer),
        }
    }
}

/// A cache with this budget.
pub fn cache(budget_bytes: u64) -> Cache {
    Cache::new(CacheOptions::new().budget_bytes(budget_bytes)).unwrap()
}

/// Whether this user can have shared frames of 2 MiB here; says so if not. Maps nothing, as that would install the
/// handler of SIGBUS.
pub fn has_large_shared_frames() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let report = memobj::doctor::report();
        let facility = report.iter().find(|facility| facility.name == "shared 2 MiB frames").unwrap();
        let has = facility.status != memobj::doctor::Status::Missing;
        if !has {
            println!("skipped: shared frames of 2 MiB: {}", facility.detail);
        }
        has
    })
}

/// Every combination of frames, store and delivery that can be had.
pub fn all_ways() -> Vec<(String, ObjectOptions, MapOptions)> {
    let mut ways = Vec::new();
    for delivery in [Delivery::ReaderThread, Delivery::InThread] {
        for (frames, visibility) in [
            (FrameSize::Small, FrameVisibility::Local),
            (FrameSize::Large, FrameVisibility::Local),
            (FrameSize::Small, FrameVisibility::Shared),
            (FrameSize::Large, FrameVisibility::Shared),
        ] {
            if (frames, visibility) == (FrameSize::Large, FrameVisibility::Shared)
                && !has_large_shared_frames()
            {
                continue;
            }
            let options = ObjectOptions::new().frames(frames).visibility(visibility);
            ways.push((
                format!("{frames:?} {visibility:?} {delivery:?}"),
                options,
                MapOptions::new().delivery(delivery),
            ));
        }
    }
    ways
}

/// One way to map, with a budget in which it makes sense.
#[derive(Clone, Debug)]
pub struct Way {
    /// What failing tests call it.
    pub label: String,
    /// How the object is opened.
    pub object: ObjectOptions,
    /// How it is mapped.
    pub map: MapOptions,
    /// Bytes of a page.
    pub page: u64,
    /// Bytes of the budget.
    pub budget: u64,
    /// The clock of the cache; the system's, but in tests that own their time.
    pub clock: EngineClock,
}

/// [`all_ways`] with what goes with each.
pub fn ways() -> impl Iterator<Item = Way> {
    all_ways().into_iter().map(|(label, object, map)| {
        let large = object.frames == FrameSize::Large;
        let (page, budget) = if large { (2 * MIB, 32 * MIB) } else { (4096, MIB) };
        Way { label, object, map, page, budget, clock: EngineClock::system() }
    })
}

/// [`ways`], and pins only.
pub fn all_ways_and_pins() -> impl Iterator<Item = Way> {
    let pins_only = ways().next().map(|way| Way {
        label: "PinOnly".into(),
        map: way.map.delivery(Delivery::PinOnly),
        ..way
    });
    ways().chain(pins_only)
}

impl Way {
    /// A cache, and a mapping of all that `pager` has.
    pub fn map(&self, pager: impl Pager + 'static) -> (Cache, Mapping) {
        let cache = self.cache();
        let object = cache.object("sample", pager, self.object.clone()).unwrap();
        let mapping = object.map(0..object.len(), self.map).unwrap();
        assert_eq!(mapping.page_bytes(), self.page, "{}", self.label);
        (cache, mapping)
    }

    /// A cache with this budget and clock.
    pub fn cache(&self) -> Cache {
        let (budget_bytes, clock) = (self.budget, self.clock.clone());
        Cache::new(CacheOptions::new().budget_bytes(budget_bytes).clock(clock)).unwrap()
    }

    /// The same, with a clock that stands still until it is advanced.
    pub fn timeless(self) -> Self {
        Self { clock: EngineClock::manual(), ..self }
    }

    /// The bytes of page `index`.
    pub fn page(&self, index: u64) -> Range<u64> {
        index * self.page..(index + 1) * self.page
    }
}
