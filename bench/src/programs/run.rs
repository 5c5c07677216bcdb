//! The parent: measures program after program, the ways in turns.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::options::RunOptions;
use super::plan::ProgramName;
use super::report::{self, Line};
use super::runner::{Native, Ran, Runner, Under, UnderVia, said};
use crate::children;
use crate::machine::Machine;
use crate::report::bar_table;

/// A way to run programs, or why there is none.
pub type Way = Result<Box<dyn Runner>, (&'static str, String)>;

/// `memobj-bench run`.
pub fn run(options: &RunOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    let directory = OwnDirectory::new(options.dir.as_deref())?;
    let machine = Machine::find(&directory.0);
    println!("{}\n", machine.line());
    let ways = ways(&options, &directory.0);
    let lines = all_programs(&options, &directory.0, &ways);
    println!("{}", report::table(&lines));
    let bars = report::bars(&lines);
    print!("{}", bar_table(&bars));
    if let Some(path) = &options.json {
        let text = report::json(&machine, &lines, &bars);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let failed = lines.iter().any(|line| line.note.as_ref().is_some_and(|note| note.starts_with("failed")));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The ways that are compared; the first is what the others are compared with.
fn ways(options: &RunOptions, directory: &Path) -> Vec<Way> {
    let boxed = |under: Under| -> Box<dyn Runner> { Box::new(under) };
    let under = Under::memobj(options.memobj.as_deref(), directory);
    let mut ways: Vec<Way> =
        vec![Ok(Box::new(Native::new())), under.map(boxed).map_err(|reason| ("memobj", reason))];
    let via = UnderVia::start(options.memobj.as_deref(), directory);
    let via = via.map(|via| -> Box<dyn Runner> { Box::new(via) });
    ways.push(via.map_err(|reason| ("memobj-via", reason)));
    ways.extend(warm());
    ways
}

#[cfg(feature = "ours")]
fn warm() -> Option<Way> {
    let boxed = |warm: super::warm::Warm| -> Box<dyn Runner> { Box::new(warm) };
    Some(super::warm::Warm::start().map(boxed).map_err(|reason| ("memobj-warm", reason)))
}

#[cfg(not(feature = "ours"))]
fn warm() -> Option<Way> {
    None
}

/// A directory for what programs read and write, absolute since they run in it; removed on drop.
struct OwnDirectory(PathBuf);

impl OwnDirectory {
    fn new(wanted: Option<&Path>) -> Result<Self, String> {
        let directory = children::test_directory(wanted)?.join(format!("run-{}", std::process::id()));
        let make = || {
            std::fs::create_dir(&directory)?;
            directory.canonicalize()
        };
        make().map(OwnDirectory).map_err(|error| format!("{}: {error}", directory.display()))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        // What is left then is seen and harmless.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The lines of all programs that are wanted.
pub fn all_programs(options: &RunOptions, directory: &Path, ways: &[Way]) -> Vec<Line> {
    let wanted = ProgramName::ALL.into_iter().filter(|program| options.wants(*program));
    wanted.flat_map(|program| one_program(program, options.reps, directory, ways)).collect()
}

fn one_program(program: ProgramName, reps: u32, directory: &Path, ways: &[Way]) -> Vec<Line> {
    let mut lines: Vec<Line> = ways.iter().map(|way| line_of(program, way)).collect();
    let command = match program.command(directory) {
        Ok(command) => command,
        Err(reason) => {
            lines.iter_mut().for_each(|line| line.note = Some(format!("skipped: {reason}")));
            return lines;
        }
    };
    let mut expected = None;
    // The first turn of all warms the page cache and does not count.
    for turn in 0..=reps * program.turns() {
        for step in 0..ways.len() {
            // What is right must be known before it is compared with.
            let index = if turn == 0 { step } else { (step + turn as usize) % ways.len() };
            if let (Ok(way), None) = (&ways[index], &lines[index].note) {
                let told = once(way.as_ref(), &command, directory, &mut expected);
                enter(told, turn > 0, &mut lines[index]);
            }
        }
    }
    lines
}

fn line_of(program: ProgramName, way: &Way) -> Line {
    match way {
        Ok(way) => Line::new(program, way.name()),
        Err((name, reason)) => Line { note: Some(format!("skipped: {reason}")), ..Line::new(program, name) },
    }
}

/// Runs it, and compares what it gave with what the first of all runs did.
fn once(
    way: &dyn Runner,
    command: &[OsString],
    directory: &Path,
    expected: &mut Option<Ran>,
) -> Result<Ran, String> {
    let ran = way.run(command, directory)?;
    let first = expected.get_or_insert_with(|| ran.clone());
    if ran.status != first.status {
        return Err(format!("ends otherwise than native: {}, not {}", said(&ran), first.status));
    }
    if !ran.status.success() {
        return Err(said(&ran));
    }
    if ran.output != first.output {
        return Err(format!(
            "prints {} bytes that are not the {} of native",
            ran.output.len(),
            first.output.len()
        ));
    }
    Ok(ran)
}

fn enter(told: Result<Ran, String>, counts: bool, line: &mut Line) {
    match told {
        Ok(ran) if counts => line.elapsed_ns.push(u64::try_from(ran.elapsed.as_nanos()).unwrap_or(u64::MAX)),
        Ok(_) => {}
        Err(reason) => {
            eprintln!("memobj-bench: {} {}: {reason}", line.program.name(), line.way);
            line.note = Some(format!("failed: {reason}"));
        }
    }
}
