//! Places of an area that hold no page, and pages that a view may not show.

use std::sync::Arc;

use memobj_core::address::{PageIndex, PageRange};
use memobj_core::budget::Budget;
use memobj_core::page_word::State;

use super::{Area, AreaOptions, Frames, Origin, Placement, Writes};
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
        let area = Area::new(AreaOptions {
            name: "empty".into(),
            length: 0,
            capacity: 0,
            writes: Writes::No,
            unwritten: Arc::default(),
            frames,
            views: vec![Arc::clone(&uffd)],
            budget: Arc::new(Budget::new(1 << 20)),
            pin_budget: Arc::new(Budget::new(1 << 20)),
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
    Area::new(AreaOptions {
        name: "large".into(),
        length: LARGE as u64 + 5000,
        capacity: 0,
        writes: Writes::No,
        unwritten: Arc::default(),
        frames: Frames::SharedLarge(Arc::new(HugeFolder::new()?)),
        views: vec![uffd(Announce::Queued)?, uffd(Announce::Signalled)?],
        budget: Arc::new(Budget::new(16 << 20)),
        pin_budget: Arc::new(Budget::new(0)),
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
    assert!(area.budget.try_reserve(claim.frame_bytes()));
    claim.place_copy(&vec![3; LARGE], Origin::Asked(0)).unwrap();
    let all = (LARGE / SMALL) as u64;
    assert_eq!((shown(0), shown(1)), (all, 0), "nobody uses the second view yet");
    // No room for pins, and yet the page is held while it is shown.
    area.show(page, super::Viewer::Here(Announce::Signalled));
    assert_eq!((shown(1), area.word(page).state(), area.word(page).pins()), (all, State::Clean, 0));
    area.show(page, super::Viewer::Here(Announce::Signalled));
    assert_eq!(area.evict_all(PageRange::one(page), 0).released, LARGE as u64);
    assert_eq!((shown(0), shown(1), area.budget.used()), (0, 0, 0));
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
    assert!(area.budget.try_reserve(claim.frame_bytes()));
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
