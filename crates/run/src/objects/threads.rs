//! The threads that read requests and answer them.
//!
//! ```text
//!   a thread     reads a request; answers it at once if it can
//!     else       while another one reads: does it itself, and waits for pagers on the way
//!     else       starts another one that reads; there are MOST_THREADS at most
//!     else       leaves it in the queue for those that work, and goes on reading
//! ```
//!
//! One thread always reads, so what can be answered at once is, whatever pagers do. Of one object, and of the folders of one
//! map, only so many requests are worked on at a time: one that does not answer leaves threads to the others. Threads of this
//! process are answered at once, or EAGAIN.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memobj_linux::locks::{Rank, RankedMutex};
use rustix::io::Errno;

use super::answer::Answer;
use super::request::{Operation, Request};
use super::service::Service;
use super::waiting::Waiting;

/// All threads.
const MOST_THREADS: usize = 64;
/// Threads that may wait for one object, or for lists of the folders of one map.
const MOST_OF_OBJECT: usize = 12;
/// Threads that stay to read when there is nothing to do.
const MOST_IDLE: usize = 3;
/// Requests are short: nothing is written. The kernel wants room for 8 KiB.
const REQUEST_BYTES: usize = 16 << 10;
const STACK_BYTES: usize = 256 << 10;

/// See the module.
pub(super) struct Threads {
    device: Arc<OwnedFd>,
    service: Arc<Service>,
    waiting: Arc<Waiting>,
    state: RankedMutex<State>,
}

#[derive(Default)]
struct State {
    threads: usize,
    /// Those that read, or are about to.
    reading: usize,
    queue: VecDeque<Job>,
}

/// A request that takes a while.
struct Job {
    request: Request,
    /// Counts those that wait for the same.
    busy: Option<Arc<AtomicUsize>>,
}

impl Job {
    /// Whether a thread may begin it now; counted if so.
    fn begins(&self) -> bool {
        let Some(busy) = &self.busy else { return true };
        let more = |busy: usize| (busy < MOST_OF_OBJECT).then_some(busy + 1);
        busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn ends(&self) {
        if let Some(busy) = &self.busy {
            busy.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Whether the thread is one of this process. It must not wait for an answer of this process: if that ends, the thread could
/// not, as nobody answers it any more, and while it is there the device is not closed.
fn is_ours(thread: u32) -> bool {
    Path::new(&format!("/proc/self/task/{thread}")).exists()
}

/// What a thread does with a job that it has read.
enum Next {
    /// It, while others read.
    Work(Job),
    /// It goes on reading.
    Read,
}

impl Threads {
    /// Starts the first thread. They end when the file system is gone.
    pub(super) fn start(device: Arc<OwnedFd>, service: Arc<Service>) -> std::io::Result<()> {
        let this = Arc::new(Self {
            waiting: Waiting::new(Arc::clone(&device)),
            device,
            service,
            state: RankedMutex::new(Rank::ObjectRequests, State::default()),
        });
        let mut state = this.state.lock();
        (state.threads, state.reading) = (1, 1);
        drop(state);
        this.spawn()
    }

    /// Starts a thread that is counted already.
    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("memobj-objects".into()).stack_size(STACK_BYTES);
        thread.spawn(move || this.run()).map(drop)
    }

    fn run(self: &Arc<Self>) {
        let mut buffer = vec![0; REQUEST_BYTES];
        loop {
            let length = match rustix::io::read(&*self.device, &mut buffer[..]) {
                Ok(length) => length,
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
                // The file system is gone.
                Err(_) => break,
            };
            let Some(request) = buffer.get(..length).and_then(Request::parse) else { continue };
            if let Operation::Interrupt { unique } = request.operation {
                self.waiting.interrupt(unique).send(&self.device, request.unique);
                continue;
            }
            if let Some(answer) = self.service.answer_at_once(&request) {
                answer.send(&self.device, request.unique);
                continue;
            }
            if is_ours(request.thread) {
                Answer::Failed(Errno::AGAIN).send(&self.device, request.unique);
                continue;
            }
            self.waiting.begin(request.unique, request.thread);
            let busy = self.service.busy(&request);
            if let Next::Work(job) = self.next(Job { request, busy }) {
                self.work(job);
                if !self.reads_again() {
                    return;
                }
            }
        }
        let mut state = self.state.lock();
        state.threads -= 1;
        state.reading -= 1;
    }

    /// Who does the job.
    fn next(self: &Arc<Self>, job: Job) -> Next {
        let mut state = self.state.lock();
        let must_start = state.reading <= 1;
        if (must_start && state.threads >= MOST_THREADS) || !job.begins() {
            state.queue.push_back(job);
            return Next::Read;
        }
        if !must_start {
            state.reading -= 1;
            return Next::Work(job);
        }
        // The new one reads in place of this one.
        state.threads += 1;
        drop(state);
        if self.spawn().is_ok() {
            return Next::Work(job);
        }
        let mut state = self.state.lock();
        state.threads -= 1;
        if state.threads == 1 {
            // Nobody else can do it.
            drop(state);
            self.finish(&job);
            return Next::Read;
        }
        job.ends();
        state.queue.push_back(job);
        Next::Read
    }

    /// Does the job, and those that wait in the queue.
    fn work(&self, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next {
            self.finish(&job);
            let mut state = self.state.lock();
            let waiting = &self.waiting;
            state.queue.retain(|job| waiting.is_wanted(job.request.unique));
            let at = state.queue.iter().position(Job::begins);
            next = at.and_then(|at| state.queue.remove(at));
        }
    }

    fn finish(&self, job: &Job) {
        let answer = match self.waiting.is_wanted(job.request.unique) {
            true => self.service.answer(&job.request),
            false => Answer::Nothing,
        };
        job.ends();
        if self.waiting.end(job.request.unique) {
            answer.send(&self.device, job.request.unique);
        }
    }

    /// Whether this thread stays.
    fn reads_again(&self) -> bool {
        let mut state = self.state.lock();
        let stays = state.reading < MOST_IDLE;
        if stays {
            state.reading += 1;
        } else {
            state.threads -= 1;
        }
        stays
    }
}
