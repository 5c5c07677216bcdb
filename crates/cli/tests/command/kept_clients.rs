//! `memobj serve --keep`: clients whose server is killed, again and again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memobj::{GuestProt, RemoteMapping};
use memobj_serve::control::{Client, ClientError};
use memobj_sim::process::{part, start};
use memobj_sim::random::Random;

use crate::test_folder::TestFolder;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);

/// A keeper, its server and a folder.
struct Keeping {
    folder: TestFolder,
    keeper: Child,
    /// Open as long as it may say where it listens.
    _output: BufReader<std::process::ChildStdout>,
}

impl Keeping {
    fn start(folder: TestFolder, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
        command.args(["serve", "socket", "--keep"]).args(arguments).current_dir(folder.path());
        let mut keeper = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let mut output = BufReader::new(keeper.stdout.take().expect("standard output is piped"));
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "socket\n");
        Self { folder, keeper, _output: output }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn server(&self) -> Option<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.keeper.id());
        std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Kills the server.
    fn kill(&self) {
        let until = Instant::now() + LIMIT;
        let server = loop {
            match self.server() {
                Some(server) => break server,
                // waits: polls until the keeper has started one.
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < until, "there is no server");
        };
        signal(server, "-KILL");
    }

    fn end(mut self) {
        signal(self.keeper.id(), "-TERM");
        assert!(self.keeper.wait().expect("it ends").success());
        assert!(!self.socket().exists());
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let server = self.server();
        // Not to be started again: the keeper first.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        server.into_iter().for_each(|server| signal(server, "-KILL"));
    }
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([name, &process.to_string()]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "kill(1)");
}

/// A client with the object `words`, mapped to be stored to.
fn attach(socket: &std::path::Path, prot: GuestProt) -> (Client, RemoteMapping) {
    let mut client = Client::connect(socket).unwrap();
    client.request("open words rw").unwrap();
    let (mapping, _) = client.map(1, prot).unwrap();
    (client, mapping)
}

const LENGTH: u64 = 6 * MIB;
/// Words behind the first page, where each writer says how far it is.
const WORDS: u64 = (LENGTH - PAGE) / 8;
const WRITERS: u64 = 2;

fn stores() -> u64 {
    std::env::var("MEMOBJ_STORES").ok().and_then(|stores| stores.parse().ok()).unwrap_or(60_000)
}

/// The words that a writer stores to, in order: its own ones, in pages that both share.
fn words_of(writer: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(77 + writer);
    (0..stores()).map(move |_| PAGE / 8 + random.below(WORDS / WRITERS) * WRITERS + writer)
}

/// Stores to its words, and checks each before.
fn write(mapping: &RemoteMapping, writer: u64) {
    let words = mapping.shared_words().unwrap();
    let mut stored = BTreeMap::new();
    for (count, word) in words_of(writer).enumerate() {
        let count = count as u64 + 1;
        let before = stored.insert(word, count);
        assert!(before.is_none_or(|before| words.load(word) == before), "word {word} of writer {writer}");
        words.store(word, count);
        words.store(writer, count);
    }
}

