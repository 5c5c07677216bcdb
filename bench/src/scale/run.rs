//! The parent of `scale`: makes files, starts children in turns, collects.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::bytes;
use super::job::{Part, ScaleJob};
use super::options::ScaleOptions;
use super::plan::{self, BASELINE, Group};
use super::report::{self, Line};
use crate::cgroup::Cgroup;
use crate::cgroup::{BOUND_SLACK_BYTES, Limit, PROCESS_BYTES};
use crate::children::{self, Children};
use crate::data;
use crate::job::{Outcome, Sample};
use crate::machine::Machine;
use crate::parent;

/// A child may take so long for a million accesses, or ten thousand objects.
const MEASURED: Duration = Duration::from_secs(120);
/// What a child gets that ran out of memory, as a multiple of what it had.
const MORE: u64 = 4;
/// A child that needs more than this, or than half of the machine's memory, does not get it.
const MOST_BYTES: u64 = 16 << 30;
/// Memory for many objects beside the budget: they are not to run into it.
const OBJECTS_BYTES: u64 = 1 << 30;

/// What all measurements of a run share.
struct Run {
    options: ScaleOptions,
    directory: PathBuf,
    children: Children,
    /// The most memory that a child gets.
    most_bytes: u64,
}

/// `memobj-bench scale`.
pub fn scale(options: &ScaleOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    plan::check_names(&options.contestants)?;
    let directory = children::test_directory(options.output.dir.as_deref())?;
    let machine = Machine::find(&directory);
    println!("{}\n", machine.line());
    let most_bytes = MOST_BYTES.min(machine.memory_mib << 20 >> 1);
    let run = Run { options, directory, children: Children::new()?, most_bytes };
    println!("{}\n", report::settings(&run.options));
    let lines = run.all_groups()?;
    run.options.output.finish(|| report::json(&machine, &lines), lines.iter().map(|line| &line.note))
}

impl Run {
    fn all_groups(&self) -> Result<Vec<Line>, String> {
        let table = |group: &Group, lines: &[Line]| report::table(group.part, lines);
        parent::by_tables(&plan::groups(&self.options), |group| group.part, |group| self.group(group), table)
    }

    /// All contestants once per repetition, each repetition starting with another one.
    fn group(&self, group: &Group) -> Result<Vec<Line>, String> {
        let new_line = |contestant: &&'static str| Line::new(group, contestant);
        let mut lines: Vec<Line> = group.contestants.iter().map(new_line).collect();
        let file = self.file(group);
        if let Err(reason) = &file {
            let needs_file = |line: &&mut Line| !line.contestant.ends_with("-computed");
            lines
                .iter_mut()
                .filter(needs_file)
                .for_each(|line| line.note = Some(format!("skipped: {reason}")));
        }
        let file = file.unwrap_or_default();
        let at_end = |line: &Line| line.note.is_some();
        parent::in_turns(&mut lines, self.options.reps, at_end, |_, turn, line| {
            self.measure(group, &file, turn, line)
        })?;
        Ok(lines)
    }

    /// The file of a group; not every file system takes terabytes.
    fn file(&self, group: &Group) -> Result<PathBuf, String> {
        let file = match group.part {
            Part::Access => bytes::sparse_file(&self.directory, group.object_bytes),
            Part::Objects => data::test_file(&self.directory, group.object_bytes),
        };
        file.map_err(|error| format!("a file of {}: {error}", report::size(group.object_bytes)))
    }

    /// Starts a child, and again with more memory as long as the kernel kills it for lack of it.
    fn measure(&self, group: &Group, file: &Path, turn: u32, line: &mut Line) -> Result<(), String> {
        let mut memory_bytes =
            line.limit_bytes.map_or_else(|| self.first_memory(group), |limit| limit - extra(line));
        loop {
            if file != Path::new("") {
                bytes::drop_page_cache(file).map_err(|error| format!("dropping the page cache: {error}"))?;
            }
            let limit = if line.contestant == BASELINE { Limit::Budget } else { Limit::Bound };
            let cgroup = self.children.cgroup(limit, memory_bytes)?;
            line.limit_bytes = cgroup.as_ref().map(|_| memory_bytes + extra(line));
            let job = self.job(group, file, turn, line, cgroup.as_ref());
            let outcome = self.children.run(&job, MEASURED)?;
            let killed = cgroup.as_ref().and_then(Cgroup::oom_kills).is_some_and(|kills| kills > 0);
            if !killed {
                return self.enter(outcome, cgroup.as_ref(), line);
            }
            let limit_mib = (memory_bytes + extra(line)) >> 20;
            self.say(line, &format!("out of memory with {limit_mib} MiB"));
            if memory_bytes >= self.most_bytes {
                line.note = Some(format!("killed: needs more than {limit_mib} MiB"));
                return Ok(());
            }
            memory_bytes = (memory_bytes * MORE).min(self.most_bytes);
        }
    }

    fn first_memory(&self, group: &Group) -> u64 {
        match group.part {
            Part::Access => self.options.budget,
            Part::Objects => self.options.budget + OBJECTS_BYTES,
        }
    }

    fn job(&self, group: &Group, file: &Path, turn: u32, line: &Line, cgroup: Option<&Cgroup>) -> ScaleJob {
        ScaleJob {
            part: group.part,
            contestant: line.contestant.to_string(),
            file: file.to_path_buf(),
            object_bytes: group.object_bytes,
            budget_bytes: self.options.budget,
            count: group.count,
            seed: u64::from(turn) + 1,
            cgroup: cgroup.map(|cgroup| cgroup.path().to_path_buf()),
        }
    }

    /// Puts what came out into its line.
    fn enter(&self, outcome: Outcome, cgroup: Option<&Cgroup>, line: &mut Line) -> Result<(), String> {
        let name = line.name();
        let say = |sample: &Sample| {
            if self.options.output.verbose {
                eprintln!("{name}: {} ns each", sample.elapsed_ns / sample.accesses.max(1));
            }
            if let Some(reason) = sample.memory.as_deref().and_then(|memory| memory.stopped.as_ref()) {
                eprintln!("memobj-bench: {name}: no more objects: {reason}");
            }
        };
        parent::enter(outcome, &name, cgroup, &mut line.note, &mut line.samples, say)
    }

    fn say(&self, line: &Line, what: &str) {
        if self.options.output.verbose {
            eprintln!("{}: {what}", line.name());
        }
    }
}

/// What a contestant's cgroup holds beside its pages.
fn extra(line: &Line) -> u64 {
    if line.contestant == BASELINE { PROCESS_BYTES } else { BOUND_SLACK_BYTES }
}
