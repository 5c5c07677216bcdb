//! Each answer of the kernel that can be had, on real memory.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;
use crate::frame_file::FrameFile;
use crate::region::{Purpose, Region, SMALL};

const PAGES: usize = 4;

/// A range registered for `modes`: of a memory file, or private.
struct Range {
    region: Region,
    file: Option<FrameFile>,
    uffd: Userfaultfd,
}

fn code<T: std::fmt::Debug>(result: Result<T, io::Error>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

impl Range {
    /// `None`, with a line that says so, where the kernel does not offer it.
    fn new(file: Option<FrameFile>, modes: Modes, more_features: u64) -> Option<Arc<Self>> {
        let made = Self::try_new(file, modes, more_features);
        made.map_err(|error| println!("skipped: no userfaultfd for {modes:?}: {error}")).ok()
    }

    fn try_new(file: Option<FrameFile>, modes: Modes, more_features: u64) -> io::Result<Arc<Self>> {
        let uffd = Userfaultfd::open_with(Announce::Queued, more_features)?;
        let region = Region::new(PAGES * SMALL, Purpose::Data)?;
        if let Some(file) = &file {
            // SAFETY: the region is new; nobody holds references into it.
            unsafe { region.map_file(file, crate::area::Writes::No)? };
        }
        if modes.contains(Modes::WRITE_PROTECT) {
            let len = region.len();
            // SAFETY: changes the protection of the region's own pages, into which there are no references.
            let answer =
                unsafe { libc::mprotect(region.pointer(0).cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
            assert_eq!(answer, 0);
        }
        uffd.register(region.start(), region.len(), modes)?;
        Ok(Arc::new(Self { region, file, uffd }))
    }

    fn of_file(modes: Modes) -> Option<Arc<Self>> {
        Self::new(Some(FrameFile::new("test", (PAGES * SMALL) as u64).unwrap()), modes, 0)
    }

    fn fill_file(&self, page: usize, byte: u8) {
        let bytes = [byte; SMALL];
        // SAFETY: the source lives across the call; the file is not mapped as references.
        let count = unsafe {
            let descriptor = self.file.as_ref().unwrap().as_fd().as_raw_fd();
            libc::pwrite(descriptor, bytes.as_ptr().cast(), SMALL, (page * SMALL) as i64)
        };
        assert_eq!(count, SMALL as isize);
    }

    fn show(&self, page: usize, count: usize) -> Result<(), (usize, io::Error)> {
        // SAFETY: the range is registered; nobody else changes the file.
        unsafe { self.uffd.show(self.at(page), count * SMALL) }
    }

    fn at(&self, page: usize) -> usize {
        self.region.start() + page * SMALL
    }

    /// Loads the first byte of `page` on a thread of its own, as its faults may last.
    fn load(self: &Arc<Self>, page: usize) -> JoinHandle<u8> {
        let this = Arc::clone(self);
        // SAFETY: the byte lies in the region, which is mapped and readable as long as `this`.
        std::thread::spawn(move || unsafe { this.region.pointer(page * SMALL).read_volatile() })
    }

    fn store(self: &Arc<Self>, page: usize, byte: u8) -> JoinHandle<()> {
        let this = Arc::clone(self);
        // SAFETY: as in `load`; the region is writable, and other threads join this one before they load.
        std::thread::spawn(move || unsafe { this.region.pointer(page * SMALL).write_volatile(byte) })
    }

    fn next_fault(&self) -> FaultEvent {
        self.wait_for_event();
        let mut buffer = EventBuffer::default();
        let count = self.uffd.read_events(&mut buffer).unwrap();
        buffer.faults(count).next().expect("an event that is no fault")
    }

    fn wait_for_event(&self) {
        let mut entry = libc::pollfd { fd: self.uffd.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry that lives across the call.
        assert_eq!(unsafe { libc::poll(&mut entry, 1, 10_000) }, 1, "no event came");
    }
}

/// The thread's answer; panics instead of hanging.
fn end<R>(thread: JoinHandle<R>) -> R {
    let start = Instant::now();
    while !thread.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(300), "a sleeper was not woken");
        // waits: polls the thread; an event for its end does not exist.
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap()
}

#[test]
fn a_page_of_the_file_is_shown_only_when_told_to() {
    let Some(range) = Range::of_file(Modes::MISSING | Modes::MINOR) else { return };
    range.fill_file(1, 0x5a);
    let reader = range.load(1);
    let fault = range.next_fault();
    assert_eq!((fault.kind, fault.address, fault.is_write), (FaultKind::Minor, range.at(1), false));
    range.show(1, 1).unwrap();
    assert_eq!(end(reader), 0x5a);
}

#[test]
fn pages_that_are_shown_already_count_as_done() {
    let Some(range) = Range::of_file(Modes::MISSING | Modes::MINOR) else { return };
    (0..PAGES).for_each(|page| range.fill_file(page, page as u8 + 1));
    for page in [0, 2] {
        range.show(page, 1).unwrap();
        range.show(page, 1).unwrap();
    }
    range.show(0, PAGES).unwrap();
    (0..PAGES).for_each(|page| assert_eq!(end(range.load(page)), page as u8 + 1));
}

#[test]
fn a_page_that_the_file_has_lost_is_an_error_and_its_sleepers_wake() {
    let Some(range) = Range::of_file(Modes::MISSING | Modes::MINOR) else { return };
    (0..2).for_each(|page| range.fill_file(page, 7));
    let reader = range.load(2);
    assert_eq!(range.next_fault().kind, FaultKind::Missing);
    let (done, error) = range.show(0, PAGES).unwrap_err();
    assert_eq!((done, error.raw_os_error()), (2 * SMALL, Some(libc::EFAULT)));
    // Woken by the error, it asks again.
    assert_eq!(range.next_fault().kind, FaultKind::Missing);
    range.fill_file(2, 9);
    range.show(2, 1).unwrap();
    assert_eq!(end(reader), 9);
}

#[test]
fn while_an_event_is_pending_the_kernel_asks_to_try_again() {
    let file = FrameFile::new("test", (PAGES * SMALL) as u64).unwrap();
    let modes = Modes::MISSING | Modes::MINOR;
    let Some(range) = Range::new(Some(file), modes, abi::FEATURE_EVENT_REMOVE) else { return };
    range.fill_file(0, 3);
    let dropper = {
        let range = Arc::clone(&range);
        // SAFETY: nobody holds references into the region.
        std::thread::spawn(move || unsafe { range.region.zap(3 * SMALL, SMALL) })
    };
    range.wait_for_event();
    let (done, error) = range.show(0, 1).unwrap_err();
    assert_eq!((done, error.raw_os_error()), (0, Some(libc::EAGAIN)));
    // A call that has begun to try again ends well once the event is read.
    let shower = {
        let range = Arc::clone(&range);
        std::thread::spawn(move || while range.show(0, 1).is_err() {})
    };
    range.uffd.read_events(&mut EventBuffer::default()).unwrap();
    end(shower);
    end(dropper).unwrap();
    assert_eq!(end(range.load(0)), 3);
}

#[test]
fn of_another_process_only_faults_are_heard() {
    let file = FrameFile::new("test", (PAGES * SMALL) as u64).unwrap();
    let Some(range) = Range::new(Some(file), Modes::MISSING, abi::FEATURE_EVENT_REMOVE) else { return };
    let duplicate = || range.uffd.as_fd().try_clone_to_owned().unwrap();
    let foreign = Userfaultfd::adopt(duplicate()).unwrap();
    let mut events = EventBuffer::default();
    // Nothing to hear; and no waiting for it where the descriptor would block.
    assert_eq!(foreign.read_events_of_another(&mut events).unwrap(), 0);
    let loading = range.load(1);
    range.wait_for_event();
    let count = foreign.read_events_of_another(&mut events).unwrap();
    assert_eq!(events.faults(count).map(|event| event.kind).collect::<Vec<_>>(), [FaultKind::Missing]);
    range.fill_file(1, 5);
    range.uffd.wake(range.at(1), SMALL);
    assert_eq!(end(loading), 5);
    let dropper = {
        let range = Arc::clone(&range);
        // SAFETY: nobody holds references into the region.
        std::thread::spawn(move || unsafe { range.region.zap(3 * SMALL, SMALL) })
    };
    range.wait_for_event();
    let refused = foreign.read_events_of_another(&mut events).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    end(dropper).unwrap();
    let other = std::fs::File::open("/proc/self/status").unwrap().into();
    assert_eq!(Userfaultfd::adopt(other).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn only_memory_files_have_minor_faults() {
    match Range::try_new(None, Modes::MINOR, 0) {
        Ok(_) => panic!("private memory was registered for minor faults"),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => println!("skipped: no userfaultfd: {error}"),
    }
}

/// What write protection must do in any kind of memory: `range` shows `old` in page 0.
fn check_protection(range: &Arc<Range>, old: u8) {
    range.uffd.write_protect(range.at(0), SMALL).unwrap();
    assert_eq!(end(range.load(0)), old, "loads go on");
    let writer = range.store(0, 0x77);
    let fault = range.next_fault();
    assert_eq!((fault.kind, fault.address, fault.is_write), (FaultKind::WriteProtect, range.at(0), true));
    assert_eq!(end(range.load(0)), old, "the store is blocked");
    range.uffd.unprotect(range.at(0), SMALL).unwrap();
    end(writer);
    assert_eq!(end(range.load(0)), 0x77);
}

#[test]
fn a_store_to_a_protected_page_is_blocked() {
    if let Some(range) = Range::new(None, Modes::MISSING | Modes::WRITE_PROTECT, 0) {
        let bytes = [6; SMALL];
        // SAFETY: the range is registered; the source is a live array.
        unsafe { range.uffd.copy(range.at(0), bytes.as_ptr(), SMALL) }.unwrap();
        check_protection(&range, 6);
    }
    if let Some(range) = Range::of_file(Modes::MISSING | Modes::WRITE_PROTECT) {
        range.fill_file(0, 8);
        check_protection(&range, 8);
    }
}

#[test]
fn a_page_can_arrive_protected() {
    let file = || Some(FrameFile::new("test", (PAGES * SMALL) as u64).unwrap());
    for file in [None, file()] {
        let Some(range) = Range::new(file, Modes::MISSING | Modes::WRITE_PROTECT, 0) else { continue };
        let bytes = [4; SMALL];
        // SAFETY: the range is registered; the source is a live array.
        unsafe { range.uffd.copy_protected(range.at(0), bytes.as_ptr(), SMALL, Wake::AtOnce) }.unwrap();
        assert_eq!(end(range.load(0)), 4);
        let writer = range.store(0, 5);
        assert_eq!(range.next_fault().kind, FaultKind::WriteProtect);
        range.uffd.unprotect(range.at(0), SMALL).unwrap();
        end(writer);
        assert_eq!(end(range.load(0)), 5);
    }
}

#[test]
fn protection_of_a_range_that_is_not_registered_for_it_is_an_error_that_wakes() {
    let Some(range) = Range::of_file(Modes::MISSING) else { return };
    assert_eq!(code(range.uffd.write_protect(range.at(0), SMALL)), Some(libc::ENOENT));
    let reader = range.load(0);
    assert_eq!(range.next_fault().kind, FaultKind::Missing);
    assert_eq!(code(range.uffd.unprotect(range.at(0), SMALL)), Some(libc::ENOENT));
    // Woken by the error, it asks again.
    assert_eq!(range.next_fault().kind, FaultKind::Missing);
    range.fill_file(0, 2);
    range.uffd.wake(range.at(0), SMALL);
    assert_eq!(end(reader), 2);
}

#[test]
fn a_protected_hole_looks_like_a_page_of_its_own_but_for_its_protection() {
    use crate::pagemap::Present;
    // Private, of a file: as mappings of programs are.
    let Some(range) = Range::of_file(Modes::MISSING | Modes::WRITE_PROTECT) else { return };
    range.uffd.write_protect(range.at(1), SMALL).unwrap();
    let (start, end) = (range.at(0) as u64, range.at(PAGES) as u64);
    let found = Present::of(std::process::id() as i32, start, end).unwrap();
    let hole = Present {
        start: range.at(1) as u64,
        end: range.at(2) as u64,
        is_own: true,
        is_resident: false,
        is_protected: true,
    };
    assert_eq!(found, [hole]);
    range.uffd.unprotect(range.at(1), SMALL).unwrap();
    assert_eq!(Present::of(std::process::id() as i32, start, end).unwrap(), []);
}

/// A process that gives pages up sleeps until that was read; what was read outlives the reader, and no page is put in place
/// before.
#[test]
fn what_was_given_up_is_known_before_pages_are_put_in_place() {
    use crate::shared_words::SharedWords;
    let Some(range) = Range::new(None, Modes::MISSING, abi::FEATURE_EVENT_REMOVE) else { return };
    let words = SharedWords::new(LOG_WORDS + 1).unwrap();
    let log = EventLog::new(&words).unwrap();
    let descriptor = range.uffd.as_fd().try_clone_to_owned().unwrap();
    let memory = PrivateMemory::adopt(descriptor).unwrap();
    assert_eq!(memory.read(&log).unwrap(), []);

    let reader = range.load(1);
    range.wait_for_event();
    let missing = PrivateEvent::Missing { address: range.at(1) as u64, is_write: false };
    assert_eq!(memory.read(&log).unwrap(), [missing]);
    memory.copy(range.at(1) as u64, &[0x5a; SMALL]).unwrap();
    assert_eq!(end(reader), 0x5a);
    assert!(matches!(memory.copy(range.at(1) as u64, &[1; SMALL]), Err((0, NotPlaced::Present))));

    let this = Arc::clone(&range);
    let gives_up = std::thread::spawn(move || {
        // SAFETY: the pages are the region's own, into which there are no references.
        let answer = unsafe { libc::madvise(this.region.pointer(0).cast(), 2 * SMALL, libc::MADV_DONTNEED) };
        assert_eq!(answer, 0);
    });
    range.wait_for_event();
    assert!(matches!(memory.copy(range.at(2) as u64, &[1; SMALL]), Err((0, NotPlaced::EventsFirst))));
    let removed = PrivateEvent::Removed { start: range.at(0) as u64, end: range.at(2) as u64 };
    assert_eq!(memory.read(&log).unwrap(), [removed]);
    end(gives_up);
    let file = words.as_fd().try_clone_to_owned().unwrap();
    drop(words);
    let next = SharedWords::open(file, LOG_WORDS + 1).unwrap();
    assert_eq!(EventLog::new(&next).unwrap().events(), [removed], "the next process does not know it");

    memory.zero(range.at(1) as u64, SMALL as u64).unwrap();
    assert_eq!(end(range.load(1)), 0);
    let reader = range.load(0);
    range.wait_for_event();
    memory.read(&EventLog::new(&next).unwrap()).unwrap();
    // Its event was read and not answered: it is told of again.
    memory.wake(range.at(0) as u64, SMALL as u64);
    range.wait_for_event();
    memory.copy(range.at(0) as u64, &[7; SMALL]).unwrap();
    assert_eq!(end(reader), 7);
}
