//! The bytes of a file at one moment, cheap to copy.

use std::rc::Rc;

/// Bytes that are shared between copies of an image.
pub const PAGE_BYTES: usize = 4096;

type Page = Rc<[u8; PAGE_BYTES]>;

/// A length and the pages below it; pages that were never written are holes.
#[derive(Clone, Debug, Default)]
pub struct Image {
    length: u64,
    pages: Vec<Option<Page>>,
}

impl Image {
    /// The length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Cuts or extends; new bytes are zero.
    pub fn set_length(&mut self, length: u64) {
        let cut = length.min(self.length);
        self.pages.resize(length.div_ceil(PAGE_BYTES as u64) as usize, None);
        self.length = length;
        let inside = (cut % PAGE_BYTES as u64) as usize;
        if inside > 0
            && let Some(Some(page)) = self.pages.get_mut((cut / PAGE_BYTES as u64) as usize)
        {
            Rc::make_mut(page)[inside..].fill(0);
        }
    }

    /// The indices of the pages that are not holes.
    pub fn written_pages(&self) -> impl Iterator<Item = u64> {
        (0..).zip(&self.pages).filter(|(_, page)| page.is_some()).map(|(index, _)| index)
    }

    /// Reads bytes that lie below the length.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        for (at, part) in parts(offset, into.len()) {
            let into = &mut into[part];
            let inside = (at % PAGE_BYTES as u64) as usize;
            match &self.pages[(at / PAGE_BYTES as u64) as usize] {
                Some(page) => into.copy_from_slice(&page[inside..inside + into.len()]),
                None => into.fill(0),
            }
        }
    }

    /// Writes bytes; those beyond the length are dropped.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let inside = self.length.saturating_sub(offset).min(bytes.len() as u64) as usize;
        for (at, part) in parts(offset, inside) {
            let bytes = &bytes[part];
            let page = &mut self.pages[(at / PAGE_BYTES as u64) as usize];
            let page = Rc::make_mut(page.get_or_insert_with(|| Rc::new([0; PAGE_BYTES])));
            let start = (at % PAGE_BYTES as u64) as usize;
            page[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Cuts `[offset, offset + length)` at page boundaries: offsets, and ranges of the buffer.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = (PAGE_BYTES - (at % PAGE_BYTES as u64) as usize).min(length - done);
        let start = done;
        done += part;
        (part > 0).then_some((at, start..done))
    })
}
