//! What a private mapping reads of an object that is written at the same time.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use memobj::pagers::{Blocking, BlockingPager};
use memobj::{Advice, MapOptions, Mapping, MemoryObject, Sharing, SupplyError};
use memobj_sim::fixture::{cache, within};
use memobj_sim::writable_fixture::writable;

const PAGE: u64 = 4096;
const HALF: usize = PAGE as usize / 2;

/// One page in memory. In the middle of a supply it does what a test wants, once.
struct Halves {
    bytes: Mutex<Vec<u8>>,
    between: Mutex<Option<Between>>,
    supplies: AtomicU32,
}

type Between = Box<dyn FnOnce() + Send>;

impl BlockingPager for Halves {
    fn length(&self) -> u64 {
        PAGE
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        assert_eq!(range, 0..PAGE);
        self.supplies.fetch_add(1, Ordering::Relaxed);
        buffer[..HALF].copy_from_slice(&self.bytes.lock().unwrap()[..HALF]);
        let between = self.between.lock().unwrap().take();
        if let Some(between) = between {
            between();
        }
        buffer[HALF..].copy_from_slice(&self.bytes.lock().unwrap()[HALF..]);
        Ok(buffer.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        self.bytes.lock().unwrap()[range.start as usize..range.end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), SupplyError> {
        Ok(())
    }
}

struct Both {
    pager: Arc<Halves>,
    object: MemoryObject,
    mapping: Mapping,
}

fn both() -> Both {
    let halves = Halves {
        bytes: Mutex::new(vec![1; PAGE as usize]),
        between: Mutex::default(),
        supplies: AtomicU32::new(0),
    };
    let pager = Arc::new(halves);
    let object = cache(1 << 20).object("halves", Blocking(Arc::clone(&pager)), writable()).unwrap();
    let mapping = object.map(0..PAGE, MapOptions::default()).unwrap();
    Both { pager, object, mapping }
}

fn evict(mapping: &Mapping) {
    mapping.advise(0..PAGE, Advice::DontNeed).unwrap();
}

/// All bytes of a page that is whole.
fn byte_of(page: &[u8]) -> u8 {
    assert!(page.iter().all(|byte| *byte == page[0]), "half of one version, half of another");
    page[0]
}

/// The page of the object comes, is stored to, written back and evicted while the private mapping reads its pager. Its
/// word is then as it was.
#[test]
fn a_page_that_changed_and_went_again_meanwhile_is_read_again() {
    within(60, "a private read beside a write", || {
        let Both { pager, object, mapping } = both();
        // The word of a page that was here before, and went in this tick of the clock.
        mapping.populate(0..PAGE).unwrap();
        evict(&mapping);
        let other = mapping.clone();
        let closed = object.clone();
        *pager.between.lock().unwrap() = Some(Box::new(move || {
            other.write_at(0, &[2; PAGE as usize]).unwrap();
            closed.sync().unwrap();
            evict(&other);
        }));
        let before = pager.supplies.load(Ordering::Relaxed);
        let private = MapOptions::new().sharing(Sharing::Private);
        let private = object.map(0..PAGE, private).unwrap();
        assert_eq!(byte_of(&private.pin(0..PAGE).unwrap()), 2);
        assert!(pager.supplies.load(Ordering::Relaxed) >= before + 2, "nothing came between");
    });
}

/// The object is mapped, and written, for the first time while a private mapping reads its pager.
#[test]
fn an_object_that_is_mapped_and_written_meanwhile_is_read_again() {
    within(60, "a private read before the first mapping", || {
        let Both { pager, object, mapping } = both();
        drop((mapping, object));
        let object = cache(1 << 20).object("halves", Blocking(Arc::clone(&pager)), writable()).unwrap();
        let private = MapOptions::new().sharing(Sharing::Private);
        let private = object.map(0..PAGE, private).unwrap();
        let other = object.clone();
        let kept: Arc<Mutex<Option<Mapping>>> = Arc::default();
        let keeper: Weak<Mutex<Option<Mapping>>> = Arc::downgrade(&kept);
        *pager.between.lock().unwrap() = Some(Box::new(move || {
            let mapping = other.map(0..PAGE, MapOptions::default()).unwrap();
            mapping.write_at(0, &[2; PAGE as usize]).unwrap();
            other.sync().unwrap();
            *keeper.upgrade().unwrap().lock().unwrap() = Some(mapping);
        }));
        assert_eq!(byte_of(&private.pin(0..PAGE).unwrap()), 2);
    });
}
