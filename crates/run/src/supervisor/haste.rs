//! Opens for writing that do not wait: with O_NONBLOCK, open(2) answers EWOULDBLOCK while somebody has a lease on the file.
//! Without `memobj` nobody would. So the lease is given back before the call is made.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memobj_tracer::{Registers, read_memory, read_string};

use crate::supervisor::Supervisor;

const OPEN: i64 = 2;
const OPENAT: i64 = 257;
const OPENAT2: i64 = 437;
const O_NONBLOCK: u64 = 0o4000;
/// Opening for writing, for both, and cutting off.
const CHANGES: u64 = 0o1 | 0o2 | 0o1000;
const MOST_PATH_BYTES: usize = 4096;
/// How long a file system may take to answer. Then the call is made, and may be refused.
const LATE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Whether the stopped thread was about to open a served file for changes without waiting: it is not served any more,
    /// and the thread stops here again.
    pub(crate) fn opens_in_haste(&mut self, pid: i32, registers: &Registers) -> bool {
        let Some(path) = file_in_haste(pid, registers) else { return false };
        // Its file system may wait for somebody who waits for this thread.
        let found = self.names.helper.within(LATE, move || std::fs::metadata(path));
        let Some(Ok(metadata)) = found else { return false };
        let mut made_calls = false;
        for object in self.files.of_file(&metadata) {
            made_calls |= self.hand_over_from(pid, registers, &object);
        }
        made_calls
    }
}

/// The file that the call opens for changes without waiting, if it does, as a path of this process.
fn file_in_haste(pid: i32, registers: &Registers) -> Option<PathBuf> {
    let arguments = registers.arguments();
    let (folder, name, flags) = match registers.call() {
        OPEN => (None, arguments[0], arguments[1]),
        OPENAT => (Some(arguments[0] as i32), arguments[1], arguments[2]),
        OPENAT2 => {
            let mut flags = [0; 8];
            read_memory(pid, arguments[2], &mut flags).ok().filter(|count| *count == 8)?;
            (Some(arguments[0] as i32), arguments[1], u64::from_ne_bytes(flags))
        }
        _ => return None,
    };
    if flags & O_NONBLOCK == 0 || flags & CHANGES == 0 {
        return None;
    }
    let name = PathBuf::from(OsString::from_vec(read_string(pid, name, MOST_PATH_BYTES)?));
    let folder = match (name.strip_prefix("/"), folder) {
        (Ok(below), _) => return Some(Path::new(&format!("/proc/{pid}/root")).join(below)),
        (_, Some(descriptor)) if descriptor >= 0 => format!("/proc/{pid}/fd/{descriptor}"),
        _ => format!("/proc/{pid}/cwd"),
    };
    Some(Path::new(&folder).join(name))
}
