//! Which open transaction has which pages, and who waits for whom.

use std::collections::BTreeMap;
use std::sync::Condvar;
use std::thread::ThreadId;
use std::time::Duration;

use memobj_core::address::{PageIndex, PageRange};

use crate::clock::Deadline;
use crate::error::PinHolder;
use crate::locks::{Guard, Rank, RankedMutex};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a transaction does not get a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimRefused {
    /// Another one has had this page for as long as a call may wait.
    Held(PageIndex, PinHolder),
    /// The one that has this page waits for the one that asks, perhaps by way of others.
    Deadlock(PageIndex),
}

/// The pages of the open transactions of one object. A page belongs to one transaction, from its first change there until
/// the end of the transaction.
#[derive(Debug)]
pub(crate) struct Claims {
    table: RankedMutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// By page: the number of its transaction.
    pages: BTreeMap<u64, u64>,
    /// By number.
    transactions: BTreeMap<u64, Holder>,
    last_number: u64,
}

#[derive(Debug)]
struct Holder {
    pages: Vec<PageRange>,
    /// The thread that asked for a page last.
    thread: ThreadId,
    waits_for: Option<u64>,
}

impl Default for Claims {
    fn default() -> Self {
        Self { table: RankedMutex::new(Rank::Claims, Table::default()), changed: Condvar::new() }
    }
}

impl Claims {
    /// The number of a new transaction, without pages.
    pub(super) fn begin(&self) -> u64 {
        let mut table = self.table.lock();
        table.last_number += 1;
        let number = table.last_number;
        let thread = std::thread::current().id();
        table.transactions.insert(number, Holder { pages: Vec::new(), thread, waits_for: None });
        number
    }

    /// Gives `runs` to the transaction with this number, all of them or none. Waits for the transactions that have pages
    /// of them. The transaction has none of them yet.
    pub(super) fn take(
        &self,
        number: u64,
        runs: &[PageRange],
        until: Deadline<'_>,
    ) -> Result<(), ClaimRefused> {
        let mut table = self.table.lock();
        if let Some(own) = table.transactions.get_mut(&number) {
            own.thread = std::thread::current().id();
        }
        let mut taken = Vec::new();
        for page in runs.iter().flat_map(|run| run.iter()) {
            match self.take_page(table, number, page, until) {
                Ok(locked) => table = locked,
                Err(refused) => {
                    self.give_back(&taken);
                    return Err(refused);
                }
            }
            taken.push(page.0);
        }
        if let Some(own) = table.transactions.get_mut(&number) {
            own.pages.extend_from_slice(runs);
        }
        Ok(())
    }

    fn take_page<'a>(
        &'a self,
        mut table: Guard<'a, Table>,
        number: u64,
        page: PageIndex,
        until: Deadline<'_>,
    ) -> Result<Guard<'a, Table>, ClaimRefused> {
        while let Some(&holder) = table.pages.get(&page.0) {
            if table.waits_for(holder, number) {
                return Err(ClaimRefused::Deadlock(page));
            }
            if until.is_over() {
                return Err(ClaimRefused::Held(page, table.thread_of(holder)));
            }
            table.set_wait(number, Some(holder));
            table = table.wait_within(&self.changed, LOOK_AGAIN);
            table.set_wait(number, None);
        }
        table.pages.insert(page.0, number);
        Ok(table)
    }

    /// The transaction does not keep `runs`, which it was given at once by one call, after all.
    pub(super) fn give_runs_back(&self, number: u64, runs: &[PageRange]) {
        if let Some(own) = self.table.lock().transactions.get_mut(&number) {
            own.pages.retain(|run| !runs.contains(run));
        }
        let pages: Vec<u64> = runs.iter().flat_map(|run| run.iter()).map(|page| page.0).collect();
        self.give_back(&pages);
    }

    fn give_back(&self, pages: &[u64]) {
        let mut table = self.table.lock();
        for page in pages {
            if let Some(holder) = table.pages.remove(page) {
                // Who waited for it may not have run yet, and waits for nobody now.
                table.end_waits_for(holder);
            }
        }
        self.changed.notify_all();
    }

    /// The transaction has ended.
    pub(super) fn end(&self, number: u64) {
        let mut table = self.table.lock();
        let Some(holder) = table.transactions.remove(&number) else { return };
        for page in holder.pages.into_iter().flat_map(PageRange::iter) {
            table.pages.remove(&page.0);
        }
        self.changed.notify_all();
    }
}