/// Two processes store to one object, and its server is killed while they do. The object is three times as large as the
/// budget: pages are written back and evicted all the time.
#[test]
fn no_store_is_lost_while_the_server_is_killed() {
    const NAME: &str = "no_store_is_lost_while_the_server_is_killed";
    const KILLS: u64 = 8;
    if let Some(part) = part(NAME) {
        let (writer, socket) = part.split_once(',').unwrap();
        let (_client, mapping) = attach(socket.as_ref(), GuestProt::ReadWrite);
        return write(&mapping, writer.parse().unwrap());
    }
    let folder = TestFolder::new();
    folder.file("words", LENGTH as usize);
    let keeping = Keeping::start(folder, &["--budget", "2M", "--export", "words=words:rw"]);
    let (mut client, mapping) = attach(&keeping.socket(), GuestProt::ReadWrite);
    for writer in 0..WRITERS {
        mapping.write_at(8 * writer, &[0; 8]).unwrap();
    }
    let mut children: Vec<_> =
        (0..WRITERS).map(|writer| start(NAME, &format!("{writer},{}", keeping.socket().display()))).collect();
    let words = mapping.shared_words().unwrap();
    let until = Instant::now() + LIMIT;
    for kill in 1..=KILLS {
        while words.load(kill % WRITERS) < stores() * kill / (KILLS + 1) {
            assert!(Instant::now() < until, "writers have come to {} and {}", words.load(0), words.load(1));
            // waits: polls for the progress of others.
            std::thread::sleep(Duration::from_millis(1));
        }
        keeping.kill();
    }
    for child in &mut children {
        assert!(child.wait(60).success(), "a writer saw something else than it had stored");
    }
    let mut expected = BTreeMap::new();
    for writer in 0..WRITERS {
        expected.extend(words_of(writer).zip(1..));
    }
    let check = |what: &str, load: &dyn Fn(u64) -> u64| {
        for (word, count) in &expected {
            assert_eq!(load(*word), *count, "word {word} {what}");
        }
    };
    check("in memory", &|word| words.load(word));
    client.request("sync 1").unwrap();
    let bytes = std::fs::read(keeping.folder.path().join("words")).unwrap();
    check("in the file", &|word| u64::from_le_bytes(bytes[8 * word as usize..][..8].try_into().unwrap()));
    drop((mapping, client));
    keeping.end();
}

/// Each request is answered once, and rightly, whenever the server dies: requests are sent as fast as they are taken.
#[test]
fn requests_are_answered_once_while_the_server_is_killed() {
    const REQUESTS: usize = 3_000;
    const KILLS: usize = 10;
    let folder = TestFolder::new();
    let bytes = folder.file("words", 3 * MIB as usize);
    let keeping = Keeping::start(folder, &["--budget", "1M", "--export", "words=words:rw"]);
    let socket = UnixStream::connect(keeping.socket()).unwrap();
    let reader = socket.try_clone().unwrap();
    let ask = |number: usize| {
        let offset = (number as u64 * 7919 * 64) % (3 * MIB - 64);
        match number % 6 {
            0 => (format!("populate 1 {offset} 64"), "bytes=64".to_owned()),
            1 => ("length 1".into(), format!("length={}", 3 * MIB)),
            2 => ("sync 1".into(), String::new()),
            3 => ("retry 1".into(), "pages=0".into()),
            _ => {
                let data: String =
                    bytes[offset as usize..][..32].iter().map(|byte| format!("{byte:02x}")).collect();
                (format!("read 1 {offset} 32"), format!("data={data}"))
            }
        }
    };
    std::thread::scope(|scope| {
        let (answered, progress) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let mut socket = &socket;
            socket.write_all(b"open open words rw\n").unwrap();
            for number in 0..REQUESTS {
                // Few at once, so that none is refused as one too many.
                if number >= 6 {
                    progress.recv().unwrap();
                }
                // In two pieces: a server may be killed between them.
                let line = format!("{number} {}\n", ask(number).0);
                let (first, second) = line.split_at(number % line.len());
                socket.write_all(first.as_bytes()).unwrap();
                socket.write_all(second.as_bytes()).unwrap();
            }
            socket.write_all(b"quit quit\n").unwrap();
        });
        let mut lines = BufReader::new(reader).lines();
        let mut next = || lines.next().expect("a line").expect("a line");
        assert!(next().starts_with("memobj 1 session="));
        assert!(next().starts_with("open ok object=1 "));
        let (mut answers, mut has_quit) = (BTreeMap::new(), false);
        while answers.len() < REQUESTS || !has_quit {
            let line = next();
            if line == "quit ok" {
                // It does not wait for requests that are under way.
                assert!(!std::mem::replace(&mut has_quit, true), "answered twice");
                continue;
            }
            let (tag, answer) = line.split_once(' ').unwrap();
            let number: usize = tag.parse().unwrap_or_else(|_| panic!("{line}"));
            let wanted = format!("ok {}", ask(number).1);
            assert!(answer.starts_with(wanted.trim_end()), "{line}: not {wanted}");
            assert_eq!(answers.insert(number, ()), None, "{line}: answered twice");
            let _ = answered.send(());
            if answers.len() % (REQUESTS / (KILLS + 1)) == 0 && answers.len() < REQUESTS {
                keeping.kill();
            }
        }
        assert!(lines.next().is_none(), "something behind the last answer");
    });
    keeping.end();
}

