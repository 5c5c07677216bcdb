//! What a server before has left with the keeper, and how it is taken over.
//!
//! ```text
//!   objects    opened again, if they are what they were: pages, also Dirty ones, are inherited
//!   sessions   objects and numbers by their record; answers that wait are sent; requests are begun again
//!   mappings   their guests are admitted again
//! ```
//!
//! Nobody is served meanwhile: faults sleep, requests wait in their sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use memobj::pagers::{self, Pager};
use memobj::{FailurePolicy, GuestProt, KeptGuest, KeptObject, MemoryObject, ObjectOptions};
use memobj_linux::file::FileVersion;
use tracing::{error, info, warn};

use super::client::value_of;
use super::exports::{Access, OpenFailure};
use super::input::Input;
use super::mappings::{self, parse_prot, prot_word};
use super::objects::{Key, Opening, Use, parse_policy, policy_word};
use super::output::Output;
use super::queue::Queue;
use super::quota::{OF_CLIENT, Share};
use super::record::{Again, Record};
use super::refusal::Refusal;
use super::server::Shared;
use super::session::{Opened, Session};
use super::words::Fields;
use crate::keep::{Kept, KeptItem, Kind};
use crate::peer::Peer;

/// Pages of an object, as the keeper has them.
pub(super) struct LeftObject {
    pub(super) item: u64,
    pub(super) pages: KeptObject,
}

/// A session that goes on.
pub(super) struct LeftSession {
    pub(super) session: Arc<Session>,
    pub(super) client: Share,
    pub(super) socket: UnixStream,
    pub(super) input: Input,
    pub(super) again: Vec<Again>,
}

/// What the keeper is told of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ObjectText {
    key: Key,
    name: String,
    access: Access,
    policy: FailurePolicy,
    version: Option<String>,
    length: u64,
    capacity: u64,
}

impl ObjectText {
    pub(super) fn of(
        opening: &Opening<'_>,
        policy: FailurePolicy,
        object: &MemoryObject,
        pages: &KeptObject,
    ) -> Self {
        Self {
            key: opening.key.clone(),
            name: opening.name.to_owned(),
            access: opening.access,
            policy,
            version: object.version().map(ToOwned::to_owned),
            length: pages.length,
            capacity: pages.capacity,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let get = |key| value_of(text, key);
        let number = |key| get(key)?.parse::<u64>().ok();
        let key = match get("key") {
            Some(name) => Key::Name(name),
            None => Key::File(number("device")?, number("inode")?),
        };
        let access = match get("access")?.as_str() {
            "ro" => Access::ReadOnly,
            "rw" => Access::ReadWrite,
            _ => return None,
        };
        Some(Self {
            key,
            name: get("name")?,
            access,
            policy: parse_policy(&get("policy")?)?,
            version: get("version"),
            length: number("length")?,
            capacity: number("capacity")?,
        })
    }
}

impl fmt::Display for ObjectText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = match &self.key {
            Key::Name(name) => Fields::new().with("key", super::encode(name)),
            Key::File(device, inode) => Fields::new().with("device", device).with("inode", inode),
        };
        let access = if self.access == Access::ReadWrite { "rw" } else { "ro" };
        let fields = fields.with("name", super::encode(&self.name)).with("access", access);
        let fields = fields.with("policy", policy_word(self.policy));
        let fields = fields.with("length", self.length).with("capacity", self.capacity);
        match &self.version {
            Some(version) => fields.with("version", super::encode(version)).fmt(f),
            None => fields.fmt(f),
        }
    }
}

/// What the keeper is told of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MappingText {
    pub(super) session: u64,
    pub(super) number: u64,
    pub(super) object: u64,
    /// That made it.
    pub(super) request: u64,
}

impl MappingText {
    pub(super) fn with(self, guest: &KeptGuest) -> Fields {
        Fields::new()
            .with("session", self.session)
            .with("number", self.number)
            .with("object", self.object)
            .with("request", self.request)
            .with("start", guest.start)
            .with("offset", guest.offset)
            .with("length", guest.length)
            .with("prot", prot_word(guest.prot))
    }

