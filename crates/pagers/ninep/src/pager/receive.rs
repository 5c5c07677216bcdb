//! What an answer of the server means.

use std::ops::Range;
use std::time::Instant;

use memobj::{ErrorKind, SupplyError};

use super::job::{Answered, Effects, Job, Part, Report, Work};
use super::send::request_kind;
use super::state::{Flush, Sent, State, What};
use crate::dialect::Dialect;
use crate::message::{Answer, Reply};
use crate::options::VersionCheck;
use crate::server_error::ServerError;
use crate::version::{Asked, Changed};

/// After so many answers as they should be a server has not broken the protocol "again".
const FORGIVEN_AFTER: u32 = 64;
/// So many connections in a row may end by an answer that breaks the protocol.
const MOST_VIOLATIONS: u32 = 3;

/// The server broke the protocol; says how.
pub(super) type Violation = &'static str;

fn length_of(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

fn count_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

pub(super) fn stale(changed: Changed) -> SupplyError {
    SupplyError::because(ErrorKind::Stale, std::io::Error::other(changed.0))
}

fn refused(error: ServerError) -> SupplyError {
    SupplyError::because(error.kind(), error)
}

/// Whether `answer` can be the answer to `sent`.
fn check(sent: &Sent, answer: &Answer<'_>, dialect: Dialect) -> Result<(), Violation> {
    if sent.flush == (Flush::Sent { answered: true }) {
        return Err("a request is answered twice");
    }
    let asked = match &sent.what {
        What::Part(Part { work: Work::Read(range) | Work::Write(range), .. }) => length_of(range),
        _ => 0,
    };
    match &answer.reply {
        Reply::Error(_) => Ok(()),
        _ if answer.kind != request_kind(&sent.what, dialect) + 1 => Err("an answer has another type"),
        Reply::Read(bytes) if count_of(bytes) > asked => Err("more is answered than was asked for"),
        Reply::Write { count } if u64::from(*count) > asked => Err("more is written than was sent"),
        _ => Ok(()),
    }
}

impl State {
    /// Takes an answer in.
    pub(super) fn take(
        &mut self,
        answer: Answer<'_>,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(), Violation> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let dialect = connection.dialect;
        let sent = self.tags.get_mut(answer.tag).ok_or("an answer to nothing that was asked")?;
        check(sent, &answer, dialect)?;
        connection.has_answered = true;
        connection.good_answers = connection.good_answers.saturating_add(1);
        if connection.good_answers > FORGIVEN_AFTER {
            self.violations = 0;
        }
        if let Flush::Sent { answered } = &mut sent.flush {
            *answered = true;
            self.heard(now, effects);
            return Ok(());
        }
        self.heard(now, effects);
        self.failures = 0;
        let Some(sent) = self.tags.remove(answer.tag) else { return Ok(()) };
        if sent.flush == Flush::No {
            self.answered(sent.what, answer.reply, effects);
        } else {
            // It was to be flushed, and was answered before.
            self.forgotten(&sent.what);
        }
        Ok(())
    }

    fn heard(&mut self, now: Instant, effects: &mut Effects) {
        let silence = self.silent_for(now);
        if std::mem::take(&mut self.silence.is_told) {
            effects.reports.push(Report::Answers { silence });
        }
        (self.silence.heard, self.silence.is_probed) = (now, false);
    }

    /// A request is over whose answer nobody wants.
    fn forgotten(&mut self, what: &What) {
        if let What::Part(part) = what {
            if part.work.changes() {
                self.version.change_answered();
            }
            if matches!(part.work, Work::Sync | Work::SetLength(_)) {
                self.one_is_under_way = false;
            }
        }
    }

    fn answered(&mut self, what: What, reply: Reply<'_>, effects: &mut Effects) {
        match what {
            What::Flush(old) => {
                if let Some(old) = self.tags.remove(old) {
                    self.forgotten(&old.what);
                }
            }
            What::Stat(asked) => self.compared(asked, reply, effects),
            What::Part(part) => {
                self.forgotten(&What::Part(part.clone()));
                self.parts_under_way -= usize::from(part.work.is_counted());
                self.part_answered(part, reply, effects);
            }
        }
    }

    fn part_answered(&mut self, part: Part, reply: Reply<'_>, effects: &mut Effects) {
        match (&part.work, reply) {
            (Work::Sync, Reply::Error(error)) => {
                self.unsynced.sync_answered();
                self.finish(part.job, Err(refused(error)), effects);
            }
            (_, Reply::Error(error)) => self.finish(part.job, Err(refused(error)), effects),
            (Work::Read(range), Reply::Read(bytes)) => self.read(&part, range, bytes, effects),
            (Work::Write(range), Reply::Write { count }) => self.wrote(&part, range, count, effects),
            (Work::Sync, _) => {
                self.unsynced.sync_answered();
                self.version.synced();
                // The time of the last change is ours now: it is taken for the version.
                self.verify.is_wanted = true;
                self.finish(part.job, Ok(()), effects);
            }
            (Work::SetLength(length), _) => {
                self.version.set_length(*length);
                // A length counts when it is durable.
                self.one_by_one.push_front(Part { job: part.job, work: Work::Sync });
            }
            (Work::Read(_) | Work::Write(_), _) => {}
        }
    }

    fn read(&mut self, part: &Part, range: &Range<u64>, bytes: &[u8], effects: &mut Effects) {
        let Some(Job::Supply { request, left, failure }) = self.jobs.get_mut(&part.job) else { return };
        let count = count_of(bytes).min(length_of(range));
        if count == 0 {
            failure.get_or_insert(SupplyError::new(ErrorKind::Truncated));
            self.waiting.retain(|other| other.job != part.job);
            // Perhaps the file is another one now, which explains it better.
            return self.verify.waiting.push(part.job);
        }
        if let Err(error) = request.fill(range.start, bytes) {
            return self.finish(part.job, Err(error), effects);
        }
        *left = left.saturating_sub(count);
        let (is_all, has_failed) = (*left == 0, failure.is_some());
        let rest = range.start + count..range.end;
        if !rest.is_empty() && !has_failed {
            self.put_back(part, rest);
        }
        match (is_all, self.check) {
            (false, _) => {}
            (true, VersionCheck::Strict) => self.verify.waiting.push(part.job),
            (true, _) => self.supplied(part.job, effects),
        }
    }

    /// All bytes of the job are there, and are of the right version.
    pub(super) fn supplied(&mut self, id: u64, effects: &mut Effects) {
        let Some(Job::Supply { request, failure, .. }) = self.jobs.get_mut(&id) else { return };
        let answer = match failure.take() {
            Some(error) => Err(error),
            None => self.unsynced.refuse(&request.range()),
        };
        self.finish(id, answer, effects);
    }

    fn wrote(&mut self, part: &Part, range: &Range<u64>, count: u32, effects: &mut Effects) {
        let Some(Job::Write { left, request }) = self.jobs.get_mut(&part.job) else { return };
        if count == 0 {
            let why = std::io::Error::other("the server wrote nothing");
            return self.finish(part.job, Err(SupplyError::because(ErrorKind::Io, why)), effects);
        }
        let count = u64::from(count).min(length_of(range));
        *left = left.saturating_sub(count);
        let (is_all, whole) = (*left == 0, request.range());
        let rest = range.start + count..range.end;
        if !rest.is_empty() {
            self.put_back(part, rest);
        }
        if is_all {
            self.unsynced.wrote(whole);
            self.finish(part.job, Ok(()), effects);
        }
    }

    /// The attributes that were asked for are there.
    fn compared(&mut self, asked: Asked, reply: Reply<'_>, effects: &mut Effects) {
        self.verify.is_under_way = false;
        let covered = std::mem::take(&mut self.verify.covered);
        match reply {
            Reply::Attributes(attributes) => match self.version.compare(&attributes, asked) {
                Ok(()) => covered.into_iter().for_each(|id| self.supplied(id, effects)),
                Err(changed) => self.end(stale(changed), effects),
            },
            Reply::Error(error) => {
                let error = refused(error);
                covered.into_iter().for_each(|id| self.finish(id, Err(error.clone()), effects));
            }
            _ => {}
        }
    }

    /// The protocol was broken. A server that does so again and again has no right answer.
    pub(super) fn violated(&mut self, violation: Violation, effects: &mut Effects) {
        self.violations += 1;
        if self.violations >= MOST_VIOLATIONS {
            let why = std::io::Error::other(format!("the server breaks the protocol: {violation}"));
            self.fail_all(&SupplyError::because(ErrorKind::Integrity, why), effects);
        }
        self.break_connection(violation);
    }
}

/// Answers `job` that was never taken in.
pub(super) fn answer(job: Job, error: SupplyError) -> Effects {
    Effects { answered: vec![Answered::new(job, Err(error))], reports: Vec::new() }
}
