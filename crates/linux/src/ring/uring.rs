//! Transfers through io_uring. Source: io_uring(7), io_uring_enter(2).

use std::io;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{Completion, Direction, ReadFile, Repeat, RingUser, Transfer};
use crate::quiet::quietly;

const WATCH: u64 = 1 << 63;
pub(super) struct UringReads<T> {
    ring: IoUring,
    flights: Vec<Option<Transfer<T>>>,
    free: Vec<usize>,
    watched: Vec<Watch>,
    in_flight: usize,
    /// Whether there were writes, which the kernel makes in the thread that submits them if it can at once.
    writes: bool,
}

struct Watch {
    descriptor: ReadFile,
    key: u32,
    repeat: Repeat,
}

impl<T> std::fmt::Debug for UringReads<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringReads").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl<T> UringReads<T> {
    pub(super) fn new(depth: u32, owner: RingUser) -> io::Result<Self> {
        let entries = depth.next_power_of_two().max(8);
        let plain = || IoUring::builder().dontfork().setup_cqsize(entries * 2).build(entries);
        // Completions are delivered when the one thread asks for them: no interrupt of what it does meanwhile.
        let ring = match owner {
            RingUser::CallingThread => {
                IoUring::builder().dontfork().setup_single_issuer().setup_defer_taskrun().build(entries)
            }
            RingUser::OneAtATime => IoUring::builder().dontfork().setup_coop_taskrun().build(entries),
        };
        let ring = ring.or_else(|_| plain())?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring without timeouts (Linux 5.11)"));
        }
        Ok(Self {
            ring,
            flights: Vec::new(),
            free: Vec::new(),
            watched: Vec::new(),
            in_flight: 0,
            writes: false,
        })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: transfers name a buffer and a descriptor that `flights` owns until the completion; poll
            // entries name a descriptor that `watched` owns. Both live until the ring is drained (Drop).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }

    pub(super) fn start(&mut self, mut transfer: Transfer<T>) {
        let (file, offset) = (Fd(transfer.file.raw()), transfer.offset);
        let buffer = &mut transfer.target.as_mut_slice()[..transfer.len];
        let (start, len) = (buffer.as_mut_ptr(), buffer.len() as u32);
        let entry = match transfer.direction {
            Direction::Read => opcode::Read::new(file, start, len).offset(offset).build(),
            Direction::Write => opcode::Write::new(file, start, len).offset(offset).build(),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.writes |= transfer.direction == Direction::Write;
        self.flights[index] = Some(transfer);
        self.in_flight += 1;
        let entry = entry.user_data(index as u64);
        if self.push(&entry).is_err() {
            // The kernel takes nothing more; a ring in this state reports the same from `wait`.
            unreachable_submit();
        }
    }

    pub(super) fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        match self.enter(|ring| ring.submit()) {
            Ok(_) => Ok(()),
            Err(error) if may_pass(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn enter(&self, call: impl FnOnce(&IoUring) -> io::Result<usize>) -> io::Result<usize> {
        if self.writes { quietly(|| call(&self.ring)) } else { call(&self.ring) }
    }

    pub(super) fn watch(&mut self, descriptor: ReadFile, key: u32, repeat: Repeat) -> io::Result<()> {
        self.watched.push(Watch { descriptor, key, repeat });
        match repeat {
            Repeat::Always => self.arm(self.watched.len() - 1),
            Repeat::WhenAsked => Ok(()),
        }
    }

    pub(super) fn look_again(&mut self, key: u32) -> io::Result<()> {
        match self.watched.iter().position(|watch| watch.key == key) {
            Some(index) => self.arm(index),
            None => Ok(()),
        }
    }

    fn arm(&mut self, index: usize) -> io::Result<()> {
        let watch = &self.watched[index];
        let always = watch.repeat == Repeat::Always;
        let entry =
            opcode::PollAdd::new(Fd(watch.descriptor.raw()), libc::POLLIN as u32).multi(always).build();
        self.push(&entry.user_data(WATCH | index as u64))
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        into: &mut Vec<Completion<T>>,
    ) -> io::Result<()> {
        let before = into.len();
        self.reap(into)?;
        if into.len() > before {
            return self.submit();
        }
        let waited = match timeout {
            None => self.enter(|ring| ring.submit_and_wait(1)),
            Some(time) => {
                let limit = Timespec::from(time);
                self.enter(|ring| ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit)))
            }
        };
        match waited {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || may_pass(&error) => {}
            Err(error) => return Err(error),
        }
        self.reap(into)
    }

    /// As `wait`, but does not sleep.
    pub(super) fn look(&mut self, into: &mut Vec<Completion<T>>) -> io::Result<()> {
        let to_submit = self.ring.submission().len() as u32;
        const GETEVENTS: u32 = 1;
        // SAFETY: no argument is passed; what was pushed keeps to the contract in `push`.
        let looked =
            self.enter(|ring| unsafe { ring.submitter().enter::<()>(to_submit, 0, GETEVENTS, None) });
        match looked {
            Err(error) if !may_pass(&error) => return Err(error),
            _ => {}
        }
        self.reap(into)
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn reap(&mut self, into: &mut Vec<Completion<T>>) -> io::Result<()> {
        while let Some(entry) = self.next_completion() {
            if entry.user_data() & WATCH != 0 {
                let index = (entry.user_data() & !WATCH) as usize;
                if !cqueue::more(entry.flags()) && self.watched[index].repeat == Repeat::Always {
                    self.arm(index)?;
                }
                into.push(Completion::Ready(self.watched[index].key));
                continue;
            }
            let index = entry.user_data() as usize;
            let Some(flight) = self.flights[index].take() else { continue };
            self.free.push(index);
            self.in_flight -= 1;
            let result = match entry.result() {
                negative if negative < 0 => Err(io::Error::from_raw_os_error(-negative)),
                count => Ok(count as usize),
            };
            into.push(Completion::Ended { target: flight.target, token: flight.token, result });
        }
        Ok(())
    }
}

fn may_pass(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// io_uring_enter(2) refuses a valid ring for good only when the descriptor is broken, which is our bug.
#[cold]
fn unreachable_submit() -> ! {
    panic!("io_uring refuses every submission")
}

impl<T> Drop for UringReads<T> {
    fn drop(&mut self) {
        let mut dropped = Vec::new();
        while self.in_flight > 0 {
            if self.enter(|ring| ring.submit_and_wait(1)).is_err_and(|error| !may_pass(&error))
                || self.reap(&mut dropped).is_err()
            {
                // The kernel may still write into the buffers: leak them rather than free them.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            dropped.clear();
        }
    }
}
