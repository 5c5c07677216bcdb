//! Faults of guests: read from their userfaultfds, resolved as those of this process.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use memobj_core::address::PageIndex;
use memobj_core::decide::{Decision, Fault, Wish, decide};
use memobj_linux::ring::{ReadFile, Repeat};
use memobj_linux::uffd::{EventBuffer, FaultEvent, FaultKind};
use rustix::event::epoll;

use super::resolve::Resolver;
use super::{Driver, KEY_GUESTS};
use crate::store::{GuestEnd, GuestProt, GuestState};
use crate::write::{Access, Stored};

/// Descriptors that are looked at in one round.
const ROUND: usize = 32;
/// Rounds in a row, so that guests who fault without an end leave time for others.
const ROUNDS: usize = 4;
/// What a descriptor of guest `n` is, in `n * PARTS + part`.
const PARTS: u64 = 3;
const FAULTS: u64 = 0;
const LINE: u64 = 1;
const PROCESS: u64 = 2;

/// The guests of all objects of a cache.
#[derive(Default)]
pub(super) struct Guests {
    /// One descriptor for all of theirs, since what the ring watches is watched for ever.
    poll: Option<OwnedFd>,
    known: HashMap<u64, Arc<GuestState>>,
    next: u64,
    news: bool,
    /// Stores that cannot go on now.
    held_up: Vec<(Arc<GuestState>, PageIndex)>,
    events: EventBuffer,
}

impl Guests {
    /// Whether nothing is to be done before a descriptor tells of something.
    pub(super) fn are_idle(&self) -> bool {
        self.held_up.is_empty() && !self.news
    }

    /// A descriptor has told of something.
    pub(super) fn have_news(&mut self) {
        self.news = true;
    }

    /// Lets go of all.
    pub(super) fn end_all(&mut self) {
        for (_, guest) in self.known.drain() {
            guest.end(GuestEnd::Broken);
        }
    }

    /// Lets go of a guest that was dismissed.
    pub(super) fn forget(&mut self, guest: &Arc<GuestState>) {
        let number =
            self.known.iter().find(|(_, known)| Arc::ptr_eq(known, guest)).map(|(number, _)| *number);
        if let (Some(number), Some(poll)) = (number, &self.poll) {
            self.known.remove(&number);
            unwatch(poll, guest);
        }
        self.held_up.retain(|(held, _)| !Arc::ptr_eq(held, guest));
    }
}

fn unwatch(poll: &OwnedFd, guest: &GuestState) {
    // Refused for what was never added.
    let _ = epoll::delete(poll, &*guest.uffd);
    let _ = epoll::delete(poll, &*guest.line);
    let _ = epoll::delete(poll, &guest.process);
}

fn watch(poll: &OwnedFd, guest: &GuestState, number: u64) -> io::Result<()> {
    let data = |part| epoll::EventData::new_u64(number * PARTS + part);
    epoll::add(poll, &*guest.uffd, data(FAULTS), epoll::EventFlags::IN)?;
    epoll::add(poll, &*guest.line, data(LINE), epoll::EventFlags::IN)?;
    Ok(epoll::add(poll, &guest.process, data(PROCESS), epoll::EventFlags::IN)?)
}

impl Driver {
    /// Resolves the faults of `guest` from now on.
    pub(super) fn admit(&mut self, guest: Arc<GuestState>) {
        let number = self.guests.next;
        self.guests.next += 1;
        let watched = self.guest_poll().and_then(|poll| watch(poll, &guest, number));
        if watched.is_err() {
            // Its faults would sleep for ever.
            if let Some(poll) = &self.guests.poll {
                unwatch(poll, &guest);
            }
            return guest.end(GuestEnd::Broken);
        }
        self.guests.known.insert(number, guest);
        self.guests.news = true;
    }

