//! Folders of servers under names, as programs see them.

use std::process::{Command, Output, Stdio};

use memobj_servers::{Kind, Server};

use crate::servers::{diod, free_port};
use crate::test_folder::{Ran, TestFolder};

fn moto() -> Option<Server> {
    Server::start(Kind::Moto)
}

fn run(moto: &Server, test_folder: &TestFolder, arguments: &[&str]) -> Ran {
    let mut command = test_folder.command(arguments);
    command.envs(moto.environment());
    Ran(command.output().expect("timeout(1) runs"))
}

/// Whether programs can be run here, and objects be read on demand; says if not.
fn can_run(test_folder: &TestFolder) -> bool {
    let tried = test_folder.run(&["run", "--", "true"]);
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    let (runs, has_python) = (tried.code() == 0, python.is_ok_and(|status| status.success()));
    if !runs || !has_python {
        println!("skipped: there is no python3, or programs cannot be run here: {}", tried.err());
    }
    runs && has_python
}

fn has_fuse() -> bool {
    let is_there = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_there || !is_root {
        println!("skipped: objects are not read on demand here");
    }
    is_there && is_root
}

/// The same as `arguments` of the command, where there is no FUSE. `None`, and says so, if that cannot be arranged.
fn without_fuse(moto: &Server, test_folder: &TestFolder, arguments: &[&str]) -> Option<Output> {
    let script = "mount --bind /dev/null /dev/fuse || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_memobj")]).args(arguments);
    command.current_dir(test_folder.path());
    command.envs(moto.environment());
    let is_hidden =
        |output: &Output| output.status.code() != Some(77) && !output.stderr.starts_with(b"unshare: ");
    let output = command.output().ok().filter(is_hidden);
    if output.is_none() {
        println!("skipped: only root can hide /dev/fuse, with unshare(1)");
    }
    output
}

/// What Python programs begin with: `fails(errno, call)`.
const PYTHON: &str = r"
import errno, http.client, mmap, os, sys
def fails(number, call):
    try:
        call()
    except OSError as error:
        assert error.errno == number, (error, number)
    else:
        raise SystemExit('no error')
def read(path):
    with open(path, 'rb') as file:
        return file.read()
";

fn python(program: &str) -> String {
    format!("{PYTHON}{program}\nprint('right')\n")
}

/// Walks, reads and maps all of a tree that `tree` has put.
const READS_ALL: &str = r"
local = open('local', 'rb').read()
found = sorted(os.path.join(at, name) for at, _, names in os.walk('/data') for name in names)
assert found == ['/data/a', '/data/odd +%2F\u00e9 name', '/data/sub/b', '/data/sub/deep/c', '/data/sub/empty'], found
assert sorted(os.listdir('/data')) == ['a', 'odd +%2F\u00e9 name', 'sub']
for path in found[:-1]:
    assert read(path) == local, path
    assert os.stat(path).st_size == len(local) and os.stat(path).st_mtime > 1.5e9
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == local and mapped[777:99999] == local[777:99999]
assert read('/data/sub/empty') == b'' and os.path.isdir('/data/sub/deep')
for missing in ['/data/none', '/data/sub/none', '/data/none/x', '/data/hidden']:
    fails(errno.ENOENT, lambda: open(missing))
fails(errno.ENOTDIR, lambda: open('/data/a/x'))
fails(errno.EROFS, lambda: open('/data/a', 'r+b'))
fails(errno.EROFS, lambda: open('/data/new', 'wb'))
";

fn tree(moto: &Server, test_folder: &TestFolder) -> Vec<u8> {
    let bytes = test_folder.file("local", 300_001);
    for key in ["set/a", "set/sub/b", "set/sub/deep/c", "set/odd%20%2B%252F%C3%A9%20name"] {
        moto.put(key, &bytes);
    }
    moto.put("set/sub/empty", b"");
    moto.put("set//hidden", b"hidden");
    moto.put("set/../hidden", b"hidden");
    moto.put("other", b"other");
    bytes
}

