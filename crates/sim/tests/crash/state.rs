//! The object as it should be.

use std::collections::BTreeMap;
use std::rc::Rc;

use memobj_core::address::PageIndex;
use memobj_log::{CommitLog, ReadError, Storage};
use memobj_sim::Random;
use memobj_sim::storage::{PAGE_BYTES, SimError};

pub type Page = Rc<[u8; PAGE_BYTES]>;
const PAGE: u64 = PAGE_BYTES as u64;

/// Pages that an object has at most.
pub const PAGES: u64 = 10;

/// A length and pages; what is missing is zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub length: u64,
    pub pages: BTreeMap<u64, Page>,
}

impl State {
    pub fn page_count(&self) -> u64 {
        self.length.div_ceil(PAGE)
    }

    /// Other bytes in part of a page, never the same twice; zeros beyond the end.
    pub fn write(&mut self, page: u64, random: &mut Random) {
        let mut bytes = self.page(page);
        let words: Vec<u64> = (0..PAGE / 64).map(|_| random.draw()).collect();
        let first = [0, random.below(PAGE)][random.below(2) as usize] as usize;
        for (at, byte) in bytes.iter_mut().enumerate().skip(first) {
            *byte = (words[at / 64] >> (at % 8)) as u8;
        }
        let inside = (self.length - page * PAGE).min(PAGE) as usize;
        bytes[inside..].fill(0);
        self.put(page, bytes);
    }

    pub fn page(&self, page: u64) -> [u8; PAGE_BYTES] {
        self.pages.get(&page).map_or([0; PAGE_BYTES], |page| **page)
    }

    pub fn put(&mut self, page: u64, bytes: [u8; PAGE_BYTES]) {
        if bytes.iter().any(|&byte| byte != 0) {
            self.pages.insert(page, Rc::new(bytes));
        } else {
            self.pages.remove(&page);
        }
    }

    pub fn set_length(&mut self, length: u64) {
        self.length = length;
        self.pages.split_off(&length.div_ceil(PAGE));
        let tail = length / PAGE;
        if let Some(page) = self.pages.get(&tail) {
            let mut bytes = **page;
            bytes[(length % PAGE) as usize..].fill(0);
            self.put(tail, bytes);
        }
    }

    /// What the log shows, its newest pages included.
    pub fn read<S: Storage<Error = SimError>>(
        log: &CommitLog<S>,
        length: u64,
    ) -> Result<Self, ReadError<SimError>> {
        let mut state = Self { length, pages: BTreeMap::new() };
        for page in 0..PAGES + 1 {
            let mut bytes = [0; PAGE_BYTES];
            log.read_page(PageIndex(page), &mut bytes)?;
            state.put(page, bytes);
        }
        Ok(state)
    }

    /// In few words, for reports: each page by four digits of its content.
    pub fn brief(&self) -> String {
        let digest =
            |page: &Page| page.iter().fold(7u16, |sum, &byte| sum.wrapping_mul(31) ^ u16::from(byte));
        let pages = self.pages.iter().map(|(at, page)| format!("{at}:{:04x}", digest(page)));
        format!("{} bytes {{{}}}", self.length, pages.collect::<Vec<_>>().join(" "))
    }
}
