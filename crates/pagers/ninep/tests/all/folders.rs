//! Folders of real servers, and of one that answers what real ones do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memobj::ErrorKind;
use memobj::pagers::Pager;
use memobj_9p::{MOST_ENTRIES, NineEntry, NineEntryKind, NineFolder, NineOptions, NinePager, OpenStep};
use memobj_servers::{Kind, Server};
use memobj_sim::fixture::{check_sample, sample_bytes};

use crate::asking::supply;
use crate::fake::{
    Act, Fake, Request, TGETATTR, TLOPEN, TREAD, TREADDIR, TSTAT, TWALK, message, rlerror, rread,
};

/// Names, with `/` behind those of folders.
fn names(entries: Option<Vec<NineEntry>>) -> Vec<String> {
    let name = |entry: &NineEntry| match entry.kind {
        NineEntryKind::Folder => format!("{}/", entry.name),
        _ => entry.name.clone(),
    };
    entries.expect("it is there").iter().map(name).collect()
}

fn each_server(test: impl Fn(&Server)) {
    for kind in [Kind::Diod, Kind::Unpfs, Kind::Py9p, Kind::Py9pUnix] {
        if let Some(server) = Server::start(kind) {
            test(&server);
        }
    }
}

#[test]
fn a_folder_of_a_server_is_a_tree() {
    each_server(|server| {
        let long = "n".repeat(255);
        std::fs::create_dir_all(server.path("tree/sub/deep")).unwrap();
        for name in ["tree/a", "tree/sub/deep/c", "tree/a b%+\u{e9}", &format!("tree/{long}")] {
            server.file(name, sample_bytes(10_000));
            set_modified(&server.path(name), 3);
        }
        std::os::unix::fs::symlink("a", server.path("tree/link")).unwrap();
        let folder = NineFolder::open(&server.url("tree/"), NineOptions::new()).unwrap();
        let (list, kind) = (folder.entries("").unwrap(), server.kind());
        let mut expected = vec!["a".to_owned(), "a b%+\u{e9}".into(), long.clone(), "sub/".into()];
        // py9p follows links, and cannot send names that are not of ASCII.
        let (mut found, is_diod) = (names(list), kind == Kind::Diod);
        if !is_diod {
            expected.retain(|name| name.is_ascii());
            found.retain(|name| name != "link" && name.is_ascii());
        }
        assert_eq!(found, expected, "{kind:?}");
        assert_eq!(names(folder.entries("sub").unwrap()), ["deep/"], "{kind:?}");
        assert_eq!(folder.entries("none").unwrap(), None, "{kind:?}");
        assert_eq!(folder.entry("").unwrap(), Some(NineEntryKind::Folder));
        assert_eq!(folder.entry("sub/deep").unwrap(), Some(NineEntryKind::Folder));
        for missing in ["none", "sub/none", "..", "sub//deep", "sub/"] {
            assert_eq!(folder.entry(missing).unwrap(), None, "{kind:?} {missing}");
        }
        if is_diod {
            assert_eq!(folder.entry("link").unwrap(), None);
            assert_eq!(folder.entry("a/x").unwrap(), None);
        }
        // The version that is seen is the one that is opened, until there is another.
        let version = |path: &str| match folder.entry(path).unwrap() {
            Some(NineEntryKind::File { length: 10_000, version, .. }) => version,
            other => panic!("{kind:?}: {other:?}"),
        };
        for path in ["a", "sub/deep/c", &long] {
            let pager = folder.pager(path).unwrap();
            assert_eq!(pager.describe().version_name(), version(path).as_deref(), "{kind:?} {path}");
            check_sample(5..9999, &supply(&pager, 5..9999).wait().unwrap(), path);
        }
        let old = version("a");
        std::fs::remove_file(server.path("tree/a")).unwrap();
        server.file("tree/b", b"takes the number of the file that is gone");
        server.file("tree/a", &vec![1; 10_000]);
        assert_eq!(version("a"), None, "the next change could have the same time");
        set_modified(&server.path("tree/a"), 5);
        assert_ne!(version("a"), old, "{kind:?}");
    });
}

