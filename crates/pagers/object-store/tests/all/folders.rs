//! Folders: prefixes of names, of moto and of a server that does what a test says.

use std::time::{Duration, SystemTime};

use memobj::pagers::Pager;
use memobj::{EngineClock, ErrorKind, FailurePolicy};
use memobj_object_store::{
    MOST_ENTRIES, Manifest, ObjectStoreFolder, ObjectStoreOptions, Step, StoreEntry, StoreEntryKind,
};
use memobj_sim::fixture::{check_sample, sample_bytes};

use crate::help::{BLOCK, cache, kind, map, options};
use crate::lists::ListServer;
use crate::servers::{Store, moto};

fn folder(moto: &Store, prefix: &str) -> ObjectStoreFolder {
    let options = moto.options(options(&EngineClock::system()));
    ObjectStoreFolder::open(&format!("s3://bucket/{prefix}"), options).unwrap()
}

/// Names, with `/` behind those of folders.
fn names(entries: &[StoreEntry]) -> Vec<String> {
    let name = |entry: &StoreEntry| match entry.kind {
        StoreEntryKind::Folder => format!("{}/", entry.name),
        _ => entry.name.clone(),
    };
    entries.iter().map(name).collect()
}

fn length(kind: Option<StoreEntryKind>) -> Option<u64> {
    match kind {
        Some(StoreEntryKind::Object { length, .. }) => Some(length),
        _ => None,
    }
}

#[test]
fn a_prefix_is_a_tree() {
    let Some(moto) = moto() else { return };
    for name in ["other", "p/a", "p/sub/b", "p/sub/deep/c", "p/sub-x", "pq/x"] {
        moto.put(name, sample_bytes(100_000));
    }
    moto.put("p/sub/deep/c", sample_bytes(10 * BLOCK));
    let before = SystemTime::now();
    let folder = folder(&moto, "p/");
    assert_eq!(folder.url(), "s3://bucket/p/");
    let list = folder.entries("").unwrap().unwrap();
    assert_eq!(names(&list), ["a", "sub/", "sub-x"].map(str::to_owned));
    assert_eq!(names(&folder.entries("sub").unwrap().unwrap()), ["b", "deep/"]);
    assert_eq!(folder.entries("none").unwrap(), None);
    assert_eq!(folder.entries("a").unwrap(), None);
    assert_eq!(folder.entry("").unwrap(), Some(StoreEntryKind::Folder));
    assert_eq!(folder.entry("sub/deep").unwrap(), Some(StoreEntryKind::Folder));
    for missing in ["su", "none", "sub/none", "a/x", "..", "sub//b", "sub/"] {
        assert_eq!(folder.entry(missing).unwrap(), None, "{missing}");
    }
    // A list, a look at the name and a pager say the same.
    let one = folder.entry("a").unwrap().unwrap();
    assert_eq!(list[0].kind, one);
    let StoreEntryKind::Object { length: 100_000, modified, .. } = one else { panic!("{one:?}") };
    let age = before.duration_since(modified).unwrap_or_default();
    assert!(age < Duration::from_secs(3600), "{age:?}");
    let version = || match folder.entry("sub/deep/c").unwrap() {
        Some(StoreEntryKind::Object { version: Some(version), .. }) => version,
        other => panic!("{other:?}"),
    };
    let old = version();
    let pager = folder.pager("sub/deep/c").unwrap();
    assert_eq!((pager.url(), pager.describe().version_name()), ("s3://bucket/p/sub/deep/c", Some(&*old)));
    let mapping = map(&cache(&EngineClock::system()), &pager, FailurePolicy::FailAtOnce);
    check_sample(500..9999, &mapping.pin(500..9999).unwrap(), "an object of a folder");
    // Another version of it is another version of the folder's as well, and the pager stays with its own.
    moto.put("p/sub/deep/c", &vec![1; 10 * BLOCK as usize]);
    let error = mapping.pin(9 * BLOCK..10 * BLOCK).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale);
    assert_ne!(version(), old);
    assert_eq!(folder.pager("sub/deep/c").unwrap().describe().version_name(), Some(&*version()));
}

#[test]
fn the_whole_bucket_is_a_folder_and_may_be_empty() {
    let Some(moto) = moto() else { return };
    for url in ["", "s3://bucket/"] {
        let folder = folder(&moto, url.strip_prefix("s3://bucket/").unwrap_or(""));
        assert_eq!(folder.entries("").unwrap(), Some(Vec::new()));
    }
    moto.put("a/b", b"x");
    assert_eq!(names(&folder(&moto, "").entries("").unwrap().unwrap()), ["a/"]);
    assert_eq!(length(folder(&moto, "").entry("a/b").unwrap()), Some(1));
}

