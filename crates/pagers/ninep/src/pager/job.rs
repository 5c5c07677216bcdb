//! The engine's requests, and how they are answered.

use std::ops::Range;
use std::time::Duration;

use memobj::pagers::{LengthRequest, PagerReports, SupplyRequest, SyncRequest, WriteRequest};
use memobj::{ErrorKind, SupplyError};

/// A request of the engine that is not answered yet.
#[derive(Debug)]
pub(super) enum Job {
    Supply {
        request: SupplyRequest,
        /// Bytes that the server has not answered yet.
        left: u64,
        /// How it ends once the version was compared.
        failure: Option<SupplyError>,
    },
    Write {
        request: WriteRequest,
        left: u64,
    },
    Sync(SyncRequest),
    Length(LengthRequest),
}

/// A part of a job that is one request to the server, or is cut into some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) job: u64,
    pub(super) work: Work,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Read(Range<u64>),
    Write(Range<u64>),
    Sync,
    SetLength(u64),
}

impl Work {
    /// Whether it changes the file.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Work::Write(_) | Work::SetLength(_))
    }

    /// Whether it is one of many that are under way at once, up to the depth.
    pub(super) fn is_counted(&self) -> bool {
        matches!(self, Work::Read(_) | Work::Write(_))
    }
}

impl Job {
    pub(super) fn supply(request: SupplyRequest) -> Self {
        let range = request.range();
        Self::Supply { left: range.end.saturating_sub(range.start), request, failure: None }
    }

    pub(super) fn write(request: WriteRequest) -> Self {
        let range = request.range();
        Self::Write { left: range.end.saturating_sub(range.start), request }
    }

    /// All that there is to do for it.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::Supply { request, .. } => Work::Read(request.range()),
            Self::Write { request, .. } => Work::Write(request.range()),
            Self::Sync(_) => Work::Sync,
            Self::Length(request) => Work::SetLength(request.length()),
        }
    }
}

/// A job and its answer, which is given with no lock held.
#[derive(Debug)]
pub(super) struct Answered {
    job: Job,
    answer: Result<(), SupplyError>,
}

impl Answered {
    pub(super) fn new(job: Job, answer: Result<(), SupplyError>) -> Self {
        Self { job, answer }
    }

    fn deliver(self) {
        match (self.job, self.answer) {
            (Job::Supply { request, .. }, Ok(())) => request.done(),
            (Job::Supply { request, .. }, Err(error)) => request.fail(error),
            (Job::Write { request, .. }, Ok(())) => request.done(),
            (Job::Write { request, .. }, Err(error)) => request.fail(error),
            (Job::Sync(request), answer) => request.answer(answer.map_err(never_stale)),
            (Job::Length(request), answer) => request.answer(answer),
        }
    }
}

/// The engine takes Stale as the answer to a sync for "nothing is lost". Here bytes may be.
fn never_stale(error: SupplyError) -> SupplyError {
    match error.kind {
        ErrorKind::Stale => SupplyError::because(ErrorKind::Io, error),
        _ => error,
    }
}

/// What is told of a silence.
#[derive(Debug)]
pub(super) enum Report {
    Silent { silence: Duration, why: String },
    Answers { silence: Duration },
}

/// What follows from a change of the state, and is done with no lock held.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) answered: Vec<Answered>,
    pub(super) reports: Vec<Report>,
}

impl Effects {
    pub(super) fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.reports.is_empty()
    }

    pub(super) fn deliver(self, server: &str, reports: Option<&PagerReports>) {
        for report in self.reports {
            match (report, reports) {
                (Report::Silent { silence, why }, Some(reports)) => {
                    reports.server_silent(server, silence, &why);
                }
                (Report::Answers { silence }, Some(reports)) => reports.server_answers(server, silence),
                (_, None) => {}
            }
        }
        self.answered.into_iter().for_each(Answered::deliver);
    }
}
