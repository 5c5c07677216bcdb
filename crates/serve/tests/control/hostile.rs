//! Clients that do what clients do not do. Others are served all the while, and nothing is left of them.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memobj::GuestProt;
use memobj_linux::area::GuestAccess;
use memobj_linux::line::{Answer, Line};
use memobj_linux::remote::RemoteView;
use memobj_serve::control::{Client, Quota, ServerOptions};
use memobj_sim::fixture::sample_bytes;
use memobj_sim::process::{Usage, alone, part, start};
use memobj_sim::random::Random;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::fixture::{Fixture, LENGTH, PATIENCE, Raw, wait_until};
use crate::sharing::{is_as_before, warm};

/// Runs `attack`, with a client beside it that is served before and after. Then all is as before. In a process of its own,
/// whose descriptors are counted.
#[track_caller]
fn beside_a_good_one(name: &str, options: ServerOptions, attack: impl FnOnce(&Fixture)) {
    alone(name, || beside(options, attack));
}

fn beside(options: ServerOptions, attack: impl FnOnce(&Fixture)) {
    let fixture = Fixture::with(options);
    let before = warm(&fixture);
    let mut good = fixture.client();
    good.request("open sample").unwrap();
    let (mapping, _) = good.map(1, GuestProt::ReadOnly).unwrap();
    attack(&fixture);
    good.request("advise 1 0 1048576 dontneed").unwrap();
    let mut bytes = vec![0; LENGTH as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes == sample_bytes(LENGTH));
    let mut late = fixture.client();
    late.request("open words rw").unwrap();
    late.map(1, GuestProt::ReadWrite).unwrap().0.write_at(0, b"fine").unwrap();
    drop((mapping, good, late));
    is_as_before(&fixture, before);
}

fn send_with(stream: &UnixStream, text: &str, descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let piece = &[IoSlice::new(text.as_bytes())];
    assert_eq!(sendmsg(stream, piece, &mut control, SendFlags::empty()).unwrap(), text.len());
}

#[test]
fn garbage_is_answered_or_dropped() {
    beside_a_good_one("garbage_is_answered_or_dropped", ServerOptions::new(), |fixture| {
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        let mut random = Random::new(seed);
        for _ in 0..50 {
            let mut raw = fixture.raw();
            let bytes: Vec<u8> = (0..10_000).map(|_| random.below(256) as u8).collect();
            // The server may hang up before it has all.
            let _ = raw.0.write_all(&bytes);
            let _ = raw.0.shutdown(std::net::Shutdown::Write);
            raw.rest();
        }
    });
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    beside_a_good_one("a_line_that_is_too_long_ends_the_connection", ServerOptions::new(), |fixture| {
        for line in ["x".repeat(4096), format!("{}\n", "x".repeat(4096)), "1 ".repeat(100_000)] {
            let mut raw = fixture.raw();
            let _ = raw.0.write_all(line.as_bytes());
            let rest = raw.rest();
            assert!(rest.contains("? error syntax ") || rest.lines().count() <= 1, "{rest}");
        }
        fixture.wait_for_log("is dropped: a line is too long");
        // One byte less is a line.
        let mut raw = fixture.raw();
        raw.line();
        assert!(raw.ask(&"x".repeat(4095)).starts_with("? error syntax "));
        assert!(raw.ask("1 quit").starts_with("1 ok"));
    });
}

#[test]
fn half_a_line_and_silence_is_dropped() {
    let options = ServerOptions::new().first_request(Duration::from_millis(200));
    beside_a_good_one("half_a_line_and_silence_is_dropped", options, |fixture| {
        let mut raw = fixture.raw();
        raw.send("1 sta");
        assert_eq!(raw.rest().lines().count(), 1);
        fixture.wait_for_log("is dropped: it sent no request");
    });
}

#[test]
fn a_million_requests_are_quota_errors() {
    beside_a_good_one("a_million_requests_are_quota_errors", ServerOptions::new(), |fixture| {
        let mut raw = fixture.raw();
        let mut sending = raw.0.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let lines = "1 open sample\n".repeat(1000);
            (0..100).for_each(|_| sending.write_all(lines.as_bytes()).unwrap());
            sending.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let rest = raw.rest();
        sender.join().unwrap();
        let refused = rest.lines().filter(|line| line.starts_with("1 error quota which=objects ")).count();
        assert_eq!((rest.lines().count(), refused), (100_001, 100_000 - 64));
    });
}

#[test]
fn descriptors_that_nobody_wants_are_closed() {
    beside_a_good_one("descriptors_that_nobody_wants_are_closed", ServerOptions::new(), |fixture| {
        let (pipe, _writer) = std::io::pipe().unwrap();
        let mut raw = fixture.raw();
        raw.line();
        raw.ask("1 open sample");
        let before = Usage::now().descriptors;
        for count in [1, 2, 4, 5, 64] {
            let descriptors = vec![pipe.as_fd(); count];
            send_with(&raw.0, "2 stats\n", &descriptors);
            assert!(raw.line().starts_with("2 ok "));
            send_with(&raw.0, "3 map 1 ro\n", &descriptors);
            assert!(raw.line().starts_with("3 error descriptor "));
            send_with(&raw.0, "4 open-descriptor\n", &descriptors);
            assert!(raw.line().starts_with("4 error descriptor "));
            // With half a line, again and again.
            send_with(&raw.0, "5 open-", &descriptors);
            send_with(&raw.0, "descr", &descriptors);
            raw.send("iptor\n");
            assert!(raw.line().starts_with("5 error descriptor "));
        }
        // While the client is still there.
        wait_until("descriptors that nobody wants are closed", || Usage::now().descriptors <= before);
        // Nobody reads the next line.
        send_with(&raw.0, "6 ma", &[pipe.as_fd()]);
    });
}

