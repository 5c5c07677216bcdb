//! The proxy: its clients never notice that the server was away, or are told what is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memobj_9p::proxy::{Proxy, ProxyEvent, ProxyHandle, ProxyOptions};
use memobj_9p::{Address, NineOptions, NinePager};
use memobj_sim::conformance;
use memobj_sim::fixture::{GUARD, MIB, sample_bytes, wait_until};
use memobj_sim::{Random, known_byte};

use crate::asking::counter;
use crate::fake::{
    Act, Fake, TATTACH, TCLUNK, TFLUSH, TFSYNC, TLOPEN, TREAD, TVERSION, TWALK, TWRITE, message, rlerror,
};
use crate::plain::{Plain, string};
use crate::restarts::{known, restarting, seed};
use memobj_servers::{Kind, Server};

const LENGTH: u64 = 300_000;
const TLCREATE: u8 = 14;
const TMKDIR: u8 = 72;

/// A proxy that runs until it is dropped.
struct Running {
    handle: ProxyHandle,
    address: Address,
    events: Receiver<ProxyEvent>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(server: &str, options: ProxyOptions) -> Self {
        Self::at("127.0.0.1:0", server, options)
    }

    fn at(listen: &str, server: &str, options: ProxyOptions) -> Self {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        // The test may have ended.
        let options = options.listener(move |event| drop(sender.lock().unwrap().send(event.clone())));
        let proxy = Proxy::listen(listen, server, options).unwrap();
        let (handle, address) = (proxy.handle(), proxy.address().clone());
        Self { handle, address, events, thread: Some(std::thread::spawn(move || proxy.run())) }
    }

    /// The URL of a file of the server, through the proxy.
    fn url(&self, url: &str) -> String {
        let path = url.strip_prefix("9p://").unwrap().split_once('/').unwrap().1;
        format!("{}/{path}", self.address)
    }

