//! `memobj run --via`: the frames are those of a server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memobj_serve::control::{Borrower, Client};
use rustix::process::{Pid, Signal, kill_process};

use crate::build::{Kind, program};
use crate::ends::{LIMIT, Running, run};
use crate::ordinary::NOBODY;
use crate::test_folder::{PAGE, TestFolder, has, sample};

/// A server in the folder of a test, killed when it is dropped.
struct Server(Child);

impl Server {
    /// Listens at `socket` in the folder.
    fn start(test_folder: &TestFolder, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
        command.args(["serve", "socket"]).args(options).current_dir(test_folder.path(""));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output is piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "socket\n");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it is there");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const VIA: &[&str] = &["--via", "socket"];

/// A folder and a server that lends; `None` where programs cannot be run.
fn lending(options: &[&str]) -> Option<(TestFolder, Server)> {
    let test_folder = TestFolder::new()?;
    let server = Server::start(&test_folder, &[&["--lend"], options].concat());
    Some((test_folder, server))
}

/// A number that the server tells.
fn told(test_folder: &TestFolder, key: &str) -> u64 {
    let mut client = Client::connect(test_folder.path("socket")).expect("a connection");
    client.request("stats").and_then(|answer| answer.number(key)).expect("a number")
}

/// What the other modules test about programs and files holds with borrowed frames as well.
#[test]
fn programs_do_what_they_do_with_frames_of_their_own() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    if std::env::var_os(crate::test_folder::VIA).is_some() {
        return;
    }
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.args(["writers::", "coherence::", "processes::", "programs::", "places::", "idle::", "jobs::"]);
    command.args(["--test-threads", "2"]).env(crate::test_folder::VIA, test_folder.path("socket"));
    let end = run(command);
    assert!(end.status.success(), "{}\n{}", end.out, end.err);
    assert!(told(&test_folder, "supplied-pages") > 0, "nothing was borrowed");
}

#[test]
fn a_program_that_has_run_before_reads_nothing() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    let Some(program) = program("hello", Kind::Dynamic) else { return };
    let native = run(test_folder.native(&[&program]));
    let mut reads = vec![told(&test_folder, "read-bytes")];
    for _ in 0..3 {
        let end = run(test_folder.memobj(VIA, &[&program]));
        assert_eq!(end, native);
        reads.push(told(&test_folder, "read-bytes"));
    }
    assert!(reads[1] > reads[0], "the first reads: {reads:?}");
    assert_eq!(reads[2], reads[3], "{reads:?}");
    assert_eq!(told(&test_folder, "loans"), 0, "they were given back");
    assert!(told(&test_folder, "lent-files") >= 2, "they stay open");
}

/// Prints the first and last bytes of `file`, by a served private mapping.
const SHOWS: &str = "
import mmap
file = open('file', 'rb')
at = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
bytes(at[::4096])
served = sum('memfd:memobj' in line and line.rstrip().endswith('/file (deleted)') for line in open('/proc/self/maps'))
print(served, at[:8], at[-8:], len(at))
";

#[test]
fn a_file_that_changes_between_runs_shows_what_it_has() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    if !has("python3") {
        return;
    }
    let path = test_folder.path("file");
    let length = 64 * PAGE;
    let write = |byte: u8, length: usize| std::fs::write(&path, vec![byte; length]).expect("a file");
    write(b'a', length);
    let modified = std::fs::metadata(&path).and_then(|it| it.modified()).expect("a time");
    let set_back = || {
        let file = std::fs::File::options().write(true).open(&path).expect("the file");
        file.set_modified(modified).expect("a time");
    };
    let in_place = |byte: u8| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(&path).expect("the file");
        file.write_all_at(&vec![byte; length], 0).expect("it is written");
    };
    let replace = |byte: u8| {
        std::fs::write(test_folder.path("new"), vec![byte; length]).expect("a file");
        std::fs::rename(test_folder.path("new"), &path).expect("a rename");
    };
    let changes: [(u8, usize, &dyn Fn()); 6] = [
        (b'a', length, &|| {}),
        (b'b', length, &|| in_place(b'b')),
        (b'c', length, &|| {
            in_place(b'c');
            set_back();
        }),
        (b'd', length, &|| {
            replace(b'd');
            set_back();
        }),
        (b'e', 2 * length, &|| write(b'e', 2 * length)),
        (b'f', PAGE + 9, &|| write(b'f', PAGE + 9)),
    ];
    for (byte, length, change) in changes {
        change();
        for _ in 0..2 {
            let end = run(test_folder.memobj(VIA, &["python3", "-c", SHOWS])).succeeded("it reads");
            let shown = (byte as char).to_string().repeat(8);
            assert_eq!(end.out, format!("1 b'{shown}' b'{shown}' {length}\n"));
        }
    }
}

