//! The tracer: follows processes, threads and programs from their start to their end.

mod calls;
mod events;
mod handover;
mod haste;
mod idle;
mod names;
mod programs;
mod resolve;
mod segments;
mod stops;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use memobj_linux::uffd::ForeignFaults;
use memobj_tracer::{
    Call, Guard, Happened, Limits, Program, Registers, Resume, Started, Thread, Traced, Tracing,
};

use memobj_linux::uffd::{Forks, forks_can_be_told};

use crate::descriptor_budget::DescriptorBudget;
use crate::error::{NotServed, RunError};
use crate::faults::Faults;
use crate::files::{Files, MappedObject, MappingKind};
use crate::history::{History, ProgramEnd, Totals};
use crate::history_builder::HistoryBuilder;
use crate::lender::{Lender, Wanted};
use crate::objects::{Copies, Objects};
use crate::options::{Counting, Options};
use crate::pages::Pages;
use crate::program_space::ProgramSpace;
use crate::record::{FilePlan, Record, RecordedFile};
use events::{FirstProgram, Jobs};
use idle::Looks;
use names::{Names, guests};
use programs::continue_from;
use resolve::Resolver;
use waiting::WaitingThreads;

/// Runs programs whose file mappings are segments of memory objects of one cache.
///
/// All calls are made by the thread that made it. It waits for any child of this thread, so the thread has none that
/// somebody else waits for. SIGCHLD is blocked in the thread from then on; threads that do not block it may delay what
/// is heard of programs by 50 ms.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) options: Options,
    pub(crate) files: Arc<Files>,
    pub(crate) faults: Faults,
    pub(crate) history_builder: Arc<HistoryBuilder>,
    pub(crate) names: Arc<Names>,
    pub(crate) threads: HashMap<i32, Followed>,
    pub(crate) next_space: u64,
    /// New threads that have stopped before their makers told of them.
    pub(crate) unborn: HashSet<i32>,
    /// Threads that were interrupted and have not stopped for it yet.
    pub(crate) interrupted: HashSet<i32>,
    /// New threads that were told of and have not stopped yet.
    pub(crate) expected: HashMap<i32, Birth>,
    pub(crate) pages: Pages,
    pub(crate) forks: Forks,
    /// Why programs run unserved, as far as it was told.
    pub(crate) unserved: HashSet<String>,
    limits: Limits,
    /// Of the program that was run.
    pub(crate) first: FirstProgram,
    pub(crate) descriptors: DescriptorBudget,
    pub(crate) resolver: Resolver,
    /// Threads that stay stopped until it is known what they name.
    pub(crate) waiting: WaitingThreads,
    /// What other threads want done by this one.
    pub(crate) jobs: Jobs,
    /// When it is looked for objects that nobody maps.
    pub(crate) looks: Looks,
    pub(crate) guard_is_gone: bool,
    /// Of objects, where they cannot be read on demand.
    copies: Copies,
    // Dropped last: it keeps descriptors open.
    pub(crate) guard: Option<Guard>,
}

