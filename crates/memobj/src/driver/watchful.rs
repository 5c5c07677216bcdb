//! Whether a lane sleeps while a read is under way, or stays awake and looks again and again.
//!
//! The interrupt of a disk goes to one processor, and a lane stays on its own. Where that is another one, and halted, waking
//! it takes as long as a fast read itself, in a virtual machine above all. So each lane measures what its reads take either
//! way, and does what is quicker; every so often it tries the other again.
//!
//! ```text
//!   read and copied, us         processor that has the interrupts     another
//!   asleep                                   36                          75
//!   awake                                    35                          37
//! ```
//!
//! Who stays awake yields the processor to whoever can use it. Then reads take longer that way, and the lane sleeps again.

use std::time::Duration;

/// How long a lane stays awake for one read at most; reads that take as long are not worth it.
pub(super) const LONGEST: Duration = Duration::from_micros(120);
/// What staying awake must save.
const GAIN: Duration = Duration::from_micros(12);
/// Reads after which the other way is tried once.
const TRY_EVERY: u32 = 48;
/// What a new time counts in the mean: one part in so many.
const WEIGHT: u32 = 4;

/// How a read is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Asleep,
    Awake,
}

/// What one lane knows of its reads.
#[derive(Debug, Default)]
pub(super) struct Watchful {
    /// Means of the times that reads took, if one was waited for that way.
    asleep: Option<Duration>,
    awake: Option<Duration>,
    reads: u32,
}

impl Watchful {
    /// How to wait for the next read.
    pub(super) fn way(&self) -> Way {
        let (Some(asleep), Some(awake)) = (self.asleep, self.awake) else {
            return if self.asleep.is_none() { Way::Asleep } else { self.unless_slow(Way::Awake) };
        };
        let best = if awake < LONGEST && awake + GAIN <= asleep { Way::Awake } else { Way::Asleep };
        match best {
            best if !self.reads.is_multiple_of(TRY_EVERY) => best,
            Way::Awake => Way::Asleep,
            Way::Asleep => self.unless_slow(Way::Awake),
        }
    }

    /// Nobody stays awake for a disk that takes long, not even to try.
    fn unless_slow(&self, way: Way) -> Way {
        if self.asleep.is_some_and(|asleep| asleep < 4 * LONGEST) { way } else { Way::Asleep }
    }

    /// A read that was waited for so took this long.
    pub(super) fn note(&mut self, way: Way, duration: Duration) {
        self.reads = self.reads.wrapping_add(1);
        // One that met with something else shall not count for hundreds.
        let (mean, most) = match way {
            Way::Asleep => (&mut self.asleep, 8 * LONGEST),
            Way::Awake => (&mut self.awake, 2 * LONGEST),
        };
        let duration = duration.min(most);
        *mean = Some(mean.map_or(duration, |mean| (mean * (WEIGHT - 1) + duration) / WEIGHT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// The ways of 1000 reads that take so long either way.
    fn ways(watchful: &mut Watchful, asleep: u64, awake: u64) -> (usize, usize) {
        let mut read = || {
            let way = watchful.way();
            watchful.note(way, micros(if way == Way::Asleep { asleep } else { awake }));
            way
        };
        let awake = (0..1000).filter(|_| read() == Way::Awake).count();
        (1000 - awake, awake)
    }

    #[test]
    fn the_quicker_way_is_taken_and_the_other_tried() {
        let mut watchful = Watchful::default();
        let (asleep, awake) = ways(&mut watchful, 75, 37);
        assert!((15..40).contains(&asleep) && awake > 900, "asleep {asleep}, awake {awake}");
        // Another thread has the processor now.
        let (asleep, awake) = ways(&mut watchful, 80, 900);
        assert!(asleep > 900 && (15..60).contains(&awake), "asleep {asleep}, awake {awake}");
        let (asleep, awake) = ways(&mut watchful, 75, 37);
        assert!(asleep < 400 && awake > 600, "asleep {asleep}, awake {awake}");
    }

    #[test]
    fn who_saves_little_sleeps() {
        let (asleep, awake) = ways(&mut Watchful::default(), 40, 35);
        assert!(asleep > 900 && awake > 0, "asleep {asleep}, awake {awake}");
    }

    #[test]
    fn nobody_stays_awake_for_a_slow_disk() {
        let (asleep, awake) = ways(&mut Watchful::default(), 5000, 4960);
        assert_eq!((asleep, awake), (1000, 0));
    }
}