#[test]
fn a_page_that_fails_at_the_server_traps_in_the_program() {
    let Some((test_folder, _server)) = lending(&["--inject", "sample:error@400k+4k"]) else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 256);
    // Twice: the second run has the page tried again.
    for _ in 0..2 {
        let words = [program.as_os_str(), "errors".as_ref(), file.as_os_str()];
        let end = run(test_folder.memobj(VIA, &words));
        let expected = "before: status 3\nbad: signal 7\nbehind: status 3\nwrite: -1\nerrors done\n";
        assert_eq!((end.code(), end.out.as_str()), (0, expected), "{end:?}");
        for line in end.err.lines() {
            let is_whole = ["/sample", "[409600, 413696)", "input/output error", "SIGBUS"]
                .map(|word| line.contains(word));
            assert_eq!(is_whole, [true; 4], "{line}");
        }
        assert!((1..=2).contains(&end.err.lines().count()), "{end:?}");
    }
}

#[test]
fn the_server_tries_again() {
    let options = ["--inject", "sample:error@400k+4k:times=3", "--retry", "20s"];
    let Some((test_folder, _server)) = lending(&options) else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 256);
    let words = [program.as_os_str(), "errors".as_ref(), file.as_os_str()];
    let end = run(test_folder.memobj(VIA, &words));
    let expected = "before: status 3\nbad: status 3\nbehind: status 3\nwrite: 4096\nerrors done\n";
    assert_eq!((end.code(), end.out.as_str(), end.err.as_str()), (0, expected, ""));
}

#[test]
fn a_page_that_never_comes_holds_up_nobody_else() {
    let Some((test_folder, _server)) = lending(&["--inject", "sample:hang@400k+4k"]) else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 256);
    let words = [program.as_os_str(), "hangs".as_ref(), file.as_os_str()];
    let end = run(test_folder.memobj(VIA, &words));
    let expected = "far: status 3\nbehind: status 3\nstuck: signal 9\nhangs done\n";
    assert_eq!((end.code(), end.out.as_str(), end.err.as_str()), (0, expected, ""));
}

/// Waits until `is_so`.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < LIMIT, "{what} does not happen");
        // waits: polls what the kernel tells of other processes.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Time that a process has run, in ticks.
fn run_time(process: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it is alive");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

fn maps_frames(process: i32, file: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("it is alive");
    maps.lines().any(|line| line.contains("memfd:memobj") && line.contains(file))
}

const GONE: &str = "the kernel supplies pages of files from now on";

#[test]
fn no_wrong_byte_when_the_server_is_killed() {
    // Late pages, and too little room for them, so that nearly all wait for one when it happens.
    let options = ["--budget", "256k", "--inject", "sample:delay=5@0+8M"];
    let Some((test_folder, server)) = lending(&options) else { return };
    let Some(program) = program("crowd", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 2048);
    let seed = std::process::id().to_string();
    println!("seed {seed}");
    let words = [program.as_os_str(), "processes".as_ref(), file.as_os_str(), seed.as_ref()];
    let mut running = Running::start(test_folder.memobj(VIA, &words));
    running.hear("running");
    let said = running.said().0;
    let processes: Vec<i32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(processes.len(), 20);
    let evicted = told(&test_folder, "evicted-pages");
    wait_until("the coming and going of pages", || told(&test_folder, "evicted-pages") > evicted + 100);
    drop(server);
    wait_until("the handover", || processes.iter().all(|process| !maps_frames(*process, "/sample")));
    let before: Vec<u64> = processes.iter().map(|process| run_time(*process)).collect();
    wait_until("progress", || {
        processes.iter().zip(&before).all(|(process, before)| run_time(*process) > before + 2)
    });
    let err = running.said().1;
    assert!(err.lines().count() == 1 && err.contains(GONE), "{err}");
    assert!(!test_folder.path("sample.wrong").exists());
}

/// Sleeps on a page inside a system call, which cannot be stopped for a handover.
const WRITES: &str = "
import mmap, os
file = open('sample', 'rb')
at = memoryview(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
print('ready', flush=True)
out = os.open('out', os.O_WRONLY | os.O_CREAT)
assert os.write(out, at[400 * 1024:404 * 1024]) == 4096
";

fn write_while(test_folder: &TestFolder, end_server: impl FnOnce()) {
    if !has("python3") {
        return;
    }
    test_folder.sample("sample", 256);
    let mut running = Running::start(test_folder.memobj(VIA, &["python3", "-c", WRITES]));
    running.hear("ready");
    // The server is asked for the page.
    wait_until("the request", || told(test_folder, "all-running") > 0);
    end_server();
    let end = running.end();
    assert!(end.status.success() && end.err.lines().count() == 1 && end.err.contains(GONE), "{end:?}");
    let out = std::fs::read(test_folder.path("out")).expect("what it wrote");
    assert!(out == sample(400 * 1024, PAGE), "other bytes");
}

#[test]
fn who_sleeps_on_a_page_in_a_system_call_gets_it_when_the_server_is_killed() {
    let Some((test_folder, server)) = lending(&["--inject", "sample:hang@400k+4k"]) else { return };
    write_while(&test_folder, move || drop(server));
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let Some((test_folder, server)) = lending(&["--inject", "sample:hang@400k+4k"]) else { return };
    write_while(&test_folder, || server.signal(Signal::STOP));
}

/// Fields of /proc/PID/smaps of one mapped file, in kilobytes.
fn of_file(process: &str, file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).expect("a process that lives");
    let mut is_it = false;
    let mut sum = 0;
    for line in text.lines() {
        if line.contains("rw-p") || line.contains("r--p") || line.contains("r-xp") {
            is_it = line.contains(file) && line.contains("memfd:memobj");
        } else if is_it && line.starts_with(field) {
            sum += line.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok()).expect("a number");
        }
    }
    sum
}

