//! The faults of programs. Each address space is a client of the event loop of the process; no thread waits for a page.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use memobj_linux::fault_loop::{
    BATCH, Client, ClientEnd, Fault, FaultLoop, FaultLoopMetrics, MayBlock, Reading, Registration, Step,
    end_of,
};
use memobj_linux::locks::{Rank, RankedRwLock};
use memobj_linux::uffd::{EventBuffer, FaultEvent, FaultKind, ForeignFaults};
use memobj_tracer::MappedFile;

use crate::files::{Files, FramesId, LostPage, MappedObject};
use crate::frames::Resolved;
use crate::history::{FaultRecord, Resolution};
use crate::history_builder::HistoryBuilder;
use crate::lender::Lender;
use crate::options::{Counting, Messages, Options};
use crate::program_space::ProgramSpace;
use crate::say::Speaker;
use crate::thrash::Thrash;

const PAGE: u64 = 4096;
/// How long the end of a program waits for messages that nobody reads.
const MESSAGES_LIMIT: Duration = Duration::from_secs(1);
/// How many windows fit into the budget at least, unless they are of one page.
const LEAST_WINDOWS: u64 = 16;
/// Faults of one program that wait. Forks are told of by the same descriptor, which is not read beyond.
const MOST_PARKED: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Faults {
    fault_loop: Arc<FaultLoop>,
    spaces: RankedRwLock<HashMap<u64, (Arc<ProgramSpace>, Registration)>>,
    // Dropped after the registrations: says what is left.
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Arc<Files>,
    history_builder: Arc<HistoryBuilder>,
    options: Options,
    window_bytes: u64,
    thrash: Thrash,
    speaker: Speaker,
}

/// An address space of a program as a client of the loop.
#[derive(Debug)]
struct ProgramFaults {
    space: Arc<ProgramSpace>,
    faults: Arc<ForeignFaults>,
    shared: Arc<Shared>,
}

impl Faults {
    pub(crate) fn start(
        files: Arc<Files>,
        history_builder: Arc<HistoryBuilder>,
        options: Options,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            files,
            history_builder,
            window_bytes: window_bytes(&options),
            thrash: Thrash::new(options.budget_bytes),
            speaker: Speaker::default(),
            options,
        });
        let spaces = RankedRwLock::new(Rank::FaultSpaces, HashMap::new());
        Ok(Self { fault_loop: FaultLoop::of_process()?, spaces, shared })
    }

    /// Resolves the faults of `space` from now on, if it is told of them.
    pub(crate) fn serve(&self, space: &Arc<ProgramSpace>) -> io::Result<()> {
        let Some(faults) = space.faults().cloned() else { return Ok(()) };
        let (served, shared) = (Arc::clone(space), Arc::clone(&self.shared));
        let kept = self.fault_loop.add(Arc::new(ProgramFaults { space: served, faults, shared }))?;
        self.spaces.write().insert(space.number, (Arc::clone(space), kept));
        Ok(())
    }

    /// The spaces whose faults are resolved.
    pub(crate) fn spaces(&self) -> Vec<Arc<ProgramSpace>> {
        self.spaces.read().values().map(|(space, _)| Arc::clone(space)).collect()
    }

    /// The space is gone.
    pub(crate) fn forget(&self, space: &ProgramSpace) {
        let known = self.spaces.write().remove(&space.number);
        if let Some((_, kept)) = known {
            kept.end_later();
        }
    }

    /// Waits until what was said of faults so far is out, for a moment at most.
    pub(crate) fn wait_for_messages(&self) {
        self.shared.speaker.wait(MESSAGES_LIMIT);
    }

    /// What the loop has done.
    pub(crate) fn metrics(&self) -> FaultLoopMetrics {
        self.fault_loop.metrics()
    }
}

/// How many bytes are read around a fault. Programs get nowhere when the window of one page, of code for example, takes
/// the place of another that the same instruction needs: many windows fit into the budget.
fn window_bytes(options: &Options) -> u64 {
    if options.via.is_some() {
        return options.window_bytes;
    }
    let most = (options.budget_bytes / LEAST_WINDOWS).max(PAGE);
    options.window_bytes.min(1 << most.ilog2())
}

impl Client for ProgramFaults {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.faults.as_fd()]
    }

    fn read(&self, _: usize, faults: &mut Vec<FaultEvent>) -> Result<Reading, ClientEnd> {
        match self.faults.read(&mut EventBuffer::for_events(BATCH)) {
            Ok((read, children)) => {
                self.space.has_children(children);
                faults.extend(read);
                Ok(Reading::Done)
            }
            Err(error) if end_of(&error) == ClientEnd::Gone => Err(ClientEnd::Gone),
            // No descriptor for a forked child, or no memory: the event stays, and is read as soon as there is some.
            Err(_) => Ok(Reading::Later),
        }
    }

    fn resolve(&self, fault: &Fault) -> Step {
        if fault.event.kind == FaultKind::WriteProtect {
            // Its mapping is being handed over, which wakes it at the end.
            return Step::Done;
        }
        let place = Place::of(fault, &self.space, &self.shared);
        let Some(place) = place else {
            // Unmapped meanwhile: whoever sleeps on it faults again, and finds that out.
            self.faults.wake(fault.event.address as u64, PAGE);
            return Step::Done;
        };
        let was_resident = fault.looks == 0 && place.object.lent.is_resident(place.offset);
        match self.supply(fault, &place, was_resident) {
            Resolved::Pending(pending) => return Step::Pending(pending),
            Resolved::Failed(error) => self.fail(fault, &place, &error),
            Resolved::Gone(why) => self.supply_from_file(fault, &place, &why),
            Resolved::Resident => self.wake(fault, &place, was_resident),
        }
        Step::Done
    }

    fn give_up(&self, fault: &Fault) {
        // Before: whoever is ended by it may be the last of whom anything is said.
        if self.shared.options.messages == Messages::StandardError {
            let process = self.space.process;
            self.shared
                .speaker
                .say(format!("a fault could not be resolved; process {process} is sent SIGBUS"));
        }
        self.trap(fault.event.address as u64);
    }

    fn may_block(&self) -> MayBlock {
        MayBlock::Yes
    }

    fn most_parked(&self) -> usize {
        MOST_PARKED
    }
}

