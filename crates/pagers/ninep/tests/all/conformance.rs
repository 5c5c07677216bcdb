//! What every pager must do, with every server and dialect.

use memobj_9p::{Dialect, NineOptions, NinePager, OpenStep, VersionCheck};
use memobj_servers::{Kind, Server};
use memobj_sim::conformance;
use memobj_sim::fixture::{MIB, sample_bytes};

const SERVERS: [(Kind, Dialect); 4] = [
    (Kind::Diod, Dialect::Linux),
    (Kind::Unpfs, Dialect::Linux),
    (Kind::Py9pUnix, Dialect::Unix),
    (Kind::Py9p, Dialect::Plan9),
];

#[test]
fn every_server_passes_the_suite() {
    for (kind, dialect) in SERVERS {
        let Some(server) = Server::start(kind) else { continue };
        // py9p answers some requests only after 40 ms: Nagle.
        let largest = if dialect == Dialect::Linux { 3 * MIB + 5 } else { 70_001 };
        for length in [0, 1, 4096, 70_000, largest] {
            let url = server.file("sample", sample_bytes(length));
            // py9p answers 9P2000 to whoever offers more at first.
            let options = if dialect == Dialect::Linux {
                NineOptions::new()
            } else {
                NineOptions::new().dialect(dialect)
            };
            let make = || NinePager::open(&url, options.clone()).unwrap();
            assert_eq!(make().dialect(), dialect);
            conformance::run_answering(make, sample_bytes(length));
        }
    }
}

#[test]
fn every_check_and_size_of_messages_passes_the_suite() {
    let Some(server) = Server::start(Kind::Diod) else { return };
    let url = server.file("sample", sample_bytes(MIB + 77));
    for check in [VersionCheck::Strict, VersionCheck::Mtime, VersionCheck::None] {
        for msize_bytes in [8192, 65_536, 1 << 20] {
            let options = NineOptions::new().version(check).msize_bytes(msize_bytes).depth(16);
            let make = || NinePager::open(&url, options.clone()).unwrap();
            conformance::run_answering(make, sample_bytes(MIB + 77));
        }
    }
}

#[test]
fn every_dialect_of_the_scripted_server_passes_the_suite() {
    for dialect in Dialect::ALL {
        let fake = crate::fake::Fake::new(sample_bytes(200_001));
        fake.lock().dialect = dialect.name();
        let make = || NinePager::open(&fake.url(), NineOptions::new()).unwrap();
        assert_eq!(make().dialect(), dialect);
        conformance::run_answering(make, sample_bytes(200_001));
    }
}

#[test]
fn a_unix_socket_passes_the_suite() {
    let Some(server) = Server::start_on_socket() else { return };
    let url = server.file("sample", sample_bytes(MIB));
    conformance::run_answering(|| NinePager::open(&url, NineOptions::new()).unwrap(), sample_bytes(MIB));
}

/// Each step of opening says that it was it.
#[test]
fn the_step_that_fails_is_named() {
    let step = |url: &str| NinePager::open(url, NineOptions::new()).unwrap_err();
    assert_eq!(*step("9p://h:x/").step(), OpenStep::Url);
    let nobody = memobj_servers::Listen::free_port();
    let memobj_servers::Listen::Port(port) = nobody else { panic!() };
    assert_eq!(*step(&format!("9p://127.0.0.1:{port}/f")).step(), OpenStep::Connect);
    assert_eq!(*step("9p://no-such-host.invalid/f").step(), OpenStep::Resolve);
    for (kind, _) in SERVERS {
        let Some(server) = Server::start(kind) else { continue };
        std::fs::create_dir_all(server.path("a/b")).unwrap();
        server.file("a/b/c", b"x");
        let error = step(&server.url("a/x/c"));
        assert_eq!(*error.step(), OpenStep::Walk("x".into()), "{error}");
        assert_eq!(error.kind(), memobj::ErrorKind::Stale, "{error}");
        assert_eq!(*step(&server.url("a/b")).step(), OpenStep::Open);
        assert_eq!(*step(&server.url("")).step(), OpenStep::Open);
        let dialect = if kind == Kind::Diod { Dialect::Plan9 } else { Dialect::Linux };
        let opened = NinePager::open(&server.url("a/b/c"), NineOptions::new().dialect(dialect));
        // unpfs agrees to whatever it is offered.
        if kind != Kind::Unpfs {
            let error = opened.unwrap_err();
            assert_eq!(*error.step(), OpenStep::Version, "{error}");
        }
        if kind == Kind::Diod {
            let error = step(&server.url("a/b/c").replace("aname=", "aname=/nowhere"));
            assert_eq!(*error.step(), OpenStep::Attach, "{error}");
        }
    }
}

/// More names than fit into one Twalk.
#[test]
fn a_deep_path_is_walked_in_steps() {
    for (kind, _) in SERVERS {
        let Some(server) = Server::start(kind) else { continue };
        let deep: String = (0..40).map(|index| format!("d{index}/")).collect();
        std::fs::create_dir_all(server.path(&deep)).unwrap();
        let url = server.file(&format!("{deep}file"), b"deep");
        let mut opened = Vec::new();
        for _ in 0..3 {
            let pager = NinePager::open(&url, NineOptions::new());
            opened.push(pager.unwrap_or_else(|error| panic!("{error}; {}", server.output())));
        }
        conformance::run_answering(|| NinePager::open(&url, NineOptions::new()).unwrap(), b"deep");
    }
}