#[test]
fn a_prefix_is_a_folder_of_files() {
    let test_folder = TestFolder::new();
    let Some(moto) = moto().filter(|_| can_run(&test_folder) && has_fuse()) else { return };
    tree(&moto, &test_folder);
    // The server says that it is a folder where the URL does not.
    for url in ["s3://bucket/set/", "s3://bucket/set"] {
        let map = format!("/data={url}");
        let program = python(READS_ALL);
        let ran = run(&moto, &test_folder, &["run", "--map", &map, "--", "python3", "-c", &program]);
        assert_eq!((ran.code(), ran.out(), ran.err()), (0, "right\n", ""), "{url}");
    }
    let map = ["run", "--inject", "sub/b:error@64k+4k", "--map", "/data=s3://bucket/set/", "--"];
    let reads =
        python("assert len(read('/data/a')) == 300001\nfails(errno.EIO, lambda: read('/data/sub/b'))");
    let ran = run(&moto, &test_folder, &[&map[..], &["python3", "-c", &reads]].concat());
    assert_eq!((ran.code(), ran.out()), (0, "right\n"), "{}", ran.err());
    assert!(ran.err().contains("s3://bucket/set/sub/b"), "{}", ran.err());
}

#[test]
fn a_prefix_is_copied_where_there_is_no_fuse() {
    let test_folder = TestFolder::new();
    let Some(moto) = moto().filter(|_| can_run(&test_folder)) else { return };
    tree(&moto, &test_folder);
    let program = python(READS_ALL);
    let arguments = ["run", "--map", "/data=s3://bucket/set/", "--", "python3", "-c", &program];
    let Some(output) = without_fuse(&moto, &test_folder, &arguments) else { return };
    let ran = Ran(output);
    assert_eq!((ran.code(), ran.out()), (0, "right\n"), "{}", ran.err());
    assert!(ran.err().contains("objects are copied before the program starts: "), "{}", ran.err());
    // Five megabytes have no room in four.
    moto.put("set/z", &vec![1; 5 << 20]);
    let arguments = ["run", "--budget", "4M", "--map", "/data=s3://bucket/set/", "--", "true"];
    let Some(output) = without_fuse(&moto, &test_folder, &arguments) else { return };
    let ran = Ran(output);
    let refusal =
        "s3://bucket/set/z has 5242880 bytes, and no room for a copy in the budget of 4194304 bytes";
    assert!(ran.code() == 1 && ran.err().contains(refusal), "{}", ran.err());
}

/// What is open stays one version or fails; who opens it again has the new one.
#[test]
fn an_object_of_a_folder_that_is_replaced_is_stale_until_it_is_opened_again() {
    let test_folder = TestFolder::new();
    let Some(moto) = moto().filter(|_| can_run(&test_folder) && has_fuse()) else { return };
    for key in ["set/a", "set/b"] {
        moto.put(key, &vec![1; 8 << 20]);
    }
    let program = python(&format!(
        r"
def put(key, byte):
    server = http.client.HTTPConnection('127.0.0.1', {})
    server.request('PUT', '/bucket/' + key, body=byte * (8 << 20), headers={{'Authorization': 'AWS4-HMAC-SHA256 Credential=x/20261201/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0'}})
    assert server.getresponse().status == 200
# Of the same length, and seen before it is replaced.
seen = os.stat('/data/b')
assert seen.st_size == 8 << 20
fd = os.open('/data/a', os.O_RDONLY)
assert os.pread(fd, 4096, 0) == b'\x01' * 4096
put('set/a', b'\x02')
put('set/b', b'\x02')
with open('/data/b', 'rb') as file:
    # Another version is another inode.
    assert os.fstat(file.fileno()).st_ino != seen.st_ino
    assert file.read() == b'\x02' * (8 << 20)
fails(errno.ESTALE, lambda: os.pread(fd, 4096, 7 << 20))
# What was read before is that version still.
assert os.pread(fd, 4096, 0) == b'\x01' * 4096
for path in ['/data/a', '/data/b']:
    assert read(path) == b'\x02' * (8 << 20), path
fails(errno.ESTALE, lambda: os.pread(fd, 4096, 6 << 20))
",
        moto.port()
    ));
    let arguments =
        ["run", "--map", "/data=s3://bucket/set/", "--block", "64k", "--", "python3", "-c", &program];
    let ran = run(&moto, &test_folder, &arguments);
    assert_eq!((ran.code(), ran.out()), (0, "right\n"), "{}", ran.err());
    assert!(ran.err().contains("the object changed since it was opened"), "{}", ran.err());
}

