//! Making the files that are written to, and reading back what was written.

use std::io;
use std::path::{Path, PathBuf};

use super::content;
use super::job::{Kind, WriteJob, WritePattern};
use crate::data;
use crate::job::{Failure, Written};

/// The file of one measurement, and what it held before.
pub struct Prepared {
    /// Where it is.
    pub path: PathBuf,
    kind: Kind,
    updates: u64,
}

/// Makes or finds the file for one measurement in `directory`.
pub fn prepare(
    directory: &Path,
    pattern: WritePattern,
    kind: Kind,
    len_bytes: u64,
) -> Result<Prepared, Failure> {
    let extension = match kind {
        Kind::Plain => "dat",
        Kind::Sqlite => "sqlite",
        Kind::Redb => "redb",
    };
    let name = format!("memobj-bench-{}-{}M.{extension}", pattern.name(), len_bytes >> 20);
    let path = directory.canonicalize()?.join(name);
    let mut prepared = Prepared { path, kind, updates: 0 };
    let path = &prepared.path;
    let has_length = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == len_bytes);
    match pattern {
        WritePattern::Rmw => prepared.updates = counters(path, len_bytes)?,
        WritePattern::Seqwrite if has_length => {}
        WritePattern::Seqwrite => content::write_stamped_file(path, len_bytes)?,
        WritePattern::Commit => {
            prepared.remove()?;
            if kind == Kind::Plain {
                content::write_stamped_file(path, len_bytes)?;
            }
        }
    }
    if pattern != WritePattern::Commit {
        let left = data::drop_page_cache(path)?;
        if left > 0 {
            eprintln!("memobj-bench: {left} pages of {} stay in the page cache", path.display());
        }
    }
    Ok(prepared)
}

/// The updates in the file of counters; it is made anew if it is missing or somebody spoilt it.
fn counters(path: &Path, len_bytes: u64) -> Result<u64, Failure> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == len_bytes) {
        match content::updates_of_file(path) {
            Err(Failure::WrongData(_)) => {}
            counted => return counted,
        }
    }
    data::write_test_file(path, len_bytes)?;
    Ok(0)
}

impl Prepared {
    /// Reads everything back and compares it with what the contestant says it has made durable.
    pub fn verify(&self, job: &WriteJob, written: Written) -> Result<(), Failure> {
        match written {
            Written::Updates(expected) => {
                let found = content::updates_of_file(&self.path)?.wrapping_sub(self.updates);
                let complaint = || format!("{expected} updates were made, {found} are in the file");
                if found == expected { Ok(()) } else { Err(Failure::WrongData(complaint())) }
            }
            Written::Pages(expected) => {
                if self.digest()? == expected {
                    return Ok(());
                }
                let pages = job.pages();
                Err(Failure::WrongData(format!("not all of {pages} pages are what was written last")))
            }
        }
    }

    fn digest(&self) -> Result<u64, Failure> {
        match self.kind {
            Kind::Plain => content::digest_of_file(&self.path),
            #[cfg(feature = "databases")]
            Kind::Sqlite => super::databases::Sqlite::digest(&self.path),
            #[cfg(feature = "databases")]
            Kind::Redb => super::databases::Redb::digest(&self.path),
            #[cfg(not(feature = "databases"))]
            Kind::Sqlite | Kind::Redb => Err(Failure::Failed("no databases in this build".into())),
        }
    }

    /// Removes the file, and those a database keeps beside it.
    pub fn remove(&self) -> io::Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{Kind, Written, prepare};
    use crate::data::WORD_BYTES;
    use crate::job::Failure;
    use crate::write::job::{WriteJob, WritePattern};
    use crate::write::{kernel, patterns};

    const LEN_BYTES: u64 = 1 << 20;

    /// Runs mmap on the pattern, spoils the file if asked to, and reads back.
    fn round(name: &str, pattern: WritePattern, spoil: Option<u64>) -> Result<(), Failure> {
        let directory = std::env::temp_dir().join(format!("memobj-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let prepared = prepare(&directory, pattern, Kind::Plain, LEN_BYTES)?;
        let job = WriteJob {
            pattern,
            contestant: "mmap".into(),
            threads: 2,
            pages_per_commit: 4,
            file: prepared.path.clone(),
            file_bytes: LEN_BYTES,
            budget_bytes: LEN_BYTES / 4,
            seconds: 0.01,
            seed: 1,
            stamp: 77,
            cgroup: None,
        };
        let sample = patterns::on_storage::<kernel::MappedFile>(&job, kernel::advice(&job))?;
        if let Some(word_index) = spoil {
            let file = std::fs::File::options().write(true).open(&prepared.path)?;
            file.write_all_at(&[0x5a; WORD_BYTES as usize], word_index * WORD_BYTES)?;
        }
        let written: Written = sample.written.expect("a pattern of writing says what it wrote");
        let outcome = prepared.verify(&job, written);
        std::fs::remove_dir_all(directory)?;
        outcome
    }

    #[test]
    fn what_was_written_is_read_back() {
        for pattern in WritePattern::ALL {
            round(&format!("good-{}", pattern.name()), pattern, None).unwrap();
        }
    }

    #[test]
    fn a_spoilt_word_is_found() {
        for pattern in WritePattern::ALL {
            let outcome = round(&format!("bad-{}", pattern.name()), pattern, Some(777));
            assert!(matches!(outcome, Err(Failure::WrongData(_))), "{pattern:?}: {outcome:?}");
        }
    }
}