    /// Waits for an event.
    fn event(&self, what: &str, wanted: impl Fn(&ProxyEvent) -> bool) -> ProxyEvent {
        loop {
            let event = self.events.recv_timeout(GUARD).unwrap_or_else(|_| panic!("no event: {what}"));
            if wanted(&event) {
                return event;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn address(fake: &Fake) -> String {
    fake.url().strip_prefix("9p://").unwrap().split_once('/').unwrap().0.into()
}

/// A fake server, a proxy, and a client that has opened the file for reading and writing as fid 1.
fn opened() -> (Fake, Running, Plain) {
    let fake = Fake::new(sample_bytes(LENGTH));
    let proxy = Running::new(&address(&fake), ProxyOptions::new());
    let mut client = Plain::new(&proxy.address);
    client.attach(0, "tree");
    client.walk(0, 1, &["folder", "file"]);
    client.open(1, 2 | 0o100 | 0o1000);
    (fake, proxy, client)
}

#[test]
fn a_pager_behind_a_proxy_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Diod, Kind::Py9p] {
        let Some(server) = Server::start(kind) else { continue };
        let url = server.file("sample", sample_bytes(70_001));
        let authority = url.strip_prefix("9p://").unwrap().split_once('/').unwrap().0;
        let proxy = Running::new(authority, ProxyOptions::new());
        let url = proxy.url(&url);
        conformance::run_answering(
            || NinePager::open(&url, NineOptions::new()).unwrap(),
            sample_bytes(70_001),
        );
        let statistics = proxy.handle.statistics();
        assert!(statistics.clients > 0 && statistics.requests > 0 && statistics.fids_lost == 0);
    }
    // Unix sockets on both sides.
    let Some(server) = Server::start_on_socket() else { return };
    let url = server.file("sample", sample_bytes(70_001));
    let path = folder.path().join("proxy");
    let _proxy = Running::at(path.to_str().unwrap(), &url, ProxyOptions::new());
    let url = format!("9p+unix://{}?{}", path.display(), url.split_once('?').unwrap().1);
    conformance::run_answering(|| NinePager::open(&url, NineOptions::new()).unwrap(), sample_bytes(70_001));
}

#[test]
fn a_plain_client_reads_through_twenty_restarts() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    let mut random = Random::new(seed());
    let bytes = known(64 * MIB);
    let url = server.file("file", &bytes);
    let proxy = Running::new(&url, ProxyOptions::new());
    let mut client = Plain::new(&proxy.address);
    client.attach(0, url.split_once("aname=").unwrap().1);
    client.walk(0, 1, &["file"]);
    client.open(1, 0);
    let mut moments: Vec<u64> = (0..20).map(|_| random.below(bytes.len() as u64)).collect();
    let (kill, kills) = channel();
    std::thread::scope(|scope| {
        let server = &mut server;
        scope.spawn(move || restarting(server, kills));
        let mut at = 0;
        while at < bytes.len() {
            let due = moments.extract_if(.., |moment| *moment <= at as u64).count();
            (0..due).for_each(|_| kill.send(()).unwrap());
            let read = client.read_at(1, at as u64, client.msize - 24).unwrap();
            assert!(!read.is_empty() && read == bytes[at..at + read.len()], "at {at}");
            at += read.len();
        }
        drop(kill);
    });
    println!("{:?}", proxy.handle.statistics());
    assert!(proxy.handle.statistics().reconnects > 0);
}

#[test]
fn what_a_plain_client_synced_survives_twenty_restarts() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    let mut random = Random::new(seed());
    let length = MIB;
    let url = server.file("file", &vec![0; length as usize]);
    let path = server.path("file");
    let proxy = Running::new(&url, ProxyOptions::new());
    let mut client = Plain::new(&proxy.address);
    client.attach(0, url.split_once("aname=").unwrap().1);
    client.walk(0, 1, &["file"]);
    client.open(1, 2);
    let mut model = vec![0; length as usize];
    let (kill, kills) = channel();
    let mut failed = 0;
    std::thread::scope(|scope| {
        let server = &mut server;
        scope.spawn(move || restarting(server, kills));
        for round in 0..60 {
            let moment = random.below(16);
            let mut written = Vec::new();
            for write in 0..16 {
                if round % 3 == 0 && write == moment {
                    kill.send(()).unwrap();
                }
                let start = random.below(length / 4096) * 4096;
                let salt = random.draw();
                let bytes: Vec<u8> = (0..4096).map(|at| known_byte(salt, at)).collect();
                client.write_at(1, start, &bytes).unwrap();
                model[start as usize..start as usize + 4096].copy_from_slice(&bytes);
                written.push(start);
            }
            while let Err(error) = client.sync(1) {
                // What was not synced is written again.
                assert_eq!(error.unwrap(), 5);
                failed += 1;
                for start in &written {
                    client.write_at(1, *start, &model[*start as usize..*start as usize + 4096]).unwrap();
                }
            }
            assert!(std::fs::read(&path).unwrap() == model, "what was synced is in the file");
        }
        drop(kill);
    });
    println!("{failed} syncs failed, {:?}", proxy.handle.statistics());
}

/// A client that itself makes connections anew has none to make.
#[test]
fn a_pager_behind_a_proxy_does_not_notice_restarts() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    let url = server.file("file", sample_bytes(4 * MIB));
    let proxy = Running::new(&url, ProxyOptions::new());
    let pager = NinePager::open(&proxy.url(&url), NineOptions::new()).unwrap();
    for _ in 0..5 {
        let waiting: Vec<_> =
            (0..16).map(|part| crate::asking::supply(&pager, part * 262_144..(part + 1) * 262_144)).collect();
        server.kill();
        assert!(server.run());
        for (part, answer) in waiting.into_iter().enumerate() {
            let start = part * 262_144;
            assert!(answer.wait().unwrap() == sample_bytes(4 * MIB)[start..start + 262_144]);
        }
    }
    assert_eq!(counter(&pager, "reconnects"), 0);
    println!("{:?}", proxy.handle.statistics());
}

/// Files are opened again as they were, but not created or cut off again.
#[test]
fn a_fid_is_got_again_without_what_must_not_be_done_twice() {
    let (fake, proxy, mut client) = opened();
    fake.lock().requests.clear();
    fake.hang_up();
    assert_eq!(client.read_at(1, 0, 100).unwrap(), sample_bytes(100));
    let requests = fake.lock().requests.clone();
    let kinds: Vec<u8> = requests.iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [TVERSION, TATTACH, TATTACH, TWALK, TLOPEN, TREAD]);
    assert_eq!(requests[4].u32(4), 2);
    assert_eq!(proxy.handle.statistics().fids_restored, 2);
}

