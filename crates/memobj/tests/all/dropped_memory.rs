//! Memory that somebody outside drops, by a stray madvise(2) on the object's addresses: what the pager has comes back,
//! and changes that nobody else has are lost aloud.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memobj::{AccessError, Delivery, ErrorKind, Event, Mapping, Sharing, WriteStep};
use memobj_sim::fixture::{MIB, StopAtEnd, sample_bytes, wait_until_clean, within};
use memobj_sim::writable_fixture::{WritableFixture, is_all, mapped, writable};

const PAGE: u64 = 4096;

/// Without addresses nobody drops anything by mistake.
fn in_each_delivery(body: impl Fn(Delivery) + Send + Copy + 'static) {
    for delivery in [Delivery::InThread, Delivery::ReaderThread] {
        within(60, &format!("{delivery:?}"), move || body(delivery));
    }
}

/// `false` where the kernel cannot tell which pages have frames.
fn can_look() -> bool {
    let can = memobj_linux::capability::probe().pagemap_scan;
    if !can {
        println!("skipped: no PAGEMAP_SCAN (Linux 6.7)");
    }
    can
}

fn drop_page(mapping: &Mapping, page: u64) {
    let address = mapping.as_ptr() as u64 + page * PAGE;
    memobj_linux::testing::drop_memory(address, PAGE as usize).unwrap();
}

fn sample(page: u64) -> Vec<u8> {
    sample_bytes((page + 1) * PAGE)[(page * PAGE) as usize..].to_vec()
}

/// How somebody comes to a page first after its memory is gone.
#[derive(Clone, Copy, Debug)]
enum Notice {
    Sync,
    Touch,
    Read,
    Pin,
    Write,
    PinMut,
    Word,
}

const NOTICES: [Notice; 7] =
    [Notice::Sync, Notice::Touch, Notice::Read, Notice::Pin, Notice::Write, Notice::PinMut, Notice::Word];

/// Comes to the page, which must be refused.
fn is_refused(fixture: &WritableFixture, page: u64, notice: Notice) {
    let range = page * PAGE..(page + 1) * PAGE;
    let mut buffer = [0; PAGE as usize];
    let refused = match notice {
        Notice::Sync => return assert!(fixture.mapping.sync(range).unwrap_err().is_lost()),
        Notice::Touch => fixture.mapping.touch_at(range.start, &mut buffer),
        Notice::Read => fixture.mapping.read_at(range.start, &mut buffer),
        Notice::Pin => fixture.mapping.pin(range).map(|_| ()),
        Notice::Write => fixture.mapping.write_at(range.start + 8, &[1; 8]),
        Notice::PinMut => fixture.mapping.pin_mut(range).map(|_| ()),
        // A plain access traps, and would end the test.
        Notice::Word => fixture.mapping.touch_at(range.start, &mut buffer[..8]),
    };
    let error = refused.expect_err("old bytes without a word");
    let kind = error.page_error().map(|page| page.kind());
    assert_eq!(kind, Some(ErrorKind::Integrity), "{notice:?}: {error}");
}

#[test]
fn changes_whose_memory_was_dropped_are_lost_aloud_until_discarded() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        for notice in NOTICES {
            let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
            for page in 0..8 {
                fixture.mapping.write_at(page * PAGE + 100, &[7; 100]).unwrap();
            }
            drop_page(&fixture.mapping, 3);
            is_refused(&fixture, 3, notice);
            let told = fixture.event("the loss", |event| match event {
                Event::WriteFailed(error) if error.is_lost() => Some(error.clone()),
                _ => None,
            });
            assert_eq!((told.range(), told.step()), (3 * PAGE..4 * PAGE, WriteStep::WriteBack), "{notice:?}");
            for again in NOTICES {
                is_refused(&fixture, 3, again);
                // What makes the page trap can be dropped, too.
                drop_page(&fixture.mapping, 3);
            }
            // Whoever syncs hears of it, and all else is written.
            let error = fixture.object.sync().unwrap_err();
            assert!(error.is_lost() && error.to_string().contains("its changes are lost"), "{error}");
            assert!(fixture.object.close().unwrap_err().is_lost());
            assert!(is_all(&fixture.disk.durable(), 2 * PAGE + 100..2 * PAGE + 200, 7), "{notice:?}");
            fixture.mapping.sync(4 * PAGE..MIB).unwrap();
            // It takes a `discard` to read what the pager has.
            assert_eq!(fixture.mapping.retry(0..MIB).unwrap(), 0);
            is_refused(&fixture, 3, Notice::Read);
            assert_eq!(fixture.mapping.discard(0..MIB).unwrap(), 1);
            assert_eq!(fixture.mapping.pin(3 * PAGE..4 * PAGE).unwrap()[..], sample(3)[..]);
            fixture.object.close().unwrap();
            fixture.mapping.write_at(3 * PAGE, &[9; 100]).unwrap();
            fixture.object.close().unwrap();
            assert!(is_all(&fixture.disk.durable(), 3 * PAGE..3 * PAGE + 100, 9));
            wait_until_clean(&fixture.cache);
        }
    });
}

