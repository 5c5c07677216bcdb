//! The parent of `index`: makes the tree, starts children in turns, collects.

use std::path::PathBuf;
use std::process::ExitCode;

use super::job::IndexJob;
use super::options::IndexOptions;
use super::plan::{self, Cell, Group};
use super::report::{self, Line};
use super::tree::{Shape, tree_file};
use crate::cgroup::{BOUND_SLACK_BYTES, Limit};
use crate::children::{self, Children, touch_memory};
use crate::data;
use crate::job::Sample;
use crate::machine::Machine;
use crate::parent;

/// What all measurements of a run share.
struct Run {
    options: IndexOptions,
    file: PathBuf,
    children: Children,
}

/// `memobj-bench index`.
pub fn index(options: &IndexOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    plan::check_names(&options.contestants)?;
    let directory = children::test_directory(options.output.dir.as_deref())?;
    let machine = Machine::find(&directory);
    println!("{}\n", machine.line());
    let children = Children::new()?;
    let file = tree_file(&directory, &Shape::of(options.pairs)).map_err(|error| format!("tree: {error}"))?;
    let run = Run { options, file, children };
    println!("{}\n", report::settings(&run.options));
    let lines = run.all_groups()?;
    run.options.output.finish(|| report::json(&machine, &lines), lines.iter().map(|line| &line.note))
}

impl Run {
    fn all_groups(&self) -> Result<Vec<Line>, String> {
        let table = |group: &Group, lines: &[Line]| report::table(group.part, group.budget_bytes, lines);
        parent::by_tables(&plan::groups(&self.options), |group| group.part, |group| self.group(group), table)
    }

    /// All cells once per repetition, each repetition starting with another one.
    fn group(&self, group: &Group) -> Result<Vec<Line>, String> {
        let mut lines: Vec<Line> = group.cells.iter().map(|cell| Line::new(group.part, cell)).collect();
        let at_end = |line: &Line| line.note.is_some();
        parent::in_turns(&mut lines, self.options.reps, at_end, |index, turn, line| {
            self.measure(group, &group.cells[index], turn, line)
        })?;
        Ok(lines)
    }

    fn measure(&self, group: &Group, cell: &Cell, turn: u32, line: &mut Line) -> Result<(), String> {
        let left =
            data::drop_page_cache(&self.file).map_err(|error| format!("dropping the page cache: {error}"))?;
        if left > 0 {
            eprintln!("memobj-bench: {left} pages of the tree stay in the page cache");
        }
        if cell.limit != Limit::Unlimited {
            touch_memory(group.budget_bytes + BOUND_SLACK_BYTES);
        }
        let cgroup = self.children.cgroup(cell.limit, group.budget_bytes)?;
        line.limited = cgroup.is_some();
        let job = IndexJob {
            part: group.part,
            contestant: cell.contestant.to_string(),
            threads: cell.threads,
            share: cell.share,
            file: self.file.clone(),
            pairs: self.options.pairs,
            budget_bytes: group.budget_bytes,
            seconds: self.options.seconds,
            seed: u64::from(turn) + 1,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_path_buf()),
        };
        let measured = job.measured();
        let outcome = self.children.run(&job, measured)?;
        let (name, output) = (line.name(), &self.options.output);
        let say = |sample: &Sample| output.say(&name, sample);
        parent::enter(outcome, &name, cgroup.as_ref(), &mut line.note, &mut line.samples, say)
    }
}
