//! The machine: a disk with so much room, the files on it, faults, and the power switch.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::file::{Disk, File};
use crate::Random;

/// Why an operation of a modelled file failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SimError {
    /// An injected error.
    Io,
    /// No room on the disk, truly or by injection.
    NoSpace,
    /// The power is off.
    PowerOff,
    /// The caller read or wrote beyond the end.
    BeyondEnd,
}

/// Operations that change a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `write_at`
    Write,
    /// `sync`
    Sync,
    /// `set_length`
    SetLength,
    /// `reserve`
    Reserve,
    /// `zero`
    Zero,
}

/// One operation that is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The number of the file, in the order of creation.
    pub file: usize,
    /// Which operation.
    pub operation: Operation,
    /// How many of them succeed before.
    pub after: u32,
    /// What the caller is told.
    pub error: SimError,
}

type Observer = Box<dyn FnMut(&Machine, Operation)>;

/// Files, a disk, and what is to go wrong.
pub struct Machine {
    pub(super) disks: RefCell<Vec<Disk>>,
    pub(super) random: RefCell<Random>,
    /// Blocks of 4 KiB that no file has.
    pub(super) free_blocks: Cell<u64>,
    fault: Cell<Option<Fault>>,
    /// Operations until the power goes.
    power_left: Cell<Option<u64>>,
    observer: RefCell<Option<Observer>>,
}

impl Machine {
    /// A machine without files, and with a disk of `blocks` blocks of 4 KiB.
    pub fn new(seed: u64, blocks: u64) -> Rc<Self> {
        Rc::new(Self::with(Vec::new(), seed, blocks))
    }

    fn with(disks: Vec<Disk>, seed: u64, free_blocks: u64) -> Self {
        Self {
            disks: RefCell::new(disks),
            random: RefCell::new(Random::new(seed)),
            free_blocks: Cell::new(free_blocks),
            fault: Cell::new(None),
            power_left: Cell::new(None),
            observer: RefCell::new(None),
        }
    }

    /// A new, empty file.
    pub fn create(self: &Rc<Self>) -> File {
        self.disks.borrow_mut().push(Disk::default());
        self.file(self.disks.borrow().len() - 1)
    }

    /// The file with number `number`.
    pub fn file(self: &Rc<Self>, number: usize) -> File {
        File { machine: self.clone(), number }
    }

    /// Somebody else leaves only `blocks` blocks free.
    pub fn set_free_blocks(&self, blocks: u64) {
        self.free_blocks.set(blocks);
    }

    /// Lets one operation fail. Another fault that has not come to pass is forgotten.
    pub fn inject(&self, fault: Option<Fault>) {
        self.fault.set(fault);
    }

    /// The power goes after `operations` more operations.
    pub fn power_off_after(&self, operations: u64) {
        self.power_left.set(Some(operations));
    }

    /// `observer` is called before every operation that changes a file, but not from within itself.
    pub fn observe(&self, observer: Option<Observer>) {
        *self.observer.borrow_mut() = observer;
    }

    /// What another machine would find on the disk if the power went now: a possible one, by `seed`. Nothing of
    /// the disk is free there.
    pub fn crashed(&self, seed: u64) -> Rc<Self> {
        let mut random = Random::new(seed);
        let disks = self.disks.borrow().iter().map(|disk| disk.crashed(&mut random)).collect();
        Rc::new(Self::with(disks, seed, 0))
    }

    /// Goes through the hooks before an operation. The error that it is to fail with, if any.
    pub(super) fn enter(&self, file: usize, operation: Operation) -> Result<Option<SimError>, SimError> {
        let observer = self.observer.borrow_mut().take();
        if let Some(mut observer) = observer {
            observer(self, operation);
            *self.observer.borrow_mut() = Some(observer);
        }
        if let Some(left) = self.power_left.get() {
            self.power_left.set(Some(left.checked_sub(1).ok_or(SimError::PowerOff)?));
        }
        let Some(fault) = self.fault.get().filter(|fault| (fault.file, fault.operation) == (file, operation))
        else {
            return Ok(None);
        };
        let after = fault.after.checked_sub(1);
        self.fault.set(after.map(|after| Fault { after, ..fault }));
        Ok(if after.is_none() { Some(fault.error) } else { None })
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("free_blocks", &self.free_blocks).finish_non_exhaustive()
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SimError::Io => "injected input/output error",
            SimError::NoSpace => "no room",
            SimError::PowerOff => "the power is off",
            SimError::BeyondEnd => "beyond the end",
        })
    }
}

impl std::error::Error for SimError {}
