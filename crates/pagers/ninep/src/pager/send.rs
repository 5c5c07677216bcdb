//! What is sent next.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::job::{Job, Part, Work};
use super::state::{Connection, Flush, Sent, State, What};
use crate::counters::Counters;
use crate::dialect::Dialect;
use crate::message::{self, kind};
use crate::options::VersionCheck;
use crate::session::FILE;

/// No message is added to so many bytes. Bounds the buffer, with one message behind it.
const BATCH_BYTES: usize = 64 << 10;
/// The least time between two looks at the version with [`VersionCheck::Mtime`].
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// The type of the message that asks for `what`.
pub(super) fn request_kind(what: &What, dialect: Dialect) -> u8 {
    let is_linux = dialect == Dialect::Linux;
    match what {
        What::Flush(_) => kind::TFLUSH,
        What::Stat(_) if is_linux => kind::TGETATTR,
        What::Stat(_) => kind::TSTAT,
        What::Part(part) => match part.work {
            Work::Read(_) => kind::TREAD,
            Work::Write(_) => kind::TWRITE,
            Work::Sync if is_linux => kind::TFSYNC,
            Work::SetLength(_) if is_linux => kind::TSETATTR,
            Work::Sync | Work::SetLength(_) => kind::TWSTAT,
        },
    }
}

impl State {
    /// Appends to `out` what can be sent now: some messages at once, so that one call writes them.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, depth: usize, now: Instant, counters: &Counters) {
        while out.len() < BATCH_BYTES && self.send_one(out, depth, now, counters) {
            counters.requests.add(1);
        }
    }

    fn send_one(&mut self, out: &mut Vec<u8>, depth: usize, now: Instant, counters: &Counters) -> bool {
        let Some(Connection { dialect, payload_bytes, broken: None, .. }) = self.connection else {
            return false;
        };
        if self.tags.used() == 0 {
            // The silence of a server that was asked for nothing is none.
            self.silence.heard = now;
        }
        if let Some(old) = self.next_flush() {
            return self.send_flush(out, old, counters);
        }
        if !self.verify.is_under_way && (self.verify.is_wanted || !self.verify.waiting.is_empty()) {
            return self.send_stat(out, dialect, now, counters);
        }
        if !self.one_is_under_way
            && let Some(part) = self.one_by_one.pop_front()
        {
            return self.send_one_by_one(out, dialect, part);
        }
        if self.parts_under_way >= depth {
            return false;
        }
        self.next_part(payload_bytes).is_some_and(|part| self.send_part(out, part, now))
    }

    /// A tag whose request is still to be flushed.
    fn next_flush(&mut self) -> Option<u16> {
        while let Some(old) = self.flushes.pop_front() {
            // Others were answered before.
            if let Some(sent) = self.tags.get_mut(old).filter(|sent| sent.flush == Flush::Wanted) {
                sent.flush = Flush::Sent { answered: false };
                return Some(old);
            }
        }
        None
    }

    /// A tag for `what`. There is always one: far fewer requests are under way than there are tags, unless a server does not
    /// answer Tflush.
    fn tag(&mut self, what: What) -> Option<u16> {
        let sent = Sent { order: self.next_order, what, flush: Flush::No };
        match self.tags.insert(sent) {
            Ok(tag) => {
                self.next_order += 1;
                Some(tag)
            }
            Err(_) => {
                self.break_connection("the server does not answer Tflush");
                None
            }
        }
    }

    fn send_flush(&mut self, out: &mut Vec<u8>, old: u16, counters: &Counters) -> bool {
        let Some(tag) = self.tag(What::Flush(old)) else { return false };
        message::flush(out, tag, old);
        counters.flushed.add(1);
        true
    }

    fn send_stat(&mut self, out: &mut Vec<u8>, dialect: Dialect, now: Instant, counters: &Counters) -> bool {
        let asked = self.version.asked();
        let Some(tag) = self.tag(What::Stat(asked)) else { return false };
        message::stat(out, tag, FILE, dialect);
        let covered = std::mem::take(&mut self.verify.waiting);
        self.verify.covered.extend(covered);
        (self.verify.is_wanted, self.verify.is_under_way, self.verify.asked) = (false, true, now);
        counters.stat_checks.add(1);
        true
    }

    fn send_one_by_one(&mut self, out: &mut Vec<u8>, dialect: Dialect, part: Part) -> bool {
        let work = part.work.clone();
        let Some(tag) = self.tag(What::Part(part)) else { return false };
        self.one_is_under_way = true;
        if let Work::SetLength(length) = work {
            self.version.change_sent();
            message::set_length(out, tag, FILE, length, dialect);
        } else {
            self.unsynced.sync_sent();
            message::sync(out, tag, FILE, dialect);
        }
        true
    }

    /// The next part to send, cut to what fits into a message.
    fn next_part(&mut self, payload_bytes: u32) -> Option<Part> {
        let mut part = self.waiting.pop_front()?;
        let (Work::Read(range) | Work::Write(range)) = &mut part.work else { return Some(part) };
        let middle = range.start.saturating_add(u64::from(payload_bytes));
        if middle < range.end {
            let rest = middle..range.end;
            range.end = middle;
            self.put_back(&part, rest);
        }
        Some(part)
    }

    /// Puts `rest` of what `part` is a part of in front.
    pub(super) fn put_back(&mut self, part: &Part, rest: Range<u64>) {
        let work = if matches!(part.work, Work::Read(_)) { Work::Read(rest) } else { Work::Write(rest) };
        self.waiting.push_front(Part { job: part.job, work });
    }

    fn send_part(&mut self, out: &mut Vec<u8>, part: Part, now: Instant) -> bool {
        let (job, work) = (part.job, part.work.clone());
        let Some(tag) = self.tag(What::Part(part)) else { return false };
        self.parts_under_way += 1;
        match work {
            Work::Read(range) => {
                let is_old = now.saturating_duration_since(self.verify.asked) >= BETWEEN_CHECKS;
                self.verify.is_wanted |= self.check == VersionCheck::Mtime && is_old;
                let count = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
                message::read(out, tag, FILE, range.start, count);
            }
            Work::Write(range) => {
                self.version.change_sent();
                message::write(out, tag, FILE, range.start, self.bytes_of(job, &range));
            }
            Work::Sync | Work::SetLength(_) => {}
        }
        true
    }

    /// The bytes that a job writes to `range`.
    fn bytes_of(&self, job: u64, range: &Range<u64>) -> &[u8] {
        let Some(Job::Write { request, .. }) = self.jobs.get(&job) else { return &[] };
        let start = request.range().start;
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        request.bytes().get(within(range.start)..within(range.end)).unwrap_or_default()
    }
}
