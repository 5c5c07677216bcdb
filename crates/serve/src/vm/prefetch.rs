//! Copies pages into a machine's memory before they are touched: those of a record, in its order; then all, gently.
//!
//! One thread for each machine, which ends when everything is in place, or the machine is gone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::machine::{Machine, Placed, SMALL};
use super::record::Touches;
use super::regions::Region;

/// What is copied without giving others a turn.
const PIECE_BYTES: u64 = 256 << 10;
/// How many ranges of a record are sorted, so that what is near is read together.
const SORTED: usize = 1024;
/// Ranges that are so near are read as one.
const GAP_BYTES: u64 = 32 << 10;
/// What is read ahead of what is copied, at most; and at most this part of the budget.
const AHEAD_BYTES: u64 = 64 << 20;
const AHEAD_PART: u64 = 4;
/// How long it waits when events come in between, and where the machine has faults meanwhile.
const PAUSE: Duration = Duration::from_micros(200);
const GENTLE_PAUSE: Duration = Duration::from_millis(1);

/// What is to be copied before it is touched.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) touches: Option<Arc<Touches>>,
    pub(super) all: bool,
    pub(super) budget_bytes: u64,
}

/// What has come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prefetched {
    /// Everything that was planned was tried.
    All {
        /// Bytes that could not be had; machines that touch them are told.
        failed_bytes: u64,
    },
    /// The machine has gone.
    Gone,
}

/// Copies what `plan` says into `machine`. Blocks until it is done, or the machine is gone.
pub(super) fn prefetch(machine: &Machine, plan: &Plan) -> Prefetched {
    let mut prefetcher = Prefetcher { machine, failed_bytes: 0, ahead: plan.budget_bytes / AHEAD_PART };
    prefetcher.ahead = prefetcher.ahead.clamp(PIECE_BYTES, AHEAD_BYTES);
    let recorded = plan.touches.as_ref().map_or(&[][..], |touches| touches.ranges());
    let done = recorded
        .chunks(SORTED)
        .try_for_each(|ranges| prefetcher.ranges(&near(ranges, GAP_BYTES), Pace::AtOnce))
        .and_then(|()| if plan.all { prefetcher.all() } else { Ok(()) });
    match done {
        Ok(()) => Prefetched::All { failed_bytes: prefetcher.failed_bytes },
        Err(Ended) => Prefetched::Gone,
    }
}

/// Whether the machine's own faults go first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    Gentle,
}

struct Ended;

struct Prefetcher<'a> {
    machine: &'a Machine,
    failed_bytes: u64,
    ahead: u64,
}

/// The ranges in order; those with a small gap between them are one.
fn near(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.dedup_by(|next, before| {
        let is_near = next.start <= before.end.saturating_add(gap);
        if is_near {
            before.end = before.end.max(next.end);
        }
        is_near
    });
    sorted
}

impl Prefetcher<'_> {
    fn all(&mut self) -> Result<(), Ended> {
        let regions = self.machine.regions.all();
        let whole: Vec<_> =
            regions.iter().map(|region| region.offset..region.offset + region.length).collect();
        self.ranges(&near(&whole, 0), Pace::Gentle)
    }

    /// Copies ranges of the object, wherever machines show them.
    fn ranges(&mut self, ranges: &[Range<u64>], pace: Pace) -> Result<(), Ended> {
        let pieces = |range: &Range<u64>| {
            let (start, end) = (range.start, range.end);
            (start..end).step_by(PIECE_BYTES as usize).map(move |at| at..end.min(at + PIECE_BYTES))
        };
        let mut ahead = ranges.iter().flat_map(pieces);
        let (mut asked, mut copied) = (0, 0);
        for piece in ranges.iter().flat_map(pieces) {
            while asked < copied + self.ahead {
                let Some(next) = ahead.next() else { break };
                asked += next.end - next.start;
                self.machine.object.lent.prefetch(&[next]);
            }
            copied += piece.end - piece.start;
            self.piece(&piece, pace)?;
        }
        Ok(())
    }

    /// Copies one piece of the object.
    fn piece(&mut self, piece: &Range<u64>, pace: Pace) -> Result<(), Ended> {
        let regions = self.machine.regions.all();
        for region in regions {
            let start = piece.start.max(region.offset);
            let end = piece.end.min(region.offset + region.length);
            if start < end {
                let address = |offset: u64| region.start + (offset - region.offset);
                self.run(region, address(start)..address(end), pace)?;
            }
        }
        Ok(())
    }

    /// Copies what is at `addresses`, in whole pages of the region.
    fn run(&mut self, region: &Region, addresses: Range<u64>, pace: Pace) -> Result<(), Ended> {
        let mut at = addresses.start & !(region.page - 1);
        let end = addresses.end.next_multiple_of(region.page).min(region.end());
        while at < end {
            if self.machine.is_over() {
                return Err(Ended);
            }
            let part = at..end.min(at + PIECE_BYTES.max(region.page));
            let mut pages = part.clone().step_by(SMALL as usize);
            if pages.all(|at| self.machine.is_settled(region.index_of(at))) {
                at = part.end;
                continue;
            }
            let before = self.machine.faults.load(Ordering::Relaxed);
            at += self.part(region, part)?;
            if pace == Pace::Gentle && self.machine.faults.load(Ordering::Relaxed) != before {
                std::thread::sleep(GENTLE_PAUSE);
            }
        }
        Ok(())
    }

    /// Copies as much of `part` as can be copied now; how much that is.
    fn part(&mut self, region: &Region, part: Range<u64>) -> Result<u64, Ended> {
        let (offset, length) = (region.offset_of(part.start), part.end - part.start);
        let Ok(bytes) = self.machine.object.mapping.pin_ref(offset..offset + length) else {
            // Who touches it is told.
            self.failed_bytes += length;
            return Ok(length);
        };
        let placed = self.machine.turn().place_run(region, part.start, &bytes);
        match placed {
            Ok(done) => {
                if done < length {
                    std::thread::sleep(PAUSE);
                }
                Ok(done)
            }
            Err(Placed::Failed(_)) => {
                self.failed_bytes += length;
                Ok(length)
            }
            Err(_) => Err(Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn near_ranges_are_one() {
        let ranges = [100..110, 0..10, 12..20, 5..11];
        assert_eq!(near(&ranges, 2), [0..20, 100..110]);
        assert_eq!(near(&ranges, 0), [0..11, 12..20, 100..110]);
    }
}