/// What must not be done twice, and was with the server, fails; what was not, is done.
#[test]
fn it_is_told_when_it_is_not_known_whether_something_was_done() {
    let (fake, _proxy, mut client) = opened();
    let mkdir = [&0u32.to_le_bytes()[..], &string("new"), &[0; 8]].concat();
    fake.script_for(TMKDIR, |_| Act::Keep);
    client.send(TMKDIR, 5, &mkdir).unwrap();
    fake.kept(1);
    fake.script(|request| match request.kind {
        TMKDIR => Act::Send(message(TMKDIR + 1, request.tag, &[0; 13])),
        _ => Act::Normal,
    });
    fake.hang_up();
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.tag, answer.u32(0)), (7, 5, 5));
    assert_eq!(fake.count(TMKDIR), 1);
    // While the server is away.
    fake.refuse(true);
    fake.hang_up();
    client.send(TMKDIR, 6, &mkdir).unwrap();
    fake.refuse(false);
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.tag), (TMKDIR + 1, 6));
    assert_eq!(fake.count(TMKDIR), 2);
}

#[test]
fn a_file_that_was_created_is_opened_and_not_created_again() {
    let (fake, _proxy, mut client) = opened();
    let clone =
        [&0u32.to_le_bytes()[..], &9u32.to_le_bytes(), &1u16.to_le_bytes(), &string("folder")].concat();
    fake.script(|request| match request.kind {
        TWALK if request.u32(4) == 9 && request.body[8] == 1 => {
            Act::Send(message(TWALK + 1, request.tag, &[&[1, 0, 0x80][..], &[0; 12]].concat()))
        }
        TLCREATE => {
            let qid = [&[0][..], &0u32.to_le_bytes(), &7u64.to_le_bytes(), &0u32.to_le_bytes()].concat();
            Act::Send(message(TLCREATE + 1, request.tag, &qid))
        }
        _ => Act::Normal,
    });
    client.ask(TWALK, &clone).unwrap();
    let create = [&9u32.to_le_bytes()[..], &string("file"), &(2u32 | 0o100 | 0o200).to_le_bytes(), &[0; 8]];
    client.ask(TLCREATE, &create.concat()).unwrap();
    fake.hang_up();
    assert_eq!(client.read_at(9, 0, 100).unwrap(), sample_bytes(100));
    assert_eq!(fake.count(TLCREATE), 1);
}

/// A file that is gone, or another one.
#[test]
fn a_fid_that_cannot_be_got_again_fails_until_it_is_clunked() {
    for (what, number) in [("gone", 2), ("another", 116)] {
        let (fake, proxy, mut client) = opened();
        let is_gone = what == "gone";
        fake.lock().qid_path += u64::from(!is_gone);
        fake.script(move |request| match request.kind {
            TWALK if is_gone => Act::Send(rlerror(request.tag, 2)),
            _ => Act::Normal,
        });
        fake.hang_up();
        assert_eq!(client.read_at(1, 0, 100).unwrap_err().unwrap(), number, "{what}");
        let lost = proxy.event("a fid is lost", |event| matches!(event, ProxyEvent::FidLost { .. }));
        assert!(lost.to_string().contains("/folder/file is lost"), "{lost}");
        assert_eq!(client.write_at(1, 0, b"x").unwrap_err().unwrap(), number, "{what}");
        client.ask(TCLUNK, &1u32.to_le_bytes()).unwrap();
        // The number is free again.
        fake.script(|_| Act::Normal);
        client.walk(0, 1, &["folder", "file"]);
        client.open(1, 0);
        assert_eq!(client.read_at(1, 0, 100).unwrap(), sample_bytes(100));
    }
}

