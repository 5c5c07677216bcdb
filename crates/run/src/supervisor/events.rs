//! The loop that hears of everything that happens to programs.
//!
//! ```text
//!   a report          of a thread that has stopped or ended: handled here, one after the other
//!   a call is made    in a thread's name, by a handler: reports of others that come meanwhile wait for their turn
//!   a job             that another thread has posted: it is done between two reports
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use memobj_linux::locks::{Rank, RankedMutex};
use memobj_tracer::{Happened, Heard, Resume, Stop, Thread, Waker};

use crate::error::RunError;
use crate::files::{LostPage, MappedObject, Post};
use crate::supervisor::waiting::GoesOn;
use crate::supervisor::{Outcome, Progress, Supervisor, kill};

/// What another thread wants the tracer to do.
pub(crate) type Job = Box<dyn FnOnce(&mut Supervisor) + Send>;

/// Jobs for the tracer, from any thread.
#[derive(Clone)]
pub(crate) struct Jobs {
    /// `None`: there is no tracer any more.
    posted: Arc<RankedMutex<Option<VecDeque<Job>>>>,
    /// Pages that are supplied before anything else, even while a job waits for a thread to stop.
    lost_pages: Arc<RankedMutex<Vec<LostPage>>>,
    waker: Waker,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

impl Jobs {
    /// They are done by the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        let posted = RankedMutex::new(Rank::Posted, Some(VecDeque::new()));
        let lost_pages = Arc::new(RankedMutex::new(Rank::LostPages, Vec::new()));
        Self { posted: Arc::new(posted), lost_pages, waker: Waker::of_this_thread() }
    }

    /// Has the tracer do `job` as soon as it has handled what it handles now. Does not block. A job that is not done
    /// before the last program ends is dropped.
    pub(crate) fn post(&self, job: Job) {
        // Dropped without the lock: what it has may post in turn.
        let refused = match &mut *self.posted.lock() {
            Some(posted) => {
                posted.push_back(job);
                None
            }
            None => Some(job),
        };
        if refused.is_none() {
            self.waker.wake();
        }
    }

    /// Supplies pages for which who lends their frames does not answer any more. The tracer does this: so it does not do it
    /// while it hands over the mapping that they are in.
    pub(crate) fn supply_lost_pages(&self) {
        let pages = std::mem::take(&mut *self.lost_pages.lock());
        for LostPage { faults, address, bytes } in pages {
            if faults.supply_copy(address, &bytes).is_err() {
                // It is there already, or nothing is registered there any more, or there is no memory: who sleeps finds out.
                faults.wake(address, bytes.len() as u64);
            }
        }
    }

    /// Has the tracer look for jobs, or whatever else it waits for.
    pub(crate) fn look_again(&self) {
        self.waker.wake();
    }

    fn next(&self) -> Option<Job> {
        self.posted.lock().as_mut()?.pop_front()
    }

    /// Drops what was not done, and what comes.
    pub(crate) fn close(&self) {
        let left = self.posted.lock().take();
        drop(left);
    }
}

impl Post for Jobs {
    fn hand_over(&self, object: Arc<MappedObject>, until: Instant) {
        self.post(Box::new(move |supervisor| supervisor.hand_over(&object, until)));
    }

    fn look_for_idle(&self) {
        self.post(Box::new(|supervisor| supervisor.look_for_idle()));
    }

    fn supply_lost(&self, page: LostPage) {
        self.lost_pages.lock().push(page);
        self.look_again();
    }
}

/// The program that was run, as far as its starter is told of it.
#[derive(Debug, Default)]
pub(crate) struct FirstProgram {
    process: i32,
    is_stopped: bool,
    outcome: Option<Outcome>,
    /// What was not told yet.
    news: VecDeque<Progress>,
}

impl FirstProgram {
    fn stopped(&mut self, stop: Stop) {
        match stop {
            Stop::Group(signal) if !self.is_stopped => self.news.push_back(Progress::Stopped(signal)),
            Stop::Trap if self.is_stopped => self.news.push_back(Progress::Continued),
            _ => {}
        }
        self.is_stopped = matches!(stop, Stop::Group(_));
    }

    fn ended(&mut self, outcome: Outcome) {
        if self.is_stopped {
            self.news.push_back(Progress::Continued);
        }
        self.outcome = Some(outcome);
        self.news.push_back(Progress::Ended(outcome));
    }
}

