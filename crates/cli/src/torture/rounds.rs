//! The parent: starts workers, kills them, checks their files.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use super::history::History;
use super::random::{Random, mix};
use super::record_file::{RecordFile, copies_of};
use super::report::Report;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::Delivery;
use crate::output::put;
use crate::write_args::{LoadArguments, Promise, TortureArguments, Way};

/// The longest life of a worker.
const LIFE_MS: u64 = 300;
/// The longest life of a second worker, which is to die while it begins.
const SHORT_LIFE_MS: u64 = 15;
/// How often to look whether the user wants to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What the page that a writer pins takes of a budget.
const BUDGET_OF_WRITER: u64 = 4 * 4096;
/// SIGKILL.
const KILL_SIGNAL: i32 = 9;

/// What one round is about.
#[derive(Clone, Debug)]
struct Round {
    promise: Promise,
    way: Way,
    delivery: Delivery,
    /// How long its worker lives; and in some rounds another one after it, which finds what the first one left.
    lives: Vec<Duration>,
}

/// What was done so far.
#[derive(Debug, Default)]
struct Counts {
    rounds: u32,
    kills: u32,
    syncs: u64,
    commits: u64,
}

/// A file with its history: one for each promise and way.
#[derive(Debug)]
struct Subject {
    promise: Promise,
    way: Way,
    path: PathBuf,
    history: History,
}

/// The directory of the files; removed with everything in it, unless something is to be looked at.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    is_kept: bool,
}

/// A process, killed when dropped.
#[derive(Debug)]
struct Prey {
    process: Child,
    reports: Receiver<Report>,
}

/// Runs the rounds.
pub(crate) fn run(arguments: &TortureArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    check_budget(&arguments.load)?;
    let seed = arguments.load.seed.unwrap_or_else(any_seed);
    let load = LoadArguments { seed: Some(seed), ..arguments.load.clone() };
    say(&format!("seed {seed}"))?;
    let mut folder = Folder::create(arguments.dir.as_deref())?;
    let mut subjects = Vec::new();
    let mut counts = Counts::default();
    for number in 0..arguments.rounds {
        let round = Round::new(seed, number);
        let subject = subject(&mut subjects, &folder, &load, &round)?;
        let violation = play(subject, &load, &round, interrupt, &mut counts)?;
        if let Err(what) = violation {
            folder.is_kept = true;
            say(&counts.line())?;
            let file = subject.path.display();
            return Err(Failure::Message(format!(
                "seed {seed}, round {number}, {round}: {what}; see {file}"
            )));
        }
        counts.rounds += 1;
        counts.commits = subjects.iter().map(|subject: &Subject| subject.history.commits()).sum();
    }
    say(&counts.line())
}

/// Each writer pins a page at a time, and a quarter of the budget is for such pins.
fn check_budget(load: &LoadArguments) -> Result<(), Failure> {
    let least = u64::from(load.writers) * BUDGET_OF_WRITER;
    if load.budget >= least {
        return Ok(());
    }
    let (budget, writers) = (load.budget, load.writers);
    Err(Failure::Usage(format!("budget of {budget} bytes: {writers} writers need {least}")))
}

fn say(line: &str) -> Result<(), Failure> {
    put(format!("{line}\n").as_bytes())
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    mix(now.as_nanos() as u64 ^ u64::from(process::id())) >> 32
}

impl Counts {
    fn line(&self) -> String {
        let Self { rounds, kills, syncs, commits } = self;
        format!("{rounds} rounds, {kills} kills, {syncs} syncs, {commits} commits checked")
    }
}

impl Round {
    /// Rounds take turns in everything.
    fn new(seed: u64, number: u32) -> Self {
        let promise = Promise::value_variants()[number as usize % 2];
        let turn = number / 2;
        let mut random = Random::new(seed, number.into());
        let mut life = |longest_ms: u64| Duration::from_micros(random.below(longest_ms * 1000));
        let mut lives = vec![life(LIFE_MS)];
        if number / 2 % 3 == 2 {
            lives.push(life(SHORT_LIFE_MS));
        }
        Self {
            promise,
            way: Way::value_variants()[turn as usize % 3],
            delivery: [Delivery::Inthread, Delivery::Reader][turn as usize % 2],
            lives,
        }
    }
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { promise, way, delivery, lives } = self;
        write!(f, "{}, {}, {}, killed after {lives:?}", word(*promise), word(*way), word(*delivery))
    }
}

/// As on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}

