//! Which contestants meet in which pattern, with how much memory.

use super::job::WritePattern;
use super::options::WriteOptions;
use crate::cgroup::Limit;

/// One line of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The contestant's name.
    pub contestant: &'static str,
    /// Storing threads, or committers.
    pub threads: u32,
    /// Pages of one transaction; 0 in the other patterns.
    pub pages_per_commit: u32,
    /// Its memory.
    pub limit: Limit,
}

/// Cells that are measured in turns.
#[derive(Clone, Debug)]
pub struct Group {
    /// The pattern of all of them.
    pub pattern: WritePattern,
    /// The length of the file.
    pub file_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
    /// Who.
    pub cells: Vec<Cell>,
}

/// The contestants that fit a pattern in this build, the baseline first.
fn contestants(pattern: WritePattern) -> Vec<&'static str> {
    let mut names = match pattern {
        WritePattern::Rmw => vec!["mmap", "pwrite"],
        WritePattern::Seqwrite => vec!["mmap", "mmap-default", "pwrite"],
        WritePattern::Commit => vec!["pwrite", "mmap"],
    };
    if cfg!(feature = "databases") && pattern == WritePattern::Commit {
        names.extend(["sqlite", "redb"]);
    }
    #[cfg(feature = "ours")]
    for (name, patterns, _) in super::ours::CONTESTANTS {
        if patterns.contains(&pattern) {
            names.push(name);
        }
    }
    names
}

/// Refuses names that no pattern has in this build.
pub fn check_names(names: &[String]) -> Result<(), String> {
    let known: Vec<&str> = WritePattern::ALL.into_iter().flat_map(contestants).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) if ["sqlite", "redb"].contains(&name.as_str()) => {
            Err(format!("{name:?}: this program was built without the feature `databases`"))
        }
        Some(name) => Err(format!("no contestant {name:?} in this build")),
    }
}

/// The groups of a run, in the order of the report.
pub fn groups(options: &WriteOptions) -> Vec<Group> {
    let wanted = |pattern: &WritePattern| options.only.is_empty() || options.only.contains(pattern);
    WritePattern::ALL.into_iter().filter(wanted).flat_map(|pattern| groups_of(pattern, options)).collect()
}

fn groups_of(pattern: WritePattern, options: &WriteOptions) -> Vec<Group> {
    let group = |threads: u32, pages_per_commit: u32| {
        let commit = pattern == WritePattern::Commit;
        let (file_bytes, budget_bytes) = if commit {
            // All of it fits: what is measured is the way to the disk.
            (options.commit_size, options.commit_size)
        } else {
            (options.file_bytes(), options.budget)
        };
        Group { pattern, file_bytes, budget_bytes, cells: cells(pattern, threads, pages_per_commit, options) }
    };
    match pattern {
        WritePattern::Rmw => options.threads.iter().map(|&threads| group(threads, 0)).collect(),
        WritePattern::Seqwrite => vec![group(1, 0)],
        WritePattern::Commit => {
            let committers = |&pages| options.committers.iter().map(move |&committers| (committers, pages));
            let settings = options.commit_pages.iter().flat_map(committers);
            settings.map(|(committers, pages)| group(committers, pages)).collect()
        }
    }
}

fn cells(pattern: WritePattern, threads: u32, pages_per_commit: u32, options: &WriteOptions) -> Vec<Cell> {
    let wanted = |name: &&str| {
        **name == *pattern.baseline()
            || options.contestants.is_empty()
            || options.contestants.iter().any(|want| want == *name)
    };
    contestants(pattern)
        .into_iter()
        .filter(wanted)
        .map(|contestant| Cell { contestant, threads, pages_per_commit, limit: limit(pattern, contestant) })
        .collect()
}

fn limit(pattern: WritePattern, contestant: &str) -> Limit {
    match pattern {
        WritePattern::Commit => Limit::Unlimited,
        _ if contestant.starts_with("ours-") => Limit::Bound,
        _ => Limit::Budget,
    }
}
