//! Every kind of error, but `system`, which takes a system that refuses.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use memobj::GuestProt;
use memobj::pagers::Zero;
use memobj_serve::control::{Access, Client, ClientError, Quota, ServerOptions};

use memobj_sim::Gate;

use crate::fixture::{Fixture, wait_until};
use crate::verbs::slow;

#[track_caller]
fn refused(client: &mut Client, request: &str) -> ClientError {
    client.request(request).expect_err(request)
}

#[track_caller]
fn check(client: &mut Client, request: &str, kind: &str) {
    let error = refused(client, request);
    assert_eq!(error.kind(), Some(kind), "{request}: {error}");
    assert!(error.get("message").is_some_and(|message| !message.is_empty()), "{request}: {error:?}");
}

#[test]
fn bad_lines_and_arguments_are_syntax() {
    let fixture = Fixture::new();
    let mut raw = fixture.raw();
    assert_eq!(raw.line(), "memobj 1 session=1");
    for (line, tag) in
        [("", "?"), (" ", "?"), ("1", "1"), ("a  stats", "a"), ("\u{7f} x", "?"), ("1 a\tb", "1")]
    {
        let answer = raw.ask(line);
        assert!(answer.starts_with(&format!("{tag} error syntax message=")), "{line:?}: {answer}");
    }
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    let requests = [
        "open",
        "open sample xx",
        "open sample policy=never",
        "open sample policy=retry:",
        "open %4",
        "close",
        "close x",
        "close -1",
        "close +1",
        "close 18446744073709551616",
        "close 1 2",
        "length 1 2",
        "populate 1 0",
        "populate 1 0 1 2",
        "prefetch 1 0",
        "advise 1",
        "advise 1 0 1",
        "advise 1 0 1 often",
        "retry 1 x 1",
        "sync 1 0",
        "discard 1 0",
        "read",
        "events",
        "events maybe",
        "unmap",
        "stats 1",
        "quit now",
        "exports x",
    ];
    requests.iter().for_each(|request| check(&mut client, request, "syntax"));
    check(&mut client, "frobnicate 1", "verb");
    check(&mut client, "OPEN words", "verb");
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused() {
    let fixture = Fixture::with_exports(ServerOptions::new(), |exports| {
        exports.file("gone", "/nowhere/at/all", Access::ReadOnly);
    });
    let mut client = fixture.client();
    for request in ["open nothing", "close 7", "length 7", "read 7 0 1", "populate 7", "sync 7", "unmap 7"] {
        check(&mut client, request, "not-found");
    }
    check(&mut client, "open gone", "open");
    check(&mut client, "open sample rw", "denied");
    check(&mut client, "open file rw", "denied");
    client.request("open words").unwrap();
    check(&mut client, "sync 1", "denied");
    check(&mut client, "discard 1", "denied");
    assert_eq!(client.map(1, GuestProt::ReadWrite).unwrap_err().kind(), Some("denied"));
    check(&mut client, "populate 1 1048575 2", "range");
    check(&mut client, "populate 1 18446744073709551615 1", "range");
    check(&mut client, "read 1 0 1025", "range");
    // And the number that it has.
    let error = refused(&mut client, "populate 1 0 1048577");
    assert_eq!(error.get("length").as_deref(), Some("1048576"));
}

#[test]
fn who_wants_another_policy_or_has_mappings_is_told() {
    let fixture = Fixture::new();
    let (mut one, mut two) = (fixture.client(), fixture.client());
    one.request("open words policy=retry:100").unwrap();
    let error = refused(&mut two, "open words policy=wait");
    assert_eq!((error.kind(), error.get("policy").as_deref()), (Some("conflict"), Some("retry:100")));
    two.request("open words policy=retry:100").unwrap();
    assert_eq!(two.request("open words").unwrap().get("policy").as_deref(), Some("retry:100"));
    let _mapped = one.map(1, GuestProt::ReadOnly).unwrap();
    let error = refused(&mut one, "close 1");
    assert_eq!((error.kind(), error.get("mappings").as_deref()), (Some("in-use"), Some("1")));
}

#[test]
fn quotas_are_errors_and_come_back() {
    let quota = Quota::new().objects(2).mappings(2).mapped_bytes(3 << 20).descriptors(62);
    let fixture = Fixture::with_exports(ServerOptions::new().quota(quota), |exports| {
        exports.object("large", Access::ReadOnly, |_| Ok(Box::new(Zero::new((3 << 20) + 1))));
    });
    let mut client = fixture.client();
    let quota = |error: ClientError, which: &str| {
        assert_eq!((error.kind(), error.get("which").as_deref()), (Some("quota"), Some(which)), "{error}");
    };
    client.request("open sample").unwrap();
    client.request("open large").unwrap();
    quota(refused(&mut client, "open words"), "objects");
    quota(client.map(2, GuestProt::ReadOnly).unwrap_err(), "mapped-bytes");
    let _one = client.map(1, GuestProt::ReadOnly).unwrap();
    let _two = client.map(1, GuestProt::ReadOnly).unwrap();
    quota(client.map(1, GuestProt::ReadOnly).unwrap_err(), "mappings");
    client.request("unmap 1").unwrap();
    client.request("close 2").unwrap();
    let _three = client.map(1, GuestProt::ReadOnly).unwrap();
    // 4 for each client, 9 for each object, 4 for each mapping.
    let mut others: Vec<Client> = (0..10).map(|_| fixture.client()).collect();
    quota(refused(&mut others[0], "open words"), "descriptors");
    others.truncate(7);
    wait_until("the descriptors are back", || others[0].request("open words").is_ok());
}

#[test]
fn an_object_has_so_many_guests_and_no_more() {
    let fixture = Fixture::with(ServerOptions::new().quota(Quota::new().guests(5)));
    let (mut one, mut two) = (fixture.client(), fixture.client());
    one.request("open sample").unwrap();
    two.request("open sample").unwrap();
    let mut mapped: Vec<_> = (0..5).map(|_| one.map(1, GuestProt::ReadOnly).unwrap()).collect();
    let error = two.map(1, GuestProt::ReadOnly).unwrap_err();
    assert_eq!((error.kind(), error.get("which").as_deref()), (Some("quota"), Some("guests")), "{error}");
    // Of another object there may be others.
    two.request("open words").unwrap();
    let _other = two.map(2, GuestProt::ReadOnly).unwrap();
    drop(mapped.pop());
    wait_until("one guest is less", || two.map(1, GuestProt::ReadOnly).is_ok());
}

#[test]
fn too_many_long_requests_are_busy() {
    let gate = Gate::default();
    let quota = Quota::new().requests(2).all_requests(3);
    let fixture = Fixture::with_exports(ServerOptions::new().quota(quota), |exports| slow(exports, &gate));
    let mut clients = [fixture.client(), fixture.client(), fixture.client()];
    let mut begun = Vec::new();
    for client in &mut clients {
        client.request("open slow").unwrap();
        // The first of each is always taken.
        begun.push(client.begin("populate 1 0 4096").unwrap());
        // Answered when that was taken.
        assert_eq!(client.request("stats").unwrap().number("running").unwrap(), 1);
    }
    check(&mut clients[0], "populate 1 0 4096", "busy");
    gate.open();
    for (client, tag) in clients.iter_mut().zip(begun) {
        client.answer(&tag).unwrap();
        wait_until("room for requests", || client.request("populate 1 0 4096").is_ok());
    }
}

#[test]
fn a_client_has_so_many_long_requests_and_no_more() {
    let gate = Gate::default();
    let options = ServerOptions::new().quota(Quota::new().requests(2));
    let fixture = Fixture::with_exports(options, |exports| slow(exports, &gate));
    let mut client = fixture.client();
    client.request("open slow").unwrap();
    let begun = [client.begin("populate 1 0 4096").unwrap(), client.begin("populate 1 4096 1").unwrap()];
    let error = refused(&mut client, "populate 1");
    assert_eq!((error.kind(), error.get("most").as_deref()), (Some("busy"), Some("2")));
    gate.open();
    for tag in begun {
        assert!(client.answer(&tag).is_ok());
    }
}

#[test]
fn descriptors_are_looked_at() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open sample").unwrap();
    check(&mut client, "open-descriptor", "descriptor");
    check(&mut client, "map 1 ro", "descriptor");
    let path = fixture.path("folder/file");
    let (pipe, _writer) = std::io::pipe().unwrap();
    let folder = std::fs::File::open(fixture.path("folder")).unwrap();
    let written = std::fs::File::options().append(true).open(&path).unwrap();
    let flags = rustix::fs::OFlags::PATH;
    let only_path = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let socket = UnixStream::pair().unwrap().0;
    let bad: [(&str, std::os::fd::BorrowedFd<'_>); 6] = [
        ("a pipe", std::os::fd::AsFd::as_fd(&pipe)),
        ("a folder", std::os::fd::AsFd::as_fd(&folder)),
        ("a file to write", std::os::fd::AsFd::as_fd(&written)),
        ("a path", std::os::fd::AsFd::as_fd(&only_path)),
        ("a device", std::os::fd::AsFd::as_fd(&null)),
        ("a socket", std::os::fd::AsFd::as_fd(&socket)),
    ];
    for (what, descriptor) in bad {
        let error = client.request_with("open-descriptor", descriptor).expect_err(what);
        assert_eq!(error.kind(), Some("descriptor"), "{what}: {error}");
    }
    let error = client.request_with("map 1 ro", &null).unwrap_err();
    assert_eq!(error.kind(), Some("descriptor"));
    // A file that does not tell its length.
    let maps = std::fs::File::open("/proc/self/maps").unwrap();
    assert_eq!(client.request_with("open-descriptor", &maps).unwrap_err().kind(), Some("open"));
}

#[test]
fn who_does_not_attach_is_told_why() {
    let fixture = Fixture::with(ServerOptions::new().attach(Duration::from_millis(100)));
    let mut client = fixture.client();
    client.request("open sample").unwrap();
    let mut why = |prepare: &dyn Fn(&mut UnixStream)| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        prepare(&mut ours);
        let error = client.request_with("map 1 ro", &theirs).unwrap_err();
        assert_eq!(error.kind(), Some("attach"), "{error}");
        error.get("why").unwrap()
    };
    assert_eq!(why(&|_| {}), "timed-out");
    assert_eq!(why(&|ours| ours.shutdown(std::net::Shutdown::Both).unwrap()), "hung-up");
    assert_eq!(why(&|ours| ours.write_all(&[0xa5; 48]).unwrap()), "peer");
    let stats = client.request("stats").unwrap();
    assert_eq!((stats.number("mappings").unwrap(), stats.number("mapped-bytes").unwrap()), (0, 0));
}