impl Supervisor {
    /// Runs `command`, the program and its arguments, until all processes have ended that came from it; `progress`
    /// hears of the first one.
    ///
    /// # Errors
    ///
    /// `NotFound` and `NotStarted` before anything runs.
    pub fn run(
        &mut self,
        command: &[OsString],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, RunError> {
        let started = self.begin(command)?;
        self.first = FirstProgram { process: started.process, ..FirstProgram::default() };
        progress(Progress::Started(started.process));
        while self.somebody_runs() {
            match memobj_tracer::wait_any(None)
                .map_err(|source| RunError::System { what: "wait for processes", source })?
            {
                Heard::Of(pid, happened) => self.heard(pid, happened),
                Heard::Woken => self.on_wake(),
                Heard::Nothing => {}
                Heard::Nobody => break,
            }
            if self.first.news.iter().any(|news| matches!(news, Progress::Ended(_))) {
                // Whoever hears of the end may give up standard error.
                self.faults.wait_for_messages();
            }
            self.first.news.drain(..).for_each(&mut *progress);
        }
        drop(started);
        if self.guard_is_gone {
            let source = io::Error::other("it was killed, and so were the programs");
            return Err(RunError::System { what: "keep a guard", source });
        }
        let nothing = RunError::System { what: "wait for processes", source: io::ErrorKind::NotFound.into() };
        self.first.outcome.ok_or(nothing)
    }

    fn somebody_runs(&self) -> bool {
        !(self.threads.is_empty() && self.expected.is_empty() && self.unborn.is_empty())
    }

    /// Whether there are new threads whose address spaces nobody has looked at.
    pub(crate) fn births_are_under_way(&self) -> bool {
        !(self.expected.is_empty() && self.unborn.is_empty())
    }

    /// Handles a report.
    pub(crate) fn heard(&mut self, pid: i32, happened: Happened) {
        if self.guard.as_ref().is_some_and(|guard| pid == guard.process()) {
            // The descriptors must outlive the processes: those go first, and then this one.
            self.guard_is_gone = true;
            self.threads.values().for_each(|thread| kill(thread.process));
            return;
        }
        // Whatever it was, the thread is not where it has waited.
        self.waiting.end(pid);
        match happened {
            Happened::Stopped(stop) => {
                self.first_has_stopped(pid, stop);
                self.stopped(pid, stop);
            }
            Happened::Exited(_) | Happened::Killed(_) => {
                let ended = Outcome::of(happened);
                self.gone(pid, ended);
                if pid == self.first.process {
                    self.first.ended(ended);
                }
            }
        }
    }

    pub(crate) fn first_has_stopped(&mut self, pid: i32, stop: Stop) {
        if pid == self.first.process {
            self.first.stopped(stop);
        }
    }

    /// Does what other threads have posted.
    fn on_wake(&mut self) {
        self.jobs.supply_lost_pages();
        while let Some(job) = self.jobs.next() {
            job(self);
        }
    }

    fn stopped(&mut self, pid: i32, stop: Stop) {
        if !self.threads.contains_key(&pid) {
            return match self.expected.remove(&pid) {
                Some(birth) => self.begins(pid, birth),
                None => {
                    self.unborn.insert(pid);
                    self.end_orphans();
                }
            };
        }
        let how = match stop {
            Stop::Call => match self.call(pid) {
                GoesOn::Now => Resume::Run,
                GoesOn::Later => return,
            },
            Stop::Program => self.program_begins(pid),
            Stop::Child => self.child(pid),
            Stop::Exit => self.about_to_exit(pid),
            Stop::Group(_) => Resume::StayStopped,
            Stop::Trap => {
                if self.interrupted.remove(&pid) {
                    let _ = Thread(pid).undo_interruption();
                }
                Resume::Run
            }
            Stop::CallBorder => Resume::Run,
            Stop::Signal(signal) => Resume::Signal(signal),
        };
        go_on(pid, how);
    }
}

/// Lets a thread go on whose report was handled.
pub(crate) fn go_on(pid: i32, how: Resume) {
    // One that has ended or runs another program meanwhile is not where it was: its next report tells of it.
    if !memobj_tracer::is_reported(pid) {
        let _ = Thread(pid).resume(how);
    }
}