/// Writes that were answered and may be lost are told by the first sync.
#[test]
fn a_sync_after_a_restart_with_unsynced_writes_fails_once() {
    let (fake, _proxy, mut client) = opened();
    client.write_at(1, 0, &[7; 100]).unwrap();
    client.sync(1).unwrap();
    fake.crash();
    client.sync(1).unwrap();
    client.write_at(1, 0, &[8; 100]).unwrap();
    fake.crash();
    assert_eq!(client.sync(1).unwrap_err().unwrap(), 5);
    client.write_at(1, 0, &[8; 100]).unwrap();
    client.sync(1).unwrap();
    assert_eq!(fake.lock().durable[..100], [8; 100]);
    // One that is with the server meanwhile.
    client.write_at(1, 0, &[9; 100]).unwrap();
    fake.script_for(TFSYNC, |_| Act::Keep);
    client.send(TFSYNC, 4, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    fake.kept(1);
    fake.script(|_| Act::Normal);
    fake.crash();
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.tag, answer.u32(0)), (7, 4, 5));
}

/// In 9P2000 a folder is read on from where it was read, or from its start: the proxy reads it up to there again.
#[test]
fn reading_a_folder_goes_on_where_it_was() {
    let entries = sample_bytes(1000);
    for is_changed in [false, true] {
        let fake = Fake::new(b"");
        fake.lock().dialect = "9P2000";
        let up_to = Mutex::new(0);
        let entry_bytes = Arc::new(AtomicUsize::new(100));
        let its_entry_bytes = Arc::clone(&entry_bytes);
        // Entries of 100 bytes. A connection that reads from elsewhere than where it was is refused.
        fake.script(move |request| match request.kind {
            TATTACH => {
                *up_to.lock().unwrap() = 0;
                Act::Normal
            }
            TREAD => {
                let (start, mut up_to) = (request.offset() as usize, up_to.lock().unwrap());
                if start != *up_to {
                    return Act::Send(message(107, request.tag, &string("bad offset")));
                }
                let entry_bytes = its_entry_bytes.load(Ordering::Relaxed);
                let count = request.count() as usize / entry_bytes * entry_bytes;
                *up_to = (start + count).min(1000);
                Act::Send(crate::fake::rread(request.tag, &entries[start..*up_to]))
            }
            _ => Act::Normal,
        });
        let proxy = Running::new(&address(&fake), ProxyOptions::new());
        let mut client = Plain::speaking(&proxy.address, "9P2000");
        let fids = [0u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        client.ask(TATTACH, &[&fids[..], &string("u"), &string("")].concat()).unwrap();
        fake.lock().is_folder = true;
        client.ask(112, &[0, 0, 0, 0, 0]).unwrap();
        for start in [0, 100, 200, 300] {
            let read = client.read_at(0, start, 180).unwrap();
            assert_eq!(read, entries[start as usize..start as usize + 100]);
        }
        entry_bytes.store(if is_changed { 70 } else { 100 }, Ordering::Relaxed);
        fake.hang_up();
        let read = client.read_at(0, 400, 180);
        match is_changed {
            false => assert_eq!(read.unwrap(), entries[400..500]),
            true => assert!(read.is_err()),
        }
    }
}

/// Tflush while the server is there, and while it is not.
#[test]
fn flushes_are_answered() {
    let (fake, _proxy, mut client) = opened();
    let read = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes(), &100u32.to_le_bytes()].concat();
    fake.script_for(TREAD, |_| Act::Keep);
    client.send(TREAD, 7, &read).unwrap();
    fake.kept(1);
    client.send(TFLUSH, 8, &7u16.to_le_bytes()).unwrap();
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.tag), (TFLUSH + 1, 8));
    // The tag can be used again, and its request waits for a server that is away.
    fake.refuse(true);
    fake.hang_up();
    client.send(TREAD, 7, &read).unwrap();
    client.send(TFLUSH, 8, &7u16.to_le_bytes()).unwrap();
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.tag), (TFLUSH + 1, 8));
    fake.script(|_| Act::Normal);
    fake.refuse(false);
    assert_eq!(client.read_at(1, 0, 100).unwrap(), sample_bytes(100));
}

