//! Every answer that is not one: its kind, its message, and whether it is tried again.

use std::time::Duration;

use memobj::{EngineClock, ErrorKind, Event, FailurePolicy};
use memobj_object_store::{Hedging, Manifest, ObjectStoreOptions, ObjectStorePager, Step, VersionTrust};
use memobj_sim::Gate;
use memobj_sim::fixture::{check_sample, sample_bytes, wait_until, within};
use memobj_sim::time::{passing, retrying};
use std::sync::Arc;

use crate::help::{BLOCK, cache, counter, kind, map, message, options, page_error};
use crate::scripted::{Fault, Scripted, Served};

const LENGTH: u64 = 4 * BLOCK;
/// The last page of [`small`], alone in its block: the engine asks for the pages of a block that fails one by one.
const ALONE: std::ops::Range<u64> = BLOCK..BLOCK + 4096;

fn server() -> Scripted {
    Scripted::start(Served::new(sample_bytes(LENGTH), "one"))
}

fn small() -> Scripted {
    Scripted::start(Served::new(sample_bytes(ALONE.end), "one"))
}

fn open(server: &Scripted, options: ObjectStoreOptions) -> ObjectStorePager {
    ObjectStorePager::open(&server.url(), options).unwrap()
}

/// A fault, how many of it make one try fail, what comes of it, and a part of the message.
struct Case {
    fault: Fault,
    each: usize,
    kind: ErrorKind,
    says: &'static str,
}

fn case(fault: Fault, kind: ErrorKind, says: &'static str) -> Case {
    Case { fault, each: 1, kind, says }
}

fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new())
}

fn cases() -> Vec<Case> {
    use ErrorKind::{Denied, Integrity, Io, Stale, Truncated};
    vec![
        case(Fault::Cut(0), Truncated, "the body ended early"),
        case(Fault::Cut(1000), Truncated, "the body ended early"),
        // A connection that is closed without an answer is tried once more at once.
        Case { each: 2, ..case(Fault::Close, Io, "no answer") },
        case(status(500), Io, "the server answers 500"),
        case(status(502), Io, "502"),
        case(status(504), Io, "504"),
        case(status(503), Io, "503"),
        case(status(429), Io, "429"),
        case(status(401), Denied, "401"),
        case(status(403), Denied, "403"),
        case(status(404), Stale, "404"),
        case(status(412), Stale, "412"),
        case(status(416), Stale, "416"),
        case(Fault::Tag("two"), Stale, "version \"two\", opened was \"one\""),
        case(Fault::Shifted, Integrity, "asked for bytes 65536-69631, the answer has 1-4096"),
        case(Fault::Whole, Integrity, "ignored the range"),
        case(Fault::Long, Integrity, "the answer has 8192 bytes instead of 4096"),
        case(Fault::LongChunked, Integrity, "longer than the range"),
        case(Fault::Short, Truncated, "the answer has 2048 bytes of 4096"),
    ]
}

/// Each fault fails the page at once with its kind and a message that says what came; the next try has the bytes.
#[test]
fn every_fault_has_its_kind_and_message() {
    for Case { fault, each, kind: expected, says } in cases() {
        let (server, clock) = (small(), EngineClock::system());
        let pager = open(&server, options(&clock));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
        server.fault(each, fault.clone());
        let error = mapping.pin(ALONE).map(drop).expect_err(&format!("{fault:?}"));
        assert_eq!(kind(&error), expected, "{fault:?}: {}", message(&error));
        assert!(message(&error).contains(says), "{fault:?}: {}", message(&error));
        assert!(message(&error).contains("supply [65536, 69632) of http://127.0.0.1"), "{}", message(&error));
        mapping.retry(0..ALONE.end).unwrap();
        check_sample(0..ALONE.end, &mapping.pin(0..ALONE.end).unwrap(), "after a fault");
    }
}

