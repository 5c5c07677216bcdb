//! `memobj run --map` where page faults are not reported: names lead where they are mapped to, and the kernel maps the files
//! that are there.

use std::path::Path;
use std::process::Command;

use memobj_servers::{Kind as ServerKind, Server};

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::ordinary::{NOBODY, may_be_run, open_folder};
use crate::test_folder::{PAGE, TestFolder, has, sample};

/// Bytes of the sample that programs look at.
const LENGTH: usize = 40 * PAGE + 77;

/// A program in Python: threads, a child and another program look at the file `/memobj-test/x`, whose digest is its argument.
const LOOKS: &str = r"
import errno, hashlib, mmap, os, subprocess, sys, threading
path, want = '/memobj-test/x', sys.argv[1]
def look():
    with open(path, 'rb') as file:
        assert os.fstat(file.fileno()).st_size == os.stat(path).st_size
        for flags, prot in ((mmap.MAP_SHARED, mmap.PROT_READ), (mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)):
            m = mmap.mmap(file.fileno(), 0, flags, prot)
            assert hashlib.sha256(m).hexdigest() == want
            if prot & mmap.PROT_WRITE:
                m[5] = m[5] ^ 1
                assert hashlib.sha256(m).hexdigest() != want
        assert hashlib.sha256(file.read()).hexdigest() == want
wrong = []
def look_beside():
    try: look()
    except BaseException as error: wrong.append(repr(error))
threads = [threading.Thread(target=look_beside) for _ in range(4)]
[thread.start() for thread in threads]
child = os.fork()
if child == 0:
    try: look()
    except BaseException: os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
[thread.join() for thread in threads]
assert not wrong, wrong
assert subprocess.run(['sha256sum', path], capture_output=True, text=True).stdout.split()[0] == want
for refused in ('/memobj-test/y', '/memobj-test/x/y'):
    assert not os.path.exists(refused)
print('right')
";

/// Beside: it cannot be written to.
const IS_READ_ONLY: &str = r"
try: open('/memobj-test/x', 'r+b')
except OSError as error: assert error.errno == errno.EROFS, error
else: raise SystemExit('it was opened for writing')
";

