//! Lists of clients and objects, for who looks after the server.

use std::collections::BTreeMap;

use super::exports::Access;
use super::refusal::{Kind, Refusal};
use super::requests::{Arguments, Taken};
use super::session::Session;
use super::words::{Fields, LONGEST_LINE, encode_short};

/// What is left for the words behind the entries.
const RESERVED: usize = 100;

/// Refuses all but root and the user of the server: what one client has is nobody else's affair.
fn check_owner(session: &Session) -> Result<(), Refusal> {
    let user = session.peer.user;
    match user == 0 || user == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(Refusal::new(Kind::Denied, "only the user of the server and root may ask")),
    }
}

/// As many of `words` as a line takes; where to go on if there are more.
fn listed(key: &str, count: usize, words: impl Iterator<Item = (u64, String)>) -> Taken {
    let mut fields = Fields::new().with("count", count);
    for (listed, (number, word)) in words.enumerate() {
        if fields.len() + key.len() + word.len() + RESERVED > LONGEST_LINE && listed > 0 {
            return Taken::Done(fields.with("next", number));
        }
        fields = fields.with(key, word);
    }
    Taken::Done(fields)
}

/// `clients [FROM]`: `NUMBER:PROCESS:USER:OBJECTS:MAPPINGS:BYTES:REQUESTS` of each.
pub(super) fn clients(session: &Session, arguments: &mut Arguments<'_>) -> Result<Taken, Refusal> {
    let from = arguments.number_or(0)?;
    check_owner(session)?;
    let sessions = session.server.sessions();
    let rest = sessions.iter().filter(|other| other.number >= from);
    let word = |other: &Session| {
        let (peer, objects) = (other.peer, other.state().objects.len());
        let (mappings, bytes) = (other.mapped.taken(), other.mapped_bytes.taken());
        let requests = other.running.taken();
        format!("{}:{}:{}:{objects}:{mappings}:{bytes}:{requests}", other.number, peer.process, peer.user)
    };
    Ok(listed("client", sessions.len(), rest.map(|other| (other.number, word(other)))))
}

/// `objects [FROM]`: `ro|rw:LENGTH:CLIENTS:MAPPINGS:FAULTS:SUPPLIED:NAME` of each.
pub(super) fn objects(session: &Session, arguments: &mut Arguments<'_>) -> Result<Taken, Refusal> {
    let from = arguments.number_or(0)?;
    check_owner(session)?;
    let mut users: BTreeMap<String, u64> = BTreeMap::new();
    for other in session.server.sessions() {
        let state = other.state();
        let names: std::collections::BTreeSet<_> =
            state.objects.values().map(|opened| opened.used.object.name().to_owned()).collect();
        drop(state);
        names.into_iter().for_each(|name| *users.entry(name).or_default() += 1);
    }
    let all = session.server.objects.look_at_all(|open| {
        let (object, metrics) = (&open.object, open.object.metrics());
        let access = if open.access == Access::ReadWrite { "rw" } else { "ro" };
        let clients = users.get(object.name()).copied().unwrap_or(0);
        let (mappings, faults, supplied) = (open.guests.taken(), metrics.faults, metrics.supplied_pages);
        let name = encode_short(object.name());
        format!("{access}:{}:{clients}:{mappings}:{faults}:{supplied}:{name}", object.len())
    });
    let count = all.len();
    let rest = (0u64..).zip(all).skip(usize::try_from(from).unwrap_or(usize::MAX));
    Ok(listed("object", count, rest))
}
