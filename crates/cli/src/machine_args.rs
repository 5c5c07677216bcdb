//! The arguments of `memobj serve` about virtual machines.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::size;

/// What becomes of a machine whose page cannot be supplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum FailureChoice {
    /// It is ended
    Kill,
    /// It waits
    Wait,
}

/// What is said about machines.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Memory of virtual machines")]
pub(crate) struct MachineArguments {
    /// Where machine monitors connect: the path of a Unix socket
    #[arg(long, value_name = "SOCKET", requires = "memory")]
    pub(crate) firecracker: Option<PathBuf>,
    /// The memory file of the snapshot: a file or a URL
    #[arg(long, value_name = "OBJECT", requires = "firecracker")]
    pub(crate) memory: Option<PathBuf>,
    /// What becomes of a machine that touches a page which cannot be supplied
    #[arg(long, value_name = "WHAT", default_value = "kill", requires = "firecracker")]
    pub(crate) on_failure: FailureChoice,
    /// How many bytes around a fault are read with it: a power of two, at least 4k
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = window)]
    pub(crate) window: u64,
    /// Write which pages machines touch first, in order, to this file
    #[arg(long, value_name = "FILE", requires = "firecracker")]
    pub(crate) record: Option<PathBuf>,
    /// Copy what this record tells of before it is touched
    #[arg(long, value_name = "FILE", requires = "firecracker")]
    pub(crate) replay: Option<PathBuf>,
    /// Copy all other pages in the background
    #[arg(long, requires = "firecracker")]
    pub(crate) complete: bool,
    /// The most machines at once
    #[arg(long, value_name = "N", default_value = "256")]
    pub(crate) machines: NonZeroU16,
}

fn window(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    match (4096..=16 << 20).contains(&bytes) && bytes.is_power_of_two() {
        true => Ok(bytes),
        false => Err(format!("{text} is no power of two from 4k to 16M")),
    }
}
