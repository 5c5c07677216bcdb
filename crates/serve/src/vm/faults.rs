//! Faults of a machine, as a client of the event loop of the process.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use memobj::{AtOnce, PageError};
use memobj_linux::fault_loop::{Client, ClientEnd, Fault, MayBlock, Reading, Step};
use memobj_linux::uffd::{FaultEvent, FaultKind};

use super::event::Event;
use super::machine::{Gone, Machine, Placed, SMALL};
use super::options::OnFailure;
use super::regions::Region;
use super::server::Shared;

/// How many faults wait at most until no more events are read. Of ranges that are given up is told there, too: more than
/// there can be threads of a machine.
const MOST_PARKED: usize = 16 << 10;
/// How often a page that has failed is asked for again, where machines wait.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Pages whose failure was told of, of one machine.
const MOST_TOLD: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct MachineFaults {
    pub(super) machine: Arc<Machine>,
    pub(super) server: Weak<Shared>,
    /// How many bytes around a fault are obtained with it.
    pub(super) window: u64,
    pub(super) on_failure: OnFailure,
    /// When failed pages were asked for last.
    pub(super) failed: Mutex<HashMap<u64, Instant>>,
}

impl Client for MachineFaults {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let machine = &self.machine;
        vec![machine.memory.as_fd(), machine.socket.as_fd(), machine.process.as_fd()]
    }

    fn read(&self, index: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd> {
        if index == 1 && self.says_more() {
            return Ok(Reading::Done);
        }
        if index != 0 {
            return Err(ClientEnd::Gone);
        }
        let missing = self.machine.turn().read().map_err(|Gone| ClientEnd::Gone)?;
        self.machine.faults.fetch_add(missing.len() as u64, Ordering::Relaxed);
        faults.extend(missing.into_iter().map(|(address, is_write)| FaultEvent {
            address: address as usize,
            kind: FaultKind::Missing,
            is_write,
            thread: 0,
        }));
        Ok(Reading::Done)
    }

    fn resolve(&self, fault: &Fault) -> Step {
        let machine = &self.machine;
        let address = fault.event.address as u64;
        let Some(region) = machine.regions.at(address) else { return Step::Broken };
        let address = address & !(region.page - 1);
        if fault.looks == 0
            && let Some(recorder) = &machine.recorder
        {
            recorder.touched(region.offset_of(address), region.page);
        }
        let step = if machine.is_given_up(region.index_of(address)) {
            self.place(region, address, &[])
        } else {
            self.supply(region, address)
        };
        if matches!(step, Step::Done)
            && let Some(server) = self.server.upgrade()
        {
            server.resolved(fault.read_at.elapsed());
        }
        step
    }

    fn give_up(&self, fault: &Fault) {
        let why = std::io::Error::other("a thread of the server has panicked");
        self.fail(fault.event.address as u64, &why);
    }

    fn ended(&self, end: ClientEnd) {
        if let Some(server) = self.server.upgrade() {
            server.ended(&self.machine, end == ClientEnd::Broken);
        }
    }

    fn may_block(&self) -> MayBlock {
        MayBlock::Yes
    }

    fn most_parked(&self) -> usize {
        MOST_PARKED
    }
}

impl MachineFaults {
    /// Whether the monitor has said something that nobody has asked for, and is there still. It is thrown away.
    fn says_more(&self) -> bool {
        let mut bytes = [0; 512];
        use rustix::net::{RecvFlags, recv};
        matches!(recv(&self.machine.socket, &mut bytes, RecvFlags::DONTWAIT), Ok((1.., _)))
    }

    /// Obtains the page, and puts it in place.
    fn supply(&self, region: &Region, address: u64) -> Step {
        let object = &self.machine.object;
        let (offset, end) = (region.offset_of(address), region.offset_of(address) + region.page);
        let window = self.window.max(region.page);
        let first = (offset & !(window - 1)).max(region.offset);
        let around = first..(first + window).min(region.offset + region.length);
        let missing = |page: &u64| !object.lent.is_resident(*page);
        for page in (offset..end).step_by(SMALL as usize).filter(missing) {
            match object.lent.resolve_at_once(page, around.clone()) {
                AtOnce::Resident => {}
                AtOnce::Pending(pending) => return Step::Pending(Box::new(pending)),
                AtOnce::Failed(error) => return self.page_failed(page, address, &error),
                _ => return Step::Later,
            }
        }
        match object.mapping.pin_ref(offset..end) {
            Ok(bytes) => self.place(region, address, &bytes),
            // It went and failed meanwhile: the next look says how.
            Err(_) => Step::Later,
        }
    }

    fn place(&self, region: &Region, address: u64, bytes: &[u8]) -> Step {
        match self.machine.turn().place_page(region, address, bytes) {
            Placed::Yes => Step::Done,
            Placed::Later => Step::Later,
            Placed::Gone => Step::Broken,
            Placed::Failed(error) => {
                self.fail(address, &error);
                Step::Done
            }
        }
    }

    /// The object's page at `offset` cannot be had.
    fn page_failed(&self, offset: u64, address: u64, error: &PageError) -> Step {
        if self.on_failure == OnFailure::End {
            self.fail(address, error);
            return Step::Done;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match failed.get_mut(&offset) {
            Some(asked) if now.duration_since(*asked) < ASK_AGAIN => {}
            Some(asked) => {
                *asked = now;
                self.machine.object.lent.retry(offset..offset + SMALL);
            }
            None => {
                if failed.len() < MOST_TOLD {
                    failed.insert(offset, now);
                }
                let event = Event::Waits { pid: self.machine.pid, why: error.to_string() };
                self.tell(&event);
                self.machine.object.lent.retry(offset..offset + SMALL);
            }
        }
        Step::Later
    }

    /// The machine must not go on without the page.
    fn fail(&self, address: u64, why: &dyn std::error::Error) {
        let machine = &self.machine;
        let killed = machine.kill();
        let event = Event::Killed {
            pid: machine.pid,
            address,
            why: why.to_string(),
            refused: killed.err().map(|error| error.to_string()),
        };
        self.tell(&event);
    }

    fn tell(&self, event: &Event) {
        if let Some(server) = self.server.upgrade() {
            server.tell(event);
        }
    }
}
