//! Pages that cannot be supplied: they trap, they are told of, and they can be tried again.

use crate::fixture::*;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj::pagers::{Blocking, BlockingPager, Bytes, Faulty, Inject, Injection};
use memobj::space::{Advice, RemapTo, Sharing, TouchError, VirtAddr};
use memobj::{CacheOptions, ErrorKind};
use memobj_sim::fixture::{MIB, cache, check_sample, sample_byte, sample_bytes, within};
use memobj_sim::process::{child, part, show};
use memobj_sim::space::check_mapped;

/// The page at `2 * PAGE` fails.
fn broken() -> Faulty<Bytes> {
    let fault = Injection::new(2 * PAGE..3 * PAGE, Inject::Error);
    Faulty::new(Bytes::new(sample_bytes(MIB)), vec![fault], 1)
}

/// A pager that fails at that page until it is mended.
struct Mended(Faulty<Bytes>, std::sync::Arc<AtomicBool>);

impl BlockingPager for Mended {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, memobj::SupplyError> {
        if self.1.load(Ordering::Relaxed) {
            buffer.copy_from_slice(&sample_bytes(MIB)[range.start as usize..range.end as usize]);
            return Ok(buffer.len());
        }
        self.0.supply(range, buffer)
    }
}

#[test]
fn a_failed_page_traps_and_can_be_retried() {
    let cache = cache(MIB);
    let mended = std::sync::Arc::new(AtomicBool::new(false));
    let object = object(&cache, Blocking(Mended(broken(), std::sync::Arc::clone(&mended))));
    let space = space();
    let start = map(&space, &object, PAGE, 8 * PAGE, Sharing::Private).start;
    let bad = start.0 + PAGE;
    let signal = load(bad + 7).unwrap_err();
    assert_eq!((signal.number, signal.address), (SIGBUS, bad + 7));
    // It stays failed, for stores too, and its neighbours are not concerned.
    assert_eq!(signal_of(store(bad, 1)), SIGBUS);
    store(start.0, 5).unwrap();
    assert_eq!(load(bad + PAGE), Ok(sample_byte(3 * PAGE)));
    let errors = space.errors();
    assert_eq!(errors.iter().map(|(page, _)| page.0).collect::<Vec<_>>(), [bad]);
    assert_eq!(errors[0].1.to_string(), "supply [8192, 12288) of sample: input/output error");
    assert_eq!(space.last_error().unwrap().kind(), ErrorKind::Io);
    let told = space.read_at(start, &mut [0; 8192]).unwrap_err();
    assert!(
        matches!(&told, TouchError::Page { address, error } if address.0 == bad && error.kind() == ErrorKind::Io)
    );
    mended.store(true, Ordering::Relaxed);
    assert_eq!(space.retry(start, PAGE).unwrap(), 0);
    assert_eq!(signal_of(load(bad)), SIGBUS);
    assert_eq!(space.retry(start, 8 * PAGE).unwrap(), 1);
    assert_eq!((load(bad), load(start.0)), (Ok(sample_byte(2 * PAGE)), Ok(5)));
    assert!(space.errors().is_empty());
    check_mapped(&space);
}

#[test]
fn failures_are_of_places() {
    let cache = cache(MIB);
    let object = object(&cache, broken());
    let space = space();
    let start = map(&space, &object, 0, 4 * PAGE, Sharing::Private).start;
    let bad = start.0 + 2 * PAGE;
    assert_eq!(signal_of(load(bad)), SIGBUS);
    // Advice takes the poison away; the object still has no page.
    space.advise(start, 4 * PAGE, Advice::DontNeed).unwrap();
    assert!(space.errors().is_empty());
    assert_eq!(signal_of(load(bad)), SIGBUS);
    // Neither does a move make it zeros.
    let moved = space.remap(start, 4 * PAGE, 4 * PAGE, RemapTo::Fixed(space.window().0)).unwrap();
    assert_eq!(signal_of(load(moved.0 + 2 * PAGE)), SIGBUS);
    assert_eq!(load(moved.0), Ok(sample_byte(0)));
    assert_eq!(space.errors().iter().map(|(page, _)| page.0).collect::<Vec<_>>(), [moved.0 + 2 * PAGE]);
    // What is mapped over it is not failed, and what is unmapped is not told of.
    space.protect(moved, 4 * PAGE, RW).unwrap();
    let over = memobj::space::Place::Fixed(VirtAddr(moved.0 + 2 * PAGE));
    space.map(&anonymous(PAGE).place(over)).unwrap();
    assert_eq!(load(moved.0 + 2 * PAGE), Ok(0));
    assert!(space.errors().is_empty());
    // Another segment of the same object fails by itself.
    let other = map(&space, &object, 2 * PAGE, PAGE, Sharing::Shared).start;
    assert_eq!(signal_of(load(other.0)), SIGBUS);
    space.unmap(other, PAGE).unwrap();
    assert!(space.errors().is_empty());
    assert_eq!(space.retry(moved, 4 * PAGE).unwrap(), 0);
}

