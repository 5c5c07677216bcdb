//! The command line.

use clap::{Parser, Subcommand};

#[cfg(feature = "clients")]
use crate::clients::{hostile::HostileOptions, options::ClientOptions};
use crate::index::options::IndexOptions;
#[cfg(feature = "network")]
use crate::machines::options::MachineOptions;
#[cfg(feature = "network")]
use crate::network::options::NetworkOptions;
use crate::programs::options::RunOptions;
use crate::read::options::ReadOptions;
use crate::scale::options::ScaleOptions;
#[cfg(feature = "ours")]
use crate::space::SpaceOptions;
use crate::write::options::WriteOptions;

/// Benchmarks of memobj beside its peers.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Measure reading: random, zipf, sequential, reread, warmscan, fault, batch.
    Read(ReadOptions),
    /// Measure writing: rmw, seqwrite, commit.
    Write(WriteOptions),
    /// Measure whole programs under `memobj run`: true, ls, echo, json, compile.
    Run(RunOptions),
    /// Measure lookups in a B+tree in a file, and one access to a page in memory.
    Index(IndexOptions),
    /// Measure very long objects, and very many: cost of accesses, page tables, memory.
    Scale(ScaleOptions),
    /// Measure objects of servers behind a delay: read in order, scattered pages, the disk cache, 9P.
    #[cfg(feature = "network")]
    Network(NetworkOptions),
    /// Measure memory of virtual machines: restored on demand, with a record, by the kernel.
    #[cfg(feature = "network")]
    Machines(MachineOptions),
    /// Measure many clients of `memobj serve`, and one beside hostile ones.
    #[cfg(feature = "clients")]
    Clients(ClientOptions),
    /// A hostile client, as a child of `clients`.
    #[cfg(feature = "clients")]
    #[command(hide = true)]
    Hostile(HostileOptions),
    /// Measure address spaces: looking up, mapping and unmapping among many segments, and their memory.
    #[cfg(feature = "ours")]
    Space(SpaceOptions),
    /// Runs programs for `run`, as a child of it.
    #[cfg(feature = "ours")]
    #[command(hide = true)]
    Supervise,
    /// One measurement, as a child of `read`, `write` or another command.
    #[command(hide = true)]
    One {
        /// The command that asks.
        command: String,
        /// The job as JSON.
        job: String,
    },
}
