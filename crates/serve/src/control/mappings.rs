//! Mappings of clients: guests of the library.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memobj::{AdmitError, AdmitOptions, Guest, GuestEnd, GuestProt, KeptGuest};
use memobj_linux::area::MOST_GUESTS;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use super::input::Input;
use super::long;
use super::objects::OpenObject;
use super::quota::{OF_MAPPING, Share};
use super::refusal::Refusal;
use super::requests::{Arguments, Asked, Taken, check_writable, refuse_again};
use super::session::{Session, State};
use super::take_over::MappingText;
use super::words::Fields;
use crate::keep::{Kept, Kind};

/// One mapping of a client.
pub(super) struct Mapped {
    pub(super) guest: Guest,
    pub(super) object: u64,
    /// By which the keeper has it.
    _item: Option<Item>,
    _shares: [Share; 4],
}

/// Dropped, the keeper forgets a mapping.
struct Item {
    kept: Arc<Kept>,
    number: u64,
}

impl Drop for Item {
    fn drop(&mut self) {
        self.kept.forget(Kind::Mapping, self.number);
    }
}

impl State {
    /// How many mappings of an object there are, if there are any.
    pub(super) fn mappings_of(&self, object: u64) -> Option<usize> {
        let count = self.mappings.values().filter(|mapped| mapped.object == object).count();
        (count > 0).then_some(count)
    }
}

/// `map OBJECT rw|ro`, with one end of a pair of sockets.
pub(super) fn map(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
    input: &mut Input,
) -> Result<Taken, Refusal> {
    if let Some(number) = mapped_before(session, asked) {
        return Ok(Taken::Done(Fields::new().with("mapping", number)));
    }
    refuse_again(asked)?;
    let descriptor = input.take_descriptor()?;
    let opened = arguments.object(session)?;
    let prot = parse_prot(arguments.word("ro, private or rw")?)
        .ok_or_else(|| Refusal::syntax("a mapping is ro, private or rw"))?;
    arguments.end()?;
    if prot == GuestProt::ReadWrite {
        check_writable(&opened)?;
    }
    let stream = stream_of(descriptor)?;
    let shares = shares(session, &opened.used)?;
    let timeout = session.server.options.attach;
    let request = asked.ticket.map_or(0, |ticket| ticket.number);
    long::begin(session, asked, move |session| {
        let options = AdmitOptions::new().prot(prot).timeout(timeout);
        let guest = opened.used.object.admit(stream, options).map_err(|error| match error {
            AdmitError::TooManyGuests => Refusal::quota("guests", MOST_GUESTS as u64),
            error => error.into(),
        })?;
        let mut state = session.state();
        // The end of the session takes what is in its state: either this, or it is over by now.
        if session.is_over() || !state.objects.contains_key(&opened.number) {
            drop(state);
            drop(guest);
            return Err(Refusal::not_found("object"));
        }
        let number = state.new_mapping();
        if let Some(record) = &session.record {
            record.set_last_mapping(number);
        }
        let text = MappingText { session: session.number, number, object: opened.number, request };
        let item = keep(session, &guest, text)?;
        state.mappings.insert(number, Mapped { guest, object: opened.number, _item: item, _shares: shares });
        Ok(Fields::new().with("mapping", number))
    })
}

/// The mapping that the request has made already, if a server before has taken it.
fn mapped_before(session: &Session, asked: Asked<'_>) -> Option<u64> {
    let ticket = asked.ticket.filter(|ticket| ticket.is_again)?;
    session.state().mapped_by.get(&ticket.number).copied()
}

/// Has the keeper keep a mapping, if there is one.
fn keep(session: &Session, guest: &Guest, text: MappingText) -> Result<Option<Item>, Refusal> {
    let Some(kept) = &session.server.kept else { return Ok(None) };
    let left = guest.kept()?;
    let number = session.server.last_mapping_item.fetch_add(1, Ordering::Relaxed) + 1;
    let text = text.with(&left).to_string();
    let descriptors = [left.faults.as_fd(), left.process.as_fd(), left.line.as_fd()];
    kept.keep(Kind::Mapping, (number, session.peer.process), text.as_bytes(), &descriptors)
        .map_err(|error| Refusal::system("tell the keeper of a mapping", &error))?;
    Ok(Some(Item { kept: Arc::clone(kept), number }))
}