/// Where a fault is.
struct Place {
    found: MappedFile,
    object: Arc<MappedObject>,
    /// The byte of the object that is behind the page.
    offset: u64,
    /// Its bytes that are obtained together.
    window: std::ops::Range<u64>,
}

impl Place {
    fn of(fault: &Fault, space: &ProgramSpace, shared: &Shared) -> Option<Self> {
        let address = fault.event.address as u64;
        let found = space.maps.at(address).ok().flatten()?;
        let object = shared.files.of_frames(FramesId::of(&found))?;
        let offset = found.offset + (address - found.start);
        let window = shared.window_bytes;
        let first = (offset & !(window - 1)).max(found.offset);
        let end = ((offset & !(window - 1)) + window).min(found.offset + (found.end - found.start));
        Some(Self { found, object, offset, window: first..end })
    }
}

impl ProgramFaults {
    /// Obtains the page, and says so if that happens too often.
    fn supply(&self, fault: &Fault, place: &Place, was_resident: bool) -> Resolved {
        if was_resident {
            return Resolved::Resident;
        }
        let lent = &place.object.lent;
        if self.shared.options.via.is_some() {
            // The budget is the server's.
            return lent.resolve_at_once(place.offset, place.window.clone());
        }
        let pages = place.window.clone().step_by(PAGE as usize);
        let missing = pages.filter(|offset| !lent.is_resident(*offset)).count() as u64;
        let answer = lent.resolve_at_once(place.offset, place.window.clone());
        if fault.looks == 0 {
            let told = self.shared.thrash.supplied(place.object.file, place.window.clone(), missing);
            let told = told.filter(|_| self.shared.options.messages == Messages::StandardError);
            told.into_iter().for_each(|told| self.shared.speaker.say(told));
        }
        answer
    }

    fn wake(&self, fault: &Fault, place: &Place, was_resident: bool) {
        let Place { found, window, .. } = place;
        match self.shared.options.counting {
            Counting::Totals => {
                let start = found.start + (window.start - found.offset);
                self.faults.wake(start, window.end - window.start);
            }
            Counting::Touches => self.faults.show(fault.event.address as u64, PAGE),
        }
        let resolution = if was_resident { Resolution::Resident } else { Resolution::Supplied };
        self.shared.history_builder.fault(self.record(fault, place, resolution));
    }

    /// Who lends the frames is gone: the file, which is as it was, takes their place. This page comes as a copy first, since
    /// who sleeps on it inside a system call could not be stopped.
    fn supply_from_file(&self, fault: &Fault, place: &Place, why: &str) {
        if let Lender::Server(via) = self.shared.files.lender()
            && via.tells_of_loss()
            && self.shared.options.messages == Messages::StandardError
        {
            self.shared.speaker.say(format!("{via}: {why}: the kernel supplies pages of files from now on"));
        }
        let mut bytes = vec![0; PAGE as usize];
        let read = place
            .object
            .file_descriptor()
            .and_then(|file| memobj_linux::file::read_full(&file, &mut bytes, place.offset & !(PAGE - 1)));
        match read {
            Ok(_) => {
                let address = fault.event.address as u64 & !(PAGE - 1);
                let page = LostPage { faults: Arc::clone(&self.faults), address, bytes };
                self.shared.files.lender_is_gone(&place.object, page);
            }
            Err(error) => {
                let name = self.shared.files.name(&place.object);
                self.fail(fault, place, &format!("supply page {} of {name}: {error}", place.offset / PAGE));
            }
        }
    }

    fn fail(&self, fault: &Fault, place: &Place, error: &str) {
        // Before: whoever is ended by it may be the last of whom anything is said.
        if self.shared.options.messages != Messages::None {
            let process = self.space.process;
            let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            let name = name.trim_end();
            self.shared.speaker.say(format!("{error}; process {process} ({name}) is sent SIGBUS"));
        }
        self.shared.history_builder.failed(self.record(fault, place, Resolution::Failed), error);
        self.trap(fault.event.address as u64);
    }

    fn trap(&self, address: u64) {
        if self.faults.poison(address, PAGE).is_err() {
            // The page is there after all, or the address space is not.
            self.faults.wake(address, PAGE);
        }
    }

    fn record(&self, fault: &Fault, place: &Place, resolution: Resolution) -> FaultRecord {
        FaultRecord {
            at: self.shared.history_builder.time_of(fault.read_at),
            duration: fault.read_at.elapsed(),
            process: self.space.program(),
            file: place.object.file,
            page: place.offset / PAGE,
            resolution,
        }
    }
}
