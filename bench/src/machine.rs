//! What the numbers were measured on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::usage;

/// The machine, as text for the head of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel version.
    pub kernel: String,
    /// Processor model.
    pub processor: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Main memory.
    pub memory_mib: u64,
    /// Day of the run, UTC.
    pub date: String,
    /// File system of the test file.
    pub file_system: String,
    /// The device's read-ahead, which decides about mappings without advice.
    pub read_ahead_kib: String,
    /// The setting of transparent huge pages.
    pub huge_pages: String,
    /// How busy all processors together were before the run; anything but a few per cent spoils it.
    pub background_load_percent: u64,
}

impl Machine {
    /// Looks around, with the test file in `directory`.
    pub fn find(directory: &Path) -> Self {
        let (file_system, device) = mount_of(directory).unwrap_or_else(|| ("unknown".into(), String::new()));
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            processor: value_in("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_mib().unwrap_or(0),
            date: today(),
            file_system,
            read_ahead_kib: line(&format!("/sys/class/bdi/{device}/read_ahead_kb")),
            huge_pages: chosen(&line("/sys/kernel/mm/transparent_hugepage/enabled")),
            background_load_percent: background_load_percent(),
        }
    }

    /// One line for the report.
    pub fn line(&self) -> String {
        format!(
            "Linux {}, {}, {} cores, {} MiB memory, {}, read-ahead {} KiB, huge pages {}, background load {}%, {}",
            self.kernel,
            self.processor,
            self.cores,
            self.memory_mib,
            self.file_system,
            self.read_ahead_kib,
            self.huge_pages,
            self.background_load_percent,
            self.date
        )
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_string())
}

fn value_in(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn memory_mib() -> Option<u64> {
    let kib: u64 = value_in("/proc/meminfo", "MemTotal")?.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
}

/// The word in brackets of a setting such as `always [madvise] never`.
fn chosen(setting: &str) -> String {
    let inside = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or_else(|| setting.to_string(), |(word, _)| word.to_string())
}

/// Type and source of the mount that holds `directory`, and its device number.
fn mount_of(directory: &Path) -> Option<(String, String)> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let dash = fields.iter().position(|field| *field == "-")?;
        let point = Path::new(fields.get(4)?);
        let depth = directory.starts_with(point).then(|| point.components().count())?;
        let name = format!("{} on {}", fields.get(dash + 1)?, fields.get(dash + 2)?);
        Some((depth, name, fields.get(2)?.to_string()))
    };
    // The last of the deepest mount points is the one on top.
    let (_, name, device) = mounts.lines().filter_map(parse).max_by_key(|(depth, ..)| *depth)?;
    Some((name, device))
}

fn background_load_percent() -> u64 {
    let watched = Duration::from_millis(500);
    let Ok(before) = usage::machine_cpu_ns() else { return 0 };
    thread::sleep(watched);
    let busy_ns = usage::machine_cpu_ns().unwrap_or(before) - before;
    let processors = thread::available_parallelism().map_or(1, usize::from) as u128;
    (u128::from(busy_ns) * 100 / (watched.as_nanos() * processors)) as u64
}

fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// The date `days` after 1970-01-01 (Hinnant's algorithm: years start in March, eras have 146097 days).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }
}