/// Takes over a mapping that a server before has left as the item `number` of the keeper.
pub(super) fn take_over(
    session: &Session,
    number: u64,
    text: &MappingText,
    left: KeptGuest,
) -> Result<(), Refusal> {
    let server = &session.server;
    server.last_mapping_item.fetch_max(number, Ordering::Relaxed);
    let item = server.kept.as_ref().map(|kept| Item { kept: Arc::clone(kept), number });
    let opened = session.object(text.object)?;
    let shares = shares(session, &opened.used)?;
    let guest = opened.used.object.admit_again(left)?;
    let mut state = session.state();
    state.mapped_by.insert(text.request, text.number);
    state.mappings.insert(text.number, Mapped { guest, object: text.object, _item: item, _shares: shares });
    Ok(())
}

/// What a client has to have for one more mapping.
fn shares(session: &Session, open: &OpenObject) -> Result<[Share; 4], Refusal> {
    let quota = &session.server.options.quota;
    let take = |counter: &super::quota::Counter, amount, most, which| {
        counter.take(amount, most).ok_or_else(|| Refusal::quota(which, most))
    };
    Ok([
        take(&session.mapped, 1, quota.mappings, "mappings")?,
        take(&session.mapped_bytes, open.object.len(), quota.mapped_bytes, "mapped-bytes")?,
        take(&open.guests, 1, quota.guests, "guests")?,
        take(&session.server.descriptors, OF_MAPPING, quota.descriptors, "descriptors")?,
    ])
}

fn stream_of(descriptor: OwnedFd) -> Result<UnixStream, Refusal> {
    let is_unix = socket_domain(&descriptor).is_ok_and(|domain| domain == AddressFamily::UNIX);
    let is_stream = socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
    match is_unix && is_stream {
        true => Ok(descriptor.into()),
        false => Err(Refusal::descriptor("it is no Unix stream socket")),
    }
}

/// What a mapping may do, as clients write it.
pub(super) fn parse_prot(word: &str) -> Option<GuestProt> {
    match word {
        "ro" => Some(GuestProt::ReadOnly),
        "private" => Some(GuestProt::Private),
        "rw" => Some(GuestProt::ReadWrite),
        _ => None,
    }
}

/// The same, to be written.
pub(super) fn prot_word(prot: GuestProt) -> &'static str {
    match prot {
        GuestProt::ReadWrite => "rw",
        GuestProt::Private => "private",
        _ => "ro",
    }
}

/// `unmap MAPPING`.
pub(super) fn unmap(
    session: &Session,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let number = arguments.number("the mapping")?;
    arguments.end()?;
    let removed = session.state().mappings.remove(&number);
    if removed.is_none() && asked.is_again() {
        // A server before had done it, and could not say so any more.
        return Ok(Taken::Done(Fields::new()));
    }
    let mapped = removed.ok_or_else(|| Refusal::not_found("mapping"))?;
    drop(mapped);
    Ok(Taken::Done(Fields::new()))
}

/// Takes the mappings out that have ended by themselves, and tells the client.
pub(super) fn forget_ended(session: &Session) {
    let mut state = session.state();
    let has_ended = |(number, mapped): (&u64, &Mapped)| mapped.guest.end().map(|_| *number);
    let numbers: Vec<u64> = state.mappings.iter().filter_map(has_ended).collect();
    let ended: Vec<_> =
        numbers.iter().filter_map(|number| Some((*number, state.mappings.remove(number)?))).collect();
    drop(state);
    for (number, mapped) in ended {
        let why = match mapped.guest.end() {
            Some(GuestEnd::Left) => "left",
            Some(GuestEnd::Dismissed) => "dismissed",
            _ => "broken",
        };
        let fields = Fields::new().with("mapping", number).with("object", mapped.object);
        session.event(&fields.with("why", why), "ended");
    }
}
