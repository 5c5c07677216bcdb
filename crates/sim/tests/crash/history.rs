//! One history: random operations on an object over a commit log, with a crash at every point.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use memobj_core::address::PageIndex;
use memobj_log::{
    AppendError, Checkpoint, CheckpointError, CommitLog, Finish, Kind, OpenError, Options, Progress,
    RepairError, Storage,
};
use memobj_sim::Random;
use memobj_sim::storage::{Fault, Machine, Operation, PAGE_BYTES, SimError};

use crate::broken::{Broken, Canary, Role};
use crate::state::{PAGES, State};

const IDENTITY: [u8; 16] = *b"the crash object";
const OPERATIONS: u32 = 100;
/// Ways in which one point is crashed.
const CRASHES: u64 = 2;

/// What was found wrong.
#[derive(Debug)]
pub struct Violation {
    seed: u64,
    what: String,
}

/// How much was covered.
#[derive(Clone, Copy, Default, Debug)]
pub struct Coverage {
    pub points: u64,
    pub crashes: u64,
    /// Crashes whose recovery was cut short by another one.
    pub interrupted: u64,
    pub commits: u64,
    pub failed_commits: u64,
    pub repairs: u64,
    pub checkpoints: u64,
    /// Checkpoints that found uncommitted images to carry over.
    pub carried: u64,
    pub reopened: u64,
}

