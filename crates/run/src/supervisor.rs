//! The tracer: follows processes, threads and programs from their start to their end.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use memobj::{Cache, CacheOptions};
use memobj_sys::trace::{
    self, DescriptorLimit, ForeignFaults, Guard, Happened, Program, Registers, Resume, Started, Stop, Thread,
    Traced, Tracing,
};

use memobj_sys::uffd::{Forks, forks_can_be_told};

use crate::error::RunError;
use crate::faults::Faults;
use crate::files::{Executes, Files, MappedObject, Wish};
use crate::gather::Gather;
use crate::history::{History, ProgramEnd, Totals};
use crate::names::Names;
use crate::options::{Counting, Options};
use crate::record::{FilePlan, Record, RecordedFile};
use crate::space::Space;

/// Runs programs whose file mappings are segments of memory objects of one cache.
///
/// All calls are made by the thread that made it. It waits for any child of this process, so the process has none that
/// somebody else waits for.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) options: Options,
    pub(crate) files: Arc<Files>,
    pub(crate) faults: Faults,
    pub(crate) gather: Arc<Gather>,
    pub(crate) names: Arc<Names>,
    pub(crate) threads: HashMap<i32, Followed>,
    pub(crate) next_space: u64,
    /// New threads that have stopped before their makers told of them.
    unborn: HashSet<i32>,
    /// New threads that were told of and have not stopped yet.
    expected: HashMap<i32, Birth>,
    pub(crate) way: FaultsBy,
    pub(crate) forks: Forks,
    /// Why programs run unserved, as far as it was told.
    pub(crate) unserved: HashSet<String>,
    limit: DescriptorLimit,
    guard_is_gone: bool,
    // Dropped last: it keeps descriptors open.
    guard: Guard,
}

/// How processes get a userfaultfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultsBy {
    /// By the system call.
    Call,
    /// By /dev/userfaultfd.
    Device,
}

/// A traced thread.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The process that it belongs to.
    pub(crate) process: i32,
    pub(crate) parent: i32,
    /// `None`: nothing of its address space is served.
    pub(crate) space: Option<Arc<Space>>,
    /// The index of its program in the history.
    pub(crate) program: usize,
    /// Whether calls in its name might be forbidden.
    pub(crate) filters: Filters,
    /// Its next mmap(2) is the kernel's.
    pub(crate) passes_next_map: PassNext,
}

/// Whether a call is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum PassNext {
    #[default]
    No,
    Yes,
}

/// Whose seccomp filters a thread is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filters {
    /// Ours.
    Ours,
    /// One that the program, or one before it, has made.
    ItsOwn,
}

/// A new thread, as its maker knows it.
#[derive(Debug)]
struct Birth {
    maker: Followed,
    shares_memory: bool,
    is_thread: bool,
    /// The userfaultfd that came with the fork, if it is certain whose it is.
    faults: Option<ForeignFaults>,
}

/// How the program that was run has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// What [`Supervisor::run`] tells while it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The program runs, as this process.
    Started(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It goes on.
    Continued,
    /// It has ended; processes that it has left behind go on.
    Ended(Outcome),
}

