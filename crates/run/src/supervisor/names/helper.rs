//! Looks at names on a thread of its own: a file system can make whoever looks at it wait, for a server that waits for the
//! supervisor itself.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use memobj_linux::locks::{Rank, RankedMutex};

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after the other; it is started with the first.
#[derive(Debug)]
pub(crate) struct Helper {
    jobs: RankedMutex<Option<Sender<Job>>>,
}

impl Default for Helper {
    fn default() -> Self {
        Self { jobs: RankedMutex::new(Rank::Names, None) }
    }
}

/// A job that was begun.
pub(crate) enum Begun<T> {
    /// It has ended in time.
    Done(T),
    /// It tells here when it ends.
    Late(Receiver<T>),
    /// The system refuses a thread.
    Refused,
}

impl Helper {
    /// What `job` says; `None` if it does not within `limit`, or the system refuses a thread.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self.begin(limit, job) {
            Begun::Done(answer) => Some(answer),
            // Nobody waits any more for what comes late.
            Begun::Late(_) | Begun::Refused => None,
        }
    }

    /// Begins `job`, and waits for it for at most `limit`. A thread whose job is late is left to it, and ends with it.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Begun<T> {
        let (answer, told) = channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        let mut jobs = self.jobs.lock();
        let sender = jobs.take().or_else(start);
        let Some(sender) = sender.filter(|sender| sender.send(job).is_ok()) else { return Begun::Refused };
        match told.recv_timeout(limit) {
            Ok(answer) => {
                *jobs = Some(sender);
                Begun::Done(answer)
            }
            Err(RecvTimeoutError::Timeout) => Begun::Late(told),
            // Its thread has panicked.
            Err(RecvTimeoutError::Disconnected) => Begun::Refused,
        }
    }
}

fn start() -> Option<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let run = move || jobs.into_iter().for_each(|job| job());
    std::thread::Builder::new().name("names".into()).spawn(run).ok()?;
    Some(sender)
}

#[cfg(test)]
mod tests {
    use super::Helper;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_job_that_hangs_holds_up_no_other() {
        let helper = Helper::default();
        let long = Duration::from_secs(60);
        let thread = || std::thread::current().id();
        let first = helper.within(long, thread);
        assert_eq!(helper.within(long, thread), first);
        let (end, ends) = channel::<()>();
        assert_eq!(helper.within(Duration::from_millis(1), move || ends.recv().is_ok()), None);
        let second = helper.within(long, thread);
        assert!(second.is_some() && second != first);
        drop(end);
    }
}
