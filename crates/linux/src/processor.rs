//! Processors: how many this process may use, and threads that stay on one.
//!
//! Source: sched_setaffinity(2).

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

#[cfg(test)]
mod tests {
    use super::*;

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
