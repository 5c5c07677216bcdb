//! Counters of the process and the machine, read before and after a measured phase.

use std::fs;
use std::io;

use rustix::time::{ClockId, clock_gettime};

/// `USER_HZ`, the unit of /proc/stat, is 100 on every architecture in use.
const TICK_NS: u64 = 10_000_000;

/// A moment's counters.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Processor time of all threads of this process.
    pub cpu_ns: u64,
    /// Processor time of the machine that was not idle.
    pub machine_cpu_ns: u64,
    /// Faults of this process.
    pub faults: Faults,
}

/// Page faults since the process started.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Those that waited for a device.
    pub major: u64,
    /// The others.
    pub minor: u64,
}

/// The counters now.
pub fn now() -> io::Result<Counters> {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_ns = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
    Ok(Counters { cpu_ns, machine_cpu_ns: machine_cpu_ns()?, faults: faults()? })
}

/// The page faults of this process so far.
pub fn faults() -> io::Result<Faults> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is the name in parentheses and may hold blanks; minflt is the 10th field, majflt the
    // 12th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
    match (field(10), field(12)) {
        (Some(minor), Some(major)) => Ok(Faults { major, minor }),
        _ => Err(io::Error::other("/proc/self/stat: no fault counts")),
    }
}

/// Processor time of the processes that this one has started and waited for; counted in ticks of 10 ms.
#[cfg(feature = "network")]
pub fn children_cpu_ns() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
    // cutime and cstime are the 16th and 17th field.
    let ticks = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    match (ticks(16), ticks(17)) {
        (Some(user), Some(system)) => Ok((user + system) * TICK_NS),
        _ => Err(io::Error::other("/proc/self/stat: no processor time of children")),
    }
}

/// Bytes this process made the kernel read from devices so far.
pub fn device_read_bytes() -> io::Result<u64> {
    number_after("/proc/self/io", "read_bytes:")
}

/// The most memory this process had resident.
pub fn peak_rss_bytes() -> io::Result<u64> {
    status_bytes("VmHWM:")
}

/// What /proc/self/status says behind `label`, which it counts in KiB.
pub fn status_bytes(label: &str) -> io::Result<u64> {
    Ok(number_after("/proc/self/status", label)? << 10)
}

fn number_after(path: &str, label: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{path}: no {label}")))
}

/// Processor time of the machine that was not idle, since it started.
pub fn machine_cpu_ns() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    // cpu user nice system idle iowait irq softirq ...
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6].into_iter().filter_map(|field| ticks.get(field)).sum::<u64>();
    Ok(busy * TICK_NS)
}