/// A change so many seconds after 1970.
fn set_modified(path: &std::path::Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_list_of_many_names_is_whole() {
    each_server(|server| {
        std::fs::create_dir(server.path("many")).unwrap();
        // py9p makes the list anew for each part of it.
        let count = if [Kind::Py9p, Kind::Py9pUnix].contains(&server.kind()) { 300 } else { 3000 };
        (0..count)
            .for_each(|number| drop(server.file(&format!("many/{number:04}-{}", "x".repeat(100)), b"")));
        let options = NineOptions::new().msize_bytes(8192);
        let list = NineFolder::open(&server.url("many"), options).unwrap().entries("").unwrap().unwrap();
        assert_eq!(list.len(), count, "{:?}", server.kind());
        assert!(list.is_sorted_by(|one, other| one.name < other.name));
    });
}

#[test]
fn a_path_of_many_names_is_walked_in_pieces() {
    let Some(server) = Server::start(Kind::Diod) else { return };
    let path = (0..40).map(|number| number.to_string()).collect::<Vec<_>>().join("/");
    std::fs::create_dir_all(server.path(format!("tree/{path}"))).unwrap();
    server.file(&format!("tree/{path}/file"), b"x");
    let folder = NineFolder::open(&server.url("tree"), NineOptions::new()).unwrap();
    for _ in 0..3 {
        assert_eq!(folder.entry(&format!("{path}/none")).unwrap(), None);
        assert!(matches!(
            folder.entry(&format!("{path}/file")).unwrap(),
            Some(NineEntryKind::File { length: 1, .. })
        ));
        assert_eq!(names(folder.entries(&path).unwrap()), ["file"]);
    }
}

#[test]
fn what_is_no_folder_is_refused_and_a_folder_is_no_file() {
    each_server(|server| {
        std::fs::create_dir(server.path("tree")).unwrap();
        server.file("file", b"x");
        let open = |name| NineFolder::open(&server.url(name), NineOptions::new()).unwrap_err();
        let error = open("file");
        assert!(error.to_string().contains("/file") || *error.step() == OpenStep::Open, "{error}");
        assert_eq!(
            (open("none").kind(), open("none").step()),
            (ErrorKind::Stale, &OpenStep::Walk("none".into()))
        );
        let error = NinePager::open(&server.url("tree"), NineOptions::new()).unwrap_err();
        assert!(error.is_folder(), "{error}");
        let error = NineFolder::open(&server.url("tree"), NineOptions::new().writable()).unwrap_err();
        assert_eq!(*error.step(), OpenStep::Url);
    });
}

/// A connection that was lost is made anew, once; a server that is away is an error.
#[test]
fn a_server_that_was_restarted_is_asked_anew() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    std::fs::create_dir(server.path("tree")).unwrap();
    server.file("tree/a", b"x");
    let folder = NineFolder::open(&server.url("tree"), NineOptions::new()).unwrap();
    server.kill();
    assert_eq!(folder.entry("a").unwrap_err().kind(), ErrorKind::Io);
    assert!(server.run());
    assert!(folder.entry("a").unwrap().is_some());
    server.kill();
    assert!(server.run());
    assert!(folder.entry("a").unwrap().is_some(), "the connection that was kept is dead");
    assert_eq!(names(folder.entries("").unwrap()), ["a"]);
}

fn qid(kind: u8) -> Vec<u8> {
    [&[kind][..], &[0; 4], &7u64.to_le_bytes()].concat()
}

/// Walks to anything; all of it is a folder.
fn as_folder(request: &Request) -> Act {
    match request.kind {
        TWALK => {
            let count = u16::from_le_bytes([request.body[8], request.body[9]]);
            let qids = qid(0x80).repeat(count.into());
            Act::Send(message(TWALK + 1, request.tag, &[&count.to_le_bytes()[..], &qids].concat()))
        }
        TGETATTR => {
            let body =
                [&0x7ffu64.to_le_bytes()[..], &qid(0x80), &0o040_755u32.to_le_bytes(), &[0; 128]].concat();
            Act::Send(message(TGETATTR + 1, request.tag, &body))
        }
        TSTAT => {
            let record = record(0x80, b"folder");
            let size = u16::try_from(record.len()).unwrap();
            Act::Send(message(TSTAT + 1, request.tag, &[&size.to_le_bytes()[..], &record].concat()))
        }
        TLOPEN | 112 => {
            Act::Send(message(request.kind + 1, request.tag, &[&qid(0x80)[..], &[0; 4]].concat()))
        }
        _ => Act::Normal,
    }
}

/// A stat record of 9P2000.
fn record(kind: u8, name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap().to_le_bytes();
    let body = [&[0; 6][..], &qid(kind), &[0; 20], &length, name, &[0; 6]].concat();
    [&u16::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()
}

/// An entry of Rreaddir.
fn entry(next: u64, kind: u8, name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap().to_le_bytes();
    [&qid(0)[..], &next.to_le_bytes(), &[kind], &length, name].concat()
}

fn rreaddir(tag: u16, bytes: &[u8]) -> Vec<u8> {
    message(TREADDIR + 1, tag, &[&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat())
}

fn folder(fake: &Fake) -> NineFolder {
    fake.script(as_folder);
    let options = NineOptions::new().connect_timeout(Duration::from_millis(300));
    NineFolder::open(&fake.url(), options).unwrap()
}

/// Answers Treaddir so, and all else as a folder.
fn list_so(fake: &Fake, answer: impl Fn(&Request) -> Act + Send + 'static) {
    fake.script(move |request| if request.kind == TREADDIR { answer(request) } else { as_folder(request) });
}

#[test]
fn names_of_a_hostile_server_are_left_out() {
    let fake = Fake::new(b"");
    let folder = folder(&fake);
    list_so(&fake, |request| {
        let hostile: [&[u8]; 9] = [b"", b".", b"..", b"a/b", b"../x", b"/etc", b"a\0", b"\xff", &[b'n'; 300]];
        let mut bytes: Vec<u8> = hostile.into_iter().flat_map(|name| entry(1, 8, name)).collect();
        // A link, a device, a pipe, a socket, an unknown type.
        [10, 2, 1, 12, 77].into_iter().for_each(|kind| bytes.extend(entry(1, kind, b"odd")));
        bytes.extend(entry(9, 8, b"file"));
        bytes.extend([entry(9, 8, b"twice"), entry(9, 8, b"twice"), entry(9, 4, b"folder")].concat());
        Act::Send(rreaddir(request.tag, if request.offset() == 0 { &bytes } else { &[] }))
    });
    assert_eq!(names(folder.entries("").unwrap()), ["file", "folder/", "twice"]);
}

#[test]
fn a_folder_that_does_not_end_is_refused() {
    let fake = Fake::new(b"");
    let folder = folder(&fake);
    let number = Arc::new(AtomicU64::new(0));
    for moves in [0, 1] {
        let number = Arc::clone(&number);
        list_so(&fake, move |request| {
            let bytes: Vec<u8> = (0..500)
                .flat_map(|_| {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    entry(number * moves, 8, format!("name-{number}").as_bytes())
                })
                .collect();
            Act::Send(rreaddir(request.tag, &bytes))
        });
        let error = folder.entries("").unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::Denied, &OpenStep::List), "{error}");
        assert!(error.to_string().contains(&format!("more than {MOST_ENTRIES} names")), "{error}");
    }
}

