//! `memobj hash`: the BLAKE3 digest of each file.

use std::io::{Write, stdout};
use std::path::Path;
use std::time::Instant;

use blake3::Hash;

use crate::args::HashArguments;
use crate::engine::{Engine, View};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::progress::{Output, Progress};
use crate::stats;
use crate::tree::{Tree, hash_piece};
use crate::walk::{Plan, in_order};

/// Prints the digest of every file that can be read and an error for every one that cannot.
pub(crate) fn run(arguments: &HashArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let begin = Instant::now();
    let engine = Engine::new(arguments.common.settings())?;
    let result = hash_files(&engine, &arguments.files, interrupt);
    stats::print(arguments.common.stats, &engine, begin);
    result
}

fn hash_files(engine: &Engine, files: &[impl AsRef<Path>], interrupt: &Interrupt) -> Result<(), Failure> {
    let mut result = Ok(());
    for path in files.iter().map(AsRef::as_ref) {
        match hash_file(engine, path, interrupt) {
            Ok(digest) => print_line(&line(&digest, path))?,
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
    let view = engine.open(path)?;
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
/// backslash at its beginning.
fn line(digest: &Hash, path: &Path) -> String {
    let name = path.to_string_lossy();
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}\n")
}

fn print_line(line: &str) -> Result<(), Failure> {
    stdout().write_all(line.as_bytes()).map_err(|error| Failure::stdout(&error))
}

#[cfg(test)]
mod tests {
    use super::line;
    use std::path::Path;

    #[test]
    fn names_are_escaped_as_b3sum_does() {
        let digest = blake3::hash(b"");
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(digest.to_string(), hex);
        assert_eq!(line(&digest, Path::new("a b")), format!("{hex}  a b\n"));
        assert_eq!(line(&digest, Path::new("a\\n\n")), format!("\\{hex}  a\\\\n\\n\n"));
    }
}
