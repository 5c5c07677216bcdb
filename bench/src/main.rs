//! Benchmarks of memobj beside the kernel's mapping and read calls, in one interleaved run.
//!
//! Every measurement is a process of its own: the parent (a module `run`) starts this program again with the
//! hidden command `one`, so that memory cgroups, page tables and caches are never shared between contestants. Every
//! byte that is loaded is compared with what the file must hold; a difference ends the run. What a contestant has
//! written is read back by the parent when the contestant's process is gone. What `run` measures are whole programs.
//!
//! ```text
//!   cli                                         what can be asked for
//!   read, write, index, scale, programs, space, network    the benchmarks; none knows another
//!   machines                                    one more, with the servers of network
//!   clients                                     and one more: clients of `memobj serve`
//!   parent, children, report                    what their parents share
//!   child, timed, trace                         what their children share
//!   job, data, cgroup, machine, usage           what lies below
//! ```

#![forbid(unsafe_code)]

mod cgroup;
mod child;
mod children;
mod cli;
#[cfg(feature = "clients")]
mod clients;
mod data;
mod index;
mod job;
mod machine;
#[cfg(feature = "network")]
mod machines;
#[cfg(feature = "network")]
mod network;
mod parent;
mod programs;
mod read;
mod report;
mod scale;
#[cfg(feature = "ours")]
mod space;
mod timed;
mod trace;
mod usage;
mod write;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};
use index::job::IndexJob;
use job::Job;
#[cfg(feature = "network")]
use network::job::NetworkJob;
use read::job::ReadJob;
use scale::job::ScaleJob;
use write::job::WriteJob;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Read(options) => read::run::read(&options),
        Command::Write(options) => write::run::write(&options),
        Command::Run(options) => programs::run::run(&options),
        Command::Index(options) => index::run::index(&options),
        Command::Scale(options) => scale::run::scale(&options),
        #[cfg(feature = "clients")]
        Command::Clients(options) => clients::run::clients(&options),
        #[cfg(feature = "clients")]
        Command::Hostile(options) => clients::hostile::hostile(&options),
        #[cfg(feature = "network")]
        Command::Machines(options) => machines::run::machines(&options),
        #[cfg(feature = "network")]
        Command::Network(options) => network::run::network(&options),
        #[cfg(feature = "ours")]
        Command::Space(options) => space::space(&options),
        #[cfg(feature = "ours")]
        Command::Supervise => programs::warm::supervise(),
        Command::One { command, job } => measure(&command, &job),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("memobj-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement, as a child of the command that asks for it.
fn measure(command: &str, job: &str) -> Result<ExitCode, String> {
    match command {
        ReadJob::COMMAND => child::main::<ReadJob>(job),
        WriteJob::COMMAND => child::main::<WriteJob>(job),
        IndexJob::COMMAND => child::main::<IndexJob>(job),
        #[cfg(feature = "network")]
        NetworkJob::COMMAND => child::main::<NetworkJob>(job),
        ScaleJob::COMMAND => child::main::<ScaleJob>(job),
        _ => Err(format!("{command:?} asks for no measurements")),
    }
}