/// A silence is told; a server that is slow but alive keeps its connection, and one that is not loses it.
#[test]
fn a_server_that_hangs_is_told_of_and_left() {
    let fake = Fake::new(sample_bytes(LENGTH));
    let (told, limit) = (Duration::from_millis(20), Duration::from_millis(400));
    let proxy = Running::new(&address(&fake), ProxyOptions::new().silence_told(told).silence(limit));
    let mut client = Plain::new(&proxy.address);
    client.attach(0, "");
    client.walk(0, 1, &["folder", "file"]);
    client.open(1, 0);
    let read = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes(), &100u32.to_le_bytes()].concat();
    fake.script_for(TREAD, |_| Act::Keep);
    client.send(TREAD, 7, &read).unwrap();
    let kept = fake.kept(1);
    proxy.event("it is silent", |event| matches!(event, ProxyEvent::ServerSilent { .. }));
    proxy.event("it answers the probe", |event| matches!(event, ProxyEvent::ServerAnswers { .. }));
    assert_eq!(fake.connections(), 1);
    fake.answer(&kept[0]);
    assert_eq!(client.receive().unwrap().tag, 7);
    // Now it does not answer the probe either.
    fake.script(|request| if matches!(request.kind, TREAD | TFLUSH) { Act::Keep } else { Act::Normal });
    client.send(TREAD, 7, &read).unwrap();
    fake.kept(2);
    fake.script(|_| Act::Normal);
    assert_eq!(client.receive().unwrap().tag, 7);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn a_client_that_cannot_go_on_is_ended_with_the_reason() {
    // Smaller messages.
    let (fake, proxy, mut client) = opened();
    fake.lock().msize = 8192;
    fake.hang_up();
    assert!(client.read_at(1, 0, 100).unwrap_err().is_err());
    let ended = proxy.event("the client ends", |event| matches!(event, ProxyEvent::ClientEnded { .. }));
    assert!(ended.to_string().contains("messages of 65536 bytes"), "{ended}");
    // Authentication.
    let (fake, proxy, mut client) = opened();
    let script = |request: &crate::fake::Request| match request.kind {
        102 => Act::Send(message(103, request.tag, &[0; 13])),
        _ => Act::Normal,
    };
    fake.script(script);
    client.ask(102, &[&77u32.to_le_bytes()[..], &string("u"), &string(""), &[0; 4]].concat()).unwrap();
    fake.hang_up();
    assert!(client.read_at(1, 0, 100).unwrap_err().is_err());
    let ended = proxy.event("the client ends", |event| matches!(event, ProxyEvent::ClientEnded { .. }));
    assert!(ended.to_string().contains("authenticated"), "{ended}");
    // A protocol that is none.
    let mut client = Plain::new(&proxy.address);
    client.send(TREAD, 1, &[1, 2]).unwrap();
    assert!(client.receive().is_err());
}

/// A client that asks without reading is not read any more, and uses no more memory.
#[test]
fn a_client_that_asks_too_much_waits() {
    let fake = Fake::new(sample_bytes(LENGTH));
    let proxy = Running::new(&address(&fake), ProxyOptions::new().requests(4, 1 << 20).fids(3));
    let mut client = Plain::new(&proxy.address);
    client.attach(0, "");
    client.walk(0, 1, &["folder", "file"]);
    client.open(1, 2);
    fake.script_for(TWRITE, |_| Act::Keep);
    let write = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes(), &9u32.to_le_bytes(), &[7; 9]].concat();
    (10..30).for_each(|tag| client.send(TWRITE, tag, &write).unwrap());
    let mut answered = 0;
    while answered < 20 {
        let kept = fake.kept(1);
        answered += kept.len();
        assert!(kept.len() <= 4);
        kept.iter().for_each(|request| fake.answer(request));
    }
    (0..20).for_each(|_| assert_eq!(client.receive().unwrap().kind, TWRITE + 1));
    client.walk(0, 2, &["folder", "file"]);
    let body = [&0u32.to_le_bytes()[..], &3u32.to_le_bytes(), &0u16.to_le_bytes()].concat();
    assert_eq!(client.ask(TWALK, &body).unwrap_err().unwrap(), 24);
}

#[test]
fn stop_ends_clients_and_threads() {
    let (fake, proxy, mut client) = opened();
    fake.script_for(TREAD, |_| Act::Keep);
    let read = [&1u32.to_le_bytes()[..], &0u64.to_le_bytes(), &100u32.to_le_bytes()].concat();
    client.send(TREAD, 7, &read).unwrap();
    fake.kept(1);
    drop(proxy);
    assert!(client.receive().is_err());
    wait_until("the server is left", || fake.is_left());
}
