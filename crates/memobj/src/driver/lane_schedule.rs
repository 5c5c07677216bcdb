//! Which lanes are woken by fault events.
//!
//! An event wakes all lanes that wait for events, and each waking of another processor costs. While faults come from
//! one thread only, the lane of its processor is enough.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use memobj_linux::eventfd::EventFd;
use memobj_linux::processor;

/// Faults in a row of one thread, each of which woke a lane, after which its processor is looked up.
const STREAK: u32 = 32;
/// The same where faults came so fast before that none woke a lane: then each that does is likely to come from another
/// processor.
const SHORT_STREAK: u32 = 4;
const ALL: usize = usize::MAX;

/// Where one lane is, and how to call it.
#[derive(Debug)]
struct LanePlace {
    processor: usize,
    eventfd: EventFd,
}

/// How a lane came to read an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It was woken.
    Asleep,
    /// The event was there when it had ended another.
    Awake,
}

/// What the lanes of a cache share.
#[derive(Debug)]
pub(super) struct LaneSchedule {
    places: Vec<LanePlace>,
    /// The one lane that waits for events, or `ALL`.
    alone: AtomicUsize,
    /// Who faulted last.
    thread: AtomicU32,
    /// Faults of this thread until its processor is looked up.
    left: AtomicU32,
    over: AtomicBool,
}

impl LaneSchedule {
    /// One lane for each of these processors, all scheduled.
    pub(super) fn new(processors: &[usize]) -> io::Result<Self> {
        let place = |&processor| Ok(LanePlace { processor, eventfd: EventFd::new()? });
        Ok(Self {
            places: processors.iter().map(place).collect::<io::Result<_>>()?,
            alone: AtomicUsize::new(ALL),
            thread: AtomicU32::new(0),
            left: AtomicU32::new(STREAK),
            over: AtomicBool::new(false),
        })
    }

    /// The processor and the eventfd of a lane.
    pub(super) fn place(&self, lane: usize) -> (usize, &EventFd) {
        (self.places[lane].processor, &self.places[lane].eventfd)
    }

    /// Whether a lane is to wait for events. It asks before each wait; who changes the answer to yes notifies its eventfd.
    pub(super) fn includes(&self, lane: usize) -> bool {
        let alone = self.alone.load(Ordering::SeqCst);
        alone == ALL || alone == lane
    }

    /// Notes who faulted, and changes the scheduled lanes if that gives reason to.
    ///
    /// Here and below, what two lanes count at once may get lost. That delays a look-up, no more.
    pub(super) fn note(&self, thread: u32, found: Found) {
        if self.thread.swap(thread, Ordering::Relaxed) != thread {
            self.left.store(STREAK, Ordering::Relaxed);
            return self.assign(ALL);
        }
        let left = self.left.load(Ordering::Relaxed);
        match found {
            Found::Awake if self.alone.load(Ordering::Relaxed) != ALL => {
                self.left.store(SHORT_STREAK, Ordering::Relaxed);
            }
            _ if left > 1 => self.left.store(left - 1, Ordering::Relaxed),
            _ => {
                self.left.store(STREAK, Ordering::Relaxed);
                let processor = processor::last_of(thread);
                let lane = self.places.iter().position(|place| Some(place.processor) == processor);
                self.assign(lane.unwrap_or(ALL));
            }
        }
    }

    fn assign(&self, alone: usize) {
        if self.alone.load(Ordering::Relaxed) == alone || self.alone.swap(alone, Ordering::SeqCst) == alone {
            return;
        }
        // Rung after the change is visible: whoever hears it finds itself scheduled, or is not any more.
        for (lane, place) in self.places.iter().enumerate() {
            if alone == ALL || alone == lane {
                place.eventfd.notify();
            }
        }
    }

    /// Ends all lanes.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.places.iter().for_each(|place| place.eventfd.notify());
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_thread() -> (u32, usize) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        (thread, processor::last_of(thread).unwrap())
    }

    fn is_scheduled(schedule: &LaneSchedule) -> Vec<bool> {
        (0..schedule.places.len()).map(|lane| schedule.includes(lane)).collect()
    }

    #[test]
    fn one_thread_that_faults_has_the_lane_of_its_processor_and_two_have_all() {
        let inside = std::thread::spawn(|| {
            let here = processor::allowed()[0];
            processor::stay_on(here).unwrap();
            let (thread, processor) = this_thread();
            assert_eq!(processor, here);
            let schedule = LaneSchedule::new(&[here + 1, here, here + 2]).unwrap();
            (0..STREAK).for_each(|_| schedule.note(thread, Found::Asleep));
            assert_eq!(is_scheduled(&schedule), [true, true, true]);
            schedule.note(thread, Found::Asleep);
            assert_eq!(is_scheduled(&schedule), [false, true, false]);
            schedule.note(thread + 1, Found::Asleep);
            assert_eq!(is_scheduled(&schedule), [true, true, true]);
            (0..1000).for_each(|count| schedule.note(thread + count % 2, Found::Awake));
            assert_eq!(is_scheduled(&schedule), [true, true, true]);
        });
        inside.join().unwrap();
    }

    #[test]
    fn a_thread_that_moved_is_found_soon() {
        let (thread, _) = this_thread();
        let schedule = LaneSchedule::new(&[usize::MAX - 1, usize::MAX - 2]).unwrap();
        schedule.note(thread, Found::Asleep);
        schedule.alone.store(1, Ordering::SeqCst);
        schedule.note(thread, Found::Awake);
        (1..SHORT_STREAK).for_each(|_| schedule.note(thread, Found::Asleep));
        assert_eq!(is_scheduled(&schedule), [false, true]);
        schedule.note(thread, Found::Asleep);
        assert_eq!(is_scheduled(&schedule), [true, true]);
    }

    #[test]
    fn a_thread_of_no_known_processor_has_all_lanes() {
        let schedule = LaneSchedule::new(&[usize::MAX - 1, usize::MAX - 2]).unwrap();
        let (thread, _) = this_thread();
        (0..1000).for_each(|_| schedule.note(thread, Found::Asleep));
        (0..1000).for_each(|_| schedule.note(0, Found::Asleep));
        assert_eq!(is_scheduled(&schedule), [true, true]);
    }
}