/// What a client has is the same after its server was killed: objects, mappings, numbers, events.
#[test]
fn a_session_goes_on_as_it_was() {
    let folder = TestFolder::new();
    let bytes = folder.file("words", MIB as usize);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let other = folder.file("folder/other", 10_000);
    let passed = folder.file("passed", 20_000);
    let arguments =
        ["--export", "words=words:rw", "--export-dir", "folder", "--inject", "words:error@64k+4k"];
    let keeping = Keeping::start(folder, &arguments);
    let mut client = Client::connect(keeping.socket()).unwrap();
    let session = client.session();
    client.request("events on").unwrap();
    client.request("open words rw policy=fail").unwrap();
    client.request("open other").unwrap();
    let file = std::fs::File::open(keeping.folder.path().join("passed")).unwrap();
    client.request_with("open-descriptor", &file).unwrap();
    client.request("open words").unwrap();
    client.request("close 4").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
    let (second, number) = client.map(2, GuestProt::ReadOnly).unwrap();
    mapping.write_at(5000, b"stored").unwrap();
    let mut buffer = [0; 16];
    second.read_at(100, &mut buffer).unwrap();
    assert_eq!(client.request("populate 1 65536 1").unwrap_err().kind(), Some("page"));
    assert!(client.next_event(LIMIT).unwrap().is_some_and(|event| event.starts_with("failed object=1 ")));
    // The file that was opened is meant, whatever becomes of its name.
    std::fs::remove_file(keeping.folder.path().join("folder/other")).unwrap();
    for round in 0..3u8 {
        keeping.kill();
        assert_eq!(client.next_event(LIMIT).unwrap().as_deref(), Some("replaced"));
        mapping.read_at(5000, &mut buffer[..6]).unwrap();
        assert_eq!(&buffer[..6], b"stored");
        mapping.write_at(6000 + u64::from(round), &[round]).unwrap();
        second.read_at(9000 + u64::from(round), &mut buffer).unwrap();
        assert_eq!(buffer, other[9000 + usize::from(round)..][..16]);
        let data: String = passed[10..14].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(client.request("read 3 10 4").unwrap().get("data"), Some(data));
        assert_eq!(client.request("read 4 0 1").unwrap_err().kind(), Some("not-found"));
        // A page that had failed is asked for again, and fails again.
        assert_eq!(client.request("populate 1 65536 1").unwrap_err().kind(), Some("page"));
        assert!(client.next_event(LIMIT).unwrap().is_some_and(|event| event.starts_with("failed object=1 ")));
    }
    assert_eq!(client.session(), session);
    assert_eq!(client.request(&format!("unmap {number}")).unwrap().as_str(), "");
    assert_eq!(client.request("open words").unwrap().number("object").unwrap(), 5);
    let (_third, number) = client.map(5, GuestProt::ReadOnly).unwrap();
    assert_eq!(number, 3);
    client.request("sync 1").unwrap();
    let mut expected = bytes;
    expected[5000..5006].copy_from_slice(b"stored");
    expected[6000..6003].copy_from_slice(&[0, 1, 2]);
    assert!(std::fs::read(keeping.folder.path().join("words")).unwrap() == expected);
    keeping.end();
}