/// What can pass is tried again until it has passed. What cannot is not.
#[test]
fn only_what_can_pass_is_tried_again() {
    for Case { fault, each, kind: expected, .. } in cases() {
        let (server, clock) = (small(), EngineClock::manual());
        let pager = open(&server, options(&clock));
        let cache = cache(&clock);
        let mapping = map(&cache, &pager, FailurePolicy::WaitForEver);
        server.fault(2 * each, fault.clone());
        let pause = |_| Duration::from_secs(60);
        let (result, events) =
            retrying((&cache, &clock), pause, || mapping.pin(ALONE).map(|pin| pin.to_vec()));
        let tries = events.iter().filter(|event| matches!(event, Event::Retrying(_))).count();
        if expected.may_retry() {
            check_sample(ALONE, &result.unwrap(), "tried again");
            assert_eq!(tries, 2, "{fault:?}");
        } else {
            assert_eq!((kind(&result.unwrap_err()), tries), (expected, 0), "{fault:?}");
        }
    }
}

/// The engine waits as long as the server wants to be left alone.
#[test]
fn a_pause_that_the_server_asks_for_is_kept() {
    let (server, clock) = (small(), EngineClock::manual());
    let pager = open(&server, options(&clock));
    let cache = cache(&clock);
    let mapping = map(&cache, &pager, FailurePolicy::WaitForEver);
    server.fault(1, Fault::Status(503, vec![("Retry-After", "60".into())]));
    let start = clock.now();
    let bytes = passing(&clock, || mapping.pin(ALONE).map(|pin| pin.to_vec())).unwrap();
    check_sample(ALONE, &bytes, "after the pause");
    assert!(clock.now() - start >= Duration::from_secs(60));
}

/// Whether or not the server honours conditions, no byte of another version is data.
#[test]
fn another_version_is_stale_whatever_the_server_honours() {
    for honours in [true, false] {
        let (server, clock) = (server(), EngineClock::system());
        let pager = open(&server, options(&clock));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
        check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "before");
        let other = vec![0xee; LENGTH as usize];
        server.replace(Served { honours, ..Served::new(&other, "two") });
        let error = mapping.pin(BLOCK..BLOCK + 1).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
        assert_eq!(page_error(&error).tries(), 1);
        check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "what was there");
    }
}

/// Another length under the same ETag is another version, too.
#[test]
fn another_length_is_stale() {
    let (server, clock) = (server(), EngineClock::system());
    let pager = open(&server, options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    server.replace(Served::new(&sample_bytes(LENGTH)[..3 * BLOCK as usize], "one"));
    assert_eq!(kind(&mapping.pin(0..1).unwrap_err()), ErrorKind::Stale);
}

/// No byte for longer than the time of a request, before the head or inside of the body.
#[test]
fn a_server_that_hangs_times_out() {
    let gate = Gate::default();
    for fault in [Fault::Hold(gate.clone()), Fault::HoldBody(500, gate.clone())] {
        let (server, clock) = (small(), EngineClock::manual());
        let pager = open(&server, options(&clock).request_timeout(Duration::from_secs(20)));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
        server.fault(1, fault);
        let error = passing(&clock, || mapping.pin(ALONE).map(drop)).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Timeout);
        assert!(message(&error).contains("within 20s"), "{}", message(&error));
    }
    gate.open();
}

