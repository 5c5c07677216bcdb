//! The table of clients: who has events, who waits, who has the next turn.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::{Awaited, BATCH, Client, Counters, Fault, Shared, serve};

/// How often all that is parked is looked at, whether it is over or not: what else can end a wait is seen then.
const SLOW_LOOK: Duration = Duration::from_millis(50);
/// When it is looked again for what nobody tells of.
const SOON: Duration = Duration::from_millis(2);
/// How many parked faults are looked at then, of each client; the others are by and by.
pub(super) const SLOW_LOOKS: usize = 16;
/// The most descriptors of a client.
const MOST_DESCRIPTORS: usize = 3;
const PARTS: u64 = 4;
/// The descriptor that tells of faults.
pub(super) const FAULTS: usize = 0;

/// Whether the removal of a client waits for its turn to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    No,
    ForTurn,
}

/// A fault that is not resolved yet.
pub(super) struct Parked {
    pub(super) fault: Fault,
    /// `None`: it is looked at again in some milliseconds.
    pub(super) awaited: Option<Box<dyn Awaited>>,
}

impl Parked {
    pub(super) fn is_over(&self) -> bool {
        self.awaited.as_ref().is_none_or(|awaited| awaited.is_over())
    }
}

/// Which parked faults are looked at in the next turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Look {
    #[default]
    None,
    /// Those that a look has not come to.
    Rest,
    /// Those that are over.
    Over,
    /// Some of the others, too.
    Slow,
}

/// What a turn of a client works on.
#[derive(Default)]
pub(super) struct Work {
    pub(super) parked: VecDeque<Parked>,
    /// Descriptors that can be read, one bit each.
    pub(super) readable: u8,
    pub(super) look: Look,
    /// With [`Look::Rest`]: how many, from the oldest on.
    pub(super) left_to_look_at: usize,
    /// Faults in a row that were refused.
    pub(super) refused: u32,
    /// Something is to be tried again of which nobody tells.
    pub(super) is_late: bool,
    /// Descriptors that are not to be read before that, one bit each.
    pub(super) late: u8,
}

struct Slot {
    client: Arc<dyn Client>,
    work: Work,
    is_queued: bool,
    /// The number of its last turn.
    last_turn: u64,
    has_turn: bool,
    is_removed: bool,
    /// Descriptors that epoll watches, one bit each.
    watched: u8,
}

impl Slot {
    fn has_room(&self) -> bool {
        self.work.parked.len() + BATCH <= self.client.most_parked().max(BATCH)
    }
}

#[derive(Default)]
pub(super) struct Threads {
    pub(super) running: usize,
    pub(super) has_spare: bool,
    pub(super) handles: Vec<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct State {
    slots: HashMap<u64, Slot>,
    /// Clients that have parked faults, something to be tried again, or a turn. All others are looked at when they have
    /// events only: there can be thousands.
    active: HashSet<u64>,
    /// Clients that are out of the table, and not let go of by the thread that had their turn.
    leaving: HashSet<u64>,
    queue: VecDeque<u64>,
    next_number: u64,
    turns: u64,
    last_look: Option<Instant>,
    last_slow_look: Option<Instant>,
    pub(super) threads: Threads,
}

fn watch(poll: &OwnedFd, client: &dyn Client, number: u64, index: usize) -> io::Result<()> {
    let data = epoll::EventData::new_u64(number * PARTS + index as u64);
    Ok(epoll::add(poll, client.descriptors()[index], data, epoll::EventFlags::IN)?)
}

fn unwatch(poll: &OwnedFd, client: &dyn Client, watched: u8) {
    for (index, descriptor) in client.descriptors().into_iter().enumerate() {
        if watched & 1 << index != 0 {
            // Refused for what is not watched.
            let _ = epoll::delete(poll, descriptor);
        }
    }
}

impl State {
    pub(super) fn clients(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.slots.values().map(|slot| slot.work.parked.len()).sum()
    }

    /// The clients, to tell them something.
    pub(super) fn all(&self) -> Vec<Arc<dyn Client>> {
        self.slots.values().map(|slot| Arc::clone(&slot.client)).collect()
    }

