//! `memobj copy`: a file into another one, through two mappings.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;

use crate::engine::{Engine, Origin, View};
use crate::extents::next_data;
use crate::failure::{Failure, complain};
use crate::interrupt::Interrupt;
use crate::options::Settings;
use crate::progress::{Output, Progress};
use crate::servers::{self, Missing};
use crate::stats;
use crate::target::{Ending, NotDurable, Target};
use crate::write_args::CopyArguments;

/// The largest piece that is pinned while it is copied.
const MAX_PIECE_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
/// So much is written to a server before it is made durable there: what is lost when the server ends is copied again.
const PART_BYTES: u64 = 64 << 20;
/// The owner may write.
const OWNER_WRITES: u32 = 0o200;

/// Copies the file.
pub(crate) fn run(arguments: &CopyArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let begin = Instant::now();
    let settings = arguments.common.settings();
    let engine = Engine::new(Settings { foreign_log: arguments.log.foreign_log(), ..settings })?;
    let result = copy(&engine, arguments, interrupt);
    stats::print(result, arguments.common.stats, &engine, begin)
}

fn copy(engine: &Engine, arguments: &CopyArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let source = CopySource::open(engine, &arguments.source, interrupt)?;
    let place = Place::prepare(&arguments.target, &source)?;
    let ending = arguments.common.ending();
    let target = engine.open_target(&place.path, ending, source.view.length(), Missing::IsMade, interrupt);
    let target = target.inspect_err(|_| place.remove_if_new())?;
    let piece_bytes =
        (arguments.common.budget / 16 / PAGE_BYTES * PAGE_BYTES).clamp(PAGE_BYTES, MAX_PIECE_BYTES);
    let progress = Progress::begin(&arguments.target.to_string_lossy(), source.view.length(), Output::Lines);
    let mut copy = Copy { source, target, piece_bytes, ending, old_length: 0, done: 0, durable: 0 };
    let result = copy.all(place.kind == PlaceKind::Device, interrupt, &progress);
    drop(progress);
    match result.and_then(|()| place.keep()) {
        Ok(()) => Ok(()),
        Err(Failure::Reported) => Err(Failure::Reported),
        Err(failure) => {
            failure.print();
            copy.tell_how_far(&arguments.target);
            let copied = copy.done;
            drop(copy);
            if ending == Ending::Commit || copied == 0 {
                place.remove_if_new();
            }
            Err(failure.reported())
        }
    }
}

/// The file that is read, and what it was when it was opened.
#[derive(Debug)]
struct CopySource {
    path: PathBuf,
    view: View,
    /// `None`: it is an object of a server, whose pager answers for one version.
    local: Option<Local>,
}

/// A file of this machine.
#[derive(Debug)]
struct Local {
    /// Knows where the holes are.
    file: File,
    metadata: Metadata,
}

impl CopySource {
    fn open(engine: &Engine, path: &Path, interrupt: &Interrupt) -> Result<Self, Failure> {
        if servers::url_of(path).is_some() {
            let view = engine.open(path, interrupt)?;
            return Ok(Self { path: path.to_owned(), view, local: None });
        }
        let path = &servers::local(path)?;
        let refused = |error: &io::Error| Failure::io(&format!("open {}", path.display()), error);
        // Without waiting for anybody to write into a FIFO; the library says what it cannot map.
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| refused(&error))?;
        let view = engine.open(path, interrupt)?;
        // Behind that, since what was committed to the file is put in place when it is opened.
        let metadata = file.metadata().map_err(|error| refused(&error))?;
        // The name stood for one file before and after, so the library opened that one.
        let same = fs::metadata(path).is_ok_and(|now| is_same_file(&now, &metadata));
        let tells_length = metadata.is_file() && view.origin() == Origin::File;
        let length_fits = !tells_length || metadata.len() == view.length();
        let source = Self { path: path.to_owned(), view, local: Some(Local { file, metadata }) };
        if same && length_fits { Ok(source) } else { Err(source.changed()) }
    }

    fn changed(&self) -> Failure {
        Failure::Message(format!("copy {}: it changed while it was copied", self.path.display()))
    }

    /// Pages that were read are known to be of one version; this says the same of what was taken for holes.
    fn check_unchanged(&self) -> Result<(), Failure> {
        let Some(local) = self.local.as_ref().filter(|_| self.view.origin() == Origin::File) else {
            return Ok(());
        };
        let version = |of: &Metadata| {
            (of.dev(), of.ino(), of.len(), (of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()))
        };
        let now =
            local.file.metadata().map_err(|error| Failure::io("read the metadata of the source", &error))?;
        if version(&now) == version(&local.metadata) { Ok(()) } else { Err(self.changed()) }
    }
}

