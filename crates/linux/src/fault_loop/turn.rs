//! A turn: a bounded amount of work for one client.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::state::{FAULTS, Look, Parked, SLOW_LOOKS, Work};
use super::{BATCH, Client, ClientEnd, Counters, Fault, Reading, Shared, Step};

/// A client that has its turn. Whatever ends the turn, a panic too: what is left goes back to the table.
pub(super) struct Turn<'a> {
    shared: &'a Shared,
    number: u64,
    /// `None` at the very end.
    client: Option<Arc<dyn Client>>,
    work: Work,
    end: Option<ClientEnd>,
}

impl<'a> Turn<'a> {
    /// Begins the next turn, if a client is to have one.
    pub(super) fn begin(shared: &'a Shared) -> Option<Self> {
        let (number, client, work) = shared.state.lock().begin_turn()?;
        Some(Self { shared, number, client: Some(client), work, end: None })
    }

    pub(super) fn run(mut self) {
        let Some(client) = self.client.clone() else { return };
        let client = &*client;
        let look = std::mem::take(&mut self.work.look);
        self.look_at_parked(client, look);
        let readable = std::mem::take(&mut self.work.readable);
        // Not that of faults first: who has hung up has nothing to resolve.
        for index in (0..u8::BITS as usize).rev().filter(|index| readable & 1 << index != 0) {
            if self.end.is_none() {
                self.read(client, index);
            }
        }
        if let Some(end) = self.end {
            Counters::add(&self.shared.counters.dropped, 1);
            self.note_call();
            // A panic of it is the client's.
            let _ = catch_unwind(AssertUnwindSafe(|| client.ended(end)));
        }
    }

    /// Looks at parked faults that are over, and at the oldest of the others if that is asked for.
    fn look_at_parked(&mut self, client: &dyn Client, look: Look) {
        if look == Look::None {
            return;
        }
        let oldest = if look == Look::Slow { SLOW_LOOKS } else { 0 };
        let most = BATCH.max(oldest);
        let mut looked = 0;
        let left = match look {
            Look::Rest => self.work.left_to_look_at.min(self.work.parked.len()),
            _ => self.work.parked.len(),
        };
        // In place: whatever happens, nobody who is parked is forgotten.
        for at in 0..left {
            if looked == most || self.end.is_some() {
                // The rest has the next turn: not what this look has parked again, which is looked at after a pause.
                self.work.look = self.work.look.max(Look::Rest);
                self.work.left_to_look_at = left - at;
                return;
            }
            let Some(parked) = self.work.parked.pop_front() else { return };
            if at < oldest || self.shared.has_failed() || parked.is_over() {
                looked += 1;
                self.step(client, parked.fault);
            } else {
                self.work.parked.push_back(parked);
            }
        }
    }

    fn read(&mut self, client: &dyn Client, index: usize) {
        let mut events = Vec::new();
        self.note_call();
        let read = catch_unwind(AssertUnwindSafe(|| client.read(index, &mut events)));
        match read.unwrap_or(Err(ClientEnd::Broken)) {
            Ok(Reading::Done) => {}
            Ok(Reading::Later) => {
                self.work.late |= 1 << index;
            }
            Err(end) => self.end = Some(end),
        }
        debug_assert!(index == FAULTS || events.is_empty(), "descriptor {index} tells of faults");
        Counters::add(&self.shared.counters.events, events.len() as u64);
        let read_at = Instant::now();
        for event in events {
            if self.end.is_none() {
                self.step(client, Fault { event, read_at, looks: 0 });
            }
        }
    }

    fn step(&mut self, client: &dyn Client, mut fault: Fault) {
        self.note_call();
        let step = match self.shared.has_failed() {
            true => None,
            false => catch_unwind(AssertUnwindSafe(|| client.resolve(&fault))).ok(),
        };
        fault.looks += 1;
        let awaited = match step {
            Some(Step::Pending(awaited)) => Some(awaited),
            Some(Step::Later) => None,
            Some(Step::Done) => {
                self.work.refused = 0;
                let counters = &self.shared.counters;
                Counters::add(&counters.at_once, u64::from(fault.looks == 1));
                counters.times.add(fault.read_at.elapsed());
                return;
            }
            Some(Step::Refused) => {
                self.work.refused += 1;
                if self.work.refused > client.most_refused() {
                    self.end = Some(ClientEnd::Broken);
                }
                return;
            }
            Some(Step::Broken) => {
                self.end = Some(ClientEnd::Broken);
                return;
            }
            None => {
                // Nothing more can be done for it if that panics as well.
                let _ = catch_unwind(AssertUnwindSafe(|| client.give_up(&fault)));
                return;
            }
        };
        self.work.refused = 0;
        self.work.parked.push_back(Parked { fault, awaited });
    }

    /// The spare sees by this that the leader goes on.
    fn note_call(&self) {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let work = std::mem::take(&mut self.work);
        let mut state = self.shared.state.lock();
        let is_dropped = self.end.is_some();
        let removed = state.end_turn(self.shared, self.number, work, is_dropped);
        drop(state);
        if removed.is_some() {
            drop(removed);
            self.client = None;
            self.shared.has_left(self.number);
        }
    }
}
