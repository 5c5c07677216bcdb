//! Processors: how many this process may use, and threads that stay on one.
//!
//! Source: sched_setaffinity(2), sched_setattr(2).

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The numbers of the processors that the calling thread may run on; empty if the kernel does not say.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
}

/// Keeps the calling thread on one processor from now on.
pub fn stay_on(number: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(number);
    Ok(sched_setaffinity(None, &set)?)
}

/// The processor that a thread of this process runs on, or ran on last. Source: proc_pid_stat(5), field 39.
pub fn last_of(thread: u32) -> Option<usize> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the field after it is the third.
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(39 - 3)?.parse().ok()
}

/// `struct sched_attr` of sched_setattr(2), first version.
#[repr(C)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread run in short slices, `slice_ns` nanoseconds each: when it wakes up it runs before threads that only
/// compute, without having more of the processor than they. Takes no right. A thread that is scheduled otherwise, such as one
/// of a program in real time, stays as it is.
///
/// Linux has this since 6.12 for ordinary threads; older kernels accept the call and change nothing.
pub fn run_in_short_slices(slice_ns: u64) -> io::Result<()> {
    // SAFETY: takes a number, and returns one. Thread 0 is the calling one.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(());
    }
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: rustix::process::getpriority_process(None)?,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of the attributes, which live until it returns. Thread 0 is the calling one.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_slices_are_accepted() {
        let inside = std::thread::spawn(|| run_in_short_slices(100_000));
        if let Err(error) = inside.join().unwrap() {
            println!("skipped: no scheduling attributes: {error}");
        }
    }

    #[test]
    fn a_thread_stays_where_it_was_put_and_others_do_not() {
        let before = allowed();
        assert!(!before.is_empty());
        let last = before[before.len() - 1];
        let inside = std::thread::spawn(move || {
            stay_on(last).unwrap();
            let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            (allowed(), last_of(thread))
        });
        assert_eq!(inside.join().unwrap(), (vec![last], Some(last)));
        assert_eq!(last_of(0), None);
        assert_eq!(allowed(), before);
    }
}
