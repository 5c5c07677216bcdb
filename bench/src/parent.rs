//! What the parents of all benchmarks do alike: take turns, enter what came out, end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cgroup::Cgroup;
use crate::job::{Outcome, Sample};

/// Where files are, and what is printed.
#[derive(Args, Debug, Clone)]
pub struct Output {
    /// Directory of the files, which decides what disk is measured; they stay there for the next run. By default
    /// target/bench if there is a target directory, else the current one.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Writes every sample to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Print each sample to standard error as it arrives.
    #[arg(long)]
    pub verbose: bool,
}

impl Output {
    /// Writes `text` where samples are wanted, and says how the run has ended: `notes` are those of its lines.
    pub fn finish<'a>(
        &self,
        text: impl FnOnce() -> String,
        notes: impl IntoIterator<Item = &'a Option<String>>,
    ) -> Result<ExitCode, String> {
        if let Some(path) = &self.json {
            std::fs::write(path, text()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let has_failed = |note: &Option<String>| note.as_ref().is_some_and(|note| note.starts_with("failed"));
        Ok(if notes.into_iter().any(has_failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Prints what was measured, if that is wanted.
    pub fn say(&self, name: &str, sample: &Sample) {
        if self.verbose {
            let per_second = sample.accesses as f64 * 1e9 / sample.elapsed_ns.max(1) as f64;
            eprintln!("{name}: {per_second:.0}/s, p99 {} ns", sample.p99_ns);
        }
    }
}

/// Measures group after group, and prints a table of all lines so far when the last group with the same `key` is done.
pub fn by_tables<G, K: PartialEq, L>(
    groups: &[G],
    key: impl Fn(&G) -> K,
    measure: impl Fn(&G) -> Result<Vec<L>, String>,
    table: impl Fn(&G, &[L]) -> String,
) -> Result<Vec<L>, String> {
    let mut lines = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        lines.extend(measure(group)?);
        if groups.get(index + 1).is_none_or(|next| key(next) != key(group)) {
            println!("{}", table(group, &lines));
        }
    }
    Ok(lines)
}

/// Calls `measure` for each of `lines` once per repetition, each repetition starting with another one. It says that a
/// line is at its end by a note.
pub fn in_turns<L>(
    lines: &mut [L],
    repetitions: u32,
    is_at_end: impl Fn(&L) -> bool,
    mut measure: impl FnMut(usize, u32, &mut L) -> Result<(), String>,
) -> Result<(), String> {
    for repetition in 0..repetitions {
        for turn in 0..lines.len() {
            let index = (turn + repetition as usize) % lines.len();
            if !is_at_end(&lines[index]) {
                measure(index, repetition, &mut lines[index])?;
            }
        }
    }
    Ok(())
}

/// Puts what came out of a child into its line, the note or the samples; `say` is told of a sample. Wrong data ends the
/// run.
pub fn enter(
    outcome: Outcome,
    name: &str,
    cgroup: Option<&Cgroup>,
    note: &mut Option<String>,
    samples: &mut Vec<Sample>,
    say: impl FnOnce(&Sample),
) -> Result<(), String> {
    match outcome {
        Outcome::Measured(mut sample) => {
            sample.peak_cgroup_bytes = cgroup.and_then(Cgroup::peak_bytes).or(sample.peak_cgroup_bytes);
            say(&sample);
            samples.push(sample);
        }
        Outcome::Skipped(reason) => *note = Some(format!("skipped: {reason}")),
        Outcome::Failed(reason) => {
            eprintln!("memobj-bench: {name}: {reason}");
            *note = Some(format!("failed: {reason}"));
        }
        Outcome::WrongData(reason) => return Err(format!("{name}: wrong data: {reason}")),
    }
    Ok(())
}

/// A number of bytes, with one of the suffixes K, M, G and T if it has any.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size such as 512M"))?;
    count.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_suffixes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4T"), Ok(4 << 40));
        assert!(parse_size("M").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