impl Table {
    /// Whether `number` waits for `other`, perhaps by way of others. A transaction waits for one at most, so there is one
    /// way to follow; it is never longer than there are transactions, since a circle is never closed.
    fn waits_for(&self, number: u64, other: u64) -> bool {
        let next = |number: &u64| self.transactions.get(number).and_then(|holder| holder.waits_for);
        std::iter::successors(Some(number), next).any(|number| number == other)
    }

    fn set_wait(&mut self, number: u64, holder: Option<u64>) {
        if let Some(own) = self.transactions.get_mut(&number) {
            own.waits_for = holder;
        }
    }

    /// Those that wait for `holder` look again, and say then for whom they wait.
    fn end_waits_for(&mut self, holder: u64) {
        let waiting = self.transactions.values_mut().filter(|own| own.waits_for == Some(holder));
        waiting.for_each(|own| own.waits_for = None);
    }

    fn thread_of(&self, number: u64) -> PinHolder {
        let this = std::thread::current().id();
        match self.transactions.get(&number) {
            Some(holder) if holder.thread == this => PinHolder::ThisThread,
            _ => PinHolder::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EngineClock;

    fn run(start: u64, end: u64) -> PageRange {
        PageRange { start, end }
    }

    #[test]
    fn a_page_belongs_to_one_transaction_until_its_end() {
        let (claims, clock) = (Claims::default(), EngineClock::manual());
        let (first, second) = (claims.begin(), claims.begin());
        let over = clock.deadline(Duration::ZERO);
        assert_eq!(claims.take(first, &[run(3, 5)], over), Ok(()));
        let held = ClaimRefused::Held(PageIndex(3), PinHolder::ThisThread);
        assert_eq!(claims.take(second, &[run(0, 4)], over), Err(held));
        // What it had taken before the page that it did not get is free again.
        assert_eq!(claims.take(first, &[run(0, 3)], over), Ok(()));
        claims.end(first);
        assert_eq!(claims.take(second, &[run(0, 5)], over), Ok(()));
        let third = claims.begin();
        let other = || claims.take(third, &[run(4, 5)], over);
        let others = ClaimRefused::Held(PageIndex(4), PinHolder::Others);
        assert_eq!(std::thread::scope(|scope| scope.spawn(other).join().unwrap()), Err(others));
    }

    #[test]
    fn who_would_close_a_circle_is_refused_and_the_others_go_on() {
        let (claims, clock) = (Claims::default(), EngineClock::manual());
        let until = clock.deadline(Duration::from_secs(1));
        let numbers = [claims.begin(), claims.begin(), claims.begin()];
        for (page, number) in (0..).zip(numbers) {
            claims.take(number, &[run(page, page + 1)], until).unwrap();
        }
        let [first, second, third] = numbers;
        let waits = |number, holder| {
            while claims.table.lock().transactions[&number].waits_for != Some(holder) {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            let one = scope.spawn(|| claims.take(first, &[run(1, 2)], until));
            let two = scope.spawn(|| claims.take(second, &[run(2, 3)], until));
            waits(first, second);
            waits(second, third);
            let refused = claims.take(third, &[run(0, 1)], until);
            assert_eq!(refused, Err(ClaimRefused::Deadlock(PageIndex(0))));
            claims.end(third);
            assert_eq!(two.join().unwrap(), Ok(()));
            claims.end(second);
            assert_eq!(one.join().unwrap(), Ok(()));
        });
    }
}