/// A traced thread.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// The process that it belongs to.
    pub(crate) process: i32,
    pub(crate) parent: i32,
    /// `None`: nothing of its address space is served.
    pub(crate) space: Option<Arc<ProgramSpace>>,
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
pub(crate) struct Birth {
    maker: Followed,
    shares_memory: bool,
    shares_files: bool,
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
    /// Readies a cache and the event loop that resolves faults.
    ///
    /// # Errors
    ///
    /// `NoFaults` if this process cannot be told of faults inside system calls, and there is anything to do beside looking at
    /// names; what the cache and the system say.
    pub fn new(options: Options) -> Result<Self, RunError> {
        let wanted = Wanted::new(&options)?;
        let system = |what| move |source| RunError::System { what, source };
        // Before there are other threads: SIGCHLD is blocked in all.
        let jobs = Jobs::of_this_thread();
        if options.via.is_none() {
            memobj_linux::pagemap::keep_open();
        }
        let guard = Guard::start().map_err(system("start a guard"))?;
        let limits = Limits::raise().map_err(system("raise limits"))?;
        let lender = Lender::new(wanted, &options)?;
        let pages = crate::pages::pages(&options)?;
        let history_builder = Arc::new(HistoryBuilder::new(options.counting));
        let mut guests = guests(&options.names);
        let objects = Objects::start(&mut guests, pages, lender.cache(), &options, &history_builder)?;
        let names = Names::new(&guests, &options.names, objects.files)
            .map_err(system("open what names stand for"))?;
        let files = Files::new(lender, options.clone(), Arc::clone(&history_builder), Box::new(jobs.clone()));
        let faults = Faults::start(Arc::clone(&files), Arc::clone(&history_builder), options.clone());
        Ok(Self {
            faults: faults.map_err(system("start the event loop for faults"))?,
            names: Arc::new(names),
            options,
            files,
            history_builder,
            threads: HashMap::new(),
            next_space: 1,
            unborn: HashSet::new(),
            interrupted: HashSet::new(),
            expected: HashMap::new(),
            pages,
            forks: forks_can_be_told(),
            unserved: HashSet::new(),
            limits,
            first: FirstProgram::default(),
            descriptors: DescriptorBudget::new().map_err(system("make an event"))?,
            resolver: Resolver::default(),
            waiting: WaitingThreads::default(),
            jobs,
            looks: Looks::new(),
            guard_is_gone: false,
            copies: objects.copies,
            guard: Some(guard),
        })
    }

    /// What the cache tells of objects and their pagers, from now on. See [`Cache::events`](memobj::Cache::events). `None`:
    /// the cache is that of a server.
    pub fn events(&self) -> Option<memobj::Events> {
        Some(self.files.lender().cache()?.events())
    }

    /// Starts the program.
    pub(crate) fn begin(&mut self, command: &[OsString]) -> Result<Started, RunError> {
        let name = || command.first().cloned().unwrap_or_default();
        let program =
            Program::find(command).map_err(|source| RunError::NotFound { program: name(), source })?;
        let tracing = Tracing {
            names: if self.options.names.is_empty() { Traced::No } else { Traced::Yes },
            programs: self.at_ends(),
        };
        let started = memobj_tracer::spawn(&program, tracing, self.at_ends(), self.limits)
            .map_err(|source| RunError::NotStarted { program: name(), source })?;
        self.history_builder.command(command);
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
                Some((file.path.as_path(), self.files.find(&file.path, MappingKind::Private)?))
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
        let mut history = self.history_builder.history();
        let metrics = self.files.lender().metrics();
        let faults = self.faults.metrics();
        history.totals = Totals {
            budget_bytes: metrics.budget_bytes,
            peak_frame_bytes: metrics.peak_frame_bytes,
            read_bytes: metrics.read_bytes,
            supplied_pages: metrics.supplied_pages,
            evicted_pages: metrics.evicted_pages,
            retries: metrics.retries,
            passed_through: history.totals.passed_through,
            faults_held_back: faults.held_back,
            fault_calls_held_up: faults.calls_held_up,
        };
        history
    }

    /// A thread has made another.
    pub(crate) fn child(&mut self, pid: i32) -> Resume {
        let thread = Thread(pid);
        let (Ok(child), Ok(registers)) = (thread.event_message(), thread.registers()) else {
            return Resume::Run;
        };
        let child = child as i32;
        let Some(maker) = self.threads.get(&pid).cloned() else { return Resume::Run };
        let flags = clone_flags(pid, &registers);
        let shares_memory = flags & libc_flags::VM != 0;
        // Children stop in any order. A maker with one thread makes the next one when this is known of the last.
        let certain = maker
            .space
            .as_ref()
            .filter(|space| !shares_memory && self.forks == Forks::Told && space.has_one_thread());
        let faults = certain
            .and_then(|space| space.take_child(|_| true, || !has_ended(child) && self.maps_frames(child)));
        let is_thread = flags & libc_flags::THREAD != 0;
        let shares_files = flags & libc_flags::FILES != 0;
        let birth = Birth { maker, shares_memory, shares_files, is_thread, faults };
        if self.unborn.remove(&child) {
            self.begins(child, birth);
        } else if Path::new(&format!("/proc/{child}")).exists() {
            self.expected.insert(child, birth);
        }
        // Else it was killed before it could stop, and its end was heard of.
        Resume::Run
    }

