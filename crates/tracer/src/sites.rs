//! Where calls are made in an address space, now and later.
//!
//! A program may unmap, move or protect its vDSO, where the instructions are. They are looked at before each use. When
//! they are gone, a page is mapped for them by the instruction with which the stopped thread has just made a call itself.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::calls::{By, Call, CallError, CallSite, MapCall, Mapped};
use super::maps::Maps;
use super::thread::{Registers, Thread};
use memobj_linux::locks::{Rank, RankedMutex};

/// Where in one address space the instructions are. As [`CallSite`], for a program that runs.
#[derive(Debug)]
pub struct Sites {
    site: RankedMutex<CallSite>,
    maps: Arc<Maps>,
}

impl Sites {
    /// Of the address space that `maps` is of; `site` was prepared in it, or in the one that it is a copy of.
    pub fn new(site: CallSite, maps: Arc<Maps>) -> Self {
        Self { site: RankedMutex::new(Rank::CallSite, site), maps }
    }

    /// As they are in a copy of the address space, that `maps` is of.
    pub fn copy(&self, maps: Arc<Maps>) -> Self {
        Self::new(self.current(), maps)
    }

    /// What is mapped in the address space.
    pub fn maps(&self) -> &Arc<Maps> {
        &self.maps
    }

    fn current(&self) -> CallSite {
        *self.site.lock()
    }

    /// The place, which the thread makes first if it is gone. The thread is where it has made a call, or is about to.
    fn at(&self, thread: Thread, base: &Registers) -> Result<CallSite, CallError> {
        let site = self.current();
        if self.maps.is_code(site.address()).unwrap_or(false) && site.is_there(thread) {
            return Ok(site);
        }
        let site = CallSite::prepare_page(thread, base)?;
        *self.site.lock() = site;
        Ok(site)
    }

    /// As [`CallSite::path_of`]. `base` is what the thread goes on from.
    pub fn path_of(&self, thread: Thread, base: &Registers, of: RawFd) -> Result<u64, CallError> {
        Ok(self.at(thread, base)?.path_of(thread, of)?)
    }

    /// As [`CallSite::path_text`].
    pub fn path_text(&self, of: RawFd) -> Vec<u8> {
        self.current().path_text(of)
    }

    /// As [`CallSite::any_path`]. `base` is what the thread goes on from.
    pub fn any_path(&self, thread: Thread, base: &Registers, path: &str) -> Result<u64, CallError> {
        Ok(self.at(thread, base)?.any_path(thread, path)?)
    }

    /// As [`CallSite::one`].
    pub fn one(&self, thread: Thread, base: &Registers, call: Call) -> Result<i64, CallError> {
        self.at(thread, base)?.one(thread, base, call)
    }

    /// As [`CallSite::map`].
    pub fn map(
        &self,
        thread: Thread,
        base: &Registers,
        of: (RawFd, By),
        map: MapCall,
    ) -> Result<Option<Mapped>, CallError> {
        self.at(thread, base)?.map(thread, base, of, map)
    }

    /// As [`CallSite::list`].
    pub fn list(
        &self,
        thread: Thread,
        base: &Registers,
        calls: &[Call],
        descriptors: &[RawFd],
        table: u64,
    ) -> Result<Vec<i64>, CallError> {
        self.at(thread, base)?.list(thread, base, calls, descriptors, table)
    }
}

impl CallSite {
    /// Maps a page for the instructions, by the system call instruction right before where the thread is.
    fn prepare_page(thread: Thread, base: &Registers) -> Result<Self, CallError> {
        let none = || CallError::System(io::Error::other("it has no place for calls in its name"));
        if !base.follows_call(thread) {
            // One that has ended has no instructions.
            thread.registers()?;
            return Err(none());
        }
        let address = thread.call_again(base, Call::map_page())?;
        if address < 0 {
            return Err(none());
        }
        Ok(Self::put(thread, address as u64)?)
    }
}