    fn guest_poll(&mut self) -> io::Result<&OwnedFd> {
        if self.guests.poll.is_none() {
            let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            self.ring.watch(ReadFile::new(poll.as_fd().try_clone_to_owned()?), KEY_GUESTS, Repeat::Always)?;
            self.guests.poll = Some(poll);
        }
        self.guests.poll.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Does what guests wait for.
    pub(super) fn serve_guests(&mut self) {
        for (guest, page) in std::mem::take(&mut self.guests.held_up) {
            if !guest.store.is_closed() {
                self.guest_store(&guest, page);
            }
        }
        if !self.guests.news {
            return;
        }
        for _ in 0..ROUNDS {
            let ready = self.ready_guests();
            if ready.is_empty() {
                self.guests.news = false;
                return;
            }
            for (number, part) in ready {
                let Some(guest) = self.guests.known.get(&number).cloned() else { continue };
                match part {
                    FAULTS => self.read_guest_faults(&guest),
                    // A guest has nothing to say: it has hung up, or talks nonsense.
                    _ => self.end_guest(&guest, GuestEnd::Left),
                }
            }
        }
    }

    /// Guests and parts of them that tell of something.
    fn ready_guests(&self) -> Vec<(u64, u64)> {
        let Some(poll) = &self.guests.poll else { return Vec::new() };
        let mut events = Vec::with_capacity(ROUND);
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)).is_err() {
            return Vec::new();
        }
        events.iter().map(|event| (event.data.u64() / PARTS, event.data.u64() % PARTS)).collect()
    }

    fn end_guest(&mut self, guest: &Arc<GuestState>, end: GuestEnd) {
        self.guests.forget(guest);
        guest.end(end);
    }

    fn read_guest_faults(&mut self, guest: &Arc<GuestState>) {
        let mut events = std::mem::take(&mut self.guests.events);
        match guest.uffd.read_events_of_another(&mut events) {
            // Of a descriptor that blocks, and so is none of ours, the kernel tells that it is ready at all times.
            Ok(0) | Err(_) if !is_nonblocking(guest) => self.end_guest(guest, GuestEnd::Broken),
            Ok(count) => {
                for event in events.faults(count) {
                    self.guest_fault(guest, event);
                }
            }
            Err(_) => self.end_guest(guest, GuestEnd::Broken),
        }
        self.guests.events = events;
    }

    fn guest_fault(&mut self, guest: &Arc<GuestState>, event: FaultEvent) {
        let store = &guest.store;
        let offset =
            event.address.checked_sub(guest.start).filter(|offset| *offset < store.area.view_bytes());
        let Some(offset) = offset.map(|offset| offset as u64) else { return };
        store.object.tell.counters.faults.add(1);
        let page = PageIndex(offset >> store.area.page_size().shift());
        if store.area.is_outside(page) {
            return store.area.trap_outside(offset);
        }
        if event.kind == FaultKind::Missing {
            store.errors.look(page, offset);
        }
        if event.is_write {
            return self.guest_store(guest, page);
        }
        self.guest_load(guest, page);
    }

    /// Shows `page` to a guest whose load faulted, or sees to it that it becomes resident: then the load faults again.
    fn guest_load(&mut self, guest: &Arc<GuestState>, page: PageIndex) {
        let area = &guest.store.area;
        match decide(area.word(page), Wish::Load(Fault::Any)) {
            Decision::Show => area.show(page, guest.viewer()),
            _ => self.resolve(&guest.store, page, Access::Load),
        }
    }

    /// As for stores of this process: `page` is opened, or becomes resident first.
    fn guest_store(&mut self, guest: &Arc<GuestState>, page: PageIndex) {
        let store = &guest.store;
        let Some(writes) = &store.writes else { return };
        if guest.prot == GuestProt::ReadOnly {
            return self.end_guest(guest, GuestEnd::Broken);
        }
        if self.store_or_resolve(writes, store, page, guest.viewer()) == Stored::NotNow {
            self.guests.held_up.push((Arc::clone(guest), page));
        }
    }
}

fn is_nonblocking(guest: &GuestState) -> bool {
    let flags = rustix::fs::fcntl_getfl(&*guest.uffd);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}