/// An object that has another version by the time of the next server is not mixed: its mappings trap, and that is told.
#[test]
fn an_object_that_was_replaced_meanwhile_is_gone() {
    let folder = TestFolder::new();
    folder.file("words", MIB as usize);
    let keeping = Keeping::start(folder, &["--export", "words=words"]);
    let mut client = Client::connect(keeping.socket()).unwrap();
    client.request("events on").unwrap();
    client.request("open words").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    let mut byte = [0];
    mapping.read_at(0, &mut byte).unwrap();
    // Another file of the same length.
    std::fs::remove_file(keeping.folder.path().join("words")).unwrap();
    keeping.folder.file("words", MIB as usize);
    keeping.kill();
    let mut said = Vec::new();
    while !said.iter().any(|event: &String| event == "gone object=1") {
        said.push(client.next_event(LIMIT).unwrap().expect("an event"));
    }
    let until = Instant::now() + LIMIT;
    while mapping.is_attached() {
        assert!(Instant::now() < until, "it is attached still");
        // waits: polls until the mapping has heard of its end.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(mapping.read_at(0, &mut byte).is_err() && mapping.read_at(MIB / 2, &mut byte).is_err());
    assert_eq!(client.request("read 1 0 1").unwrap_err().kind(), Some("not-found"));
    client.request("open words").unwrap();
    client.request("read 2 0 1").unwrap();
    keeping.end();
}

/// Clients that come, map and go while the server is killed are never refused, but may be asked to send a request again.
#[test]
fn clients_come_and_go_while_the_server_is_killed() {
    const CLIENTS: u64 = 60;
    let folder = TestFolder::new();
    let bytes = folder.file("words", MIB as usize);
    let keeping = Keeping::start(folder, &["--budget", "1M", "--export", "words=words:rw"]);
    let seed = Random::new(u64::from(std::process::id())).below(1 << 30);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for number in 0..CLIENTS {
        if number % 6 == 5 {
            keeping.kill();
        }
        let mut client = Client::connect(keeping.socket()).unwrap();
        client.request("open words rw").unwrap();
        let (mapping, mapped) = client.map(1, GuestProt::ReadWrite).unwrap();
        let offset = random.below(MIB - 8);
        let mut read = [0; 8];
        mapping.read_at(offset, &mut read).unwrap();
        assert_eq!(read, bytes[offset as usize..][..8]);
        mapping.write_at(offset, &read).unwrap();
        match number % 3 {
            0 => drop(mapping),
            1 => drop(client.request(&format!("unmap {mapped}")).unwrap()),
            _ => drop(client),
        }
    }
    keeping.end();
}

/// One keeper for clients and machines.
#[test]
fn clients_and_machines_are_kept_by_one() {
    let folder = TestFolder::new();
    folder.file("words", MIB as usize);
    let arguments = ["--export", "words=words:rw", "--firecracker", "monitors", "--memory", "words"];
    let keeping = Keeping::start(folder, &arguments);
    let (mut client, mapping) = attach(&keeping.socket(), GuestProt::ReadWrite);
    mapping.write_at(100, b"stored").unwrap();
    keeping.kill();
    let monitors = keeping.folder.path().join("monitors");
    // Refused by the next server, as it says nothing of regions; or it ends with the one that dies.
    let mut monitor = UnixStream::connect(&monitors).unwrap();
    monitor.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = Vec::new();
    let _ = monitor.read_to_end(&mut said);
    assert_eq!(said, b"");
    let mut bytes = [0; 6];
    mapping.read_at(100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"stored");
    client.request("sync 1").unwrap();
    drop((client, mapping));
    keeping.end();
    assert!(!monitors.exists());
}

/// When the keeper has been killed, too, mappings trap. No load reads anything else.
#[test]
fn without_keeper_and_server_mappings_trap() {
    let folder = TestFolder::new();
    folder.file("words", MIB as usize);
    let keeping = Keeping::start(folder, &["--export", "words=words:rw"]);
    let (mut client, mapping) = attach(&keeping.socket(), GuestProt::ReadWrite);
    mapping.write_at(0, b"x").unwrap();
    let server = keeping.server().expect("a server");
    signal(keeping.keeper.id(), "-KILL");
    signal(server, "-KILL");
    let mut byte = [0];
    assert!(mapping.read_at(MIB / 2, &mut byte).is_err());
    assert_eq!(byte, [0]);
    assert!(matches!(client.request("length 1"), Err(ClientError::Io(_))));
    // Nobody listens, once both are gone.
    let until = Instant::now() + LIMIT;
    while UnixStream::connect(keeping.socket()).is_ok() {
        assert!(Instant::now() < until, "somebody listens");
        // waits: polls until the processes have ended.
        std::thread::sleep(Duration::from_millis(1));
    }
}