/// Who has read a wrong byte is told by a manifest; a second answer that is right is taken.
#[test]
fn a_manifest_catches_a_corrupt_body() {
    let manifest = Arc::new(Manifest::make(sample_bytes(ALONE.end), 16 << 10).unwrap());
    for (faults, repeated) in [(1, 1), (2, 1)] {
        let (server, clock) = (small(), EngineClock::system());
        let pager = open(&server, options(&clock).manifest(Arc::clone(&manifest)));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
        server.fault(faults, Fault::Corrupt);
        match (mapping.pin(ALONE), faults) {
            (Ok(bytes), 1) => check_sample(ALONE, &bytes, "asked for again"),
            (Err(error), 2) => {
                assert_eq!(kind(&error), ErrorKind::Integrity);
                assert!(message(&error).contains("block 4 has not the digest"), "{}", message(&error));
            }
            (result, _) => panic!("{faults} faults: {}", result.is_ok()),
        }
        assert_eq!(counter(&pager, "retries_asked"), repeated);
    }
    let short = Arc::new(Manifest::make(sample_bytes(5000), 16 << 10).unwrap());
    let error =
        ObjectStorePager::open(&server().url(), ObjectStoreOptions::new().manifest(short)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

/// Mirrors are followed, loops are not, and Authorization is not given to another server.
#[test]
fn redirects_are_followed_a_few_times() {
    let (mirror, front, clock) = (small(), small(), EngineClock::system());
    let options = options(&clock).header("Authorization", "Bearer secret");
    let pager = ObjectStorePager::open(&front.url(), options).unwrap();
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    front.fault(1, Fault::Status(302, vec![("Location", mirror.url())]));
    check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "of the mirror");
    assert_eq!(front.asked()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(mirror.asked()[0].header("authorization"), None);
    front.fault(100, Fault::Status(302, vec![("Location", front.url())]));
    let error = mapping.pin(ALONE).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Io);
    assert!(message(&error).contains("redirected too often"), "{}", message(&error));
    assert!(front.asked().len() < 12, "{} requests", front.asked().len());
}

/// Failures before the first answer say which step failed of what.
#[test]
fn an_object_that_cannot_be_opened_says_why() {
    let server = server();
    let opened = |url: &str| ObjectStorePager::open(url, ObjectStoreOptions::new()).unwrap_err();
    let tls = opened(&server.url().replace("http:", "https:"));
    assert_eq!((tls.kind(), tls.step()), (ErrorKind::Io, &Step::Open), "{}", message(&tls));
    assert!(tls.to_string().contains("no connection"), "{tls}");
    let dns = opened("http://name.invalid/object?signature=secret");
    assert_eq!(dns.kind(), ErrorKind::Io, "{}", message(&dns));
    assert!(message(&dns).contains("http://name.invalid/object?...") && !message(&dns).contains("secret"));
    let mut gone = self::server();
    gone.stop();
    assert_eq!(opened(&gone.url()).kind(), ErrorKind::Io);
    assert_eq!(*opened("gopher://host/").step(), Step::Parse);
    assert_eq!(opened("file:///no/such/file").kind(), ErrorKind::Io);
}

/// Objects without a version, and servers without ranges.
#[test]
fn what_cannot_be_checked_is_not_opened() {
    let served = Served::new(sample_bytes(LENGTH), "one");
    let open = |served: &Served, options: ObjectStoreOptions| {
        let server = Scripted::start(served.clone());
        ObjectStorePager::open(&server.url(), options).map(|pager| (server, pager))
    };
    let weak = Served { tag: Some("W/\"one\"".into()), ..served.clone() };
    let error = open(&weak, ObjectStoreOptions::new()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("version=none"), "{error}");
    open(&weak, ObjectStoreOptions::new().version_trust(VersionTrust::None)).map(drop).unwrap();
    let rangeless = Served { has_ranges: false, ..served };
    let small = ObjectStoreOptions::new().block_bytes(BLOCK);
    let error = open(&rangeless, small).map(drop).unwrap_err();
    assert!(error.to_string().contains("does not support ranges"), "{error}");
    // All of it fits one block.
    let (clock, large) = (EngineClock::system(), ObjectStoreOptions::new());
    let (server, pager) = open(&rangeless, large).unwrap();
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    check_sample(0..LENGTH, &mapping.pin(0..LENGTH).unwrap(), "without ranges");
    assert_eq!(server.asked()[1].header("range"), None);
}

/// The date of the last change is a version, as good as its second.
#[test]
fn a_date_is_a_version() {
    let date = |day| Some(format!("Tue, 0{day} Dec 2026 00:00:00 GMT"));
    for honours in [true, false] {
        let served =
            Served { tag: None, modified: date(1), honours, ..Served::new(sample_bytes(LENGTH), "") };
        let (server, clock) = (Scripted::start(served.clone()), EngineClock::system());
        let pager = open(&server, options(&clock));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
        check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "before");
        server.replace(Served { modified: date(2), ..served });
        assert_eq!(kind(&mapping.pin(BLOCK..BLOCK + 1).unwrap_err()), ErrorKind::Stale);
    }
}

