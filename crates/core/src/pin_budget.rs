//! The hard bound on bytes that pins hold, with credits that spare threads the shared count.
//!
//! ```text
//!   Budget (one count)    bytes reserved = bytes that pins hold + bytes of credits
//!   credit of a shard     bytes reserved and not in use: the next pins of this shard take them
//! ```
//!
//! A pin of one page that ends leaves its bytes with the credit of its shard, and the next pin of that shard takes them
//! from there. Both touch one cache line that only the threads of this shard touch. All credits together are at most a
//! sixteenth of the bound; a bound of less than 16 small pages has none. Where the budget has no room left, credits are
//! taken from all shards. So the bound is hard, and no pin is refused for bytes that nobody uses; except that somebody
//! else moves them between the two looks, as somebody may who reserves and gives back.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicI64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicI64, Ordering};

use crate::address::PageSize;
use crate::budget::Budget;

/// How many credits there are.
#[cfg(not(loom))]
pub const SHARDS: usize = 16;
/// How many credits there are.
#[cfg(loom)]
pub const SHARDS: usize = 2;
/// What part of the bound all credits may be together.
const CREDIT_PART: u64 = 16;
/// How often credits are collected for one request.
const MOST_ROUNDS: u32 = 8;

/// Which credit a thread uses. Threads share one where there are many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard(usize);

impl Shard {
    /// The shard of a thread with this number; numbers that follow each other have different ones.
    pub const fn of(number: usize) -> Self {
        Self(number % SHARDS)
    }

    /// Below [`SHARDS`].
    pub const fn index(self) -> usize {
        self.0
    }
}

/// On lines of its own: two, as processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Credit {
    bytes: AtomicI64,
    /// The most bytes that it may be, but for a moment.
    most: i64,
}

impl Credit {
    /// The credit number `index` under a bound of `limit` bytes. Where pages do not divide evenly, the first have one
    /// small page more.
    fn new(index: usize, limit: u64) -> Self {
        let (page, shards) = (PageSize::SMALL.bytes(), SHARDS as u64);
        let pages = limit / CREDIT_PART / page;
        let one_more = (index as u64) < pages % shards;
        Self { bytes: AtomicI64::new(0), most: ((pages / shards + u64::from(one_more)) * page) as i64 }
    }

    /// Takes `bytes`, by one step where they are there. Where they are not, the credit is less than nothing for a
    /// moment, which nobody else takes for bytes.
    #[inline]
    fn take(&self, bytes: i64) -> bool {
        if bytes > self.most {
            return false;
        }
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) >= bytes {
            return true;
        }
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        false
    }

    /// Adds `bytes`. `false`: it has enough, and they are the caller's still.
    #[inline]
    fn give(&self, bytes: i64) -> bool {
        if bytes > self.most {
            return false;
        }
        if self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= self.most {
            return true;
        }
        // If others have taken them meanwhile, they are given.
        !self.take_if_there(bytes)
    }

    /// As `take`, without that moment.
    #[cold]
    fn take_if_there(&self, bytes: i64) -> bool {
        let taken = |credit: i64| (credit >= bytes).then_some(credit - bytes);
        self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    /// Takes all of it.
    fn take_all(&self) -> u64 {
        let taken = |credit: i64| (credit > 0).then_some(0);
        self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).map_or(0, |bytes| bytes as u64)
    }
}

/// See the module.
#[derive(Debug)]
pub struct PinBudget {
    budget: Budget,
    credits: [Credit; SHARDS],
}

impl PinBudget {
    /// A bound of `limit` bytes, all free.
    pub fn new(limit: u64) -> Self {
        Self { budget: Budget::new(limit), credits: core::array::from_fn(|index| Credit::new(index, limit)) }
    }

    /// The bound in bytes.
    pub const fn limit(&self) -> u64 {
        self.budget.limit()
    }

    fn all_credits(&self) -> u64 {
        self.credits.iter().map(|credit| credit.bytes.load(Ordering::Relaxed).max(0) as u64).sum()
    }

    /// Bytes that pins hold now; while others pin, about.
    pub fn used(&self) -> u64 {
        let credits = self.all_credits();
        self.budget.used().saturating_sub(credits)
    }

    /// Reserves `bytes` if they fit under the limit beside what pins hold. Never blocks, never allocates.
    pub fn try_reserve(&self, bytes: u64) -> bool {
        self.budget.try_reserve(bytes) || self.collect(bytes)
    }

    /// Gives `bytes` back that were reserved before, by this or by [`take`](Self::take).
    pub fn release(&self, bytes: u64) {
        self.budget.release(bytes);
    }

    /// As [`try_reserve`](Self::try_reserve), for a page, from the credit of `shard` if it has as much.
    #[inline]
    pub fn take(&self, shard: Shard, page: PageSize) -> bool {
        self.credits[shard.index()].take(page.bytes() as i64) || self.try_reserve(page.bytes())
    }

