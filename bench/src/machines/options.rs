//! The options of `machines`.

use std::path::PathBuf;

use clap::Args;

const WAYS: &str = "\
Ways:
  cold    the page cache is dropped before; takes root
  far     the memory file is behind a web server (nginx), each request to which takes --delay longer
  warm    all pages are in frames of the server

In each, demand is what a machine takes to touch its pages if they are copied when it touches them, replay the
same with a record, kernel a private mapping of the file. The ways take turns; medians are reported.";

/// Options of `machines`.
#[derive(Args, Debug, Clone)]
#[command(after_help = WAYS)]
pub struct MachineOptions {
    /// Memory of a machine, in MiB.
    #[arg(long, default_value_t = 1024)]
    pub memory: u64,
    /// How many of a hundred pages it touches.
    #[arg(long, default_value_t = 10)]
    pub part: u32,
    /// How many threads touch them.
    #[arg(long, default_value_t = 4)]
    pub threads: u32,
    /// Milliseconds that are added to each request to the web server.
    #[arg(long, default_value_t = 20)]
    pub delay: u64,
    /// Repetitions of every measurement.
    #[arg(long, default_value_t = 5)]
    pub reps: u32,
    /// The command `memobj`, by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub memobj: Option<PathBuf>,
    /// Directory for the memory file, by default target/bench if there is a target directory, else the current one.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A short run, to see that everything works: 64 MiB, 2 repetitions.
    #[arg(long)]
    pub quick: bool,
}

impl MachineOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        match self.quick {
            true => Self { memory: 64, reps: 2, ..self.clone() },
            false => self.clone(),
        }
    }
}
