use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;

use super::options::RunOptions;
use super::plan::ProgramName;
use super::report::{Line, bars, table};
use super::run::{Way, all_programs};
use super::runner::{Native, Ran, Runner, Under};
use super::watchdog::Watchdog;

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    options: RunOptions,
}

fn options(words: &str) -> RunOptions {
    Words::parse_from(words.split(' ')).options.settled()
}

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("memobj-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// A command that takes the arguments of `memobj run`.
    fn script(&self, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join("memobj");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const RIGHT: &str = "test \"$1 $2 $3 $4\" = 'run --report none --' || exit 9; shift 4; exec \"$@\"";

fn measured(place: &Place, words: &str, script: &str) -> Vec<Line> {
    let memobj = place.script(script);
    let under = Under::memobj(Some(&memobj), &place.0);
    let under: Way = match under {
        Ok(under) => Ok(Box::new(under)),
        Err(reason) => Err(("memobj", reason)),
    };
    all_programs(&options(words), &place.0, &[Ok(Box::new(Native::new())), under])
}

#[test]
fn ways_take_turns_and_are_compared() {
    let place = Place::new("right");
    let lines = measured(&place, "run --reps 3 --only true,ls", RIGHT);
    let told: Vec<_> =
        lines.iter().map(|line| (line.program.name(), line.way, line.elapsed_ns.len())).collect();
    let expected =
        [("true", "native", 15), ("true", "memobj", 15), ("ls", "native", 15), ("ls", "memobj", 15)];
    assert_eq!(told, expected, "{lines:?}");
    assert_eq!(bars(&lines).len(), 2);
    let table = table(&lines);
    assert!(table.contains("| true | native | ") && table.contains(" | 15 | 1.00 |\n"), "{table}");
}

#[test]
fn other_output_and_other_ends_are_failures() {
    let place = Place::new("wrong");
    let note = |script: &str| {
        let lines = measured(&place, "run --reps 1 --only ls", script);
        assert_eq!(lines[0].note, None);
        assert_eq!(bars(&lines).len(), usize::from(lines[1].note.is_none()));
        lines[1].note.clone().unwrap_or_default()
    };
    assert_eq!(note(RIGHT), "");
    let prints = note("shift 4; echo more; exec \"$@\"");
    assert!(prints.starts_with("failed: prints ") && prints.ends_with(" of native"), "{prints}");
    let ends = note("shift 4; \"$@\"; test \"$1\" = true || { echo no luck >&2; exit 3; }");
    assert_eq!(ends, "failed: ends otherwise than native: no luck (exit status: 3), not exit status: 0");
    let none = note("echo >&2; echo \"error: unrecognized subcommand 'run'\" >&2; echo help >&2; exit 2");
    assert_eq!(none, "skipped: memobj run -- true: error: unrecognized subcommand 'run' (exit status: 2)");
}

/// Each run in any way takes a millisecond more than the one before. The names of the ways are kept in their order.
struct Slower(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Runner for Slower {
    fn name(&self) -> &'static str {
        self.0
    }

    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String> {
        self.1.borrow_mut().push(self.0);
        let ran = Native::new().run(command, directory)?;
        Ok(Ran { elapsed: Duration::from_millis(self.1.borrow().len() as u64), ..ran })
    }
}

#[test]
fn the_first_runs_do_not_count_and_each_turn_begins_with_another_way() {
    let place = Place::new("slower");
    let order = Rc::default();
    let slower = |name| -> Way { Ok(Box::new(Slower(name, Rc::clone(&order)))) };
    let lines =
        all_programs(&options("run --reps 1 --only true"), &place.0, &[slower("native"), slower("b")]);
    let turns: Vec<String> = order.borrow().chunks(2).map(|turn| turn.join(" ")).collect();
    assert_eq!(turns, ["native b", "b native", "native b", "b native", "native b", "b native"]);
    assert_eq!(lines[0].elapsed_ns, [4_000_000, 5_000_000, 8_000_000, 9_000_000, 12_000_000]);
    let table = table(&lines);
    assert!(table.contains("| true | native | 8.00 | 4.00 to 12.0 | 5 | 1.00 |\n"), "{table}");
    assert!(table.contains("| true | b | 7.00 | 3.00 to 11.0 | 5 | 0.88 |\n"), "{table}");
}

#[test]
fn a_line_that_failed_later_is_not_judged() {
    let line = |way, note| Line { note, elapsed_ns: vec![1_000_000], ..Line::new(ProgramName::True, way) };
    let right = [line("native", None), line("b", None)];
    assert_eq!(bars(&right).first().map(|bar| (bar.required, bar.measured)), Some((2.6, 1.0)));
    let failed = [line("native", None), line("b", Some("failed: no luck | at\nall".to_string()))];
    assert_eq!(bars(&failed).len(), 0);
    assert!(table(&failed).contains("| true | b | failed: no luck / at all ||||\n"), "{}", table(&failed));
}

#[test]
fn what_hangs_is_ended_with_all_it_started() {
    use std::os::unix::process::CommandExt;
    let watchdog = Watchdog::new(Duration::from_millis(50));
    let mut command = std::process::Command::new("sh");
    let mut child = command.args(["-c", "sleep 1000 & wait"]).process_group(0).spawn().expect("a shell");
    watchdog.watch(child.id());
    assert!(!child.wait().expect("an end").success());
    assert!(watchdog.done());
    assert!(!watchdog.done(), "once");
}

#[test]
fn options_are_checked() {
    assert!(options("run").check().is_ok());
    assert!(options("run --reps 0").check().is_err());
    assert_eq!(options("run --quick").reps, 2);
}