/// More than one answer can have. Names of folders come in all of them.
#[test]
fn a_list_of_more_than_a_thousand_names_is_whole() {
    let Some(moto) = moto() else { return };
    for number in 0..1203 {
        assert_eq!(moto.put(&format!("p/{number:05}"), b"x"), 200);
    }
    for number in (0..1200).step_by(400) {
        moto.put(&format!("p/{number:05}x/y"), b"x");
    }
    let list = folder(&moto, "p/").entries("").unwrap().unwrap();
    assert_eq!(list.len(), 1203 + 3);
    let folders: Vec<_> = names(&list).into_iter().filter(|name| name.ends_with('/')).collect();
    assert_eq!(folders, ["00000x/", "00400x/", "00800x/"]);
    assert!(list.is_sorted_by(|one, other| one.name < other.name));
}

#[test]
fn odd_names_are_opened_by_them_or_not_seen() {
    let Some(moto) = moto() else { return };
    let seen = [
        ("a%20b", "a b"),
        ("%20edge%20", " edge "),
        ("%2541", "%41"),
        ("a%2Bb", "a+b"),
        ("a%26b%3Cc%3E%22d%22", "a&b<c>\"d\""),
        ("%C3%A9%E2%82%AC", "\u{e9}\u{20ac}"),
        ("x~y%21%27%28%29%2A", "x~y!'()*"),
        ("%7B%5E%7D%60%5B%5D%7C%5C", "{^}`[]|\\"),
        ("...", "..."),
        ("a%3Fb%23c", "a?b#c"),
    ];
    for (at, (encoded, _)) in seen.iter().enumerate() {
        assert_eq!(moto.put(&format!("p%20%25/{encoded}"), &vec![at as u8; at + 1]), 200);
    }
    let long = "x".repeat(256);
    for hidden in ["", "/double", "../x", "./y", "a%0Ab", "%01", &long] {
        moto.put(&format!("p%20%25/{hidden}"), b"hidden");
    }
    let folder = folder(&moto, "p%20%25/");
    let mut expected: Vec<_> = seen.iter().map(|(_, name)| name.to_string()).collect();
    expected.sort_unstable();
    assert_eq!(names(&folder.entries("").unwrap().unwrap()), expected);
    for (at, (_, name)) in seen.iter().enumerate() {
        assert_eq!(length(folder.entry(name).unwrap()), Some(at as u64 + 1), "{name}");
        let pager = folder.pager(name).unwrap();
        let mapping = map(&cache(&EngineClock::system()), &pager, FailurePolicy::FailAtOnce);
        assert_eq!(mapping.pin(..).unwrap()[..], vec![at as u8; at + 1], "{name}");
    }
    for hidden in ["", "/double", "../x", "./y", "a\nb", "\u{1}", &long] {
        assert_eq!(length(folder.entry(hidden).unwrap()), None, "{hidden:?}");
        assert!(folder.pager(hidden).is_err(), "{hidden:?}");
    }
}

#[test]
fn of_an_object_and_a_folder_of_one_name_the_object_is_seen_unless_it_is_empty() {
    let Some(moto) = moto() else { return };
    for (name, bytes) in
        [("p/full", "x"), ("p/full/a", "y"), ("p/mark", ""), ("p/mark/a", "z"), ("p/empty", "")]
    {
        moto.put(name, bytes.as_bytes());
    }
    moto.put("p/folder/", b"");
    let folder = folder(&moto, "p");
    let list = folder.entries("").unwrap().unwrap();
    assert_eq!(names(&list), ["empty", "folder/", "full", "mark/"]);
    for entry in &list {
        assert_eq!(folder.entry(&entry.name).unwrap().as_ref(), Some(&entry.kind), "{}", entry.name);
    }
    assert_eq!(folder.entries("folder").unwrap(), Some(Vec::new()));
    assert_eq!(names(&folder.entries("mark").unwrap().unwrap()), ["a"]);
}