#[test]
fn two_runs_share_frames() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    let file = test_folder.sample("sample", 256);
    let words = [program.as_os_str(), "copies".as_ref(), file.as_os_str()];
    let mut runs: Vec<Running> = (0..2).map(|_| Running::start(test_folder.memobj(VIA, &words))).collect();
    let processes: Vec<String> = runs
        .iter_mut()
        .map(|running| {
            running.hear("ready");
            running.said().0.trim().strip_prefix("ready ").expect("a number").to_owned()
        })
        .collect();
    for process in &processes {
        let [resident, share] = ["Rss:", "Pss:"].map(|field| of_file(process, "/sample", field));
        assert!(resident == 1024 && share <= 512, "{resident} KiB, with a share of {share}");
    }
    std::fs::write(test_folder.path("sample.go"), "").expect("a file");
    runs.into_iter().for_each(|running| drop(running.end().succeeded("copies")));
}

#[test]
fn without_a_server_that_lends_nothing_runs() {
    let Some(test_folder) = TestFolder::new() else { return };
    let refused = |words: &str| {
        let end = run(test_folder.memobj(VIA, &["echo", "runs"]));
        assert!(end.code() == 1 && end.out.is_empty(), "{end:?}");
        assert!(
            end.err.starts_with("memobj: borrow frames at socket: ") && end.err.contains(words),
            "{end:?}"
        );
    };
    refused("is the server running?");
    let server = Server::start(&test_folder, &[]);
    refused("memobj serve --lend");
    drop(server);
    refused("Connection refused");
}

#[test]
fn what_is_the_servers_is_wrong_usage() {
    let Some(test_folder) = TestFolder::new() else { return };
    for options in [
        &["--budget", "1G"][..],
        &["--retry", "1s"],
        &["--inject", "libc.so.6:error@0+1"],
        &["--report", "text"],
        &["--map", "/x=http://127.0.0.1:1/x"],
    ] {
        let end = run(test_folder.memobj(&[VIA, options].concat(), &["true"]));
        assert!(end.code() == 2 && end.err.contains("--via"), "{end:?}");
    }
}

#[test]
fn another_user_borrows_nothing_unless_the_server_says_so() {
    let Some((test_folder, binary)) = crate::ordinary::open_folder() else { return };
    if !crate::ordinary::may_be_run(&test_folder, &binary) {
        return;
    }
    let ran = |lend: &str| {
        let _server = Server::start(&test_folder, &[lend, "--allow-uid", "65534"]);
        let mut command = test_folder.native(&NOBODY);
        command.arg(&binary).args(["run", "--via", "socket", "--", "echo", "runs"]);
        run(command)
    };
    let end = ran("--lend");
    assert!(end.code() == 1 && end.out.is_empty(), "{end:?}");
    assert!(end.err.contains("its own user and to root only"), "{end:?}");
    let end = ran("--lend=allowed");
    let lacks_faults = end.code() == 1 && end.err.contains("vm.unprivileged_userfaultfd");
    assert!(lacks_faults || (end.code() == 0 && end.out == "runs\n" && end.err.is_empty()), "{end:?}");
}

#[test]
fn a_record_is_made_and_replayed() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    let Some(program) = program("hello", Kind::Dynamic) else { return };
    let native = run(test_folder.native(&[&program]));
    for options in [["--record", "touches"], ["--replay", "touches"]] {
        assert_eq!(run(test_folder.memobj(&[VIA, &options].concat(), &[&program])), native);
    }
    assert!(std::fs::metadata(test_folder.path("touches")).is_ok_and(|it| it.len() > 0));
}

/// Whoever asks by the library hears the same.
#[test]
fn the_library_borrows() {
    let Some((test_folder, _server)) = lending(&[]) else { return };
    let path = test_folder.sample("sample", 64);
    let borrower = Borrower::connect(test_folder.path("socket")).expect("it lends");
    let file = std::fs::File::open(Path::new(&path)).expect("the file");
    let kind = memobj_serve::control::LoanKind::Private;
    let loan = borrower.borrow(&file, kind).expect("a loan");
    assert!(loan.len() == 64 * PAGE as u64 && !loan.is_resident(0));
    let (tell, told) = std::sync::mpsc::channel();
    loan.resolve(0, &(0..65536), move |answer| tell.send(answer).expect("it is heard"));
    assert_eq!(told.recv().expect("an answer"), Ok(()));
    assert!(loan.is_resident(0));
    assert!(borrower.borrow(std::io::stdin(), kind).is_err(), "that is no regular file");
}
