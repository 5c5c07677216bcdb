//! The options of `run`.

use std::path::PathBuf;

use clap::Args;

use super::plan::ProgramName;

const PROGRAMS: &str = "\
Programs:
  true      true(1): nothing but its start
  ls        ls(1) of a directory with 20 files
  echo      bash with a loop of 100 times /bin/echo
  json      python3 -c 'import json'
  compile   gcc compiling and linking a C file

Ways:
  native    the program
  memobj    the program under `memobj run --report none`
  memobj-via  under `memobj run --via`, with the frames of a server that has run it before
  memobj-warm  by a supervisor that is running, and has run it before

Each program runs once in each way before anything counts, so that files are in the page cache; then the ways take
turns, each repetition beginning with another one. What a program prints and its exit status are compared with the
native ones: a difference makes the line read `failed`, and the exit status 1.

Examples:
  cargo xtask bench run
  cargo xtask bench run --only true,ls --reps 100 --json result.json";

/// Options of `run`.
#[derive(Args, Debug, Clone)]
#[command(after_help = PROGRAMS)]
pub struct RunOptions {
    /// Repetitions of every measurement, five times as many of true and ls; medians are reported.
    #[arg(long, default_value_t = 11)]
    pub reps: u32,
    /// Programs to run, by default all.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<ProgramName>,
    /// The command `memobj`, by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub memobj: Option<PathBuf>,
    /// Directory for what the programs read and write, by default target/bench if there is a target directory, else
    /// the current one.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Writes every sample to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// A short run, to see that everything works: 2 repetitions.
    #[arg(long)]
    pub quick: bool,
}

impl RunOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        let reps = if self.quick { 2 } else { self.reps };
        Self { reps, ..self.clone() }
    }

    /// Checks what the types do not: at least one repetition.
    pub fn check(&self) -> Result<(), String> {
        if self.reps == 0 {
            return Err("--reps must be positive".into());
        }
        Ok(())
    }

    /// Whether the program is to be measured.
    pub fn wants(&self, name: ProgramName) -> bool {
        self.only.is_empty() || self.only.contains(&name)
    }
}