#[test]
fn who_never_reads_answers_is_dropped() {
    let options = ServerOptions::new().stall(Duration::from_millis(300));
    beside_a_good_one("who_never_reads_answers_is_dropped", options, |fixture| {
        let raw = fixture.raw();
        let mut sending = raw.0.try_clone().unwrap();
        // Until the server takes no more, and then until it hangs up.
        while sending.write_all("1 stats\n".repeat(1000).as_bytes()).is_ok() {}
        fixture.wait_for_log("is dropped: it does not read its answers");
        drop(raw);
    });
}

#[test]
fn who_never_reads_events_loses_them_and_stays() {
    let options = ServerOptions::new().quota(Quota::new().event_bytes(1000));
    beside_a_good_one("who_never_reads_events_loses_them_and_stays", options, |fixture| {
        let mut raw = fixture.raw();
        raw.line();
        raw.ask("1 open words");
        assert_eq!(raw.ask("2 events on"), "2 ok");
        fixture.inject(memobj::pagers::Operation::Supply, 0..LENGTH, None);
        let mut other = fixture.client();
        other.request("open words").unwrap();
        let begin = Instant::now();
        while fixture.handle.statistics().lost_events == 0 {
            assert!(begin.elapsed() < PATIENCE, "no event was lost");
            let _ = other.request("populate 1");
            other.request("retry 1").unwrap();
        }
        fixture.pager().heal(memobj::pagers::Operation::Supply);
        while !raw.line().starts_with("* lost count=") {}
        raw.send("3 quit\n");
        assert!(raw.rest().lines().any(|line| line == "3 ok"));
    });
}

#[test]
fn there_are_so_many_clients_and_no_more() {
    let options = ServerOptions::new().quota(Quota::new().clients(4));
    beside_a_good_one("there_are_so_many_clients_and_no_more", options, |fixture| {
        let mut raws: Vec<Raw> = (0..20).map(|_| fixture.raw()).collect();
        let greetings: Vec<String> = raws.iter_mut().map(Raw::line).collect();
        let refused = greetings.iter().filter(|line| *line == "memobj 1 refused why=too-many-clients");
        assert_eq!(refused.count(), 17);
        fixture.wait_for_log("is refused: too-many-clients");
        // As they leave others may come.
        drop(raws);
        wait_until("a free place", || Client::connect(fixture.path("socket")).is_ok());
        wait_until("only the good one", || fixture.handle.statistics().clients == 1);
    });
}

/// A userfaultfd of a process that has died meanwhile.
#[test]
fn the_userfaultfd_of_a_dead_process_is_refused_or_ends() {
    const NAME: &str = "the_userfaultfd_of_a_dead_process_is_refused_or_ends";
    if let Some(path) = part(NAME).filter(|part| part != "alone") {
        return give_view_away(&path);
    }
    beside_a_good_one(NAME, ServerOptions::new(), |fixture| {
        let mut client = fixture.client();
        client.request("open sample").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut child = start(NAME, path.to_str().unwrap());
        let (stream, _) = listener.accept().unwrap();
        // The child has the other end, answers and dies at once.
        let answer = client.request_with("map 1 ro", &stream);
        drop(stream);
        child.wait(30);
        let is_told = matches!(&answer, Err(error) if error.kind() == Some("attach"));
        assert!(is_told || answer.is_ok(), "{answer:?}");
        wait_until("the mapping has ended", || {
            client.request("stats").unwrap().number("mappings").unwrap() == 0
        });
    });
}

/// Answers an offer as a guest does, and ends without waiting.
fn give_view_away(path: &str) {
    let line = Line::new(UnixStream::connect(path).unwrap());
    let deadline = Instant::now() + PATIENCE;
    let offer = line.receive_offer(deadline).unwrap();
    let view = RemoteView::new(&offer.frames, offer.view_bytes, GuestAccess::Load, None).unwrap();
    let faults = view.faults().try_clone_to_owned().unwrap();
    let process =
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let answer = Answer { faults, process: process.unwrap(), start: view.start() as u64, part: None };
    line.answer(&answer, deadline).unwrap();
    std::process::exit(0);
}

/// A client that touches holes of the frame file unseen: others never read the zeros that the kernel puts there.
#[test]
fn holes_that_a_client_touches_unseen_are_no_zeros_for_others() {
    beside_a_good_one(
        "holes_that_a_client_touches_unseen_are_no_zeros_for_others",
        ServerOptions::new(),
        |fixture| {
            let (mut client, mut other) = (fixture.client(), fixture.client());
            client.request("open sample").unwrap();
            other.request("open sample").unwrap();
            let (mapping, _) = other.map(1, GuestProt::ReadOnly).unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let tag = std::thread::spawn(move || {
                let line = Line::new(ours);
                let offer = line.receive_offer(Instant::now() + PATIENCE).unwrap();
                let file = std::fs::File::from(offer.frames);
                // The kernel's own mapping, registered with nothing.
                let view = memobj_linux::peer::FileView::map(&file).unwrap();
                (0..LENGTH / 4096).map(|page| view.load_u64(page * 4096)).filter(|word| *word == 0).count()
            });
            assert_eq!(client.request_with("map 1 ro", &theirs).unwrap_err().kind(), Some("attach"));
            drop(theirs);
            println!("{} pages were holes", tag.join().unwrap());
            let mut bytes = vec![0; LENGTH as usize];
            mapping.read_at(0, &mut bytes).unwrap();
            assert!(bytes == sample_bytes(LENGTH));
        },
    );
}
