//! Whether a file has as many bytes as it says.
//!
//! Files of /proc say 0 bytes, those of /sys say 4096, and servers of file systems say what they like. Reading tells.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::io::Errno;

/// Files of /proc that consist of words refuse reads of less.
const PROBE_BYTES: usize = 4096;
const WORD_BYTES: u64 = 8;

/// The length of the regular file, if it has that many bytes; `None` if it has more or fewer. Waits for nobody if the
/// file was opened so.
///
/// Reads of a file with blocks on a device, of which the length is taken for true, are left out.
///
/// # Errors
///
/// Those of the system, also where a file that says 0 bytes cannot be read.
pub(super) fn told_length(file: &File) -> io::Result<Option<u64>> {
    loop {
        let metadata = file.metadata()?;
        let length = metadata.len();
        if length > 0 && metadata.blocks() > 0 && !is_told_by_a_program(file) {
            return Ok(Some(length));
        }
        let is_true = ends_at(file, length)?;
        // A file that grows or shrinks meanwhile has not lied.
        if file.metadata()?.len() == length {
            return Ok(is_true.then_some(length));
        }
    }
}

/// Whether a program, or another machine's, says what the file is: of FUSE and 9P.
fn is_told_by_a_program(file: &File) -> bool {
    const FUSE: u64 = 0x6573_5546;
    const PLAN9: u64 = 0x0102_1997;
    rustix::fs::fstatfs(file).is_ok_and(|system| [FUSE, PLAN9].contains(&(system.f_type as u64)))
}

/// Whether the bytes of the file end at `length`.
fn ends_at(file: &File, length: u64) -> io::Result<bool> {
    let mut buffer = [0; PROBE_BYTES];
    let mut read = |offset| match file.read_at(&mut buffer, offset) {
        // It is read from its beginning only.
        Err(error) if error.raw_os_error() == Some(Errno::SPIPE.raw_os_error()) => Ok(PROBE_BYTES),
        other => other,
    };
    if length == 0 {
        return Ok(read(0)? == 0);
    }
    // An error that comes later as well is told then, with the range.
    let from = (length - 1) / WORD_BYTES * WORD_BYTES;
    Ok(read(from).map_or(true, |count| from + count as u64 == length))
}

#[cfg(test)]
mod tests {
    use super::told_length;
    use std::fs::File;

    #[test]
    fn files_of_the_kernel_do_not_tell_and_others_do() {
        let told = |path: &str| told_length(&File::open(path).expect(path)).expect(path);
        for path in [
            "/proc/cpuinfo",
            "/proc/self/maps",
            "/proc/self/pagemap",
            "/sys/kernel/mm/transparent_hugepage/enabled",
        ] {
            match File::open(path) {
                Ok(_) => assert_eq!(told(path), None, "{path}"),
                Err(error) => println!("skipped: {path}: {error}"),
            }
        }
        let file = tempfile::tempfile().expect("a temporary file");
        assert_eq!(told_length(&file).expect("an answer"), Some(0));
        for length in [1, 7, 4096, 100_001] {
            file.set_len(length).expect("a hole");
            assert_eq!(told_length(&file).expect("an answer"), Some(length));
        }
    }
}
