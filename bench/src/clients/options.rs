//! The options of `clients`.

use std::path::PathBuf;

use clap::Args;

/// Options of `clients`.
#[derive(Args, Debug, Clone)]
pub struct ClientOptions {
    /// How many clients, with one mapping each.
    #[arg(long, default_value_t = 1000)]
    pub clients: usize,
    /// The limit of descriptors of a server that is asked for more than it has.
    #[arg(long, default_value_t = 1024)]
    pub descriptors: u32,
    /// Faults of the good client that are timed beside each kind of hostile one.
    #[arg(long, default_value_t = 24_000)]
    pub faults: usize,
    /// Only these kinds of hostile clients; all if not given.
    #[arg(long, value_delimiter = ',')]
    pub beside: Vec<String>,
    /// Only what these words name: many, limit, beside. All if not given.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The command `memobj`, by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub memobj: Option<PathBuf>,
    /// Directory for the exported file, by default target/bench if there is a target directory, else the current one.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A short run, to see that everything works: 100 clients, 2,000 faults.
    #[arg(long)]
    pub quick: bool,
}

impl ClientOptions {
    /// The options with `--quick` applied.
    pub fn settled(&self) -> Self {
        match self.quick {
            true => Self { clients: 100, descriptors: 256, faults: 2000, ..self.clone() },
            false => self.clone(),
        }
    }

    /// Whether `what` is to be measured.
    pub fn wants(&self, what: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == what)
    }
}
