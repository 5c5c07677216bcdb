//! A disk in memory that can be written, and knows what would survive a crash.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use memobj::pagers::BlockingPager;
use memobj::{ErrorKind, SupplyError};

use crate::Gate;

const PAGE: usize = 4096;
/// Calls for which there can be a gate, and those for which there is none.
const SYNC: usize = 0;
const WRITE: usize = 1;
const REFUSED_LENGTH: usize = 2;
const SUPPLY: usize = 3;

/// A pager of bytes in memory that can be written. Clones are the same disk.
///
/// What is written can be read at once and is durable after a sync. A sync that is told to fail forgets what it
/// failed to make durable, as Linux does: later syncs succeed, and these bytes are not durable before they are
/// written again.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// The shortest it has been since the last sync: what was cut off stays cut off when it grows again.
    shortest: usize,
    pending: BTreeSet<usize>,
    failing_syncs: u32,
    held: [Option<Gate>; 3],
    arrived: usize,
    failed_syncs: u32,
    syncs: u32,
    writes: Vec<Range<u64>>,
    running: Vec<Range<u64>>,
    overlapped: bool,
}

impl Disk {
    /// A disk that has `bytes`, durably.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let live = bytes.into();
        let (durable, shortest) = (live.clone(), live.len());
        let (pending, writes, running) = (BTreeSet::new(), Vec::new(), Vec::new());
        let (failing_syncs, failed_syncs, syncs, overlapped) = (0, 0, 0, false);
        Self(Arc::new(Mutex::new(State {
            live,
            durable,
            shortest,
            pending,
            failing_syncs,
            held: [None, None, None],
            arrived: 0,
            failed_syncs,
            syncs,
            writes,
            running,
            overlapped,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a supply would answer.
    pub fn live(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// What a crash would leave.
    pub fn durable(&self) -> Vec<u8> {
        self.state().durable.clone()
    }

    /// The next `times` syncs fail, and forget.
    pub fn fail_syncs(&self, times: u32) {
        self.state().failing_syncs = times;
    }

    /// The next sync waits at the gate that is returned.
    pub fn hold_sync(&self) -> Gate {
        self.hold(SYNC)
    }

    /// The next write waits at the gate that is returned, before it changes anything.
    pub fn hold_write(&self) -> Gate {
        self.hold(WRITE)
    }

    /// The next change of the length waits at the gate that is returned, and is refused then.
    pub fn refuse_length(&self) -> Gate {
        self.hold(REFUSED_LENGTH)
    }

    fn hold(&self, which: usize) -> Gate {
        let gate = Gate::default();
        self.state().held[which] = Some(gate.clone());
        gate
    }

    /// How many calls have come to a gate so far.
    pub fn arrived(&self) -> usize {
        self.state().arrived
    }

    /// Waits at the gate for such calls, if there is one. Every call takes longer if `MEMOBJ_SLOW_DISK` says so.
    fn arrive(&self, which: usize) {
        if let Some(delay) = delay() {
            // waits: is a slow disk.
            std::thread::sleep(delay);
        }
        let mut state = self.state();
        let held = state.held.get_mut(which).and_then(Option::take);
        state.arrived += usize::from(held.is_some());
        drop(state);
        if let Some(gate) = held {
            gate.pass();
        }
    }

    /// How many syncs have failed.
    pub fn failed_syncs(&self) -> u32 {
        self.state().failed_syncs
    }

    /// How many syncs have succeeded.
    pub fn syncs(&self) -> u32 {
        self.state().syncs
    }

    /// All writes so far, in order.
    pub fn writes(&self) -> Vec<Range<u64>> {
        self.state().writes.clone()
    }

    /// Whether two writes of one page were ever under way at once.
    pub fn overlapped(&self) -> bool {
        self.state().overlapped
    }
}

/// How long each call takes: `MEMOBJ_SLOW_DISK` times 100 us; at once without it.
fn delay() -> Option<Duration> {
    static DELAY: OnceLock<Option<Duration>> = OnceLock::new();
    *DELAY.get_or_init(|| {
        let times: u32 = std::env::var("MEMOBJ_SLOW_DISK").ok()?.parse().ok()?;
        Some(times * Duration::from_micros(100))
    })
}

impl BlockingPager for Disk {
    fn length(&self) -> u64 {
        self.state().live.len() as u64
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        self.arrive(SUPPLY);
        let state = self.state();
        let end = (range.end as usize).min(state.live.len());
        let part = state.live.get(range.start as usize..end).unwrap_or_default();
        buffer[..part.len()].copy_from_slice(part);
        Ok(part.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        self.arrive(WRITE);
        let mut state = self.state();
        assert_eq!(range.end - range.start, bytes.len() as u64, "a write as long as its range");
        assert!(range.start.is_multiple_of(PAGE as u64), "a write starts at a page: {range:?}");
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        state.overlapped |= state.running.iter().any(overlaps);
        state.running.push(range.clone());
        drop(state);
        // Long enough for a second write of the same page to be seen.
        std::thread::yield_now();
        let mut state = self.state();
        state.running.retain(|other| *other != range);
        state.writes.push(range.clone());
        let Some(into) = state.live.get_mut(range.start as usize..range.end as usize) else {
            return Err(SupplyError::new(ErrorKind::Truncated));
        };
        into.copy_from_slice(bytes);
        let pages = range.start as usize / PAGE..(range.end as usize).div_ceil(PAGE);
        state.pending.extend(pages);
        Ok(())
    }

    fn sync(&self) -> Result<(), SupplyError> {
        self.arrive(SYNC);
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            state.failed_syncs += 1;
            return Err(SupplyError::new(ErrorKind::Io));
        }
        state.syncs += 1;
        let State { live, durable, shortest, .. } = &mut *state;
        durable.truncate(*shortest);
        *shortest = live.len();
        durable.resize(live.len(), 0);
        for page in pending {
            let range = page * PAGE..((page + 1) * PAGE).min(live.len());
            if !range.is_empty() {
                durable[range.clone()].copy_from_slice(&live[range]);
            }
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> Result<(), SupplyError> {
        let is_refused = self.state().held[REFUSED_LENGTH].is_some();
        self.arrive(REFUSED_LENGTH);
        if is_refused {
            return Err(SupplyError::new(ErrorKind::Io));
        }
        let mut state = self.state();
        state.live.resize(length as usize, 0);
        state.shortest = state.shortest.min(length as usize);
        Ok(())
    }
}

by_calls!([] Disk);