/// Where the copy goes, in the file system.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    kind: PlaceKind,
    /// What is set at the end, because the file has to be open to writing until then.
    permissions: Option<Permissions>,
}

/// What is there before the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PlaceKind {
    File,
    NewFile,
    Device,
    Server,
}

impl Place {
    fn prepare(path: &Path, source: &CopySource) -> Result<Self, Failure> {
        if servers::url_of(path).is_some() {
            return Ok(Self { path: path.to_owned(), kind: PlaceKind::Server, permissions: None });
        }
        let path = &servers::local(path)?;
        let refused = |error: &io::Error| Failure::io(&format!("open {}", path.display()), error);
        match fs::metadata(path) {
            Ok(metadata) => Self::existing(path, &metadata, source),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                const DEFAULT_MODE: u32 = 0o666;
                let mode = source.local.as_ref().map_or(DEFAULT_MODE, |local| local.metadata.mode() & 0o777);
                Self::create(path, mode).map_err(|error| refused(&error))
            }
            Err(error) => Err(refused(&error)),
        }
    }

    fn existing(path: &Path, metadata: &Metadata, source: &CopySource) -> Result<Self, Failure> {
        let name = path.display();
        if metadata.is_dir() {
            return Err(Failure::Usage(format!(
                "{name} is a directory: name the file to write, in it or elsewhere"
            )));
        }
        if source.local.as_ref().is_some_and(|local| is_same_file(metadata, &local.metadata)) {
            let source = source.path.display();
            return Err(Failure::Message(format!("copy {source} to {name}: they are the same file")));
        }
        let is_device = metadata.file_type().is_block_device();
        let kind = if is_device { PlaceKind::Device } else { PlaceKind::File };
        Ok(Self { path: path.to_owned(), kind, permissions: None })
    }

    fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode | OWNER_WRITES).open(path)?;
        let missing = mode & OWNER_WRITES == 0;
        let permissions = file.metadata()?.permissions();
        let permissions = missing.then(|| Permissions::from_mode(permissions.mode() & !OWNER_WRITES));
        Ok(Self { path: path.to_owned(), kind: PlaceKind::NewFile, permissions })
    }

    /// Gives the file its permissions, and makes its name durable.
    fn keep(&self) -> Result<(), Failure> {
        let keep = || {
            if let Some(permissions) = &self.permissions {
                fs::set_permissions(&self.path, permissions.clone())?;
                File::open(&self.path)?.sync_all()?;
            }
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if self.kind == PlaceKind::NewFile {
                File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
            } else {
                Ok(())
            }
        };
        keep().map_err(|error| Failure::io(&format!("finish {}", self.path.display()), &error))
    }

    /// Removes a file that has nothing of the copy, and was not there before.
    fn remove_if_new(&self) {
        if self.kind == PlaceKind::NewFile
            && let Err(error) = fs::remove_file(&self.path)
        {
            Failure::io(&format!("remove {}", self.path.display()), &error).print();
        }
    }
}

/// A copy under way.
#[derive(Debug)]
struct Copy {
    source: CopySource,
    target: Target,
    piece_bytes: u64,
    ending: Ending,
    /// Bytes at the beginning of the target that need not be zeros where nothing was written.
    old_length: u64,
    /// So many bytes from the beginning on were copied.
    done: u64,
    /// So many of them are durable, as far as that was asked for.
    durable: u64,
}

impl Copy {
    fn all(&mut self, is_device: bool, interrupt: &Interrupt, progress: &Progress) -> Result<(), Failure> {
        self.set_length(is_device, interrupt)?;
        loop {
            let error = match self.copy_the_rest(interrupt, progress) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let Some(lost) = error.lost_from.filter(|_| self.target.may_begin_again()) else {
                return Err(error.failure);
            };
            // The source still has what the server has lost.
            let offset = lost.min(self.durable) / PAGE_BYTES * PAGE_BYTES;
            complain(&format!("{}; copying on from byte {offset}", error.failure));
            self.target.begin_again(offset, interrupt)?;
            progress.go_back(self.done - offset);
            (self.done, self.durable) = (offset, offset);
        }
    }

