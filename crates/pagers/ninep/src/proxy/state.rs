//! The state of one client, behind its one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fids::{Dead, Fids};
use super::options::ProxyOptions;
use super::request::Asked;
use crate::dialect::Dialect;
use crate::message::{self, NO_TAG, kind};
use crate::stream::Stream;
use crate::wire::{Decoder, Encoder};

/// The tag of the proxy's own requests. Clients begin with small ones.
pub(super) const OWN_TAG: u16 = 0xfffe;
/// A tag that is never in use at the server, for Tflush to ask for.
const UNUSED_TAG: u16 = 0xfffd;
/// EIO, EMFILE, ENAMETOOLONG.
const FAILED: u32 = 5;
const TOO_LONG: u32 = 36;
const TOO_MANY: u32 = 24;

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    order: u64,
    bytes: Arc<[u8]>,
    kind: u8,
    asked: Asked,
    is_sent: bool,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Passed,
    /// The client is answered this.
    Answered(Vec<u8>),
    /// Nobody needs it.
    Dropped,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) version: Vec<u8>,
    pub(super) dialect: Dialect,
    pub(super) msize_bytes: u32,
    pub(super) fids: Fids,
    outstanding: BTreeMap<u16, Outstanding>,
    bytes: usize,
    next_order: u64,
    /// Tags of what is to be sent, in order.
    queue: VecDeque<u16>,
    pub(super) server: Option<Arc<Stream>>,
    pub(super) ended: Option<String>,
    pub(super) heard: Instant,
    pub(super) is_told: bool,
    probe: Probe,
    pub(super) why: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Probe {
    None,
    Wanted,
    Sent,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            version: Vec::new(),
            dialect: Dialect::Plan9,
            msize_bytes: 0,
            fids: Fids::default(),
            outstanding: BTreeMap::new(),
            bytes: 0,
            next_order: 0,
            queue: VecDeque::new(),
            server: None,
            ended: None,
            heard: Instant::now(),
            is_told: false,
            probe: Probe::None,
            why: String::new(),
        }
    }

    /// Whether another request may be read.
    pub(super) fn has_room(&self, options: &ProxyOptions) -> bool {
        self.outstanding.len() < options.requests && self.bytes < options.bytes
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.outstanding.is_empty()
    }

    pub(super) fn end(&mut self, why: impl Into<String>) {
        self.ended.get_or_insert(why.into());
        if let Some(server) = &self.server {
            server.shut_down();
        }
    }

    /// Takes a request of the client in; says why the client has to go if it breaks the protocol.
    pub(super) fn take_request(
        &mut self,
        bytes: &[u8],
        options: &ProxyOptions,
    ) -> Result<Fate, &'static str> {
        let mut from = Decoder::new(bytes);
        let header = from.u32().and_then(|_| Ok((from.u8()?, from.u16()?)));
        let (kind, tag) = header.map_err(|malformed| malformed.0)?;
        let asked = Asked::decode(kind, from.rest(), self.dialect).map_err(|malformed| malformed.0)?;
        if asked == Asked::Version {
            self.begin();
        } else if self.version.is_empty() {
            return Err("the first message is no Tversion");
        }
        if self.outstanding.contains_key(&tag) || (tag == NO_TAG && asked != Asked::Version) || tag == OWN_TAG
        {
            return Err("a tag is in use, or may not be used");
        }
        if let Some(answer) = self.answer_at_once(kind, tag, &asked, options) {
            return Ok(Fate::Answered(answer));
        }
        let bytes = match asked {
            Asked::Version => limited(bytes, options.msize_bytes),
            _ => bytes.into(),
        };
        if self.outstanding.is_empty() {
            self.heard = Instant::now();
        }
        self.bytes += bytes.len();
        let order = self.next_order;
        self.next_order += 1;
        self.outstanding.insert(tag, Outstanding { order, bytes, kind, asked, is_sent: false });
        self.queue.push_back(tag);
        Ok(Fate::Passed)
    }

    /// Tversion ends all that was.
    fn begin(&mut self) {
        self.outstanding.clear();
        self.queue.clear();
        self.bytes = 0;
        self.fids = Fids::default();
    }

    /// What the proxy answers itself.
    fn answer_at_once(
        &mut self,
        kind: u8,
        tag: u16,
        asked: &Asked,
        options: &ProxyOptions,
    ) -> Option<Vec<u8>> {
        if let Asked::Flush { old } = asked {
            let is_unsent = self.outstanding.get(old).is_some_and(|old| !old.is_sent);
            return is_unsent.then(|| {
                self.forget(*old);
                done(kind, tag)
            });
        }
        let adds = matches!(asked, Asked::Attach { .. } | Asked::Walk { .. } | Asked::AttributesWalk { .. });
        if adds && self.fids.fids.len() >= options.fids {
            return Some(self.error(tag, &Dead::new(TOO_MANY, "too many fids for this proxy")));
        }
        if let Asked::Walk { fid, names, .. } = asked
            && self.fids.is_too_long(*fid, names)
        {
            return Some(self.error(tag, &Dead::new(TOO_LONG, "the path is too long for this proxy")));
        }
        self.refuse(kind, tag, asked)
    }

    /// The answer to a request for a file that was lost, or for writes that were.
    fn refuse(&mut self, kind: u8, tag: u16, asked: &Asked) -> Option<Vec<u8>> {
        if let Some(dead) = self.fids.dead(asked.fid()) {
            self.fids.refused(asked);
            return Some(match asked {
                Asked::Clunk { .. } => done(kind, tag),
                _ => self.error(tag, &dead),
            });
        }
        match asked {
            Asked::Sync { fid } if self.fids.has_lost_writes(*fid) => {
                let words = "the connection to the server was lost with writes that were not synced";
                Some(self.error(tag, &Dead::new(FAILED, words)))
            }
            _ => None,
        }
    }

    fn error(&self, tag: u16, error: &Dead) -> Vec<u8> {
        let mut out = Vec::new();
        match self.dialect {
            Dialect::Linux => Encoder::new(&mut out, kind::RLERROR, tag).u32(error.number).end(),
            Dialect::Unix => {
                let message = Encoder::new(&mut out, kind::RERROR, tag).string(error.words.as_bytes());
                message.u32(error.number).end();
            }
            Dialect::Plan9 => Encoder::new(&mut out, kind::RERROR, tag).string(error.words.as_bytes()).end(),
        }
        out
    }

    fn forget(&mut self, tag: u16) -> Option<Outstanding> {
        let old = self.outstanding.remove(&tag)?;
        self.bytes = self.bytes.saturating_sub(old.bytes.len());
        self.queue.retain(|queued| *queued != tag);
        Some(old)
    }

    /// Takes an answer of the server in; says how it breaks the protocol if it does.
    pub(super) fn take_reply(&mut self, bytes: &[u8]) -> Result<Fate, &'static str> {
        let mut from = Decoder::new(bytes);
        let header = from.u32().and_then(|_| Ok((from.u8()?, from.u16()?)));
        let (kind, tag) = header.map_err(|malformed| malformed.0)?;
        self.heard = Instant::now();
        if tag == OWN_TAG {
            self.probe = Probe::None;
            return Ok(Fate::Dropped);
        }
        // Answers to what was flushed, or was before a Tversion.
        let Some(outstanding) = self.outstanding.get(&tag).filter(|it| it.is_sent) else {
            return Ok(Fate::Dropped);
        };
        let is_error = matches!(kind, kind::RERROR | kind::RLERROR);
        if !is_error && kind != outstanding.kind.wrapping_add(1) {
            return Err("an answer has another type");
        }
        let Some(Outstanding { asked, .. }) = self.forget(tag) else { return Ok(Fate::Dropped) };
        match &asked {
            _ if is_error => self.fids.refused(&asked),
            Asked::Flush { old } => drop(self.forget(*old)),
            Asked::Version => self.agreed(from)?,
            _ => self.fids.done(&asked, (kind, from.rest()), self.dialect),
        }
        Ok(Fate::Passed)
    }

    fn agreed(&mut self, mut reply: Decoder<'_>) -> Result<(), &'static str> {
        let (msize, version) =
            reply.u32().and_then(|msize| Ok((msize, reply.string()?))).map_err(|it| it.0)?;
        self.fids = Fids::default();
        if let Some(dialect) = Dialect::named(version) {
            (self.msize_bytes, self.dialect, self.version) = (msize, dialect, version.to_vec());
        }
        Ok(())
    }

    /// What is to be sent next.
    pub(super) fn next_to_send(&mut self) -> Option<Arc<[u8]>> {
        self.server.as_ref()?;
        if self.probe == Probe::Wanted {
            self.probe = Probe::Sent;
            let mut out = Vec::new();
            message::flush(&mut out, OWN_TAG, UNUSED_TAG);
            return Some(out.into());
        }
        let tag = self.queue.pop_front()?;
        let outstanding = self.outstanding.get_mut(&tag)?;
        outstanding.is_sent = true;
        Some(Arc::clone(&outstanding.bytes))
    }

    /// The connection to the server is lost. What was with it is sent again if that does no harm; what is answered instead
    /// is returned.
    pub(super) fn connection_lost(&mut self) -> Vec<Vec<u8>> {
        self.server = None;
        self.probe = Probe::None;
        self.fids.connection_lost();
        let mut answers = Vec::new();
        let sent: Vec<u16> =
            self.outstanding.iter().filter(|(_, it)| it.is_sent).map(|(tag, _)| *tag).collect();
        for tag in sent {
            let Some(it) = self.outstanding.get_mut(&tag) else { continue };
            it.is_sent = false;
            let asked = it.asked.clone();
            let kind = it.kind;
            if let Asked::Flush { old } = asked {
                self.forget(old);
                answers.push(done(kind, tag));
            } else if asked.can_be_repeated() && !self.fids.appends(&asked) {
                continue;
            } else {
                self.fids.refused(&asked);
                let words = "the connection to the server was lost: it is not known whether this was done";
                answers.push(self.error(tag, &Dead::new(FAILED, words)));
            }
            self.forget(tag);
        }
        answers
    }

    /// There is a new connection, on which all fids are there again but those that are dead now. What is answered instead of
    /// being sent is returned.
    pub(super) fn connected(&mut self, server: Arc<Stream>) -> Vec<Vec<u8>> {
        let mut tags: Vec<_> = self.outstanding.iter().map(|(tag, it)| (it.order, *tag)).collect();
        tags.sort_unstable();
        self.queue = tags.into_iter().map(|(_, tag)| tag).collect();
        let mut answers = Vec::new();
        for tag in self.queue.clone() {
            let Some(it) = self.outstanding.get(&tag) else { continue };
            let (kind, asked) = (it.kind, it.asked.clone());
            if let Some(answer) = self.refuse(kind, tag, &asked) {
                self.forget(tag);
                answers.push(answer);
            }
        }
        (self.server, self.heard) = (Some(server), Instant::now());
        answers
    }

    /// Looks at the silence. Whether the connection has to be given up.
    pub(super) fn is_silent_for(&mut self, limit: Duration, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.heard);
        let is_asked = self.outstanding.values().any(|it| it.is_sent);
        if is_asked && silent >= limit / 2 && self.probe == Probe::None {
            self.probe = Probe::Wanted;
        }
        is_asked && silent >= limit
    }
}

/// The answer without content to a request of this type.
fn done(kind: u8, tag: u16) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(&mut out, kind.wrapping_add(1), tag).end();
    out
}

/// A Tversion that offers at most `most` bytes.
fn limited(bytes: &[u8], most: u32) -> Arc<[u8]> {
    let mut bytes = bytes.to_vec();
    if let Some(field) = bytes.get_mut(7..11) {
        let offered = u32::from_le_bytes(field.try_into().unwrap_or_default()).min(most);
        field.copy_from_slice(&offered.to_le_bytes());
    }
    bytes.into()
}