#[test]
fn what_is_no_folder_is_refused_with_its_name() {
    let Some(moto) = moto() else { return };
    moto.put("p/a", b"x");
    let open = |url: &str, options| ObjectStoreFolder::open(url, options).unwrap_err();
    let ours = || moto.options(ObjectStoreOptions::new());
    for (url, step) in [
        ("s3://bucket/none/", Step::List),
        ("s3://bucket/p/a/", Step::List),
        ("s3://missing/", Step::List),
        ("s3://missing/p/", Step::List),
    ] {
        let error = open(url, ours());
        let found = (error.step().clone(), error.kind(), error.status());
        assert_eq!(found, (step, ErrorKind::Denied, Some(404)), "{error}");
        assert!(error.to_string().starts_with(&format!("list {url}: ")), "{error}");
    }
    for (url, options, what) in [
        ("http://127.0.0.1:1/x/", ours(), "web servers have no lists"),
        ("file:///tmp/", ours(), "named by their paths"),
        ("s3://bucket/p/", ours().writable(), "can be read only"),
        ("s3://bucket/p/", ours().manifest(std::sync::Arc::new(manifest())), "of one object"),
    ] {
        let error = open(url, options);
        let is_told = error.to_string().contains(what) && error.to_string().contains(url);
        assert!(*error.step() == Step::Configure && is_told, "{error}");
    }
}

fn manifest() -> Manifest {
    Manifest::make(&b"x"[..], 64 << 10).unwrap()
}

fn scripted(server: &ListServer) -> ObjectStoreOptions {
    ObjectStoreOptions::new()
        .setting("aws_endpoint", server.url())
        .setting("aws_access_key_id", "key")
        .setting("aws_secret_access_key", "secret")
        .setting("aws_region", "us-east-1")
        .request_timeout(Duration::from_millis(200))
}

/// A million names: one is looked up by one question about it, and a list is refused before it takes much memory.
#[test]
fn a_folder_of_a_million_names_costs_what_is_asked_of_it() {
    let server = ListServer::of_names(1_000_000);
    let folder = ObjectStoreFolder::open("s3://bucket/p/", scripted(&server)).unwrap();
    let before = server.asked();
    assert_eq!(length(folder.entry("0999999").unwrap()), Some(5));
    assert_eq!(server.asked() - before, 1);
    assert_eq!(folder.entry("none").unwrap(), None);
    assert_eq!(server.asked() - before, 3);
    let resident = || memobj_sim::process::Usage::now().resident_bytes;
    let memory = resident();
    let error = folder.entries("").unwrap_err();
    assert_eq!(
        (error.kind(), error.status(), error.step()),
        (ErrorKind::Denied, None, &Step::List),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("s3://bucket/p/: more than {MOST_ENTRIES} names")),
        "{error}"
    );
    let grown = resident().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert!(server.asked() - before < 110, "{}", server.asked());
}

#[test]
fn refusals_and_answers_that_are_no_lists_have_their_kinds() {
    let server = ListServer::of_names(10);
    let folder = ObjectStoreFolder::open("s3://bucket/p/", scripted(&server)).unwrap();
    let list = "<ListBucketResult><IsTruncated>true</IsTruncated>";
    for (status, body, kind) in [
        (403, "<Error><Code>AccessDenied</Code></Error>".to_owned(), ErrorKind::Denied),
        (404, String::new(), ErrorKind::Denied),
        (503, String::new(), ErrorKind::Io),
        (500, String::new(), ErrorKind::Io),
        (200, "<html/>".into(), ErrorKind::Integrity),
        (200, format!("{list}<Contents>"), ErrorKind::Truncated),
        (200, format!("{list}</ListBucketResult>"), ErrorKind::Integrity),
        // The same answer again and again.
        (
            200,
            format!("{list}<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"),
            ErrorKind::Integrity,
        ),
        (200, "x".repeat(11 << 20), ErrorKind::Integrity),
    ] {
        server.answer_always(status, &body);
        let error = folder.entries("").unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {error}");
        assert!(error.to_string().starts_with("list s3://bucket/p/: "), "{error}");
    }
    for (status, kind) in [(403, ErrorKind::Denied), (503, ErrorKind::Io)] {
        server.answer_always(status, "");
        let error = folder.entry("a/b").unwrap_err();
        assert_eq!((error.kind(), error.status()), (kind, Some(status)), "{error}");
        assert!(error.to_string().starts_with("look up s3://bucket/p/a/b: "), "{error}");
        assert_eq!(folder.pager("a").unwrap_err().kind(), kind);
    }
    server.answer_never();
    assert_eq!(folder.entries("").unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(folder.entry("a").unwrap_err().kind(), ErrorKind::Timeout);
}

/// A body that comes byte by byte, each within its time.
#[test]
fn a_list_that_drips_is_waited_for_no_longer_than_its_time() {
    let server = ListServer::of_names(10);
    let folder = ObjectStoreFolder::open("s3://bucket/p/", scripted(&server)).unwrap();
    server.drip();
    assert_eq!(folder.entries("").unwrap_err().kind(), ErrorKind::Timeout);
}