#[test]
fn a_server_of_a_folder_that_goes_away_is_an_error_in_time() {
    let test_folder = TestFolder::new();
    let Some(moto) = moto().filter(|_| can_run(&test_folder) && has_fuse()) else { return };
    tree(&moto, &test_folder);
    let program = python(&format!(
        r"
fd = os.open('/data/a', os.O_RDONLY)
os.kill({}, 9)
fails(errno.EIO, lambda: os.pread(fd, 4096, 0))
fails(errno.EIO, lambda: open('/data/sub/b'))
fails(errno.EIO, lambda: os.stat('/data/none'))
fails(errno.EIO, lambda: os.listdir('/data'))
",
        moto.id()
    ));
    let arguments =
        ["run", "--retry", "300ms", "--map", "/data=s3://bucket/set/", "--", "python3", "-c", &program];
    let ran = run(&moto, &test_folder, &arguments);
    assert_eq!((ran.code(), ran.out()), (0, "right\n"), "{}", ran.err());
    assert!(ran.err().contains("s3://bucket/set/none: no connection"), "{}", ran.err());
}

#[test]
fn what_is_no_folder_is_refused_when_it_is_mapped() {
    let test_folder = TestFolder::new();
    let Some(moto) = moto().filter(|_| can_run(&test_folder)) else { return };
    moto.put("set/a", b"x");
    for (url, words) in [
        ("s3://bucket/none/", "list s3://bucket/none/: no object has a name that begins so"),
        ("s3://bucket/none", "open s3://bucket/none: the server answers 404"),
        ("s3://missing/", "list s3://missing/: the server answers 404"),
    ] {
        let ran =
            run(&moto, &test_folder, &["run", "--map", &format!("/data={url}"), "--", "echo", "started"]);
        assert!(ran.code() == 1 && ran.out().is_empty(), "{url}: {}", ran.err());
        assert!(ran.err().starts_with(&format!("memobj: {words}")), "{url}: {}", ran.err());
        assert_eq!(ran.err().lines().count(), 1, "{}", ran.err());
    }
    let ran = test_folder.run(&["run", "--map", "/data=http://me:secret@127.0.0.1:1/x/", "--", "true"]);
    assert_eq!(ran.code(), 2);
    assert!(
        ran.err().contains("give each object a --map of its own") && !ran.err().contains("secret"),
        "{}",
        ran.err()
    );
}

#[test]
fn a_folder_of_a_9p_server_is_a_folder_of_files() {
    let test_folder = TestFolder::new();
    let bytes = test_folder.file("local", 300_001);
    std::fs::create_dir_all(test_folder.path().join("tree/sub/deep")).unwrap();
    for name in ["a", "sub/b", "sub/deep/c", "odd +%2F\u{e9} name"] {
        std::fs::write(test_folder.path().join("tree").join(name), &bytes).unwrap();
    }
    std::fs::write(test_folder.path().join("tree/sub/empty"), b"").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", test_folder.path().join("tree/hidden")).unwrap();
    if !can_run(&test_folder) || !has_fuse() {
        return;
    }
    let port = free_port();
    let Some(_server) = diod(test_folder.path(), port) else { return };
    let tree = test_folder.path().display();
    for slash in ["/", ""] {
        let map = format!("/data=9p://127.0.0.1:{port}/tree{slash}?aname={tree}");
        let program = python(READS_ALL);
        let ran = test_folder.run(&["run", "--map", &map, "--", "python3", "-c", &program]);
        assert_eq!((ran.code(), ran.out(), ran.err()), (0, "right\n", ""));
    }
    let map = format!("/data=9p://127.0.0.1:{port}/none/?aname={tree}");
    let ran = test_folder.run(&["run", "--map", &map, "--", "true"]);
    let words = format!("memobj: 9p://127.0.0.1:{port}: walk \"none\": ");
    assert!(ran.code() == 1 && ran.err().starts_with(&words), "{}", ran.err());
}