    /// Copies what is left, and makes it durable.
    fn copy_the_rest(&mut self, interrupt: &Interrupt, progress: &Progress) -> Result<(), NotDurable> {
        let length = self.source.view.length();
        while self.done < length {
            let failed =
                |error| Failure::io(&format!("look for holes of {}", self.source.path.display()), &error);
            let data = match (self.source.view.origin(), &self.source.local) {
                (Origin::File, Some(local)) => next_data(&local.file, self.done..length).map_err(failed)?,
                _ => Some(self.done..length),
            };
            let data = data.unwrap_or(length..length);
            self.skip(data.start, interrupt, progress)?;
            self.transfer(data, interrupt, progress)?;
        }
        interrupt.check()?;
        self.source.check_unchanged()?;
        self.target.finish(interrupt)
    }

    /// Gives the target its length; and makes a hole of all of it, where that need not be undone.
    fn set_length(&mut self, is_device: bool, interrupt: &Interrupt) -> Result<(), Failure> {
        let length = self.source.view.length();
        self.old_length = self.target.length();
        if is_device {
            return match length <= self.old_length {
                true => Ok(()),
                false => Err(Failure::Message(format!(
                    "copy {}: {length} bytes do not fit into a device of {}",
                    self.source.path.display(),
                    self.old_length
                ))),
            };
        }
        if self.ending == Ending::Sync {
            self.target.set_length(0, interrupt)?;
            self.old_length = 0;
        }
        if self.target.length() != length {
            self.target.set_length(length, interrupt)?;
        }
        Ok(())
    }

    /// The source is a hole from here up to `end`.
    fn skip(&mut self, end: u64, interrupt: &Interrupt, progress: &Progress) -> Result<(), Failure> {
        let zeros = vec![0; if self.done < self.old_length { self.piece_bytes as usize } else { 0 }];
        for piece in pieces(self.done..end.min(self.old_length), self.piece_bytes) {
            interrupt.check()?;
            self.target.write(piece.start, &zeros[..(piece.end - piece.start) as usize])?;
            progress.advance(piece.end - piece.start);
            self.done = piece.end;
        }
        progress.advance(end - self.done);
        self.done = end;
        Ok(())
    }

    fn transfer(
        &mut self,
        range: Range<u64>,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<(), NotDurable> {
        for piece in pieces(range, self.piece_bytes) {
            interrupt.check()?;
            let write = |bytes: &[u8]| self.target.write(piece.start, bytes);
            self.source.view.load(piece.clone(), &mut Vec::new(), write)??;
            progress.advance(piece.end - piece.start);
            self.done = piece.end;
            if self.target.is_durable_by_parts() && self.done - self.durable >= PART_BYTES {
                self.target.sync(interrupt)?;
                self.durable = self.done;
            }
        }
        Ok(())
    }

    /// After a failure: what can be relied on.
    fn tell_how_far(&self, path: &Path) {
        let name = path.display();
        if self.ending == Ending::Commit || self.done == 0 {
            return complain(&format!("nothing of the copy is in {name}"));
        }
        let (durable, length) = (self.target.rescue(0..self.done), self.source.view.length());
        complain(&format!("[0, {durable}) of {length} bytes is in {name} and durable, the rest is not"));
    }
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// `range` in parts that end at multiples of `piece_bytes`.
fn pieces(range: Range<u64>, piece_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let piece = start..range.end.min((start / piece_bytes + 1).saturating_mul(piece_bytes));
        start = piece.end;
        (piece.start < piece.end).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_cover_a_range_and_end_at_multiples() {
        let all: Vec<_> = pieces(4096..40_000, 16_384).collect();
        assert_eq!(all, [4096..16_384, 16_384..32_768, 32_768..40_000]);
        assert_eq!(pieces(5..5, 4096).count(), 0);
        #[expect(clippy::reversed_empty_ranges, reason = "what a skipped range without old bytes is")]
        let reversed = 9..5;
        assert_eq!(pieces(reversed, 4096).count(), 0);
    }
}
