//! `memobj hash`: the BLAKE3 digest of each file.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use blake3::Hash;

use crate::args::HashArguments;
use crate::engine::{Engine, View};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::put;
use crate::progress::{Output, Progress};
use crate::stats;
use crate::tree::{Tree, hash_piece};
use crate::walk::{Plan, in_order};

/// Prints the digest of every file that can be read and an error for every one that cannot.
pub(crate) fn run(arguments: &HashArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let begin = Instant::now();
    let engine = Engine::new(arguments.common.settings())?;
    let result = hash_files(&engine, &arguments.files, interrupt);
    stats::print(result, arguments.common.stats, &engine, begin)
}

fn hash_files(engine: &Engine, files: &[impl AsRef<Path>], interrupt: &Interrupt) -> Result<(), Failure> {
    let mut result = Ok(());
    for path in files.iter().map(AsRef::as_ref) {
        match hash_file(engine, path, interrupt) {
            Ok(digest) => put(&line(&digest, path))?,
            Err(failure @ Failure::Message(_)) => {
                failure.print();
                result = Err(Failure::Reported);
            }
            Err(failure) => return Err(failure),
        }
    }
    result
}

fn hash_file(engine: &Engine, path: &Path, interrupt: &Interrupt) -> Result<Hash, Failure> {
    let view = engine.open(path, interrupt)?;
    let plan = view.plan(0..view.length());
    let progress = Progress::begin(&path.to_string_lossy(), view.length(), Output::Lines);
    if view.length() <= plan.piece_bytes {
        interrupt.check()?;
        return view.load(plan.range, &mut Vec::new(), blake3::hash);
    }
    hash_pieces(&view, &plan, interrupt, &progress)
}

fn hash_pieces(
    view: &View,
    plan: &Plan,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Hash, Failure> {
    let mut tree = Tree::default();
    in_order(
        plan,
        interrupt,
        |piece, buffer| view.load(piece.clone(), buffer, |bytes| hash_piece(piece.start, bytes)),
        |piece, hash| {
            tree.push(hash);
            progress.advance(piece.end - piece.start);
            Ok(())
        },
    )?;
    Ok(tree.finish())
}

/// The line that b3sum prints. A name that would break the line is escaped, and the line says so by a
/// backslash at its beginning. Bytes of a name that are not UTF-8 stay as they are.
fn line(digest: &Hash, path: &Path) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let needs_escape = name.iter().any(|byte| matches!(byte, b'\\' | b'\n'));
    let mut line = if needs_escape { vec![b'\\'] } else { Vec::new() };
    line.extend(format!("{digest}  ").bytes());
    for byte in name {
        match byte {
            b'\\' => line.extend(b"\\\\"),
            b'\n' => line.extend(b"\\n"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::line;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn names_are_escaped_as_b3sum_does() {
        let digest = blake3::hash(b"");
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(digest.to_string(), hex);
        let line = |name: &[u8]| line(&digest, Path::new(OsStr::from_bytes(name)));
        assert_eq!(line(b"a b"), format!("{hex}  a b\n").as_bytes());
        assert_eq!(line(b"a\\n\n"), format!("\\{hex}  a\\\\n\\n\n").as_bytes());
        assert_eq!(line(b"\xff"), [hex.as_bytes(), b"  \xff\n"].concat());
    }
}
