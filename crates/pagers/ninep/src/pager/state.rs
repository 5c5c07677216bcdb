//! The state of a pager, behind its one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memobj::pagers::PagerReports;
use memobj::{ErrorKind, SupplyError};

use super::job::{Answered, Effects, Job, Part, Work};
use super::unsynced::Unsynced;
use crate::dialect::Dialect;
use crate::options::VersionCheck;
use crate::stream::Stream;
use crate::tags::Tags;
use crate::version::{Asked, Version};

/// A connection that is in use.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Arc<Stream>,
    pub(super) dialect: Dialect,
    pub(super) payload_bytes: u32,
    /// Tells this connection from those before.
    pub(super) epoch: u64,
    /// Why it is given up.
    pub(super) broken: Option<String>,
    /// Whether it has answered anything since the file was opened on it.
    pub(super) has_answered: bool,
    /// How many parts it answered as they should be.
    pub(super) good_answers: u32,
}

/// A request that is with the server.
#[derive(Debug)]
pub(super) struct Sent {
    /// In which order they were sent.
    pub(super) order: u64,
    pub(super) what: What,
    pub(super) flush: Flush,
}

#[derive(Debug)]
pub(super) enum What {
    Part(Part),
    Stat(Asked),
    Flush(u16),
}

/// Whether the request is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    No,
    /// Tflush is still to be sent.
    Wanted,
    /// Tflush is sent. The tag is in use until its answer, even if the request is answered before: flush(5).
    Sent {
        answered: bool,
    },
}

/// Comparing the version.
#[derive(Debug)]
pub(super) struct Verify {
    /// Supplied jobs that wait for attributes that are asked for from now on,
    pub(super) waiting: Vec<u64>,
    /// and for those that are asked for now.
    pub(super) covered: Vec<u64>,
    pub(super) is_wanted: bool,
    pub(super) is_under_way: bool,
    pub(super) asked: Instant,
}

/// How long nothing was heard.
#[derive(Debug)]
pub(super) struct Silence {
    /// When the server was heard last, or the first request began to wait.
    pub(super) heard: Instant,
    pub(super) is_told: bool,
    /// The server was asked for attributes, only to hear from it.
    pub(super) is_probed: bool,
    /// How the last try to connect went.
    pub(super) why: String,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) next_job: u64,
    /// What is to be sent, in order.
    pub(super) waiting: VecDeque<Part>,
    /// Syncs and changes of length: one is with the server at a time.
    pub(super) one_by_one: VecDeque<Part>,
    pub(super) one_is_under_way: bool,
    /// Tags whose requests are to be flushed.
    pub(super) flushes: VecDeque<u16>,
    pub(super) tags: Tags<Sent>,
    pub(super) parts_under_way: usize,
    pub(super) next_order: u64,
    pub(super) version: Version,
    pub(super) check: VersionCheck,
    pub(super) verify: Verify,
    pub(super) unsynced: Unsynced,
    pub(super) connection: Option<Connection>,
    pub(super) epochs: u64,
    /// Connections in a row that answered nothing.
    pub(super) failures: u32,
    /// Connections in a row that ended by an answer that breaks the protocol.
    pub(super) violations: u32,
    pub(super) silence: Silence,
    /// How every request is answered from now on.
    pub(super) ended: Option<SupplyError>,
    pub(super) reports: Option<PagerReports>,
}

impl State {
    pub(super) fn new(version: Version, check: VersionCheck, now: Instant) -> Self {
        let verify = Verify {
            waiting: Vec::new(),
            covered: Vec::new(),
            is_wanted: false,
            is_under_way: false,
            asked: now,
        };
        let silence = Silence { heard: now, is_told: false, is_probed: false, why: String::new() };
        Self {
            jobs: BTreeMap::new(),
            next_job: 0,
            waiting: VecDeque::new(),
            one_by_one: VecDeque::new(),
            one_is_under_way: false,
            flushes: VecDeque::new(),
            tags: Tags::new(),
            parts_under_way: 0,
            next_order: 0,
            version,
            check,
            verify,
            unsynced: Unsynced::default(),
            connection: None,
            epochs: 0,
            failures: 0,
            violations: 0,
            silence,
            ended: None,
            reports: None,
        }
    }

    /// Takes a job in, or answers it at once.
    pub(super) fn submit(&mut self, id: u64, job: Job, now: Instant, effects: &mut Effects) {
        let refused = match (&self.ended, &job) {
            (Some(error), _) => Err(error.clone()),
            (None, Job::Supply { request, .. }) => self.unsynced.refuse(&request.range()),
            (None, Job::Sync(_)) => self.unsynced.refuse_sync(),
            (None, _) => Ok(()),
        };
        // A request that nobody wants any more was perhaps to be cancelled before it was here.
        let is_unwanted = matches!(&job, Job::Supply { request, .. } if !request.is_wanted());
        let refused = if is_unwanted { Err(SupplyError::new(ErrorKind::Timeout)) } else { refused };
        if let Err(error) = refused {
            return effects.answered.push(Answered::new(job, Err(error)));
        }
        if self.jobs.is_empty() && self.tags.used() == 0 {
            self.silence.heard = now;
        }
        self.queue(Part { job: id, work: job.work() });
        self.jobs.insert(id, job);
    }

    fn queue(&mut self, part: Part) {
        match part.work {
            Work::Read(_) | Work::Write(_) => self.waiting.push_back(part),
            Work::Sync | Work::SetLength(_) => self.one_by_one.push_back(part),
        }
    }

    /// Nobody waits for the job `id` any more.
    pub(super) fn cancel(&mut self, id: u64, effects: &mut Effects) {
        if matches!(self.jobs.get(&id), Some(Job::Supply { .. })) {
            self.finish(id, Err(SupplyError::new(ErrorKind::Timeout)), effects);
        }
    }

    /// Answers a job. What of it is with the server is flushed, what is not is not sent.
    pub(super) fn finish(&mut self, id: u64, answer: Result<(), SupplyError>, effects: &mut Effects) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if answer.is_err() {
            self.waiting.retain(|part| part.job != id);
            self.one_by_one.retain(|part| part.job != id);
            self.flush(id);
        }
        effects.answered.push(Answered::new(job, answer));
    }

    /// Has the requests of a job flushed that are with the server.
    fn flush(&mut self, id: u64) {
        for (tag, sent) in self.tags.iter_mut() {
            let What::Part(part) = &sent.what else { continue };
            if part.job == id && sent.flush == Flush::No {
                sent.flush = Flush::Wanted;
                self.flushes.push_back(tag);
                self.parts_under_way -= usize::from(part.work.is_counted());
            }
        }
    }

    /// Answers all jobs, and all that come, with `error`.
    pub(super) fn end(&mut self, error: SupplyError, effects: &mut Effects) {
        self.fail_all(&error, effects);
        self.ended = Some(error);
    }

    /// Answers all jobs with `error`.
    pub(super) fn fail_all(&mut self, error: &SupplyError, effects: &mut Effects) {
        let ids: Vec<_> = self.jobs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finish(id, Err(error.clone()), effects));
    }

    /// Gives the connection up. Its threads notice.
    pub(super) fn break_connection(&mut self, why: impl Into<String>) {
        if let Some(connection) = &mut self.connection
            && connection.broken.is_none()
        {
            connection.broken = Some(why.into());
            connection.stream.shut_down();
        }
    }

    /// Whether threads have nothing to do any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// How long nothing was heard.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.silence.heard)
    }
}
