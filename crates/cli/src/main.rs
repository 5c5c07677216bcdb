//! The `memobj` command: reads and writes files through demand paging under a hard memory budget.
//!
//! Exit status: 0 done, 1 something failed, 2 wrong usage, 130 interrupted, 141 nobody reads the output.
#![forbid(unsafe_code)]

mod args;
mod copy;
mod counted;
mod digest;
mod doctor;
mod doctor_url;
mod engine;
mod extents;
mod failure;
mod hash;
mod hex;
mod image;
mod image_args;
mod inject;
mod interrupt;
mod machine_args;
mod metrics_server;
mod ninep_proxy;
mod options;
mod output;
mod patch;
mod progress;
mod read;
mod retry;
mod run;
mod run_args;
mod segments;
mod serve;
mod serve_args;
mod serve_check;
mod serve_keeper;
mod serve_log;
mod serve_machines;
mod server_folder;
mod servers;
mod size;
mod spool;
mod stats;
mod target;
mod top;
mod top_show;
mod torture;
mod tree;
mod uploads;
mod walk;
mod write_args;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use failure::Failure;
use interrupt::Interrupt;

fn main() -> ExitCode {
    // A file that may not grow is an error with a message. Programs that are run have the signal as ever.
    memobj_linux::quiet::survive_file_size_limit();
    let result = match Arguments::try_parse() {
        Ok(arguments) => check_output(&arguments.command).and_then(|()| run(arguments.command)),
        Err(error) => return usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Who started the command without a standard output would miss what it says. What it is to write would not be told from
/// what it has opened.
fn check_output(command: &Command) -> Result<(), Failure> {
    match command {
        // It is the program's affair.
        Command::Run(_) => Ok(()),
        _ => output::check(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Hash(arguments) => hash::run(&arguments, &Interrupt::install()?),
        Command::Read(arguments) => read::run(&arguments, &Interrupt::install()?),
        Command::Copy(arguments) => copy::run(&arguments, &Interrupt::install_patiently()?),
        Command::Patch(arguments) => patch::run(&arguments, &Interrupt::install_patiently()?),
        Command::Torture(arguments) => torture::run(&arguments, &Interrupt::install()?),
        Command::TortureWorker(arguments) => torture::work(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Segments(arguments) => segments::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments, &Interrupt::install()?),
        Command::NinepProxy(arguments) => ninep_proxy::run(&arguments, &Interrupt::install()?),
        Command::Serve(arguments) => serve::run(&arguments, &Interrupt::install_patiently()?),
        Command::Top(arguments) => top::run(&arguments, &Interrupt::install()?),
        Command::Uploads(arguments) => uploads::run(&arguments, &Interrupt::install()?),
        Command::Digest(arguments) => digest::run(&arguments, &Interrupt::install()?),
    }
}

/// Prints what was wrong with the arguments as all errors are printed, or the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        Some(problem) => failure::complain(problem.trim_end()),
        // Help that was asked for.
        None if !error.use_stderr() => {
            let print = || error.print().map_err(|error| Failure::stdout(&error));
            return output::check()
                .and_then(|()| print())
                .map_or_else(|f| f.report(), |()| ExitCode::SUCCESS);
        }
        // Whoever does not read it has no use for an error.
        None => drop(error.print()),
    }
    ExitCode::from(2)
}
