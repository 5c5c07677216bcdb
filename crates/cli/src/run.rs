//! `memobj run`.

use std::io::Write;

use memobj::FailurePolicy;
use memobj_run::{
    Counting, FileInjections, FrontEnds, Messages, NameMap, Options, Supervisor, report, run_in_front,
};

use crate::engine::injections;
use crate::failure::{Failure, complain};
use crate::options::Frames;
use crate::retry::Retry;
use crate::run_args::{ReportKind, RunArguments};

/// Runs the program, and ends as it does.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    if arguments.frames == Frames::Large {
        return Err(Failure::Message(
            "run: programs map files in pages of 4k; --frames 2m does not go".into(),
        ));
    }
    let waits = arguments.report != ReportKind::None || arguments.record.is_some();
    let ends = if waits { FrontEnds::WithAll } else { FrontEnds::WithProgram };
    let at_end = |supervisor: &Supervisor| match tell(arguments, supervisor) {
        Ok(()) => 0,
        Err(failure) => {
            complain(&failure);
            1
        }
    };
    run_in_front(options(arguments, waits), &arguments.command, ends, &|_| {}, &at_end)
}

fn options(arguments: &RunArguments, counts: bool) -> Options {
    let injections = arguments.inject.iter().map(|(path, plan)| FileInjections {
        path: path.clone(),
        faults: injections(plan),
        seed: plan.seed,
    });
    let names =
        arguments.map.iter().map(|(guest, object)| NameMap { guest: guest.clone(), object: object.clone() });
    Options {
        budget_bytes: arguments.budget,
        policy: match arguments.retry {
            Retry::Never => FailurePolicy::FailAtOnce,
            Retry::For(limit) => FailurePolicy::RetryFor(limit),
            Retry::Forever => FailurePolicy::WaitForEver,
        },
        injections: injections.collect(),
        names: names.collect(),
        counting: if counts { Counting::Touches } else { Counting::Totals },
        messages: Messages::StandardError,
        ..Options::default()
    }
}

/// Writes what was asked for.
fn tell(arguments: &RunArguments, supervisor: &Supervisor) -> Result<(), String> {
    let history = supervisor.history();
    let text = match arguments.report {
        ReportKind::Text => report::text(&history),
        ReportKind::Json => report::json(&history),
        ReportKind::Html => report::html(&history),
        ReportKind::None => return Ok(()),
    };
    match &arguments.report_file {
        None => {
            std::io::stderr().write_all(text.as_bytes()).map_err(|error| format!("write the report: {error}"))
        }
        Some(path) => {
            std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
        }
    }
}
