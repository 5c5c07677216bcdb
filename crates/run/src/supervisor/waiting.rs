//! Threads of programs that stay stopped before a call until something is known.

use std::collections::HashMap;

/// When a stopped thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GoesOn {
    /// When its report was handled.
    Now,
    /// When what it waits for is known.
    Later,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WaitingThreads {
    /// By thread: which wait it is.
    numbers: HashMap<i32, u64>,
    last: u64,
}

impl WaitingThreads {
    /// The thread waits; by the answer this wait is told from others of the thread.
    pub(crate) fn begin(&mut self, pid: i32) -> u64 {
        self.last += 1;
        self.numbers.insert(pid, self.last);
        self.last
    }

    /// The thread does not wait any more; whether it did.
    pub(crate) fn end(&mut self, pid: i32) -> bool {
        self.numbers.remove(&pid).is_some()
    }

    /// What this wait was for is known; whether it goes on still.
    pub(crate) fn ends(&mut self, pid: i32, number: u64) -> bool {
        self.numbers.get(&pid) == Some(&number) && self.end(pid)
    }

    /// Whether the thread waits.
    pub(crate) fn has(&self, pid: i32) -> bool {
        self.numbers.contains_key(&pid)
    }
}