    fn enqueue(&mut self, number: u64) {
        if let Some(slot) = self.slots.get_mut(&number)
            && !slot.has_turn
            && !std::mem::replace(&mut slot.is_queued, true)
        {
            self.queue.push_back(number);
        }
    }

    /// Puts those who had their turns long ago in front: a client that always has events is told of first again and again.
    pub(super) fn order_queue(&mut self) {
        let slots = &self.slots;
        let last_turn = |number: &u64| slots.get(number).map_or(0, |slot| slot.last_turn);
        if self.queue.len() > 1 {
            self.queue.make_contiguous().sort_by_key(last_turn);
        }
    }

    /// How many clients are to have turns.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn active(&self) -> impl Iterator<Item = &Slot> {
        self.active.iter().filter_map(|number| self.slots.get(number))
    }

    /// How long nothing is to be done without an event.
    pub(super) fn patience(&self) -> Option<Duration> {
        if !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let mut patience = None;
        for work in self.active().map(|slot| &slot.work) {
            if work.is_late {
                return Some(SOON);
            }
            if !work.parked.is_empty() {
                patience = Some(SLOW_LOOK);
            }
        }
        patience
    }

    /// The descriptor that epoll calls `data` can be read.
    pub(super) fn has_events(&mut self, poll: &OwnedFd, data: u64) {
        let (number, index) = (data / PARTS, (data % PARTS) as usize);
        let Some(slot) = self.slots.get_mut(&number) else { return };
        slot.work.readable |= 1 << index;
        if slot.has_turn {
            // Its thread is blocked. It would be told of again and again.
            unwatch(poll, &*slot.client, 1 << index);
            slot.watched &= !(1 << index);
        }
        self.enqueue(number);
    }

    /// Whether so much time has passed that it is looked again without an event.
    pub(super) fn is_look_due(&self) -> bool {
        let is_over = |since: Option<Instant>, limit| since.is_none_or(|since| since.elapsed() >= limit);
        is_over(self.last_slow_look, SLOW_LOOK)
            || is_over(self.last_look, SOON) && self.active().any(|slot| slot.work.is_late)
    }

    /// Has all that is parked looked at in the next turns.
    pub(super) fn look_at_all(&mut self) {
        let numbers: Vec<u64> = self.slots.keys().copied().collect();
        for number in numbers {
            if let Some(slot) = self.slots.get_mut(&number) {
                slot.work.look = Look::Slow;
            }
            self.enqueue(number);
        }
    }

