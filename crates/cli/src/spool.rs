//! Files that do not tell their length: read to their end first.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{read, retry_on_intr};

use crate::failure::{Failure, reason};
use crate::interrupt::Interrupt;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes that are kept in memory beside the budget's frames, at most.
const MOST_KEPT: u64 = 1 << 20;

/// All bytes of a file.
#[derive(Debug)]
pub(crate) enum Contents {
    /// In memory.
    Kept(Vec<u8>),
    /// In a temporary file without a name.
    Spilled(File),
}

/// Reads the file at `path` to its end, as cat(1) does. Under a quarter of `budget_bytes` it is kept in memory, beyond
/// that it goes to a temporary file.
///
/// A file that would have to be waited for is refused.
pub(crate) fn read_to_end(
    path: &Path,
    budget_bytes: u64,
    interrupt: &Interrupt,
) -> Result<Contents, Failure> {
    let failed = |error: io::Error| Failure::io(&format!("read {}", path.display()), &error);
    let spilled = |error: io::Error| {
        let (name, why) = (path.display(), reason(&error));
        Failure::Message(format!("read {name}: it goes to a temporary file, which cannot be written: {why}"))
    };
    let flags = OFlags::NONBLOCK.bits() as i32;
    let from = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let most = (budget_bytes / 4).min(MOST_KEPT) as usize;
    let (mut kept, mut spill) = (Vec::new(), None);
    let mut piece = vec![0; PIECE_BYTES.min(most)];
    loop {
        interrupt.check()?;
        let count = retry_on_intr(|| read(&from, &mut piece)).map_err(|error| failed(error.into()))?;
        let bytes = &piece[..count];
        match &mut spill {
            _ if count == 0 => break,
            None if kept.len() + count <= most => kept.extend_from_slice(bytes),
            None => {
                let mut file = tempfile::tempfile().map_err(spilled)?;
                file.write_all(&kept).and_then(|()| file.write_all(bytes)).map_err(spilled)?;
                kept = Vec::new();
                spill = Some(file);
            }
            Some(file) => file.write_all(bytes).map_err(spilled)?,
        }
    }
    Ok(spill.map_or(Contents::Kept(kept), Contents::Spilled))
}