fn digest(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum(1)");
    child.stdin.take().expect("its input").write_all(bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a digest").to_owned()
}

/// Who runs: a user without any privilege, who may make no userfaultfd of any kind in the second case.
fn as_ordinary_user(test_folder: &TestFolder, binary: &Path, words: &[&str]) -> Vec<End> {
    let denies = program("denies", Kind::Dynamic).map(|path| path.into_os_string());
    let ways = [None, denies.as_deref()];
    let command = |way: Option<&std::ffi::OsStr>| {
        let mut command = test_folder.native(&NOBODY);
        command.args(way).arg(binary).args(words).env("TMPDIR", "/tmp");
        command
    };
    let first = std::iter::once(run(command(ways[0])));
    first.chain(ways[1].map(|way| run(command(Some(way))))).collect()
}

/// Whether `end` says why the kernel supplies pages; the other lines that it says.
fn told(end: &End) -> Vec<&str> {
    let (reasons, others): (Vec<_>, Vec<_>) =
        end.err.lines().partition(|line| line.contains("the kernel supplies pages of files"));
    assert_eq!(reasons.len(), 1, "{end:?}");
    assert!(reasons[0].contains("vm.unprivileged_userfaultfd"), "{end:?}");
    others
}

/// The folder for all, if ordinary users may not have faults reported here.
fn unserved_folder() -> Option<(TestFolder, std::path::PathBuf)> {
    let (test_folder, binary) = open_folder()?;
    if !may_be_run(&test_folder, &binary) || !has("python3") || !has("sha256sum") {
        return None;
    }
    let mut command = test_folder.native(&NOBODY);
    command.arg(&binary).args(["run", "--", "true"]);
    if run(command).code() == 0 {
        println!("skipped: ordinary users have page faults reported here");
        return None;
    }
    Some((test_folder, binary))
}

#[test]
fn names_lead_to_files_without_page_faults() {
    let Some((test_folder, binary)) = unserved_folder() else { return };
    let bytes = sample(0, LENGTH);
    let file = test_folder.file("object", &bytes);
    let map = format!("/memobj-test/x={}", file.display());
    let words = ["run", "--map", &map, "--", "python3", "-c", LOOKS, &digest(&bytes)];
    for end in as_ordinary_user(&test_folder, &binary, &words) {
        assert_eq!((end.code(), end.out.as_str()), (0, "right\n"), "{end:?}");
        assert_eq!(told(&end), [""; 0]);
    }
}

#[test]
fn objects_are_copied_without_page_faults() {
    let Some((test_folder, binary)) = unserved_folder() else { return };
    let bytes = sample(0, LENGTH);
    for kind in [ServerKind::Nginx, ServerKind::Diod] {
        let Some(server) = Server::start(kind) else { continue };
        let map = format!("/memobj-test/x={}", server.file("object", &bytes));
        let program = format!("{LOOKS}{IS_READ_ONLY}");
        let words = ["run", "--map", &map, "--", "python3", "-c", &program, &digest(&bytes)];
        for end in as_ordinary_user(&test_folder, &binary, &words) {
            assert_eq!((end.code(), end.out.as_str()), (0, "right\n"), "{end:?}");
            let others = told(&end);
            assert!(others.iter().any(|line| line.contains("objects are copied before")), "{end:?}");
        }
    }
}

#[test]
fn an_object_that_cannot_be_copied_is_refused() {
    let Some((test_folder, binary)) = unserved_folder() else { return };
    let Some(server) = Server::start(ServerKind::Nginx) else { return };
    let map = format!("/memobj-test/x={}", server.file("object", &sample(0, LENGTH)));
    let words = ["run", "--inject", "x:error@4k+4k", "--map", &map, "--", "true"];
    for end in as_ordinary_user(&test_folder, &binary, &words) {
        assert_eq!((end.code(), end.out.as_str()), (1, ""), "{end:?}");
        assert!(end.err.contains("[4096, 8192)"), "{end:?}");
    }
    let words = ["run", "--budget", "128k", "--tight", "--map", &map, "--", "true"];
    for end in as_ordinary_user(&test_folder, &binary, &words) {
        assert_eq!((end.code(), end.out.as_str()), (1, ""), "{end:?}");
        let length = LENGTH.to_string();
        assert!(end.err.contains(&length) && end.err.contains("budget of 131072"), "{end:?}");
    }
}

#[test]
fn what_takes_page_faults_is_refused_without() {
    let Some((test_folder, binary)) = unserved_folder() else { return };
    let file = test_folder.file("object", b"some");
    let map = format!("/memobj-test/x={}", file.display());
    let record = test_folder.path("record").display().to_string();
    for asked in [&["--report", "text"][..], &["--record", &record], &["--inject", "object:error@0+1"]] {
        let words = [&["run", "--map", &map], asked, &["--", "true"]].concat();
        for end in as_ordinary_user(&test_folder, &binary, &words) {
            assert_eq!(
                (end.code(), end.out.as_str(), end.err.lines().count()),
                (1, "", 1),
                "{asked:?} {end:?}"
            );
            assert!(end.err.contains("vm.unprivileged_userfaultfd=1"), "{end:?}");
        }
    }
}

/// Root of a container: it may mount a file system of FUSE, but has no page faults reported.
#[test]
fn objects_are_read_on_demand_by_the_kernel_without_page_faults() {
    let Some(test_folder) = TestFolder::new() else { return };
    let Some(server) = Server::start(ServerKind::Nginx) else { return };
    if !has("unshare") || !has("setpriv") || !has("python3") {
        return;
    }
    let bytes = sample(0, LENGTH);
    let map = format!("/memobj-test/x={}", server.file("object", &bytes));
    let script = "mount --bind /dev/null /dev/userfaultfd && test -w /dev/fuse || exit 77; \
        exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace -- \"$@\"";
    let arranged = ["unshare", "-m", "sh", "-c", script, "sh"];
    if run(test_folder.native(&[&arranged[..], &["true"]].concat())).code() != 0 {
        return println!("skipped: /dev/userfaultfd cannot be hidden, or there is no /dev/fuse");
    }
    let program = format!("{LOOKS}{IS_READ_ONLY}");
    let memobj = env!("CARGO_BIN_EXE_memobj");
    let words = [memobj, "run", "--map", &map, "--", "python3", "-c", &program, &digest(&bytes)];
    let end = run(test_folder.native(&[&arranged[..], &words].concat()));
    if end.err.contains("objects are copied before") {
        return println!("skipped: no file system of FUSE can be mounted: {}", end.err);
    }
    assert_eq!((end.code(), end.out.as_str()), (0, "right\n"), "{end:?}");
    assert_eq!(told(&end), [""; 0]);
}