    /// Something has changed, or time has passed: queues those whose parked faults are to be looked at.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let is_slow = self.last_slow_look.is_none_or(|last| now - last >= SLOW_LOOK);
        if is_slow {
            self.last_slow_look = Some(now);
        }
        self.last_look = Some(now);
        let mut found = Vec::new();
        for number in &self.active {
            let Some(slot) = self.slots.get_mut(number) else { continue };
            let work = &mut slot.work;
            let is_over = || work.parked.iter().any(Parked::is_over);
            let look = match () {
                () if slot.has_turn => Look::Over,
                () if is_slow && !work.parked.is_empty() => Look::Slow,
                () if work.is_late || is_over() => Look::Over,
                () => continue,
            };
            work.readable |= std::mem::take(&mut work.late);
            work.look = work.look.max(look);
            found.push(*number);
        }
        found.into_iter().for_each(|number| self.enqueue(number));
    }

    /// The client whose turn it is, with its work.
    pub(super) fn begin_turn(&mut self) -> Option<(u64, Arc<dyn Client>, Work)> {
        loop {
            let number = self.queue.pop_front()?;
            let Some(slot) = self.slots.get_mut(&number) else { continue };
            slot.is_queued = false;
            slot.has_turn = true;
            self.active.insert(number);
            self.turns += 1;
            slot.last_turn = self.turns;
            let has_room = slot.has_room();
            let mut work = std::mem::take(&mut slot.work);
            work.is_late = false;
            if !has_room {
                work.readable &= !(1 << FAULTS);
            }
            return Some((number, Arc::clone(&slot.client), work));
        }
    }

    /// Takes back what a turn has left of its work. Returns what is to be dropped without the lock.
    pub(super) fn end_turn(
        &mut self,
        shared: &Shared,
        number: u64,
        left: Work,
        is_dropped: bool,
    ) -> Option<Removed> {
        let slot = self.slots.get_mut(&number)?;
        slot.has_turn = false;
        let come_meanwhile = std::mem::replace(&mut slot.work, left);
        slot.work.readable |= come_meanwhile.readable;
        slot.work.look = slot.work.look.max(come_meanwhile.look);
        if is_dropped || slot.is_removed {
            self.leaving.insert(number);
            return self.take_out(&shared.poll, number);
        }
        let is_late = slot.work.late != 0 || slot.work.parked.iter().any(|parked| parked.awaited.is_none());
        slot.work.is_late |= is_late;
        Self::watch_again(shared, number, slot);
        if slot.work.parked.is_empty() && !slot.work.is_late {
            self.active.remove(&number);
        }
        let (readable, look, has_room) = (slot.work.readable, slot.work.look, slot.has_room());
        let faults_wait = has_room && readable & 1 << FAULTS != 0;
        if faults_wait || readable & !(1 << FAULTS) != 0 || look != Look::None {
            self.enqueue(number);
        }
        None
    }

    /// Watches the descriptors of a client that has no turn, but for those that are late; that of its faults only if there is
    /// room for more.
    fn watch_again(shared: &Shared, number: u64, slot: &mut Slot) {
        let all = (1u8 << slot.client.descriptors().len()) - 1;
        let has_room = slot.has_room();
        let full = if has_room { 0 } else { 1 << FAULTS };
        let wanted = all & !full & !slot.work.late;
        if slot.watched & full != 0 {
            Counters::add(&shared.counters.held_back, 1);
        }
        unwatch(&shared.poll, &*slot.client, slot.watched & !wanted);
        slot.watched &= wanted;
        let missing = wanted & !slot.watched;
        for index in (0..MOST_DESCRIPTORS).filter(|index| missing & 1 << index != 0) {
            match watch(&shared.poll, &*slot.client, number, index) {
                Ok(()) => slot.watched |= 1 << index,
                // For want of memory: its next turn comes soon, and tries again.
                Err(_) => slot.work.is_late = true,
            }
        }
    }

    fn take_out(&mut self, poll: &OwnedFd, number: u64) -> Option<Removed> {
        let slot = self.slots.remove(&number)?;
        self.active.remove(&number);
        unwatch(poll, &*slot.client, slot.watched);
        Some(Removed { _client: slot.client, _work: slot.work })
    }
}

/// A client that is out of the table. Its parked faults may be the last who keep something.
pub(super) struct Removed {
    _client: Arc<dyn Client>,
    _work: Work,
}

impl Shared {
    pub(super) fn add(&self, client: Arc<dyn Client>) -> io::Result<u64> {
        let count = client.descriptors().len();
        assert!((1..=MOST_DESCRIPTORS).contains(&count), "{count} descriptors of a client");
        let mut state = self.state.lock();
        let number = state.next_number;
        state.next_number += 1;
        let mut watched = 0;
        for index in 0..count {
            if let Err(error) = watch(&self.poll, &*client, number, index) {
                unwatch(&self.poll, &*client, watched);
                drop(state);
                return Err(error);
            }
            watched |= 1 << index;
        }
        let work = Work::default();
        let slot = Slot {
            client,
            work,
            is_queued: false,
            last_turn: 0,
            has_turn: false,
            is_removed: false,
            watched,
        };
        state.slots.insert(number, slot);
        Ok(number)
    }

    pub(super) fn remove(&self, number: u64, wait: Wait) {
        let mut state = self.state.lock();
        match state.slots.get_mut(&number) {
            Some(slot) if slot.has_turn => slot.is_removed = true,
            _ => {
                let removed = state.take_out(&self.poll, number);
                drop(state);
                drop(removed);
                state = self.state.lock();
            }
        }
        if wait == Wait::No || serve::is_loop_thread() {
            return;
        }
        while state.slots.contains_key(&number) || state.leaving.contains(&number) {
            state = state.wait(&self.changed);
        }
    }

    /// The thread that had the last turn of a client has let go of it.
    pub(super) fn has_left(&self, number: u64) {
        self.state.lock().leaving.remove(&number);
        self.changed.notify_all();
    }
}