#[test]
fn memory_without_changes_comes_back_and_nothing_is_told() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        let whole = sample_bytes(MIB);
        for (page, notice) in NOTICES.into_iter().enumerate() {
            let page = page as u64;
            fixture.mapping.populate(page * PAGE..(page + 1) * PAGE).unwrap();
            let pinned = matches!(notice, Notice::Pin)
                .then(|| fixture.mapping.pin(page * PAGE..(page + 1) * PAGE).unwrap());
            drop_page(&fixture.mapping, page);
            let range = page * PAGE..(page + 1) * PAGE;
            let mut wanted = whole[range.start as usize..range.end as usize].to_vec();
            let mut buffer = [0; PAGE as usize];
            match notice {
                Notice::Sync => fixture.mapping.sync(range.clone()).unwrap(),
                Notice::Touch => fixture.mapping.touch_at(range.start, &mut buffer).unwrap(),
                Notice::Read => fixture.mapping.read_at(range.start, &mut buffer).unwrap(),
                // Its bytes are as they were, though they were gone.
                Notice::Pin => assert!(pinned.as_deref() == Some(&wanted[..])),
                Notice::Write => fixture.mapping.write_at(range.start, &[1; 8]).unwrap(),
                Notice::PinMut => fixture.mapping.pin_mut(range.clone()).unwrap()[..8].fill(1),
                Notice::Word => {
                    let words = fixture.mapping.shared_words().unwrap();
                    words.store(range.start / 8, u64::from_le_bytes([1; 8]));
                }
            }
            if matches!(notice, Notice::Write | Notice::PinMut | Notice::Word) {
                wanted[..8].fill(1);
            }
            assert_eq!(fixture.mapping.pin(range.clone()).unwrap()[..], wanted[..], "{notice:?}");
            fixture.object.sync().unwrap();
            let durable = fixture.disk.durable();
            assert!(durable[range.start as usize..range.end as usize] == wanted, "{notice:?}");
        }
        assert!(fixture.cache.events().try_next().is_none());
    });
}

#[test]
fn stores_of_a_writer_who_comes_page_after_page_are_not_taken_for_lost() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.populate(0..MIB / 2).unwrap();
        for page in (5..100).step_by(7) {
            drop_page(&fixture.mapping, page);
        }
        let words = fixture.mapping.shared_words().unwrap();
        for page in 0..100 {
            words.store(page * 512, 7);
        }
        fixture.object.close().unwrap();
        for page in 0..100 {
            let at = page * PAGE as usize;
            assert_eq!(fixture.disk.durable()[at..at + 8], 7u64.to_le_bytes(), "page {page}");
        }
    });
}

#[test]
fn a_commit_without_lost_changes_is_none() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let sample = memobj_sim::fixture::Sample::new(MIB);
        let cache = memobj_sim::fixture::cache(MIB);
        let atomic = writable().writing(memobj::Writing::Atomic);
        let object = cache.open_file(sample.path(), atomic).unwrap();
        let mapping = object.map(0..MIB, mapped(delivery)).unwrap();
        mapping.write_at(0, &[7; 4 * PAGE as usize]).unwrap();
        object.commit().unwrap();
        mapping.write_at(0, &[8; 4 * PAGE as usize]).unwrap();
        drop_page(&mapping, 2);
        for _ in 0..2 {
            assert!(object.commit().unwrap_err().is_lost());
            assert!(object.close().unwrap_err().is_lost());
        }
        // All four go back together.
        assert_eq!(mapping.discard(0..MIB).unwrap(), 4);
        assert!(mapping.pin(0..4 * PAGE).unwrap().iter().all(|byte| *byte == 7));
        mapping.write_at(2 * PAGE, &[9; PAGE as usize]).unwrap();
        object.close().unwrap();
        let file = std::fs::read(sample.path()).unwrap();
        assert!(is_all(&file, 0..2 * PAGE, 7) && is_all(&file, 2 * PAGE..3 * PAGE, 9));
    });
}

