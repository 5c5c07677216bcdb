//! Places of an area that hold no page, and pages that a view may not show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::budget::Budget;
use memobj_core::page_word::State;
use memobj_core::pages::View as _;
use memobj_core::pin_budget::PinBudget;

use super::{
    Area, AreaOptions, Frames, Looked, MutPinSet, Origin, PinSet, PinnedBytes, Placement, Storage,
    StoreRefused, Tables, UpgradeRefused, Writes, copy_by_touch,
};
use crate::huge_folder::HugeFolder;
use crate::pagemap::present_pages;
use crate::region::{LARGE, SMALL};
use crate::signal::{self, Verdict};
use crate::uffd::{Announce, Userfaultfd};

#[test]
fn a_wild_load_of_an_empty_object_traps() {
    let uffd = match Userfaultfd::open(Announce::Queued) {
        Ok(uffd) => Arc::new(uffd),
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    signal::install(|_, _| Verdict::Trap).unwrap();
    for frames in [Frames::LocalSmall, Frames::SharedSmall] {
        let area = super::new(AreaOptions {
            name: "empty".into(),
            length: 0,
            capacity: 0,
            writes: Writes::No,
            unwritten: Arc::default(),
            tables: Arc::new(Tables::new(0)),
            storage: Storage::Own,
            frames,
            home: None,
            views: vec![Arc::clone(&uffd)],
            budget: Arc::new(Budget::new(1 << 20)),
            pin_budget: Arc::new(PinBudget::new(1 << 20)),
        })
        .unwrap();
        area.trap_outside(0);
        let mut buffer = [0xee; 16];
        let start = area.address(Announce::Queued, 0).unwrap();
        // SAFETY: the view of an empty object is one mapped page long.
        assert_eq!(unsafe { signal::copy_trapping(&mut buffer, start) }, 0);
        assert_eq!(buffer, [0xee; 16], "bytes of no page were handed out");
    }
}

/// An area of one large page and 5,000 bytes in a frame file.
fn large_shared() -> Result<Arc<Area>, std::io::Error> {
    let uffd = |announce| Userfaultfd::open(announce).map(Arc::new);
    super::new(AreaOptions {
        name: "large".into(),
        length: LARGE as u64 + 5000,
        capacity: 0,
        writes: Writes::No,
        unwritten: Arc::default(),
        tables: Arc::new(Tables::new(0)),
        storage: Storage::Own,
        frames: Frames::SharedLarge(Arc::new(HugeFolder::new()?)),
        home: None,
        views: vec![uffd(Announce::Queued)?, uffd(Announce::Signalled)?],
        budget: Arc::new(Budget::new(16 << 20)),
        pin_budget: Arc::new(PinBudget::new(0)),
    })
}

#[test]
fn a_view_shows_a_page_only_while_it_is_clean() {
    let area = match large_shared() {
        Ok(area) => area,
        Err(error) => return println!("skipped: {error}"),
    };
    signal::install(|_, _| Verdict::Trap).unwrap();
    let starts: Vec<usize> = area.views().map(|(start, _, _)| start).collect();
    let shown = |view: usize| present_pages(starts[view], LARGE).unwrap();
    let page = PageIndex(0);
    let claim = area.claim(page, Placement::AtOnce).unwrap();
    // As if the write were under way, and somebody came who had seen the page Clean before.
    area.frame_file.as_ref().unwrap().fill_large(0, &[1; SMALL]).unwrap();
    area.show(page, super::Viewer::Here(Announce::Queued));
    assert_eq!((shown(0), area.word(page).state()), (0, State::Filling), "half a frame was shown");
    let mut buffer = [0xee; 16];
    let unwritten = area.address(Announce::Signalled, SMALL as u64).unwrap();
    // SAFETY: the page lies in the view, which is mapped.
    assert_eq!(unsafe { signal::copy_trapping(&mut buffer, unwritten) }, 0, "a load found zeros");
    assert_eq!((shown(1), buffer), (0, [0xee; 16]));
    assert!(area.budget().try_reserve(claim.frame_bytes()));
    claim.place_copy(&vec![3; LARGE], Origin::Asked(0)).unwrap();
    let all = (LARGE / SMALL) as u64;
    assert_eq!((shown(0), shown(1)), (all, 0), "nobody uses the second view yet");
    // No room for pins, and yet the page is held while it is shown.
    area.show(page, super::Viewer::Here(Announce::Signalled));
    assert_eq!((shown(1), area.word(page).state(), area.word(page).pins()), (all, State::Clean, 0));
    area.show(page, super::Viewer::Here(Announce::Signalled));
    assert_eq!(area.evict_all(PageRange::one(page), 0).released, LARGE as u64);
    assert_eq!((shown(0), shown(1), area.budget().used()), (0, 0, 0));
    area.show(page, super::Viewer::Here(Announce::Queued));
    assert_eq!((shown(0), area.word(page).state()), (0, State::Absent));
}

#[test]
fn the_last_large_page_ends_with_the_object() {
    let area = match large_shared() {
        Ok(area) => area,
        Err(error) => return println!("skipped: {error}"),
    };
    assert!(area.use_view(Announce::Signalled));
    let claim = area.claim(PageIndex(1), Placement::AtOnce).unwrap();
    assert!(area.budget().try_reserve(claim.frame_bytes()));
    let mut bytes = vec![0; 2 * SMALL];
    bytes[..5000].fill(9);
    claim.place_copy(&bytes, Origin::Asked(0)).unwrap();
    for (start, len, announce) in area.views() {
        assert_eq!(len, LARGE + 2 * SMALL, "a view goes on behind the object");
        assert_eq!(present_pages(start + LARGE, 2 * SMALL).unwrap(), 2);
        let mut copy = vec![1; 2 * SMALL];
        let source = area.address(announce, LARGE as u64).unwrap();
        // SAFETY: both pages lie in the view, which is mapped.
        assert_eq!(unsafe { signal::copy_trapping(&mut copy, source) }, 2 * SMALL);
        assert_eq!(copy, bytes);
    }
    assert_eq!(area.evict_all(PageRange::one(PageIndex(1)), 0).pages, 1);
}

/// An area of `pages` small pages that can be written, in-thread delivery, and what it counts as unwritten.
fn writable(pages: u64) -> Result<(Arc<Area>, Arc<AtomicU64>), std::io::Error> {
    signal::install(|_, _| Verdict::Trap)?;
    let unwritten = Arc::<AtomicU64>::default();
    let area = super::new(AreaOptions {
        name: "writable".into(),
        length: pages * SMALL as u64,
        capacity: pages * SMALL as u64,
        writes: Writes::Yes,
        unwritten: Arc::clone(&unwritten),
        tables: Arc::new(Tables::new(0)),
        storage: Storage::Own,
        frames: Frames::LocalSmall,
        home: None,
        views: vec![Arc::new(Userfaultfd::open(Announce::Signalled)?)],
        budget: Arc::new(Budget::new(1 << 20)),
        pin_budget: Arc::new(PinBudget::new(1 << 20)),
    })?;
    Ok((area, unwritten))
}

/// An area of eight small pages of private memory that can be written, page `i` full of the byte `i + 1` and Clean.
fn small_written() -> Result<Arc<Area>, std::io::Error> {
    let (area, _) = writable(8)?;
    for page in 0..8 {
        place(&area, PageIndex(page), page as u8 + 1, Origin::Asked(0));
    }
    Ok(area)
}

fn place(area: &Arc<Area>, page: PageIndex, byte: u8, origin: Origin) {
    let claim = area.claim(page, Placement::AtOnce).unwrap();
    assert!(area.budget().try_reserve(claim.frame_bytes()));
    claim.place_copy(&[byte; SMALL], origin).unwrap();
}

#[test]
fn a_store_that_traps_goes_on_or_says_how_far_it_came() {
    let area = match writable(2) {
        Ok((area, _)) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    // Dirty and protected, and the fault of the store is not resolved: it ends early.
    place(&area, PageIndex(0), 1, Origin::Stored(0));
    area.store_bytes(100, &[7; 1000]).unwrap();
    let mut bytes = [0; SMALL];
    copy_by_touch(&area, Announce::Signalled, 0, &mut bytes).unwrap();
    assert!(bytes[100..1100].iter().all(|byte| *byte == 7), "bytes are missing");
    assert!(bytes[..100].iter().chain(&bytes[1100..]).all(|byte| *byte == 1));
    // The memory itself traps: frames of the second page are gone, and poisoned.
    place(&area, PageIndex(1), 1, Origin::Stored(0));
    drop_frame(&area, PageIndex(1));
    area.poison(PageRange::one(PageIndex(1)));
    let at = SMALL as u64 + 8;
    assert_eq!(area.store_bytes(at, &[7; 8]), Err(StoreRefused::Trapped(at)));
    let mut held = area.hold(PageIndex(1)).unwrap();
    assert_eq!(held.zero(8..16), Err(StoreRefused::Trapped(at)));
    drop(held);
    assert!(area.discard(PageIndex(0), 0) && area.discard(PageIndex(1), 0));
}

#[test]
fn pages_that_are_no_more_are_not_pinned() {
    let area = match writable(4) {
        Ok((area, _)) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    let pages = PageRange { start: 1, end: 3 };
    assert!(
        PinSet::new(Arc::clone(&area), pages).is_some() && MutPinSet::new(Arc::clone(&area), pages).is_some()
    );
    area.set_length(2 * SMALL as u64);
    assert!(
        PinSet::new(Arc::clone(&area), pages).is_none() && MutPinSet::new(Arc::clone(&area), pages).is_none()
    );
}

#[test]
fn what_is_counted_as_unwritten_never_goes_below_zero() {
    let (area, unwritten) = match writable(1) {
        Ok(made) => made,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    place(&area, PageIndex(0), 1, Origin::Asked(0));
    let stop = AtomicBool::new(false);
    let mut lowest_wrapped = None;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    area.make_dirty(PageIndex(0));
                }
            });
        }
        // Copies and writes it as soon as it is Dirty: the moment between the change and its count is short.
        let mut buffer = [0; SMALL];
        let mut rounds = 0;
        while rounds < 30_000 {
            for run in area.lock_dirty(PageRange::one(PageIndex(0)), 1, 1).0 {
                run.copy(&mut buffer).unwrap().written();
                let counted = unwritten.load(Ordering::Relaxed);
                lowest_wrapped = lowest_wrapped.or((counted > 1 << 40).then_some(counted));
                rounds += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(lowest_wrapped, None, "more was taken back than was counted");
    area.discard(PageIndex(0), 0);
    assert_eq!(area.word(PageIndex(0)).state(), State::Absent);
    assert_eq!(unwritten.load(Ordering::Relaxed), 0);
}

/// What a stray madvise(2) does.
fn drop_frame(area: &Area, page: PageIndex) {
    // SAFETY: nobody holds references into the page, or a test is about those who do.
    unsafe { area.views[0].region.zap(page.0 as usize * SMALL, SMALL).unwrap() };
}

/// Does to `page` all that another thread can do, up to a store of a byte that nobody else has. Whether it came so far.
fn store_afresh(area: &Arc<Area>, page: PageIndex) -> bool {
    let _ = area.evict_all(PageRange::one(page), 0).pages == 1 || area.discard(page, 0);
    let (_runs, gone) = area.lock_dirty(PageRange::one(page), 1, 1);
    drop(gone);
    let _ = area.open_to_store(page, super::Viewer::Here(Announce::Signalled));
    if area.claim(page, Placement::AtOnce).is_err() {
        return area.store_bytes(page.0 * SMALL as u64, &[99; SMALL]).is_ok();
    }
    place(area, page, 99, Origin::Stored(0));
    true
}

fn bytes(area: &Area, page: PageIndex) -> Option<u8> {
    let mut copy = [0; SMALL];
    let source = area.address(Announce::Signalled, page.0 * SMALL as u64).unwrap();
    // SAFETY: the page lies in the view, which is mapped.
    let copied = unsafe { signal::copy_trapping(&mut copy, source) };
    (copied == SMALL && copy.iter().all(|byte| *byte == copy[0])).then_some(copy[0])
}

/// Between the question whether a frame is there and what follows from the answer, nobody else gets at the page: a
/// store that came in between would be dropped as the old frame's.
#[test]
fn nobody_gets_at_a_page_between_the_look_for_its_frame_and_what_follows() {
    for (is_dirty, is_gone) in [(false, true), (false, false), (true, true), (true, false)] {
        let area = match small_written() {
            Ok(area) => area,
            Err(error) => return println!("skipped: no userfaultfd: {error}"),
        };
        let page = PageIndex(3);
        if is_dirty {
            area.store_bytes(3 * SMALL as u64, &[50; SMALL]).unwrap();
        }
        if is_gone {
            drop_frame(&area, page);
        }
        let stored = Arc::new(std::sync::Mutex::new(None));
        let (other, report) = (Arc::clone(&area), Arc::clone(&stored));
        area.interposed.once(move || *report.lock().unwrap() = Some(store_afresh(&other, page)));
        let looked = area.look(page, 3 * SMALL as u64, 0);
        let stored = stored.lock().unwrap().expect("the other thread had its turn");
        if stored {
            assert_eq!(bytes(&area, page), Some(99), "a fresh store was dropped: {is_dirty} {is_gone}");
        }
        assert!(!stored, "the page was changed while it was looked at");
        match looked {
            Looked::There => assert!(!is_gone && bytes(&area, page) == Some(if is_dirty { 50 } else { 4 })),
            Looked::Evicted => assert!(is_gone && !is_dirty && area.word(page).state() == State::Absent),
            Looked::Gone(gone) => {
                assert!(is_gone && is_dirty && gone.page() == page);
                gone.fail();
                assert_eq!((area.word(page).state(), bytes(&area, page)), (State::Failed, None));
                assert_eq!((area.unclean_pages(), area.resident_pages()), (0, 7));
                assert!(area.retry(page));
            }
            Looked::NotNow(word) => panic!("{word:?}"),
        }
        assert!(is_dirty || store_afresh(&area, page));
        assert_eq!(area.budget().used(), area.resident_pages() * SMALL as u64);
    }
}

#[test]
fn a_pinned_page_that_lost_its_frame_is_filled_again_and_not_stored_to() {
    let area = match small_written() {
        Ok(area) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    let page = PageIndex(2);
    let mut pins = PinSet::new(Arc::clone(&area), PageRange::one(page)).unwrap();
    pins.try_pin(page).unwrap();
    drop_frame(&area, page);
    assert!(matches!(area.look(page, 2 * SMALL as u64, 0), Looked::Evicted));
    assert_eq!((area.word(page).state(), area.word(page).pins()), (State::Absent, 1));
    place(&area, page, 3, Origin::ToStore(0));
    assert_eq!((area.word(page).state(), area.word(page).pins()), (State::Clean, 1), "opened under a pin");
    assert_eq!(area.evict_all(PageRange::one(page), 0).pages, 0);
    let range = memobj_core::address::ByteRange { start: 2 * SMALL as u64, end: 3 * SMALL as u64 };
    let pinned = PinnedBytes::new(pins, range, None).unwrap();
    assert!(pinned.iter().all(|byte| *byte == 3));
    drop(pinned);
    assert_eq!((area.evict_all(PageRange::one(page), 0).pages, area.pin_budget().used()), (1, 0));
}

#[test]
fn pages_without_frames_are_not_written_and_not_waited_for() {
    let area = match small_written() {
        Ok(area) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    for page in 0..8 {
        area.store_bytes(page * SMALL as u64, &[60 + page as u8; SMALL]).unwrap();
    }
    let all = PageRange { start: 0, end: 8 };
    drop_frame(&area, PageIndex(4));
    // One more goes between the look and the copy.
    let other = Arc::clone(&area);
    area.interposed.once(move || drop_frame(&other, PageIndex(6)));
    let (runs, gone) = area.lock_dirty(all, 8, 8);
    let pages: Vec<_> = runs.iter().map(|run| (run.pages().start, run.pages().end)).collect();
    assert_eq!((pages, gone.len()), (vec![(0, 4), (5, 8)], 1));
    gone.into_iter().for_each(|gone| gone.fail());
    let mut buffer = vec![0; 8 * SMALL];
    let mut runs = runs.into_iter();
    let claim = runs.next().unwrap().copy(&mut buffer).unwrap();
    assert!(buffer[..4 * SMALL].chunks(SMALL).zip(60..).all(|(part, byte)| part == [byte; SMALL]));
    let first = area.writes_begun(PageIndex(0));
    claim.written();
    assert!(runs.next().unwrap().copy(&mut buffer).is_none(), "half a run was taken for whole");
    assert_eq!(area.word(PageIndex(5)).state(), State::Dirty);
    let (runs, gone) = area.lock_dirty(all, 8, 8);
    assert_eq!((runs.len(), gone.iter().map(|gone| gone.page().0).collect::<Vec<_>>()), (2, vec![6]));
    drop(gone);
    for run in runs {
        run.copy(&mut buffer).unwrap().written();
    }
    assert_eq!((area.unclean_pages(), area.word(PageIndex(6)).state()), (1, State::Dirty));
    assert!(area.writes_begun(PageIndex(5)) > 0 && area.writes_begun(PageIndex(0)) == first);
}

#[test]
fn a_page_that_another_loses_while_it_is_copied_is_left_by_its_holder() {
    let area = match small_written() {
        Ok(area) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    area.store_bytes(0, &[60; 2 * SMALL][..SMALL]).unwrap();
    area.store_bytes(SMALL as u64, &[61; SMALL]).unwrap();
    let (mut runs, _) = area.lock_dirty(PageRange { start: 0, end: 2 }, 2, 2);
    let mut buffer = vec![0; 2 * SMALL];
    let run = runs.pop().unwrap();
    assert!(run.copy_page(PageIndex(0), &mut buffer[..SMALL]));
    drop_frame(&area, PageIndex(0));
    let Looked::Gone(gone) = area.look(PageIndex(0), 0, 0) else { panic!("the frame is there") };
    gone.fail();
    // Its bytes were copied before: they are written, and the page stays lost.
    run.copied().written();
    assert_eq!(
        (area.word(PageIndex(0)).state(), area.word(PageIndex(1)).state()),
        (State::Failed, State::Clean)
    );
    assert!(area.retry(PageIndex(0)) && area.unclean_pages() == 0);
}

fn pinned(area: &Arc<Area>, page: u64) -> PinSet {
    let mut set = PinSet::new(Arc::clone(area), PageRange::one(PageIndex(page))).unwrap();
    set.try_pin(PageIndex(page)).unwrap();
    set
}

#[test]
fn pins_become_exclusive_all_of_them_or_none() {
    let area = match small_written() {
        Ok(area) => area,
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    let at = |page: u64| page * SMALL as u64;
    // One of them is Dirty already.
    area.store_bytes(at(5), &[50; SMALL]).unwrap();
    let sets = [5, 1, 3].map(|page| pinned(&area, page)).into();
    let other = pinned(&area, 3);
    let (sets, refused) = area.make_exclusive(sets).unwrap_err();
    assert!(matches!(refused, UpgradeRefused::NotNow(PageIndex(3), word) if word.pins() == 2));
    for page in [1, 5] {
        assert_eq!(area.word(PageIndex(page)).pins(), 1);
        assert!(
            area.store_bytes(at(page), &[9; 8]).is_err(),
            "a page that is pinned again is open to stores"
        );
    }
    drop(other);
    let exclusive = area.make_exclusive(sets).unwrap();
    let mut late = PinSet::new(Arc::clone(&area), PageRange::one(PageIndex(1))).unwrap();
    assert!(late.try_pin(PageIndex(1)).is_err() && area.store_bytes(at(3), &[9; 8]).is_err());
    for page in [1, 3, 5] {
        exclusive.store(at(page), &[70 + page as u8; SMALL]).unwrap();
    }
    drop(exclusive);
    assert_eq!([1, 3, 5].map(|page| bytes(&area, PageIndex(page))), [Some(71), Some(73), Some(75)]);
    assert_eq!((area.unclean_pages(), area.pin_budget().used()), (3, 0));
    assert!(late.try_pin(PageIndex(1)).is_ok());
    // A frame that was dropped from outside ends its pin, and no other.
    let sets = [2, 6].map(|page| pinned(&area, page)).into();
    drop_frame(&area, PageIndex(6));
    let (sets, refused) = area.make_exclusive(sets).unwrap_err();
    assert_eq!(refused, UpgradeRefused::FrameGone(PageIndex(6)));
    assert_eq!([2, 6].map(|page| area.word(PageIndex(page)).pins()), [1, 0]);
    drop((sets, late));
    assert_eq!((area.pin_budget().used(), area.resident_pages()), (0, 7));
}