#[test]
fn a_plain_load_of_a_failed_page_dies_by_sigbus() {
    let name = "failures::a_plain_load_of_a_failed_page_dies_by_sigbus";
    if part(name).is_some() {
        let cache = cache(MIB);
        let object = object(&cache, broken());
        let space = space();
        let start = map(&space, &object, 0, 4 * PAGE, Sharing::Private).start;
        println!("loaded {}", load(start.0).unwrap());
        println!("about to load");
        println!("loaded 0x{:x}", memobj_linux::testing::load(start.0 + 2 * PAGE));
        return;
    }
    let output = child(name, "load");
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.signal() != Some(SIGBUS) || !text.contains("about to load") || text.contains("loaded 0x")
    {
        show(&output);
        panic!("{}", output.status);
    }
}

/// Ten pages whose pager does not answer: all others are there at once, and the end is.
#[test]
fn a_pager_that_hangs_stops_nobody_else() {
    const STUCK: u64 = 10;
    let fault = |page: u64| Injection::new(page * 32 * PAGE..(page * 32 + 1) * PAGE, Inject::Hang);
    let pager = Faulty::new(Unfriendly(sample_bytes(4 * MIB)), (0..STUCK).map(fault).collect(), 1);
    let clock = memobj::EngineClock::manual();
    let options = CacheOptions::new().budget_bytes(2 * MIB).workers(32).clock(clock);
    let cache = memobj::Cache::new(options).unwrap();
    let forever = lendable().supply_timeout(None);
    let object = cache.object("sample", pager, forever).unwrap();
    let space = std::sync::Arc::new(space());
    let start = map(&space, &object, 0, 4 * MIB, Sharing::Private).start;
    let trapped = std::sync::Arc::new(AtomicU64::new(0));
    let sleepers: Vec<_> = (0..STUCK)
        .map(|page| {
            let trapped = std::sync::Arc::clone(&trapped);
            std::thread::spawn(move || {
                // Until the space is gone.
                assert_eq!(signal_of(load(start.0 + page * 32 * PAGE)), SIGSEGV);
                trapped.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let others = std::sync::Arc::clone(&space);
    within(20, "others go on", move || {
        for page in (0..4 * MIB / PAGE).filter(|page| page % 32 > 15 || page / 32 >= STUCK) {
            assert_eq!(load(start.0 + page * PAGE), Ok(sample_byte(page * PAGE)), "page {page}");
        }
        drop(others);
    });
    assert_eq!(trapped.load(Ordering::Relaxed), 0);
    // No time passes: the calls that hang are not waited for.
    within(20, "the end", move || drop(space));
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
}

/// Its pages come from calls.
struct Unfriendly(&'static [u8]);

impl BlockingPager for Unfriendly {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn supply(&self, range: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, memobj::SupplyError> {
        buffer.copy_from_slice(&self.0[range.start as usize..range.end as usize]);
        Ok(buffer.len())
    }
}

/// A child of fork has none of the window, and cannot make zeros of what the parent has not seen yet.
#[test]
fn a_forked_child_traps_and_changes_nothing() {
    let name = "failures::a_forked_child_traps_and_changes_nothing";
    memobj_sim::process::alone(name, || {
        let cache = cache(MIB);
        let object = object(&cache, Bytes::new(sample_bytes(MIB)));
        let space = space();
        let start = map(&space, &object, 0, MIB, Sharing::Private).start;
        assert_eq!(load(start.0), Ok(sample_byte(0)));
        let ended = memobj_linux::testing::fork(20, || {
            assert_eq!((signal_of(load(start.0)), signal_of(load(start.0 + PAGE))), (SIGSEGV, SIGSEGV));
            assert!(matches!(space.unmap(start, PAGE), Err(memobj::space::VerbError::Detached)));
            assert!(space.read_at(start, &mut [0]).is_err());
            0
        });
        assert_eq!(ended.unwrap(), memobj_linux::testing::Ended::Exited(0));
        check_sample(0..MIB, &read(&space, start, MIB), "after the child");
    });
}
