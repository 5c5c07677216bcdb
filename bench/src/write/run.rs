//! The parent of `write`: plans, prepares files, starts children in turns, reads back what they wrote.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bars;
use super::job::{WriteJob, WritePattern};
use super::options::WriteOptions;
use super::plan::{self, Cell, Group};
use super::report::{self, Line};
use super::verify::{self, Prepared};
use crate::cgroup::Cgroup;
use crate::cgroup::{BOUND_SLACK_BYTES, Limit};
use crate::children::{self, Children, touch_memory};
use crate::job::{Failure, Outcome, Sample};
use crate::machine::Machine;
use crate::parent;
use crate::report::bar_table;

/// Data that a child may still have to bring to a slow disk when its time is over: allowed for at 20 MB/s.
const SLOWEST_BYTES_PER_SECOND: f64 = 20e6;

/// What all measurements of a run share.
struct Run {
    options: WriteOptions,
    directory: PathBuf,
    children: Children,
}

/// `memobj-bench write`.
pub fn write(options: &WriteOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    plan::check_names(&options.contestants)?;
    let directory = children::test_directory(options.output.dir.as_deref())?;
    let machine = Machine::find(&directory);
    println!("{}\n", machine.line());
    let run = Run { options, directory, children: Children::new()? };
    println!("{}\n", report::settings(&run.options));
    let lines = run.all_groups()?;
    let bars = bars::bars(&lines);
    print!("{}", bar_table(&bars));
    run.options.output.finish(|| report::json(&machine, &lines, &bars), lines.iter().map(|line| &line.note))
}

impl Run {
    fn all_groups(&self) -> Result<Vec<Line>, String> {
        let table = |group: &Group, lines: &[Line]| report::table(group.pattern, lines);
        parent::by_tables(
            &plan::groups(&self.options),
            |group| group.pattern,
            |group| self.group(group),
            table,
        )
    }

    /// All cells once per repetition, each repetition starting with another one.
    fn group(&self, group: &Group) -> Result<Vec<Line>, String> {
        let mut lines: Vec<Line> = group.cells.iter().map(|cell| Line::new(group.pattern, cell)).collect();
        let at_end = |line: &Line| line.note.is_some();
        parent::in_turns(&mut lines, self.options.reps, at_end, |index, turn, line| {
            self.measure(group, &group.cells[index], turn, line)
        })?;
        Ok(lines)
    }

    fn measure(&self, group: &Group, cell: &Cell, turn: u32, line: &mut Line) -> Result<(), String> {
        let name = line.name();
        let kind = super::kind(cell.contestant);
        let prepared = verify::prepare(&self.directory, group.pattern, kind, group.file_bytes)
            .map_err(|failure| format!("{name}: preparing the file: {failure}"))?;
        if cell.limit != Limit::Unlimited {
            touch_memory(group.budget_bytes + BOUND_SLACK_BYTES);
        }
        let cgroup = self.children.cgroup(cell.limit, group.budget_bytes)?;
        line.limited = cgroup.is_some();
        let job = self.job(group, cell, turn, &prepared, cgroup.as_ref());
        let to_disk = Duration::from_secs_f64(group.file_bytes as f64 / SLOWEST_BYTES_PER_SECOND);
        let outcome = match self.children.run(&job, job.measured() + to_disk)? {
            Outcome::Measured(mut sample) => {
                sample.peak_cgroup_bytes = cgroup.as_ref().and_then(Cgroup::peak_bytes);
                // Before the file is read back: its pages are no longer the contestant's.
                drop(cgroup);
                read_back(&prepared, &job, sample)
            }
            other => other,
        };
        if group.pattern == WritePattern::Commit {
            prepared.remove().map_err(|error| format!("{name}: removing the file: {error}"))?;
        }
        // Wrong data of one contestant is told like a failure: the others go on.
        let outcome = match outcome {
            Outcome::WrongData(reason) => Outcome::Failed(reason),
            other => other,
        };
        let say = |sample: &Sample| self.options.output.say(&name, sample);
        parent::enter(outcome, &name, None, &mut line.note, &mut line.samples, say)
    }

    fn job(
        &self,
        group: &Group,
        cell: &Cell,
        turn: u32,
        prepared: &Prepared,
        cgroup: Option<&Cgroup>,
    ) -> WriteJob {
        WriteJob {
            pattern: group.pattern,
            contestant: cell.contestant.to_string(),
            threads: cell.threads,
            pages_per_commit: cell.pages_per_commit,
            file: prepared.path.clone(),
            file_bytes: group.file_bytes,
            budget_bytes: group.budget_bytes,
            seconds: self.options.seconds,
            seed: u64::from(turn) + 1,
            stamp: now_ns(),
            cgroup: cgroup.map(|cgroup| cgroup.path().to_path_buf()),
        }
    }
}

/// The sample, if all that it claims to have written is there.
fn read_back(prepared: &Prepared, job: &WriteJob, sample: Sample) -> Outcome {
    let verified = match sample.written {
        Some(written) => prepared.verify(job, written),
        None => Err(Failure::Failed("does not say what it wrote".into())),
    };
    match verified {
        Ok(()) => Outcome::Measured(sample),
        Err(Failure::WrongData(reason)) => Outcome::WrongData(format!("wrong data: {reason}")),
        Err(failure) => failure.into(),
    }
}

/// Nanoseconds since 1970: a stamp that no page in a file has yet.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64)
}