impl Supervisor {
    /// Readies a cache and the threads that resolve faults.
    ///
    /// # Errors
    ///
    /// `NoFaults` if this process cannot be told of faults inside system calls; what the cache and the system say.
    pub fn new(options: Options) -> Result<Self, RunError> {
        let way = faults_by()?;
        let system = |what| move |source| RunError::System { what, source };
        let guard = Guard::start().map_err(system("start a guard"))?;
        let limit = DescriptorLimit::raise().map_err(system("raise the limit of descriptors"))?;
        let cache = CacheOptions { budget_bytes: options.budget_bytes, ..CacheOptions::default() };
        let cache = Cache::new(cache).map_err(RunError::Cache)?;
        let gather = Arc::new(Gather::new(options.counting));
        let files = Arc::new(Files::new(cache, options.clone(), Arc::clone(&gather)));
        let faults = Faults::start(Arc::clone(&files), Arc::clone(&gather), options.clone());
        Ok(Self {
            faults: faults.map_err(system("start threads"))?,
            names: Arc::new(Names::new(&options.names).map_err(system("open what names stand for"))?),
            options,
            files,
            gather,
            threads: HashMap::new(),
            next_space: 1,
            unborn: HashSet::new(),
            expected: HashMap::new(),
            way,
            forks: forks_can_be_told(),
            unserved: HashSet::new(),
            limit,
            guard_is_gone: false,
            guard,
        })
    }

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
        let main = started.process;
        progress(Progress::Started(main));
        let (mut outcome, mut is_stopped) = (None, false);
        while let Some((pid, happened)) =
            trace::wait_any().map_err(|source| RunError::System { what: "wait for processes", source })?
        {
            if pid == self.guard.process() {
                // The descriptors must outlive the processes: those go first, and then this one.
                self.guard_is_gone = true;
                self.threads.values().for_each(|thread| kill(thread.process));
                continue;
            }
            match happened {
                Happened::Stopped(stop) => {
                    if pid == main {
                        is_stopped = tell_of_stop(stop, is_stopped, progress);
                    }
                    self.stopped(pid, stop);
                }
                Happened::Exited(_) | Happened::Killed(_) => {
                    let ended = Outcome::of(happened);
                    self.gone(pid, ended);
                    if pid == main {
                        if is_stopped {
                            progress(Progress::Continued);
                        }
                        outcome = Some(ended);
                        progress(Progress::Ended(ended));
                    }
                }
            }
            if self.threads.is_empty() && self.expected.is_empty() && self.unborn.is_empty() {
                break;
            }
        }
        drop(started);
        if self.guard_is_gone {
            let source = io::Error::other("it was killed, and so were the programs");
            return Err(RunError::System { what: "keep a guard", source });
        }
        outcome.ok_or(RunError::System { what: "wait for processes", source: io::ErrorKind::NotFound.into() })
    }

    /// Starts the program.
    fn begin(&mut self, command: &[OsString]) -> Result<Started, RunError> {
        let name = || command.first().cloned().unwrap_or_default();
        let program =
            Program::find(command).map_err(|source| RunError::NotFound { program: name(), source })?;
        let tracing = Tracing {
            names: if self.options.names.is_empty() { Traced::No } else { Traced::Yes },
            programs: self.at_ends(),
        };
        let started = trace::spawn(&program, tracing, self.at_ends(), self.limit)
            .map_err(|source| RunError::NotStarted { program: name(), source })?;
        self.gather.command(command);
        let first = Followed {
            process: started.process,
            parent: std::process::id() as i32,
            space: None,
            program: NO_PROGRAM,
            filters: Filters::Ours,
            passes_next_map: PassNext::No,
        };
        self.threads.insert(started.process, first);
        Ok(started)
    }

    /// Reads ahead what `record` tells of, in the background and in its order, as far as there is room in frames.
    /// Returns the files that it leaves out.
    pub fn replay(&self, record: &Record) -> Vec<FilePlan> {
        let objects: HashMap<&Path, Arc<MappedObject>> = record
            .files()
            .iter()
            .filter_map(|file| {
                Some((file.path.as_path(), self.files.find(&file.path, Wish::Private, Executes::No)?))
            })
            .collect();
        let known: Vec<RecordedFile> = record
            .files()
            .iter()
            .filter(|file| objects.contains_key(file.path.as_path()))
            .filter_map(|file| RecordedFile::now(&file.path).ok())
            .collect();
        let plan = record.plan(&known, self.options.budget_bytes);
        for request in &plan.requests {
            if let Some(object) = objects.get(request.path.as_path()) {
                object.lent.prefetch(&request.ranges);
            }
        }
        plan.left_out
    }

    fn at_ends(&self) -> Traced {
        match self.options.counting {
            Counting::Totals => Traced::No,
            Counting::Touches => Traced::Yes,
        }
    }

    /// What is known of everything that ran.
    pub fn history(&self) -> History {
        let mut history = self.gather.history();
        let metrics = self.files.cache().metrics();
        history.totals = Totals {
            budget_bytes: metrics.budget_bytes,
            peak_frame_bytes: metrics.peak_frame_bytes,
            read_bytes: metrics.read_bytes,
            supplied_pages: metrics.supplied_pages,
            evicted_pages: metrics.evicted_pages,
            retries: metrics.retries,
            passed_through: history.totals.passed_through,
        };
        history
    }

    fn stopped(&mut self, pid: i32, stop: Stop) {
        let thread = Thread(pid);
        if !self.threads.contains_key(&pid) {
            return match self.expected.remove(&pid) {
                Some(birth) => self.begins(pid, birth),
                None => {
                    self.unborn.insert(pid);
                }
            };
        }
        let how = match stop {
            Stop::Call => self.call(pid),
            Stop::Program => self.program_begins(pid),
            Stop::Child => self.child(pid),
            Stop::Exit => self.about_to_exit(pid),
            Stop::Group(_) => Resume::StayStopped,
            Stop::Trap | Stop::CallBorder => Resume::Run,
            Stop::Signal(signal) => Resume::Signal(signal),
        };
        // A thread that was killed meanwhile is heard of again.
        let _ = thread.resume(how);
    }

    /// A thread has made another.
    fn child(&mut self, pid: i32) -> Resume {
        let thread = Thread(pid);
        let (Ok(child), Ok(registers)) = (thread.event_message(), thread.registers()) else {
            return Resume::Run;
        };
        let Some(maker) = self.threads.get(&pid).cloned() else { return Resume::Run };
        let flags = clone_flags(pid, &registers);
        let shares_memory = flags & libc_flags::VM != 0;
        // Children stop in any order. A maker with one thread makes the next one when this is known of the last.
        let certain = maker
            .space
            .as_ref()
            .filter(|space| !shares_memory && self.forks == Forks::Told && space.has_one_thread());
        let faults = certain.and_then(|space| space.take_child(|_| true));
        let is_thread = flags & libc_flags::THREAD != 0;
        let birth = Birth { maker, shares_memory, is_thread, faults };
        let child = child as i32;
        match self.unborn.remove(&child) {
            true => self.begins(child, birth),
            false => {
                self.expected.insert(child, birth);
            }
        }
        Resume::Run
    }

    /// A new thread has stopped for the first time.
    fn begins(&mut self, pid: i32, birth: Birth) {
        let Birth { maker, shares_memory, is_thread, faults } = birth;
        let process = if is_thread { maker.process } else { pid };
        let mut new = Followed {
            process,
            parent: if is_thread { maker.parent } else { maker.process },
            passes_next_map: PassNext::No,
            ..maker
        };
        if !is_thread {
            let command = command_of(pid);
            new.program = self.gather.program(pid as u32, maker.process as u32, command);
        }
        if shares_memory {
            if let Some(space) = &new.space {
                space.thread_begins();
            }
        } else if let Some(parent) = new.space.take() {
            match self.copy_space(pid, &parent, new.program, faults) {
                Ok(space) => new.space = Some(space),
                Err(error) => {
                    // It would see zeros where pages of files should be.
                    self.tell(&format!("process {pid} is ended: its faults cannot be told of ({error})"));
                    kill(pid);
                }
            }
        }
        self.threads.insert(pid, new);
        let _ = Thread(pid).resume(Resume::Run);
    }

    /// A thread has ended.
    pub(crate) fn gone(&mut self, pid: i32, ended: Outcome) {
        self.unborn.remove(&pid);
        self.expected.remove(&pid);
        let Some(thread) = self.threads.remove(&pid) else { return };
        if thread.process == pid {
            let end = match ended {
                Outcome::Exited(status) => ProgramEnd::Exited(status),
                Outcome::Killed(signal) => ProgramEnd::Killed(signal),
            };
            self.gather.ended(thread.program, end);
        }
        self.leaves(thread.space);
        self.end_orphans();
    }

    /// Ends new processes whose makers have ended before they could tell of them: nobody knows what they have inherited.
    fn end_orphans(&mut self) {
        let orphans = self.unborn.iter().copied().filter(|pid| {
            maker_of(*pid).is_none_or(|maker| !self.threads.values().any(|thread| thread.process == maker))
        });
        for orphan in orphans.collect::<Vec<_>>() {
            self.tell(&format!("process {orphan} is ended: its maker was killed while it made it"));
            kill(orphan);
        }
    }

    /// A thread does not run in `space` any more.
    pub(crate) fn leaves(&self, space: Option<Arc<Space>>) {
        let Some(space) = space else { return };
        space.thread_ends();
        let others = self
            .threads
            .values()
            .any(|thread| thread.space.as_ref().is_some_and(|other| Arc::ptr_eq(other, &space)));
        if !others {
            self.faults.forget(&space);
        }
    }

    /// Says something to whoever started the run.
    pub(crate) fn tell(&self, text: &str) {
        if self.options.messages == crate::options::Messages::StandardError {
            crate::say::say(&text);
        }
    }
}

