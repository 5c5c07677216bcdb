//! What a private mapping sees: its own pages, where it stored something, and the object's everywhere else.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use memobj_linux::file::{read_full, write_full};

use crate::error::{ErrorKind, SupplyError};
use crate::handles::ObjectHandle;
use crate::locks::{Rank, RankedMutex};
use crate::pagers::BlockingPager;

const PAGE: u64 = 4096;

/// Pages that were stored to go to a temporary file without a name when memory is short, at their own offsets; the
/// object never hears of them.
#[derive(Debug)]
pub(crate) struct Private {
    base: Arc<ObjectHandle>,
    length: u64,
    own: RankedMutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    /// Made with the first page that has to go.
    file: Option<Arc<std::fs::File>>,
    pages: BTreeSet<u64>,
}

impl Private {
    pub(crate) fn new(base: Arc<ObjectHandle>) -> Self {
        let length = base.length();
        Self { base, length, own: RankedMutex::new(Rank::Private, Own::default()) }
    }

    /// The file of `page`, if it is the mapping's own.
    fn own_file(&self, page: u64) -> Option<Arc<std::fs::File>> {
        let own = self.own.lock();
        own.file.clone().filter(|_| own.pages.contains(&page))
    }

    fn supply_page(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), SupplyError> {
        if let Some(file) = self.own_file(range.start / PAGE) {
            return match read_full(&*file, buffer, range.start)? {
                count if count == buffer.len() => Ok(()),
                _ => Err(SupplyError::new(ErrorKind::Truncated)),
            };
        }
        self.base.read_page(range, buffer)
    }
}

impl BlockingPager for Private {
    fn length(&self) -> u64 {
        self.length
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        for (index, part) in buffer.chunks_mut(PAGE as usize).enumerate() {
            let start = range.start + index as u64 * PAGE;
            self.supply_page(start..start + part.len() as u64, part)?;
        }
        Ok(buffer.len())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write_back(&self, range: Range<u64>, bytes: &[u8]) -> Result<(), SupplyError> {
        let mut own = self.own.lock();
        let file = match &own.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(own.file.insert(Arc::new(tempfile::tempfile()?))),
        };
        write_full(&*file, bytes, range.start)?;
        own.pages.extend(range.start / PAGE..range.end.div_ceil(PAGE));
        Ok(())
    }
}
