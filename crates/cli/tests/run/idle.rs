//! What nobody maps any more is closed: nothing of it is kept from anybody.

use crate::ends::run;
use crate::test_folder::{TestFolder, has};

/// Waits, as part of a script, until the supervisor has no descriptor whose name has `$1` in it. Descriptors that go while
/// they are listed are none of its business.
const CLOSED: &str = "supervisor=$PPID
closed() {
    for _ in $(seq 400); do
        ls -l /proc/$supervisor/fd 2>/dev/null | grep -q \"$1\" || return 0
        sleep 0.05
    done
    echo \"$1 stays open\"; ls -l /proc/$supervisor/fd
}
";

fn script(text: &str) -> String {
    let Some(test_folder) = TestFolder::new().filter(|_| has("python3")) else { return String::new() };
    test_folder.sample("big.bin", 300);
    let end = run(test_folder.memobj(&[], &["bash", "-c", &format!("{CLOSED}{text}")]));
    assert!(end.err.is_empty() && end.status.success(), "{end:?}");
    end.out
}

const READS: &str = "import mmap
file = open('big.bin', 'rb')
at = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
total = sum(at[::4096])
served = sum('memfd:memobj' in line and 'big.bin' in line for line in open('/proc/self/maps'))
print('served', served)
";

#[test]
fn a_removed_file_is_closed_after_its_program() {
    let said = script(&format!("python3 -c \"{READS}\"; rm big.bin; closed big.bin; echo done"));
    assert!(said.is_empty() || said == "served 1\ndone\n", "{said}");
}

#[test]
fn a_file_that_a_program_has_unmapped_is_closed_while_it_runs() {
    let text = format!(
        "mkfifo go; python3 -c \"{READS}
at.close(); file.close()
print('unmapped', flush=True)
open('go').read()
\" & sleep 0.01; closed big.bin; echo > go; wait; echo done"
    );
    let said = script(&text);
    assert!(said.is_empty() || said == "served 1\nunmapped\ndone\n", "{said}");
}

#[test]
fn a_file_that_was_mapped_can_have_a_lease_for_writing() {
    let text = format!(
        "python3 -c \"{READS}\"; closed big.bin; python3 -c \"
import fcntl, os
fd = os.open('big.bin', os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('leased')
\""
    );
    let said = script(&text);
    assert!(said.is_empty() || said == "served 1\nleased\n", "{said}");
}