impl Outcome {
    /// The end that was heard of.
    fn of(happened: Happened) -> Self {
        match happened {
            Happened::Killed(signal) => Self::Killed(signal),
            Happened::Exited(status) => Self::Exited(status),
            Happened::Stopped(_) => Self::Exited(0),
        }
    }
}

/// Tells of the first program's stops and continuations; returns whether it is stopped now.
fn tell_of_stop(stop: Stop, is_stopped: bool, progress: &mut dyn FnMut(Progress)) -> bool {
    match stop {
        Stop::Group(signal) if !is_stopped => progress(Progress::Stopped(signal)),
        Stop::Trap if is_stopped => progress(Progress::Continued),
        _ => {}
    }
    matches!(stop, Stop::Group(_))
}

/// Ends a process.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Numbers of clone(2).
mod libc_flags {
    pub(super) const VM: u64 = 0x100;
    pub(super) const VFORK: u64 = 0x4000;
    pub(super) const THREAD: u64 = 0x1_0000;
}

/// Of a process that has not run a program yet.
const NO_PROGRAM: usize = usize::MAX;

/// What a thread that has just made another asked for.
fn clone_flags(pid: i32, registers: &Registers) -> u64 {
    const CLONE: i64 = 56;
    const VFORK: i64 = 58;
    const CLONE3: i64 = 435;
    let first = registers.arguments()[0];
    match registers.call() {
        CLONE => first,
        VFORK => libc_flags::VM | libc_flags::VFORK,
        CLONE3 => {
            let mut flags = [0; 8];
            match trace::read_memory(pid, first, &mut flags) {
                Ok(8) => u64::from_ne_bytes(flags),
                _ => 0,
            }
        }
        _ => 0,
    }
}

/// The parent of a process.
fn maker_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have anything in it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The program and its arguments, as the process has them.
pub(crate) fn command_of(pid: i32) -> Vec<OsString> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// How faults can be told of here.
fn faults_by() -> Result<FaultsBy, RunError> {
    let features = memobj_sys::uffd::probe().map_err(|source| RunError::NoFaults { source: Some(source) })?;
    if !features.kernel_faults {
        return Err(RunError::NoFaults { source: None });
    }
    Ok(match memobj_sys::uffd::may_open_by_call() {
        true => FaultsBy::Call,
        false => FaultsBy::Device,
    })
}
