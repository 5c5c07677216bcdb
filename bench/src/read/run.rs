//! The parent of `read`: plans, starts children in turns, collects.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::bars;
use super::job::ReadJob;
use super::options::ReadOptions;
use super::plan::{self, Cell, Group};
use super::report::{self, Line};
use crate::cgroup::BOUND_SLACK_BYTES;
use crate::children::{self, Children, touch_memory};
use crate::data;
use crate::job::Sample;
use crate::machine::Machine;
use crate::parent;
use crate::report::bar_table;

/// What all measurements of a run share.
struct Run {
    options: ReadOptions,
    directory: PathBuf,
    children: Children,
}

/// `memobj-bench read`.
pub fn read(options: &ReadOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    check_names(&options)?;
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

fn check_names(options: &ReadOptions) -> Result<(), String> {
    for name in &options.contestants {
        if !plan::is_contestant(name) {
            return Err(format!("no contestant {name:?}"));
        }
        if name.starts_with("ours-") && !cfg!(feature = "ours") {
            return Err(format!("{name:?}: this program was built without the feature `ours`"));
        }
    }
    Ok(())
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
        let baseline = plan::batch_baseline_threads(&self.options.threads);
        let mut lines: Vec<Line> =
            group.cells.iter().map(|cell| Line::new(group.pattern, cell, baseline)).collect();
        let file_bytes = group.file_bytes.max(self.options.size);
        let file =
            data::test_file(&self.directory, file_bytes).map_err(|error| format!("test file: {error}"))?;
        let at_end = |line: &Line| line.note.is_some();
        parent::in_turns(&mut lines, self.options.reps, at_end, |index, turn, line| {
            self.measure(group, &group.cells[index], &file, turn, line)
        })?;
        Ok(lines)
    }

    fn measure(
        &self,
        group: &Group,
        cell: &Cell,
        file: &Path,
        turn: u32,
        line: &mut Line,
    ) -> Result<(), String> {
        let left =
            data::drop_page_cache(file).map_err(|error| format!("dropping the page cache: {error}"))?;
        if left > 0 {
            eprintln!("memobj-bench: {left} pages of the test file stay in the page cache");
        }
        touch_memory(group.budget_bytes + BOUND_SLACK_BYTES);
        let cgroup = self.children.cgroup(cell.limit, group.budget_bytes)?;
        line.limited = cgroup.is_some();
        let job = ReadJob {
            pattern: group.pattern,
            contestant: cell.contestant.to_string(),
            threads: cell.threads,
            file: file.to_path_buf(),
            file_bytes: group.file_bytes,
            budget_bytes: group.budget_bytes,
            seconds: self.options.seconds,
            accesses: self.options.zipf_accesses(),
            seed: u64::from(turn) + 1,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_path_buf()),
        };
        let measured = job.measured();
        let name = format!("{} {} at {} threads", group.pattern.name(), cell.contestant, cell.threads);
        let outcome = self.children.run(&job, measured)?;
        let say = |sample: &Sample| self.options.output.say(&name, sample);
        parent::enter(outcome, &name, cgroup.as_ref(), &mut line.note, &mut line.samples, say)
    }
}
