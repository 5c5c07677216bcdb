//! Which contestants meet in which part, with how much memory.

use super::job::{Part, Share};
use super::options::IndexOptions;
use super::tree::Shape;
use crate::cgroup::Limit;
use crate::data::PAGE_BYTES;

/// Bytes of a large frame.
const LARGE_BYTES: u64 = 2 << 20;
/// What all others of a part are compared with.
pub const BASELINE: &str = "mmap";

const RESIDENT: &[&str] = &[
    "mmap",
    "vmcache",
    "ours-pin",
    "ours-pin-large",
    "ours-pin_ref",
    "ours-with_pin",
    "ours-with_pin-large",
    "ours-try_words",
    "ours-try_words-large",
    "ours-read_at",
];
const QUARTER: &[&str] = &[
    "mmap",
    "vmcache",
    "ours-pin",
    "ours-pin-large",
    "ours-pin-auto",
    "ours-try_words",
    "ours-try_words-large",
    "ours-try_words-auto",
    "ours-read_at",
];
const PIN: &[&str] = &[
    "mmap",
    "atomic",
    "vmcache",
    "redb",
    "ours-pin",
    "ours-pin_ref",
    "ours-with_pin",
    "ours-try_words",
    "ours-read_at",
];

/// One line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The contestant's name.
    pub contestant: &'static str,
    /// Threads.
    pub threads: u32,
    /// Whose page they access, in the part `pin`.
    pub share: Share,
    /// The memory of the contestant.
    pub limit: Limit,
}

/// Cells that are measured in turns.
#[derive(Clone, Debug)]
pub struct Group {
    /// The part of all of them.
    pub part: Part,
    /// Memory for pages.
    pub budget_bytes: u64,
    /// Who.
    pub cells: Vec<Cell>,
}

fn contestants(part: Part) -> &'static [&'static str] {
    match part {
        Part::Resident => RESIDENT,
        Part::Quarter => QUARTER,
        Part::Pin => PIN,
    }
}

/// Complains about a name that no part knows.
pub fn check_names(names: &[String]) -> Result<(), String> {
    let is_known = |name: &str| Part::ALL.into_iter().any(|part| contestants(part).contains(&name));
    match names.iter().find(|name| !is_known(name)) {
        Some(name) => Err(format!("no contestant {name:?}")),
        None => Ok(()),
    }
}

/// The groups of a run, in the order of the report: those of a part are neighbours.
pub fn groups(options: &IndexOptions) -> Vec<Group> {
    let wanted = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let parts = Part::ALL.into_iter().filter(wanted);
    parts.flat_map(|part| options.threads.iter().map(move |&threads| group(part, threads, options))).collect()
}

fn group(part: Part, threads: u32, options: &IndexOptions) -> Group {
    // One page of one's own and one page for all are the same for one thread.
    let shares: &[Share] =
        if part == Part::Pin && threads > 1 { &[Share::Same, Share::Own] } else { &[Share::Same] };
    let in_build = |name: &&str| {
        (cfg!(feature = "ours") || !name.starts_with("ours-"))
            && (cfg!(feature = "redb") || **name != *"redb")
    };
    let wanted = |name: &&str| {
        **name == *BASELINE
            || options.contestants.is_empty()
            || options.contestants.iter().any(|want| want == *name)
    };
    let names = contestants(part).iter().copied().filter(|name| in_build(name) && wanted(name));
    let cells = names.flat_map(|contestant| {
        let cell =
            |share: &Share| Cell { contestant, threads, share: *share, limit: limit(part, contestant) };
        shares.iter().map(cell)
    });
    Group { part, budget_bytes: budget_bytes(part, options.pairs), cells: cells.collect() }
}

/// A quarter of the file, in whole frames of 2 MiB where it is large enough to have such; or more than enough.
fn budget_bytes(part: Part, pairs: u64) -> u64 {
    let file_bytes = Shape::of(pairs).bytes();
    match part {
        Part::Quarter if file_bytes >= 128 << 20 => file_bytes / 4 / LARGE_BYTES * LARGE_BYTES,
        Part::Quarter => (file_bytes / 4).max(1 << 20) / PAGE_BYTES * PAGE_BYTES,
        Part::Resident | Part::Pin => (2 * file_bytes).max(64 << 20).next_multiple_of(LARGE_BYTES),
    }
}

fn limit(part: Part, contestant: &str) -> Limit {
    match (part, contestant) {
        (Part::Quarter, BASELINE) => Limit::Budget,
        (Part::Quarter, _) => Limit::Bound,
        _ => Limit::Unlimited,
    }
}