    fn parse(text: &str) -> Option<(Self, [u64; 3], GuestProt)> {
        let number = |key| value_of(text, key)?.parse::<u64>().ok();
        let prot = parse_prot(&value_of(text, "prot")?)?;
        let mapping = Self {
            session: number("session")?,
            number: number("number")?,
            object: number("object")?,
            request: number("request")?,
        };
        Some((mapping, [number("start")?, number("offset")?, number("length")?], prot))
    }
}

/// Takes everything over that the keeper has. What cannot be is forgotten, and told by the log.
pub(super) fn take_over(server: &Arc<Shared>) -> Vec<LeftSession> {
    let Some(kept) = server.kept.clone() else { return Vec::new() };
    let objects = take_over_objects(server, &kept);
    let mut sessions = Vec::new();
    for item in kept.take(Kind::Session) {
        let (number, pid) = (item.number, item.pid);
        match session(server, item, &objects) {
            Ok(left) => sessions.push(left),
            Err(why) => {
                kept.forget(Kind::Session, number);
                let process = pid;
                server.log.with(|| {
                    warn!(client = number, process, why, "client {number} cannot be taken over: {why}");
                });
            }
        }
    }
    for item in kept.take(Kind::Mapping) {
        let number = item.number;
        if let Err(why) = mapping(&sessions, item) {
            kept.forget(Kind::Mapping, number);
            server.log.with(|| warn!(why, "a mapping cannot be taken over: {why}"));
        }
    }
    // From here on everything is seen that anybody stores.
    objects.values().for_each(|used| used.object.guests_are_back());
    sessions
}

fn take_over_objects(server: &Arc<Shared>, kept: &Kept) -> BTreeMap<u64, Use> {
    let mut objects = BTreeMap::new();
    for item in kept.take(Kind::Object) {
        let number = item.number;
        let text = ObjectText::parse(&item.text);
        let taken = text.clone().ok_or_else(|| "it is not said what it is".to_owned());
        match taken.and_then(|text| object(server, &text, item)) {
            Ok(used) => drop(objects.insert(number, used)),
            Err(why) => {
                kept.forget(Kind::Object, number);
                let name = text.map(|text| text.name).unwrap_or_default();
                server.log.with(|| {
                    warn!(object = name, why, "{name}: it cannot be taken over, its mappings trap: {why}");
                });
            }
        }
    }
    objects
}

fn object(server: &Arc<Shared>, text: &ObjectText, item: KeptItem) -> Result<Use, String> {
    let Ok([frames, tables, file]) = <[OwnedFd; 3]>::try_from(item.descriptors) else {
        return Err("it has not all descriptors".into());
    };
    let file = File::from(file);
    let pages = KeptObject { frames, tables, length: text.length, capacity: text.capacity };
    let opener = |options: &ObjectOptions| open(server, text, &file, options);
    let opening = Opening {
        key: text.key.clone(),
        name: &text.name,
        access: text.access,
        policy: Some(text.policy),
        default_policy: server.options.policy,
        pager: &opener,
        file: matches!(text.key, Key::File(..)).then_some(&file),
    };
    let taken = server.objects.take_over(&opening, LeftObject { item: item.number, pages });
    let (used, found) = taken.map_err(|refusal| refusal.to_string())?;
    let (name, resident, dirty, lost) =
        (&text.name, found.resident_bytes, found.dirty_bytes, found.lost_bytes);
    server.log.with(|| match lost {
        0 => info!(
            object = name,
            resident,
            dirty,
            "{name}: taken over with {resident} bytes in memory, {dirty} of them not written yet"
        ),
        _ => error!(object = name, lost, "{name}: taken over; {lost} bytes of changes are lost"),
    });
    Ok(used)
}

/// The pager of an object, if it is of the bytes that the object had.
fn open(
    server: &Shared,
    text: &ObjectText,
    file: &File,
    options: &ObjectOptions,
) -> Result<Box<dyn Pager>, OpenFailure> {
    let pager = match &text.key {
        Key::Name(name) => {
            let export = server.exports.get(name).ok_or("it is not exported any more")?;
            if text.access == Access::ReadWrite && export.access == Access::ReadOnly {
                return Err("it may only be read now".into());
            }
            (export.opener)(options)?
        }
        Key::File(..) => Box::new(pagers::File::open_descriptor(file)?),
    };
    let description = pager.describe();
    if description.length() != text.length {
        return Err(format!("it has {} bytes now, and had {}", description.length(), text.length).into());
    }
    if !is_same(description.version_name(), text.version.as_deref()) {
        return Err(match text.version {
            Some(_) => "it has another version now".into(),
            None => "whether it is the same cannot be told".into(),
        });
    }
    Ok(pager)
}