#[test]
fn a_list_that_breaks_the_format_is_refused() {
    type Bad = fn(&Request) -> Act;
    let bad: [(&str, Bad); 7] = [
        ("half an entry", |request| Act::Send(rreaddir(request.tag, &entry(1, 8, b"name")[..20]))),
        ("a name without an end", |request| {
            Act::Send(rreaddir(request.tag, &[&entry(1, 8, b"")[..22], &[255, 255]].concat()))
        }),
        ("more than asked for", |request| {
            // 65518 bytes, where a message has room for 65525.
            let many = entry(1, 8, &[b'n'; 200]).repeat(292);
            Act::Send(rreaddir(request.tag, &[many, entry(1, 8, &[b'n'; 86])].concat()))
        }),
        ("a count without bytes", |request| Act::Send(message(TREADDIR + 1, request.tag, &[255, 0, 0, 0]))),
        ("another type", |request| Act::Send(rread(request.tag, b"x"))),
        ("another tag", |request| Act::Send(rreaddir(request.tag + 1, b""))),
        ("a huge size", |_| Act::Send(vec![255, 255, 255, 255, TREADDIR + 1, 0, 0])),
    ];
    for (what, answer) in bad {
        let fake = Fake::new(b"");
        let folder = folder(&fake);
        list_so(&fake, answer);
        let error = folder.entries("").err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!((error.kind(), error.step()), (ErrorKind::Integrity, &OpenStep::List), "{what}: {error}");
        // Look-ups have another connection.
        assert_eq!(folder.entry("x").unwrap(), Some(NineEntryKind::Folder), "{what}");
    }
    let fake = Fake::new(b"");
    let folder = folder(&fake);
    list_so(&fake, |request| Act::Send(rlerror(request.tag, 13)));
    assert_eq!(folder.entries("").unwrap_err().kind(), ErrorKind::Denied);
    list_so(&fake, |_| Act::Keep);
    assert_eq!(folder.entries("").unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn records_of_plan_9_are_read_or_refused() {
    let fake = Fake::new(b"");
    fake.lock().dialect = "9P2000";
    let folder = folder(&fake);
    let list_so = |bytes: Vec<u8>| {
        fake.script(move |request| match request.kind {
            TREAD if request.offset() == 0 => Act::Send(rread(request.tag, &bytes)),
            TREAD => Act::Send(rread(request.tag, &[])),
            _ => as_folder(request),
        });
    };
    list_so(
        [record(0, b"file"), record(0x80, b"folder"), record(0x02, b"link"), record(0, b"../x")].concat(),
    );
    assert_eq!(names(folder.entries("").unwrap()), ["file", "folder/"]);
    for bad in [record(0, b"file")[..30].to_vec(), vec![0], vec![255, 255, 1], vec![0, 0]] {
        list_so(bad.clone());
        assert_eq!(folder.entries("").unwrap_err().kind(), ErrorKind::Integrity, "{bad:?}");
    }
}

/// Those that wait for their turn behind one that waits in vain fail with it: a dozen does not wait a dozen times.
#[test]
fn a_silent_server_fails_all_that_wait_at_once() {
    let fake = Fake::new(b"");
    let folder = folder(&fake);
    fake.script(|_| Act::Keep);
    let threads: Vec<_> = (0..12)
        .map(|_| {
            let folder = folder.clone();
            std::thread::spawn(move || folder.entry("x").unwrap_err().kind())
        })
        .collect();
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), ErrorKind::Timeout));
    assert!(fake.count(TWALK) + fake.connections() <= 2 + 12, "{}", fake.connections());
    fake.script(as_folder);
    assert_eq!(folder.entry("x").unwrap(), Some(NineEntryKind::Folder));
}