impl Coverage {
    pub fn add(&mut self, other: Coverage) {
        self.points += other.points;
        self.crashes += other.crashes;
        self.interrupted += other.interrupted;
        self.commits += other.commits;
        self.failed_commits += other.failed_commits;
        self.repairs += other.repairs;
        self.checkpoints += other.checkpoints;
        self.carried += other.carried;
        self.reopened += other.reopened;
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

type Check = Result<(), String>;
type Log = CommitLog<Broken>;

/// What a crash may show, and what was found wrong; shared with the observer of the machine.
#[derive(Default)]
struct Watch {
    allowed: Vec<State>,
    problem: Option<String>,
    coverage: Coverage,
}

struct History {
    machine: Rc<Machine>,
    canary: Option<Canary>,
    random: Random,
    watch: Rc<RefCell<Watch>>,
    log: Option<Log>,
    plan: Option<Checkpoint>,
    /// The object as the program sees it, and its pages that are not in the log.
    memory: State,
    dirty: BTreeSet<u64>,
    committed: State,
    /// What a commit whose outcome is unknown would have made.
    unknown: Option<State>,
}

/// Runs the history of `seed`; says what it covered, or what it found.
pub fn run_history(seed: u64, canary: Option<Canary>) -> Result<Coverage, Violation> {
    let violation = |what| Violation { seed, what };
    let mut history = History::new(seed, canary).map_err(violation)?;
    for step in 0..OPERATIONS {
        let done = history.operation();
        let problem = history.watch.borrow_mut().problem.take();
        let problem = problem.or(done.err());
        if let Some(problem) = problem {
            return Err(violation(format!("operation {step}: {problem}")));
        }
    }
    Ok(history.watch.borrow().coverage)
}

fn storages(machine: &Rc<Machine>, canary: Option<Canary>) -> (Broken, Broken) {
    let file = |number, role| Broken { file: machine.file(number), role, canary };
    (file(1, Role::Log), file(0, Role::Data))
}

fn open(machine: &Rc<Machine>, canary: Option<Canary>, salt: u64) -> Result<Log, OpenError<SimError>> {
    let (log, data) = storages(machine, canary);
    CommitLog::open(log, data, IDENTITY, salt)
}

/// Opens the log on `machine` and compares the object with what it may be.
fn check_recovery(machine: &Rc<Machine>, canary: Option<Canary>, salt: u64, allowed: &[State]) -> Check {
    let log = open(machine, canary, salt).map_err(|error| format!("recovery failed: {error}"))?;
    let (_, data) = log.storages();
    let length = data.length().map_err(|error| error.to_string())?;
    let found = State::read(&log, length).map_err(|error| error.to_string())?;
    if allowed.contains(&found) {
        return Ok(());
    }
    let allowed: Vec<_> = allowed.iter().map(State::brief).collect();
    Err(format!("found {}, allowed {allowed:?}", found.brief()))
}

/// Cuts the power of `machine` here, in several ways, and checks what recovery makes of it.
fn crash_here(machine: &Machine, canary: Option<Canary>, random: &mut Random, watch: &mut Watch) -> Check {
    watch.coverage.points += 1;
    for _ in 0..CRASHES {
        watch.coverage.crashes += 1;
        let mut after = machine.crashed(random.draw());
        if random.below(3) == 0 {
            after.power_off_after(random.below(10));
            if open(&after, canary, random.draw()).is_err() {
                watch.coverage.interrupted += 1;
            }
            after = after.crashed(random.draw());
        }
        check_recovery(&after, canary, random.draw(), &watch.allowed)?;
    }
    Ok(())
}

impl History {
    fn new(seed: u64, canary: Option<Canary>) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let machine = Machine::new(random.draw(), 4000);
        let (data, log) = (machine.create(), machine.create());
        let mut committed = State { length: random.below(PAGES * PAGE_BYTES as u64), ..State::default() };
        (0..committed.page_count()).for_each(|page| committed.write(page, &mut random));
        let filled = data.set_length(committed.length).and_then(|()| {
            committed.pages.iter().try_for_each(|(page, bytes)| {
                let inside = (committed.length - page * PAGE_BYTES as u64).min(PAGE_BYTES as u64);
                data.write_at(page * PAGE_BYTES as u64, &bytes[..inside as usize])
            })
        });
        filled.and_then(|()| data.sync()).map_err(|error| error.to_string())?;
        drop(log);
        let (log, data) = storages(&machine, canary);
        let chunk_blocks = [4, 8, 16, 64][random.below(4) as usize];
        let options = Options { identity: IDENTITY, salt: random.draw(), chunk_blocks };
        // The beginning is the same for all: canaries break what comes later.
        let (whole_log, whole_data) = storages(&machine, None);
        CommitLog::create(whole_log, whole_data, options).map_err(|error| error.to_string())?;
        let log = CommitLog::open(log, data, IDENTITY, random.draw()).map_err(|error| error.to_string())?;
        let watch = Watch { allowed: vec![committed.clone()], ..Watch::default() };
        let history = Self {
            machine,
            canary,
            watch: Rc::new(RefCell::new(watch)),
            log: Some(log),
            plan: None,
            memory: committed.clone(),
            dirty: BTreeSet::new(),
            committed,
            unknown: None,
            random,
        };
        Ok(history.observed())
    }

    /// Has every point of the machine crashed.
    fn observed(mut self) -> Self {
        self.observe();
        self
    }

    fn observe(&mut self) {
        let (watch, canary) = (self.watch.clone(), self.canary);
        let mut random = Random::new(self.random.draw());
        self.machine.observe(Some(Box::new(move |machine, operation| {
            let mut watch = watch.borrow_mut();
            if watch.problem.is_none()
                && let Err(problem) = crash_here(machine, canary, &mut random, &mut watch)
            {
                watch.problem = Some(format!("crash before {operation:?}: {problem}"));
            }
        })));
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open")
    }

    fn allow(&mut self) {
        let mut allowed = vec![self.committed.clone()];
        allowed.extend(self.unknown.clone());
        self.watch.borrow_mut().allowed = allowed;
    }

    fn count(&mut self, count: impl FnOnce(&mut Coverage)) {
        count(&mut self.watch.borrow_mut().coverage);
    }

    fn operation(&mut self) -> Check {
        if self.log().needs_repair() && self.random.below(3) == 0 {
            self.maybe_fault(6);
            return self.repair();
        }
        match self.random.below(100) {
            0..30 => self.write(),
            30..42 => self.spill()?,
            42..62 => {
                self.maybe_fault(3);
                self.commit()?;
            }
            62..84 => {
                self.maybe_fault(8);
                self.checkpoint()?;
            }
            84..91 => self.set_length()?,
            91..95 => self.discard(),
            95..97 => self.reopen(None)?,
            97..98 => {
                let seed = self.random.draw();
                self.reopen(Some(seed))?;
            }
            _ => {}
        }
        self.machine.inject(None);
        self.machine.set_free_blocks(4000);
        self.compare()
    }

    /// Lets one of the next operations fail, once in `chance` times.
    fn maybe_fault(&mut self, chance: u64) {
        if self.random.below(chance) != 0 {
            return;
        }
        use Operation::{Reserve, SetLength, Sync, Write, Zero};
        let operation = [Write, Sync, Reserve, Sync, SetLength, Zero][self.random.below(6) as usize];
        let error = if operation == Operation::Reserve { SimError::NoSpace } else { SimError::Io };
        let (file, after) = (self.random.below(2) as usize, self.random.below(3) as u32 / 2);
        self.machine.inject(Some(Fault { file, operation, after, error }));
        if self.random.below(4) == 0 {
            self.machine.set_free_blocks(self.random.below(8));
        }
    }

    /// Some length, of whole pages once in four times.
    fn some_length(&mut self) -> u64 {
        let page = PAGE_BYTES as u64;
        match self.random.below(4) {
            0 => self.random.below(PAGES + 1) * page,
            _ => self.random.below(PAGES * page),
        }
    }

    fn write(&mut self) {
        let pages = self.memory.page_count();
        for _ in 0..1 + self.random.below(3) {
            if pages > 0 {
                let page = self.random.below(pages);
                self.memory.write(page, &mut self.random);
                self.dirty.insert(page);
            }
        }
    }

    fn spill(&mut self) -> Check {
        let some = self.random.below(4) > 0;
        let random = &mut self.random;
        let pages: Vec<_> =
            self.dirty.iter().filter(|_| some || random.below(2) == 0).map(|&page| PageIndex(page)).collect();
        self.maybe_fault(20);
        match self.append(&pages, Kind::Spill) {
            Ok(()) => pages.iter().for_each(|page| {
                self.dirty.remove(&page.0);
            }),
            Err(AppendError::Unknown(_)) => return Err("a spill's outcome is unknown".to_string()),
            Err(_) => {}
        }
        Ok(())
    }

    fn append(&mut self, pages: &[PageIndex], kind: Kind) -> Result<(), AppendError<SimError>> {
        let memory = self.memory.clone();
        self.log().append(pages, kind, |page, into| into.copy_from_slice(&memory.page(page.0)))
    }

    fn commit(&mut self) -> Check {
        let before = self.memory.clone();
        // An object may shrink or grow in the commit itself.
        if self.random.below(5) == 0 {
            let length = self.some_length();
            self.memory.set_length(length);
        }
        let length = self.memory.length;
        let end = self.memory.page_count();
        let pages: Vec<_> = self.dirty.range(..end).map(|&page| PageIndex(page)).collect();
        let was_sound = !self.log().needs_repair();
        if was_sound {
            self.watch.borrow_mut().allowed.push(self.memory.clone());
        }
        let result = if self.random.below(2) == 0 {
            self.append(&pages, Kind::Commit { length })
        } else {
            self.commit_in_parts(&pages)
        };
        match result {
            Ok(()) => {
                self.committed = self.memory.clone();
                self.dirty.clear();
                self.count(|coverage| coverage.commits += 1);
            }
            Err(AppendError::Unknown(_)) => {
                self.unknown = Some(std::mem::replace(&mut self.memory, before));
                self.count(|coverage| coverage.failed_commits += 1);
            }
            Err(_) => {
                self.memory = before;
                self.count(|coverage| coverage.failed_commits += u64::from(was_sound));
            }
        }
        self.allow();
        Ok(())
    }

    /// As a host that lets a checkpoint go on while the commit is written.
    fn commit_in_parts(&mut self, pages: &[PageIndex]) -> Result<(), AppendError<SimError>> {
        let memory = self.memory.clone();
        let image = |page: PageIndex, into: &mut [u8]| into.copy_from_slice(&memory.page(page.0));
        let mut commit = self.log().begin_commit(pages, memory.length, image)?;
        assert_eq!(self.log().append(&[], Kind::Spill, |_, _| {}), Err(AppendError::Busy));
        let (log, data) = storages(&self.machine, self.canary);
        if let Some(plan) = &mut self.plan {
            // Its error is met again by the next step.
            let _ = plan.step(&log, &data);
        }
        commit.write(&log);
        self.log().finish_commit(commit)
    }

    fn checkpoint(&mut self) -> Check {
        let Some(mut plan) = self.plan.take() else {
            match self.log().begin_checkpoint() {
                Ok(plan) => self.plan = plan,
                Err(CheckpointError::NeedsRepair | CheckpointError::Refused(_)) => {}
                Err(error) => return Err(format!("a checkpoint did not begin: {error}")),
            }
            return Ok(());
        };
        let (log, data) = storages(&self.machine, self.canary);
        for _ in 0..1 + self.random.below(6) {
            match plan.step(&log, &data) {
                Ok(Progress::More) | Err(_) => {}
                Ok(Progress::Done) => return self.finish(plan),
            }
        }
        if self.random.below(10) == 0 {
            self.log().cancel_checkpoint(plan);
        } else {
            self.plan = Some(plan);
        }
        Ok(())
    }

    fn finish(&mut self, mut plan: Checkpoint) -> Check {
        let pending = self.log().logged_pages().1;
        match self.log().finish_checkpoint(&mut plan) {
            Ok(Finish::Released) => self.count(|coverage| coverage.checkpoints += 1),
            Ok(Finish::Again) => {
                self.plan = Some(plan);
                self.count(|coverage| coverage.carried += u64::from(pending > 0));
            }
            Err(CheckpointError::Refused(_)) => self.plan = Some(plan),
            Err(CheckpointError::Failed(_) | CheckpointError::NeedsRepair) => {
                self.log().cancel_checkpoint(plan)
            }
            Err(error) => return Err(format!("a checkpoint did not finish: {error}")),
        }
        Ok(())
    }

    fn set_length(&mut self) -> Check {
        let length = self.some_length();
        if length < self.memory.length {
            self.maybe_fault(10);
            if self.log().truncate(length).is_err() {
                return Ok(());
            }
        }
        self.memory.set_length(length);
        self.dirty.split_off(&self.memory.page_count());
        Ok(())
    }

    fn discard(&mut self) {
        assert!(self.log().abandon());
        self.memory = self.committed.clone();
        self.dirty.clear();
    }

    fn repair(&mut self) -> Check {
        if let Some(plan) = self.plan.take() {
            self.log().cancel_checkpoint(plan);
        }
        match self.log().repair() {
            Ok(()) => {
                self.unknown = None;
                self.count(|coverage| coverage.repairs += 1);
            }
            // Spilled pages that a failed sync took with it: this transaction cannot be saved.
            Err(RepairError::Lost { .. }) => self.discard(),
            Err(_) => {}
        }
        self.machine.inject(None);
        self.allow();
        self.compare()
    }

    /// The process ends and another one opens the object; with a seed, the machine crashes in between.
    fn reopen(&mut self, crash: Option<u64>) -> Check {
        self.plan = None;
        self.log = None;
        if let Some(seed) = crash {
            self.machine.observe(None);
            self.machine = self.machine.crashed(seed);
            self.observe();
        }
        let salt = self.random.draw();
        let log =
            open(&self.machine, self.canary, salt).map_err(|error| format!("reopening failed: {error}"))?;
        let found = State::read(&log, log.committed_length()).map_err(|error| error.to_string())?;
        if found != self.committed && Some(&found) != self.unknown.as_ref() {
            return Err(format!("reopened as {}, committed was {}", found.brief(), self.committed.brief()));
        }
        self.log = Some(log);
        self.committed = found;
        self.unknown = None;
        self.allow();
        self.discard();
        self.count(|coverage| coverage.reopened += 1);
        Ok(())
    }

    /// Pages that are not dirty read from the log, or in place, as the program left them.
    fn compare(&mut self) -> Check {
        let damaged = self.log().needs_repair();
        for page in 0..PAGES + 1 {
            let mut bytes = [0; PAGE_BYTES];
            match self.log().read_page(PageIndex(page), &mut bytes) {
                Err(_) if damaged => continue,
                Err(error) => return Err(format!("page {page}: {error}")),
                Ok(()) if self.dirty.contains(&page) => continue,
                Ok(()) if bytes == self.memory.page(page) => {}
                Ok(()) => return Err(format!("page {page} reads wrong bytes")),
            }
        }
        Ok(())
    }
}