/// As many requests as pages that lie apart are under way at once.
#[test]
fn scattered_pages_are_asked_for_at_once() {
    let length = 64 * BLOCK;
    let (server, clock) = (Scripted::start(Served::new(sample_bytes(length), "one")), EngineClock::system());
    let pager = open(&server, options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    let gate = Gate::default();
    server.fault(64, Fault::Hold(gate.clone()));
    let ranges: Vec<_> = (0..64).map(|index| index * BLOCK + 4096..index * BLOCK + 4097).collect();
    let reader = std::thread::spawn({
        let (mapping, ranges) = (mapping.clone(), ranges.clone());
        move || mapping.pin_ranges(&ranges).map(drop)
    });
    wait_until("64 requests are under way", || server.under_way() == 64);
    gate.open();
    reader.join().unwrap().unwrap();
    for range in ranges {
        check_sample(range.clone(), &mapping.pin(range).unwrap(), "scattered");
    }
    assert_eq!(server.asked().len(), 1 + 64, "nothing is asked for twice");
}

/// Nobody waits any more: the transfer ends, and its connection with it.
#[test]
fn a_request_that_nobody_waits_for_is_cancelled() {
    let (server, clock) = (server(), EngineClock::system());
    let pager = open(&server, options(&clock));
    let gate = Gate::default();
    let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
    server.fault(1, Fault::Hold(gate.clone()));
    mapping.prefetch(std::slice::from_ref(&(0..1))).unwrap();
    wait_until("it is under way", || server.under_way() == 1);
    drop(mapping);
    wait_until("it is cancelled", || counter(&pager, "cancelled") == 1);
    gate.open();
}

/// A request that takes longer than nearly all others is sent a second time, and the second answer is taken.
#[test]
fn a_slow_request_is_hedged() {
    let length = 64 * BLOCK;
    let clock = EngineClock::manual();
    for (hedging, expected) in [(Hedging::Slowest, 1), (Hedging::Off, 0)] {
        let server = Scripted::start(Served::new(sample_bytes(length), "one"));
        let pager = open(&server, options(&clock).hedging(hedging));
        let mapping = map(&cache(&clock), &pager, FailurePolicy::FailAtOnce);
        for index in 0..32 {
            mapping.pin(index * BLOCK..index * BLOCK + 1).unwrap();
        }
        let gate = Gate::default();
        server.fault(1, Fault::Hold(gate.clone()));
        let slow = std::thread::spawn({
            let mapping = mapping.clone();
            move || mapping.pin(40 * BLOCK..41 * BLOCK).map(|pin| pin.to_vec())
        });
        wait_until("it is under way", || server.under_way() == 1);
        assert_eq!(counter(&pager, "hedged"), 0, "no time has passed");
        clock.advance(Duration::from_millis(11));
        if expected == 0 {
            gate.open();
        }
        let bytes = within(30, "the slow request", move || slow.join().unwrap().unwrap());
        check_sample(40 * BLOCK..41 * BLOCK, &bytes, "hedged");
        assert_eq!(counter(&pager, "hedged"), expected);
        gate.open();
    }
}

/// A server that is killed and comes again: who reads waits, and has right bytes.
#[test]
fn a_reader_survives_its_server() {
    let length = 128 * BLOCK;
    let (mut server, clock) =
        (Scripted::start(Served::new(sample_bytes(length), "one")), EngineClock::system());
    let pager = open(&server, options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || {
            for index in 0..128 {
                let range = index * BLOCK..(index + 1) * BLOCK;
                check_sample(range.clone(), &mapping.pin(range).unwrap(), "under a server that dies");
            }
        }
    });
    for round in 1..=5 {
        wait_until("some was read", || server.asked().len() > 20 * round || reader.is_finished());
        server.stop();
        let before = counter(&pager, "requests");
        wait_until("it is asked in vain", || {
            counter(&pager, "requests") > before + 1 || reader.is_finished()
        });
        server.restart();
    }
    within(60, "the reader", move || reader.join().unwrap());
}

/// Events say once that a server is gone, and that it is back.
#[test]
fn events_tell_of_a_silent_server() {
    let (mut server, clock) = (small(), EngineClock::system());
    let pager = open(&server, options(&clock));
    let cache = cache(&clock);
    let events = cache.events();
    let mapping = map(&cache, &pager, FailurePolicy::FailAtOnce);
    server.stop();
    for _ in 0..3 {
        assert_eq!(kind(&mapping.pin(ALONE).unwrap_err()), ErrorKind::Io);
        mapping.retry(ALONE).unwrap();
    }
    server.restart();
    check_sample(ALONE, &mapping.pin(ALONE).unwrap(), "it is back");
    let told = std::iter::from_fn(|| events.try_next());
    let told: Vec<_> = told.filter(|event| !matches!(event, Event::PageFailed(_))).collect();
    let [Event::ServerSilent { server: silent, .. }, Event::ServerAnswers { server: answers, .. }] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert!(silent == answers && server.endpoint().ends_with(silent), "{silent}");
}