#[test]
fn a_private_mapping_does_not_get_old_bytes_for_lost_ones() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.write_at(0, &[7; 2 * PAGE as usize]).unwrap();
        let private = mapped(delivery).sharing(Sharing::Private);
        let private = fixture.object.map(0..MIB, private).unwrap();
        drop_page(&fixture.mapping, 1);
        let error = private.pin(PAGE..2 * PAGE).unwrap_err();
        assert_eq!(error.page_error().map(|page| page.kind()), Some(ErrorKind::Integrity), "{error}");
        assert!(private.pin(0..PAGE).unwrap().iter().all(|byte| *byte == 7));
        // Its own changes are lost likewise.
        private.write_at(8 * PAGE, &[8; 8]).unwrap();
        drop_page(&private, 8);
        assert!(matches!(private.pin(8 * PAGE..9 * PAGE), Err(AccessError::Page(_))));
        assert_eq!(private.discard(8 * PAGE..9 * PAGE).unwrap(), 1);
        assert_eq!(private.pin(8 * PAGE..9 * PAGE).unwrap()[..], sample(8)[..]);
    });
}

/// Who stores to a page has it pinned, and sleeps in its fault until somebody sees to the poison.
#[test]
fn a_page_that_is_pinned_and_lost_traps_again_after_its_poison_is_dropped() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        fixture.mapping.touch_at(0, &mut [0]).unwrap();
        let mut pinned = fixture.mapping.pin_mut(PAGE..2 * PAGE).unwrap();
        pinned[0] = 7;
        let address = fixture.mapping.as_ptr() as u64 + PAGE;
        assert_eq!(memobj_linux::testing::load_trapping(address), Some(7));
        for _ in 0..3 {
            drop_page(&fixture.mapping, 1);
            assert_eq!(memobj_linux::testing::load_trapping(address), None, "{delivery:?}");
        }
        drop(pinned);
        assert!(fixture.mapping.sync(0..MIB).unwrap_err().is_lost());
        assert_eq!(fixture.mapping.discard(0..MIB).unwrap(), 1);
        assert_eq!(fixture.mapping.pin(PAGE..2 * PAGE).unwrap()[..], sample(1)[..]);
        fixture.object.close().unwrap();
    });
}

/// Whatever is dropped when: each page has what was stored last, or its loss is told; and nothing hangs.
#[test]
fn memory_that_is_dropped_all_the_time_holds_up_nobody_and_loses_nothing_in_silence() {
    if !can_look() {
        return;
    }
    in_each_delivery(|delivery| {
        let fixture = WritableFixture::new(delivery, MIB, MIB, writable());
        let mut seed = 0x5eed_u64;
        println!("seed {seed}");
        let done = AtomicBool::new(false);
        // Pages that may be dropped still: without a bound everybody would be busy with getting them back.
        let allowed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let _stopped = StopAtEnd(&done);
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if allowed.load(Ordering::Relaxed) == 0 {
                        std::thread::yield_now();
                        continue;
                    }
                    allowed.fetch_sub(1, Ordering::Relaxed);
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    drop_page(&fixture.mapping, seed % 64);
                }
            });
            scope.spawn(|| {
                let mut buffer = [0; PAGE as usize];
                let mut page = 0;
                while !done.load(Ordering::Relaxed) {
                    page = (page + 29) % 64;
                    let _ = fixture.mapping.touch_at(page * PAGE, &mut buffer);
                }
            });
            for round in 1..=30u32 {
                let mut stored = [false; 64];
                for page in 0..64 {
                    allowed.fetch_max(u64::from(page % 4 == 0), Ordering::Relaxed);
                    stored[page as usize] =
                        fixture.mapping.write_at(page * PAGE, &round.to_le_bytes()).is_ok();
                }
                allowed.fetch_max(2, Ordering::Relaxed);
                let synced = fixture.mapping.sync(0..MIB);
                let durable = fixture.disk.durable();
                for page in 0..64 {
                    let at = (page * PAGE) as usize;
                    let has_it = durable[at..at + 4] == round.to_le_bytes();
                    let is_lost = || {
                        let range = page * PAGE..(page + 1) * PAGE;
                        !stored[page as usize]
                            || fixture.mapping.sync(range).is_err_and(|error| error.is_lost())
                    };
                    assert!(has_it || is_lost(), "{delivery:?} round {round} page {page}: {synced:?}");
                    assert!(has_it || synced.is_err(), "{delivery:?} round {round} page {page}: synced");
                }
                while fixture.cache.events().try_next().is_some() {}
                fixture.mapping.discard(0..MIB).unwrap();
            }
        });
        fixture.mapping.write_at(0, &vec![3; MIB as usize]).unwrap();
        fixture.object.close().unwrap();
        assert!(is_all(&fixture.disk.durable(), 0..MIB, 3));
    });
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}

#[test]
fn with_shared_frames() {
    memobj_sim::process::rerun_shared("with_shared_frames");
}