/// Whether two versions have the same bytes. Of a file, names are none of them.
fn is_same(now: Option<&str>, before: Option<&str>) -> bool {
    let file = |version: Option<&str>| FileVersion::parse(version?);
    match (file(now), file(before)) {
        (Some(now), Some(before)) => now.is_same_bytes(&before),
        // Of what has no version nobody can tell.
        _ => now.is_some() && now == before,
    }
}

fn session(
    server: &Arc<Shared>,
    item: KeptItem,
    objects: &BTreeMap<u64, Use>,
) -> Result<LeftSession, String> {
    let Ok([socket, record, answers]) = <[OwnedFd; 3]>::try_from(item.descriptors) else {
        return Err("it has not all descriptors".into());
    };
    let system = |error: std::io::Error| error.to_string();
    let socket = UnixStream::from(socket);
    let peer = Peer::of(&socket).map_err(system)?;
    let queue = Queue::open(answers).map_err(system)?;
    let (record, again, incoming) = Record::open(record, queue.end()).map_err(system)?;
    let record = Arc::new(record);
    let quota = &server.options.quota;
    let client = server.client().ok_or("there are too many clients")?;
    let descriptors = server.descriptors.take(OF_CLIENT, quota.descriptors);
    let descriptors = descriptors.ok_or("no descriptors are left")?;
    let input = Input::kept(&record, incoming);
    let output = Output::kept(queue, &record, quota.event_bytes).map_err(system)?;
    let session = Session::over(item.number, peer, Arc::clone(server), (output, Some(record)), descriptors);
    restore(&session, objects);
    if session.wants_events.load(std::sync::atomic::Ordering::Acquire) {
        session.output.event("* replaced\n".into());
    }
    Ok(LeftSession { session: Arc::new(session), client, socket, input, again })
}

/// The objects that a session had, as far as they could be taken over.
fn restore(session: &Session, objects: &BTreeMap<u64, Use>) {
    let Some(record) = &session.record else { return };
    let mut state = session.state();
    (state.last_object, state.last_mapping) = (record.last_object(), record.last_mapping());
    for left in record.objects().collect::<Vec<_>>() {
        match objects.get(&left.item) {
            Some(used) => {
                let opened = Opened { number: left.number, used: used.clone(), may_write: left.may_write };
                state.objects.insert(left.number, Arc::new(opened));
            }
            None => {
                record.remove_object(left.number);
                let gone = Fields::new().with("object", left.number);
                session.output.event(format!("* gone{gone}\n"));
            }
        }
    }
}

fn mapping(sessions: &[LeftSession], item: KeptItem) -> Result<(), String> {
    let text = String::from_utf8(item.text).unwrap_or_default();
    let (text, [start, offset, length], prot) =
        MappingText::parse(&text).ok_or("it is not said what it is")?;
    let Ok([faults, process, line]) = <[OwnedFd; 3]>::try_from(item.descriptors) else {
        return Err("it has not all descriptors".into());
    };
    let session = sessions.iter().find(|left| left.session.number == text.session);
    let session = session.ok_or_else(|| format!("its client {} is not there", text.session))?;
    let guest = KeptGuest { faults, process, line, start, offset, length, prot };
    let taken = mappings::take_over(&session.session, item.number, &text, guest);
    taken.map_err(|refusal: Refusal| format!("mapping {} of client {}: {refusal}", text.number, text.session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_keeper_is_told_is_understood() {
        for (key, version) in [
            (Key::Name("a b=%".into()), Some("1 2".to_owned())),
            (Key::File(7, u64::MAX), None),
            (Key::Name(String::new()), Some(String::new())),
        ] {
            let text = ObjectText {
                key,
                name: "x y".into(),
                access: Access::ReadWrite,
                policy: FailurePolicy::FailAtOnce,
                version,
                length: 1,
                capacity: 2,
            };
            assert_eq!(ObjectText::parse(text.to_string().trim().as_bytes()), Some(text));
        }
        assert_eq!(ObjectText::parse(b"key=a name=b"), None);
        assert_eq!(ObjectText::parse(b"\xff"), None);
    }
}