/// The file of `round`, made if it is the first one.
fn subject<'a>(
    subjects: &'a mut Vec<Subject>,
    folder: &Folder,
    load: &LoadArguments,
    round: &Round,
) -> Result<&'a mut Subject, Failure> {
    let Round { promise, way, .. } = *round;
    let known = subjects.iter().position(|subject| (subject.promise, subject.way) == (promise, way));
    let at = known.unwrap_or(subjects.len());
    if known.is_none() {
        let path = folder.path.join(format!("{}-{}", word(promise), word(way)));
        let created = File::create_new(&path).and_then(|file| file.set_len(load.size));
        created.map_err(|error| Failure::io(&format!("create {}", path.display()), &error))?;
        let seed = load.seed.unwrap_or_default();
        let writers = load.writers.into();
        let history = History::new(promise, copies_of(promise, way), seed, writers, load.size);
        subjects.push(Subject { promise, way, path, history });
    }
    Ok(&mut subjects[at])
}

/// One round: life and death of its workers, and the check. The inner error is a violation.
fn play(
    subject: &mut Subject,
    load: &LoadArguments,
    round: &Round,
    interrupt: &Interrupt,
    counts: &mut Counts,
) -> Result<Result<(), String>, Failure> {
    for life in &round.lives {
        let mut prey = Prey::start(subject, load, round)?;
        let reports = prey.watch(*life, interrupt)?;
        let status = prey.kill()?;
        let reports = reports.into_iter().chain(prey.reports.iter());
        for report in reports {
            counts.syncs += u64::from(matches!(report, Report::Synced(_)));
            if let Err(why) = subject.history.promised(report) {
                // The worker of an interrupted run may have been interrupted, too.
                interrupt.check()?;
                return Ok(Err(why));
            }
        }
        interrupt.check()?;
        if status.signal() != Some(KILL_SIGNAL) {
            return Ok(Err(format!("the worker ended before it was killed: {status}")));
        }
        counts.kills += 1;
    }
    Ok(bytes_of(subject, load, round).and_then(|bytes| subject.history.check(&bytes)))
}

/// What the file holds now. Commits are read through the library, which settles what was left of them; what was
/// synced in place is what any program sees.
fn bytes_of(subject: &Subject, load: &LoadArguments, round: &Round) -> Result<Vec<u8>, String> {
    let cannot = |why: String| format!("the file cannot be read any more: {why}");
    match subject.promise {
        Promise::Sync => fs::read(&subject.path).map_err(|error| cannot(error.to_string())),
        Promise::Commit => {
            let opened =
                RecordFile::open(&subject.path, subject.promise, subject.way, round.delivery, load.budget);
            opened.and_then(|record_file| record_file.read()).map_err(|failure| match failure {
                Failure::Message(why) => cannot(why),
                other => cannot(format!("{other:?}")),
            })
        }
    }
}

impl Prey {
    fn start(subject: &Subject, load: &LoadArguments, round: &Round) -> Result<Self, Failure> {
        let failed = |error| Failure::io("start a worker", &error);
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.arg("torture-worker");
        let options = [
            ("--seed", load.seed.unwrap_or_default().to_string()),
            ("--writers", load.writers.to_string()),
            ("--size", load.size.to_string()),
            ("--budget", load.budget.to_string()),
            ("--promise", word(round.promise)),
            ("--way", word(round.way)),
            ("--delivery", word(round.delivery)),
        ];
        for (name, value) in options {
            command.args([name, value.as_str()]);
        }
        if let Some(sabotage) = load.sabotage {
            command.args(["--sabotage", &word(sabotage)]);
        }
        command.arg(&subject.path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(failed)?;
        let pipe = process.stdout.take().expect("standard output is piped");
        Ok(Self { process, reports: listen(pipe) })
    }

    /// What it reports while it lives for `life`; less if it ends before.
    fn watch(&self, life: Duration, interrupt: &Interrupt) -> Result<Vec<Report>, Failure> {
        let until = Instant::now() + life;
        let mut reports = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            interrupt.check()?;
            match self.reports.recv_timeout(left.min(LOOK_AGAIN)) {
                Ok(report) => reports.push(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(reports)
    }

    /// Kills it and waits for its end: how it ended, which may have been before.
    fn kill(&mut self) -> Result<ExitStatus, Failure> {
        self.process.kill().map_err(|error| Failure::io("kill the worker", &error))?;
        self.process.wait().map_err(|error| Failure::io("wait for the worker", &error))
    }
}

impl Drop for Prey {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.kill();
    }
}

/// Takes reports out of the pipe as they come, so that the worker never waits for the parent.
fn listen(mut pipe: ChildStdout) -> Receiver<Report> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        while let Some(report) = Report::receive(&mut pipe) {
            if sender.send(report).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Folder {
    fn create(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
        let path = parent.join(format!("memobj-torture-{}", process::id()));
        fs::create_dir(&path).map_err(|error| Failure::io(&format!("create {}", path.display()), &error))?;
        Ok(Self { path, is_kept: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            Failure::io(&format!("remove {}", self.path.display()), &error).print();
        }
    }
}
