//! `memobj read`: the bytes of a file on standard output.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use crate::args::ReadArguments;
use crate::engine::{Engine, View};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::put;
use crate::progress::{Output, Progress};
use crate::stats;
use crate::walk::in_order;

/// Writes the range of the file that was asked for.
pub(crate) fn run(arguments: &ReadArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let begin = Instant::now();
    let engine = Engine::new(arguments.common.settings())?;
    let result = read_file(&engine, arguments, interrupt);
    stats::print(result, arguments.common.stats, &engine, begin)
}

fn read_file(engine: &Engine, arguments: &ReadArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let view = engine.open(&arguments.file, interrupt)?;
    let range = clip(&arguments.file, view.length(), arguments.offset, arguments.length)?;
    let progress = Progress::begin(&arguments.file.to_string_lossy(), range.end - range.start, Output::Bytes);
    write_range(&view, range, interrupt, &progress)
}

fn write_range(
    view: &View,
    range: Range<u64>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<(), Failure> {
    in_order(
        &view.plan(range),
        interrupt,
        |piece, buffer| view.load(piece, buffer, <[u8]>::to_vec),
        |piece, bytes| {
            put(&bytes)?;
            progress.advance(piece.end - piece.start);
            Ok(())
        },
    )
}

/// The range of a file of `file_bytes` to write: not past the end, unless it begins there.
fn clip(path: &Path, file_bytes: u64, offset: u64, length: Option<u64>) -> Result<Range<u64>, Failure> {
    if offset > file_bytes {
        let name = path.display();
        return Err(Failure::Message(format!(
            "read {name}: offset {offset} is past the end at {file_bytes}"
        )));
    }
    let left = file_bytes - offset;
    Ok(offset..offset + length.map_or(left, |length| length.min(left)))
}

#[cfg(test)]
mod tests {
    use super::clip;
    use crate::failure::Failure;
    use std::path::Path;

    #[test]
    fn a_range_is_clipped_but_begins_inside() {
        let clip = |offset, length| clip(Path::new("f"), 100, offset, length);
        assert_eq!(clip(0, None), Ok(0..100));
        assert_eq!(clip(90, Some(20)), Ok(90..100));
        assert_eq!(clip(90, Some(5)), Ok(90..95));
        assert_eq!(clip(100, Some(u64::MAX)), Ok(100..100));
        let message = "read f: offset 101 is past the end at 100".to_string();
        assert_eq!(clip(101, Some(0)), Err(Failure::Message(message)));
    }
}
