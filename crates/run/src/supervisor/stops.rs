//! Stops of programs that their tracer asks for.

use std::sync::Arc;
use std::time::Instant;

use memobj_tracer::{Halted, Happened, Heard, Registers, Resume, Stop, Thread};

use crate::error::NotServed;
use crate::program_space::ProgramSpace;
use crate::supervisor::Supervisor;
use crate::supervisor::events::go_on;

#[cfg(test)]
mod tests;

/// Why [`Supervisor::in_space`] did not do what it was to do.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// No thread runs in the address space any more.
    Gone,
    /// No thread has stopped in time: all sleep where nothing interrupts them.
    Late,
    /// What was to be done was refused.
    Refused(NotServed),
}

impl Supervisor {
    /// Stops a thread that runs in `space`, whichever is the first, and has `act` make calls in its name, from the
    /// registers that it is given. Then all go on as if nothing had been: what they did, system calls that sleep among
    /// it, goes on as after a signal that nobody handles.
    ///
    /// Handles all other reports meanwhile, as the loop does. Threads that sleep uninterruptibly, before the end of
    /// vfork(2) for example, are passed over. `act` is called again with another thread if the one that it was called
    /// with ends, so what it does may be done twice.
    pub(crate) fn in_space<R>(
        &mut self,
        space: &Arc<ProgramSpace>,
        until: Instant,
        mut act: impl FnMut(&mut Self, Thread, &Registers) -> Result<R, NotServed>,
    ) -> Result<R, NotDone> {
        if let Some(answer) = self.in_waiting(space, &mut act) {
            return answer;
        }
        self.threads_of(space).into_iter().for_each(|pid| self.interrupt(pid));
        loop {
            // Who sleeps on one inside a system call cannot stop.
            self.jobs.supply_lost_pages();
            if self.threads_of(space).is_empty() {
                return Err(NotDone::Gone);
            }
            let heard =
                memobj_tracer::wait_any(Some(until)).map_err(|error| NotDone::Refused(error.into()))?;
            let (pid, happened) = match heard {
                Heard::Of(pid, happened) => (pid, happened),
                // Jobs wait: this one is not done.
                Heard::Woken => continue,
                Heard::Nothing => return Err(NotDone::Late),
                Heard::Nobody => return Err(NotDone::Gone),
            };
            let Some(halted) = self.halted(space, pid, happened) else {
                self.heard(pid, happened);
                if self.threads_of(space).contains(&pid) {
                    // Any stop undoes an interruption that was to come.
                    self.interrupt(pid);
                }
                continue;
            };
            let answer = act(self, Thread(pid), halted.registers());
            // If it has ended, its next report tells of it.
            let _ = halted.go_on();
            go_on(pid, Resume::Run);
            match answer {
                // Its next report tells of it; another thread can do it.
                Err(NotServed::Ended) => {}
                Err(why) => return Err(NotDone::Refused(why)),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    /// The same, in the name of a thread that waits before a call: it makes that again, and waits again. `None`: there is none,
    /// or it has ended.
    fn in_waiting<R>(
        &mut self,
        space: &Arc<ProgramSpace>,
        act: &mut impl FnMut(&mut Self, Thread, &Registers) -> Result<R, NotServed>,
    ) -> Option<Result<R, NotDone>> {
        let waiting = self.threads_of(space).into_iter().find(|pid| self.waiting.has(*pid))?;
        let halted = Halted::at(Thread(waiting), Stop::Call)?;
        self.waiting.end(waiting);
        let answer = act(self, Thread(waiting), halted.registers());
        let _ = halted.go_on();
        go_on(waiting, Resume::Run);
        match answer {
            Err(NotServed::Ended) => None,
            other => Some(other.map_err(NotDone::Refused)),
        }
    }

    fn interrupt(&mut self, pid: i32) {
        if Thread(pid).interrupt().is_ok() {
            self.interrupted.insert(pid);
        }
    }

    fn threads_of(&self, space: &Arc<ProgramSpace>) -> Vec<i32> {
        let threads = self.threads.iter();
        let its =
            |other: &Option<Arc<ProgramSpace>>| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, space));
        threads.filter(|(_, thread)| its(&thread.space)).map(|(pid, _)| *pid).collect()
    }

    /// The thread, if it runs in `space` and can make calls.
    fn halted(&mut self, space: &Arc<ProgramSpace>, pid: i32, happened: Happened) -> Option<Halted> {
        let Happened::Stopped(stop) = happened else { return None };
        if !self.threads_of(space).contains(&pid) {
            return None;
        }
        let halted = Halted::at(Thread(pid), stop)?;
        if stop == Stop::Trap {
            self.interrupted.remove(&pid);
        }
        self.first_has_stopped(pid, stop);
        Some(halted)
    }
}