    /// As [`release`](Self::release), for a page, to the credit of `shard` if that is not full.
    #[inline]
    pub fn give(&self, shard: Shard, page: PageSize) {
        if !self.credits[shard.index()].give(page.bytes() as i64) {
            self.release(page.bytes());
        }
    }

    /// Reserves `bytes` of what credits hold, and of what is free meanwhile.
    #[cold]
    fn collect(&self, bytes: u64) -> bool {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.credits.iter().any(|credit| credit.take_if_there(wanted)) {
            return true;
        }
        for _ in 0..MOST_ROUNDS {
            let collected: u64 = self.credits.iter().map(Credit::take_all).sum();
            if collected > 0 {
                self.budget.release(collected);
            }
            if self.budget.try_reserve(bytes) {
                return true;
            }
            if collected == 0 {
                break;
            }
        }
        false
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    use super::*;

    const SMALL: PageSize = PageSize::SMALL;
    const PAGE: u64 = SMALL.bytes();

    /// Two threads pin and unpin through credits, and one collects those: what is held never passes the limit, and in
    /// the end all of it can be reserved.
    #[test]
    fn loom_credits_never_let_pins_pass_the_limit() {
        loom::model(|| {
            let budget = Arc::new(PinBudget::new(32 * PAGE));
            // Of 32 pages two may be credit. All but two are held for good.
            assert!(budget.try_reserve(30 * PAGE));
            let held = Arc::new(AtomicU64::new(0));
            let work = |budget: &PinBudget, held: &AtomicU64, shard: Shard| {
                if budget.take(shard, SMALL) {
                    let now = held.fetch_add(1, Ordering::Relaxed) + 1;
                    assert!(now <= 2, "{now} pages of two are held");
                    held.fetch_sub(1, Ordering::Relaxed);
                    budget.give(shard, SMALL);
                }
            };
            work(&budget, &held, Shard::of(0));
            let other = (budget.clone(), held.clone());
            let rival = thread::spawn(move || work(&other.0, &other.1, Shard::of(1)));
            let both = budget.try_reserve(2 * PAGE);
            if both {
                assert_eq!(held.load(Ordering::Relaxed), 0, "pages are held twice");
                budget.release(2 * PAGE);
            } else {
                work(&budget, &held, Shard::of(0));
            }
            rival.join().unwrap();
            assert_eq!(budget.used(), 30 * PAGE);
            assert!(budget.try_reserve(2 * PAGE), "credits are not found");
            assert!(!budget.take(Shard::of(0), SMALL) && !budget.take(Shard::of(1), SMALL));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SMALL: PageSize = PageSize::SMALL;
    const PAGE: u64 = SMALL.bytes();

    #[test]
    fn credits_are_at_most_a_sixteenth_and_are_found_when_wanted() {
        for pages in [1, 15, 16, 17, 100, 224, 1000, 28 << 8] {
            let budget = PinBudget::new(pages * PAGE);
            for number in 0..2 * SHARDS {
                let taken = (0..pages).filter(|_| budget.take(Shard::of(number), SMALL)).count() as u64;
                assert_eq!((taken, budget.used()), (pages, pages * PAGE), "shard {number} of {pages} pages");
                assert!(!budget.take(Shard::of(number + 1), SMALL) && !budget.try_reserve(1));
                (0..taken).for_each(|_| budget.give(Shard::of(number), SMALL));
                assert_eq!(budget.used(), 0);
            }
            // Given back by all shards in turn.
            assert!((0..pages).all(|_| budget.take(Shard::of(0), SMALL)));
            (0..pages).for_each(|page| budget.give(Shard::of(page as usize), SMALL));
            let credits = budget.all_credits();
            assert_eq!(credits, pages / 16 * PAGE, "{pages} pages");
            assert!(budget.try_reserve(pages * PAGE), "{credits} bytes of credits are not found");
            assert!(!budget.try_reserve(1));
            budget.release(pages * PAGE);
        }
    }

    #[test]
    fn a_credit_is_used_before_the_budget() {
        let budget = PinBudget::new(1000 * PAGE);
        assert!(budget.take(Shard::of(3), SMALL));
        budget.give(Shard::of(3), SMALL);
        assert_eq!((budget.budget.used(), budget.used()), (PAGE, 0));
        assert!(budget.take(Shard::of(3), SMALL));
        assert_eq!((budget.budget.used(), budget.used()), (PAGE, PAGE));
        // Of another shard it is not taken while the budget has room.
        budget.give(Shard::of(3), SMALL);
        assert!(budget.take(Shard::of(4), SMALL));
        assert_eq!((budget.budget.used(), budget.used()), (2 * PAGE, PAGE));
    }

    #[test]
    fn pages_larger_than_a_credit_go_past_it() {
        let budget = PinBudget::new(28 << 20);
        let large = PageSize::LARGE;
        assert!((0..14).all(|_| budget.take(Shard::of(0), large)));
        assert!(!budget.take(Shard::of(1), large));
        (0..14).for_each(|_| budget.give(Shard::of(0), large));
        assert_eq!((budget.used(), budget.all_credits()), (0, 0));
    }
}