    /// A new thread has stopped for the first time.
    pub(crate) fn begins(&mut self, pid: i32, birth: Birth) {
        let Birth { maker, shares_memory, shares_files, is_thread, faults } = birth;
        let process = if is_thread { maker.process } else { pid };
        let mut new = Followed {
            process,
            parent: if is_thread { maker.parent } else { maker.process },
            passes_next_map: PassNext::No,
            ..maker
        };
        if !is_thread {
            let command = command_of(pid);
            new.program = self.history_builder.program(pid as u32, maker.process as u32, command);
        }
        if !shares_files && let Some(parent) = &new.space {
            close_leaked(Thread(pid), parent);
        }
        if shares_memory {
            if let Some(space) = &new.space {
                space.thread_begins();
            }
        } else if let Some(parent) = new.space.take() {
            match self.copy_space(pid, &parent, new.program, faults) {
                Ok(space) => new.space = space,
                // The next report tells of it. It is ended all the same, so that nothing of it can run.
                Err(NotServed::Ended) => kill(pid),
                Err(error) => {
                    // It would see zeros where pages of files should be.
                    self.tell(&format!("process {pid} is ended: its faults cannot be reported ({error})"));
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
        self.interrupted.remove(&pid);
        let Some(thread) = self.threads.remove(&pid) else { return };
        if thread.process == pid {
            let end = match ended {
                Outcome::Exited(status) => ProgramEnd::Exited(status),
                Outcome::Killed(signal) => ProgramEnd::Killed(signal),
            };
            self.history_builder.ended(thread.program, end);
        }
        self.leaves(thread.space);
        self.end_orphans();
    }

    /// Ends the second process that keeps descriptors, and removes copies of objects, when nothing runs any more.
    pub(crate) fn clean_up(&mut self) {
        self.guard = None;
        self.copies = Copies::default();
    }

    /// Ends new processes whose makers have ended before they could tell of them: nobody knows what they have inherited.
    pub(crate) fn end_orphans(&mut self) {
        let us = std::process::id() as i32;
        let is_known = |maker: i32| self.threads.values().any(|thread| thread.process == maker);
        // The child of a parent's child has the parent's parent, which may be this process.
        let has_maker = |maker: i32| is_known(maker) || (maker == us && !self.threads.is_empty());
        let orphans = self.unborn.iter().copied().filter(|pid| !maker_of(*pid).is_some_and(has_maker));
        for orphan in orphans.collect::<Vec<_>>() {
            self.tell(&format!("process {orphan} is ended: its parent was killed during the fork"));
            kill(orphan);
        }
    }

    /// A thread does not run in `space` any more.
    pub(crate) fn leaves(&self, space: Option<Arc<ProgramSpace>>) {
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

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl Outcome {
    /// The end that was heard of.
    pub(crate) fn of(happened: Happened) -> Self {
        match happened {
            Happened::Killed(signal) => Self::Killed(signal),
            Happened::Exited(status) => Self::Exited(status),
            Happened::Stopped(_) => Self::Exited(0),
        }
    }
}

/// Closes descriptors that a new process has of what a thread of its maker was handed at that moment.
fn close_leaked(thread: Thread, parent: &ProgramSpace) {
    if parent.is_left_alone() {
        return;
    }
    let leaked = parent.leaked_to(thread.0);
    let Ok(base) = thread.registers() else { return };
    for number in leaked {
        // One that is killed meanwhile is told of.
        let _ = parent.site.one(thread, &base, Call::close(number));
        let _ = continue_from(thread, &base);
    }
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
    pub(super) const FILES: u64 = 0x400;
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
            match memobj_tracer::read_memory(pid, first, &mut flags) {
                Ok(8) => u64::from_ne_bytes(flags),
                _ => 0,
            }
        }
        _ => 0,
    }
}

/// Whether a process is no more, or was not waited for yet.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The process of a thread that is not the first of its own, or the parent of a process.
fn maker_of(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    number("Tgid:").filter(|process: &i32| *process != pid).or_else(|| number("PPid:"))
}

/// The program and its arguments, as the process has them.
pub(crate) fn command_of(pid: i32) -> Vec<OsString> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}
