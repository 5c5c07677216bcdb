//! The connection is lost, and made anew.

use std::time::{Duration, Instant};

use memobj::{ErrorKind, SupplyError};

use super::job::{Effects, Job, Part, Report, Work};
use super::receive::stale;
use super::state::{Connection, State, What};
use crate::open_error::{OpenError, OpenStep};
use crate::options::NineOptions;
use crate::session::Session;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl State {
    /// The connection is gone. What was with the server is sent again on the next one, before what came later.
    pub(super) fn connection_lost(&mut self, effects: &mut Effects) {
        let Some(connection) = self.connection.take() else { return };
        self.failures = if connection.has_answered { 0 } else { self.failures.saturating_add(1) };
        if self.violations > 0 {
            // Asked at once it would break the protocol again.
            self.failures = self.failures.max(1);
        }
        self.silence.why = connection.broken.unwrap_or_default();
        if !self.unsynced.is_empty() {
            // A server that restarts may have lost writes of ours, and their times.
            self.version.change_sent();
        }
        self.version.connection_lost();
        self.unsynced.connection_lost();
        self.send_again();
        let syncs: Vec<_> = self.jobs.iter().filter(|(_, job)| matches!(job, Job::Sync(_))).collect();
        let syncs: Vec<u64> = syncs.into_iter().map(|(id, _)| *id).collect();
        if !syncs.is_empty()
            && let Err(error) = self.unsynced.refuse_sync()
        {
            syncs.into_iter().for_each(|id| self.finish(id, Err(error.clone()), effects));
        }
    }

    fn send_again(&mut self) {
        let mut sent = self.tags.take_all();
        sent.sort_by_key(|sent| sent.order);
        self.flushes.clear();
        (self.parts_under_way, self.one_is_under_way) = (0, false);
        self.verify.is_under_way = false;
        let covered = std::mem::take(&mut self.verify.covered);
        self.verify.waiting.extend(covered);
        for part in sent.into_iter().rev().filter_map(|sent| match sent.what {
            What::Part(part) if self.jobs.contains_key(&part.job) => Some(part),
            _ => None,
        }) {
            if matches!(part.work, Work::Read(_)) {
                self.waiting.push_front(part);
            }
        }
        self.write_again();
    }

    /// Writes, changes of length and syncs begin anew: a part that was answered may be lost.
    fn write_again(&mut self) {
        self.waiting.retain(|part| matches!(part.work, Work::Read(_)));
        self.one_by_one.clear();
        for (id, job) in self.jobs.iter_mut().rev() {
            let part = Part { job: *id, work: job.work() };
            match job {
                Job::Supply { .. } => {}
                Job::Write { request, left } => {
                    let range = request.range();
                    *left = range.end.saturating_sub(range.start);
                    self.waiting.push_front(part);
                }
                Job::Sync(_) | Job::Length(_) => self.one_by_one.push_front(part),
            }
        }
    }

    /// The file is open on a new connection. Whether it is the same version.
    pub(super) fn connected(&mut self, session: &Session, now: Instant, effects: &mut Effects) -> bool {
        let length_change = self.jobs.values().find_map(|job| match job {
            Job::Length(request) => Some(request.length()),
            _ => None,
        });
        if let Err(changed) = self.version.compare_anew(&session.attributes, length_change) {
            self.end(stale(changed), effects);
            return false;
        }
        let silence = self.silent_for(now);
        if std::mem::take(&mut self.silence.is_told) {
            effects.reports.push(Report::Answers { silence });
        }
        (self.silence.heard, self.silence.is_probed, self.verify.asked) = (now, false, now);
        // What waited for a look at the version has had one.
        let waiting = std::mem::take(&mut self.verify.waiting);
        waiting.into_iter().for_each(|id| self.supplied(id, effects));
        self.epochs += 1;
        self.connection = Some(Connection {
            stream: session.stream.clone(),
            dialect: session.dialect,
            payload_bytes: session.payload_bytes,
            epoch: self.epochs,
            broken: None,
            has_answered: false,
            good_answers: 0,
        });
        true
    }

    /// A try to connect failed. The server may be away for a while; or it has told that it does not let us have the file
    /// any more.
    pub(super) fn not_connected(&mut self, error: OpenError, effects: &mut Effects) {
        self.failures = self.failures.saturating_add(1);
        self.silence.why = error.to_string();
        let is_answer = error.server_error().is_some() && *error.step() != OpenStep::Version;
        let kind = error.kind();
        let error = SupplyError::because(kind, error);
        match kind {
            ErrorKind::Stale if is_answer => self.end(error, effects),
            ErrorKind::Denied if is_answer => self.fail_all(&error, effects),
            _ => {}
        }
    }

    /// How long to wait before the next try, between half of it and all of it: many clients of a server that restarts do not
    /// come back at once.
    pub(super) fn pause(&self, random: u64) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        let pause = doubled.min(LONGEST_PAUSE);
        let half = pause / 2;
        half + half.mul_f64((random % 1024) as f64 / 1024.0)
    }

    /// Does what is due by `now`, and says when the next thing is.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        options: &NineOptions,
        effects: &mut Effects,
    ) -> Option<Instant> {
        let silent = self.silent_for(now);
        let is_asked = self.connection.is_some() && self.tags.used() > 0;
        if is_asked && silent >= options.silence {
            self.break_connection(format!("no answer within {:?}", options.silence));
        } else if is_asked && silent >= options.silence / 2 && !self.silence.is_probed {
            (self.silence.is_probed, self.verify.is_wanted) = (true, true);
        }
        let waits = !self.jobs.is_empty();
        if waits && !self.silence.is_told && silent >= options.silence_told {
            self.silence.is_told = true;
            effects.reports.push(Report::Silent { silence: silent, why: self.silence.why.clone() });
        }
        let told = (waits && !self.silence.is_told).then_some(options.silence_told);
        let broken = is_asked.then_some(options.silence);
        let probed = (is_asked && !self.silence.is_probed).then_some(options.silence / 2);
        [told, broken, probed].into_iter().flatten().min().map(|after| self.silence.heard + after)
    }
}
