//! Servers that do not answer, go away, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memobj::pagers::Pager;
use memobj::{
    Cache, CacheOptions, Delivery, EngineClock, ErrorKind, Event, MapOptions, Mapping, ObjectOptions,
};
use memobj_9p::{NineOptions, NinePager, VersionCheck};
use memobj_sim::fixture::{MIB, check_sample, sample_bytes, wait_until};

use crate::asking::{counter, supply};
use crate::fake::{Act, Fake, TFLUSH, TGETATTR, TLOPEN, TREAD, TWALK, rlerror};
use memobj_servers::{Kind, Server};

const LENGTH: u64 = 300_000;

fn fake(options: NineOptions) -> (Fake, NinePager) {
    let fake = Fake::new(sample_bytes(LENGTH));
    let pager = NinePager::open(&fake.url(), options).unwrap();
    (fake, pager)
}

/// Lets a clock run while `work` does: for pauses between tries.
fn passing<R>(clock: &EngineClock, work: impl FnOnce() -> R) -> R {
    memobj_sim::time::passing(clock, work)
}

fn map(pager: NinePager, clock: &EngineClock, timeout: Duration) -> (Cache, Mapping) {
    let cache = Cache::new(CacheOptions::new().budget_bytes(MIB).clock(clock.clone())).unwrap();
    let options = ObjectOptions::new().supply_timeout(timeout);
    let object = cache.object("file", pager, options).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    (cache, mapping)
}

/// A silence is told once, after its time, and its end too.
#[test]
fn a_silence_is_told_and_then_the_connection_is_made_anew() {
    let clock = EngineClock::manual();
    let (fake, pager) = fake(NineOptions::new().clock(clock.clone()));
    let (cache, mapping) = map(pager, &EngineClock::system(), Duration::from_secs(300));
    let events = cache.events();
    fake.script_for(TREAD, |_| Act::Keep);
    let reader = std::thread::spawn(move || mapping.pin(0..4096).map(|bytes| bytes.to_vec()));
    fake.kept(1);
    clock.advance(Duration::from_millis(1500));
    let next = |what: &str| {
        let mut found = None;
        wait_until(what, || {
            found = events.try_next();
            found.is_some()
        });
        found.unwrap()
    };
    match next("it is told") {
        Event::ServerSilent { silence, server, .. } => {
            assert_eq!(silence, Duration::from_millis(1500));
            assert!(server.starts_with("9p://127.0.0.1:") && server.ends_with("/folder/file"), "{server}");
        }
        event => panic!("{event:?}"),
    }
    assert_eq!(fake.connections(), 1);
    // At half of the time the server is asked for attributes. It answers: it is not silent.
    clock.advance(Duration::from_secs(4));
    assert!(matches!(next("it answers"), Event::ServerAnswers { .. }));
    assert_eq!(fake.connections(), 1);
    // Now it does not answer these either.
    fake.script(|request| if matches!(request.kind, TREAD | TGETATTR) { Act::Keep } else { Act::Normal });
    let looks = fake.count(TGETATTR);
    clock.advance(Duration::from_millis(5500));
    assert!(matches!(next("it is told again"), Event::ServerSilent { .. }));
    fake.wait_for_more(TGETATTR, looks);
    fake.script(|_| Act::Normal);
    clock.advance(Duration::from_secs(5));
    assert!(matches!(next("it answers again"), Event::ServerAnswers { .. }));
    check_sample(0..4096, &reader.join().unwrap().unwrap(), "after the silence");
    assert_eq!(fake.connections(), 2);
}

/// A real server that is stopped, so that its connection stays, and goes on.
#[test]
fn a_server_that_is_stopped_is_told_of_and_goes_on() {
    let Some(server) = Server::start(Kind::Diod) else { return };
    let url = server.file("file", sample_bytes(LENGTH));
    let short = Duration::from_millis(100);
    let options = NineOptions::new().silence_told(short / 5).silence(short).connect_timeout(short);
    let pager = NinePager::open(&url, options).unwrap();
    let (cache, mapping) = map(pager, &EngineClock::system(), Duration::from_secs(300));
    let events = cache.events();
    server.signal("-STOP");
    let reader = std::thread::spawn(move || mapping.pin(0..LENGTH).map(|bytes| bytes.to_vec()));
    let mut told = false;
    wait_until("it is told", || {
        told |= matches!(events.try_next(), Some(Event::ServerSilent { .. }));
        told
    });
    server.signal("-CONT");
    check_sample(0..LENGTH, &reader.join().unwrap().unwrap(), "after the stop");
    let mut answers = false;
    wait_until("it is told that it answers", || {
        answers |= matches!(events.try_next(), Some(Event::ServerAnswers { .. }));
        answers
    });
}

/// While the server is away requests wait; nobody waits for ever who does not want to.
#[test]
fn requests_wait_while_the_server_is_away_until_their_time_is_up() {
    let clock = EngineClock::manual();
    let (fake, pager) = fake(NineOptions::new().clock(clock.clone()));
    let engine_clock = EngineClock::manual();
    let (_cache, mapping) = map(pager, &engine_clock, Duration::from_secs(5));
    fake.refuse(true);
    fake.hang_up();
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(0..4096).map(drop)
    });
    // Time passes for the engine, and the pager's stands still.
    let error = passing(&engine_clock, || reader.join().unwrap().unwrap_err());
    assert_eq!(error.page_error().unwrap().kind(), ErrorKind::Timeout);
    fake.refuse(false);
    mapping.retry(..).unwrap();
    let bytes = passing(&clock, || mapping.pin(0..4096).unwrap().to_vec());
    check_sample(0..4096, &bytes, "when it is back");
}

/// Who leaves has the transfer flushed; the tag is free only after the answer to that, whichever comes first.
#[test]
fn what_nobody_waits_for_is_flushed() {
    let (fake, pager) = fake(NineOptions::new().block_bytes(4096));
    let engine_clock = EngineClock::manual();
    let (_cache, mapping) = map(pager, &engine_clock, Duration::from_secs(5));
    for answers_first in [true, false] {
        fake.script(|request| if matches!(request.kind, TREAD | TFLUSH) { Act::Keep } else { Act::Normal });
        let reader = std::thread::spawn({
            let mapping = mapping.clone();
            move || mapping.pin(0..4096).map(drop)
        });
        let read = fake.kept(1).remove(0);
        assert_eq!(read.kind, TREAD);
        engine_clock.advance(Duration::from_secs(6));
        assert!(reader.join().unwrap().is_err());
        let flush = fake.kept(1).remove(0);
        assert_eq!((flush.kind, &flush.body[..]), (TFLUSH, &read.tag.to_le_bytes()[..]));
        if answers_first {
            fake.answer(&read);
        }
        fake.answer(&flush);
        fake.script(|_| Act::Normal);
        mapping.retry(..).unwrap();
        check_sample(0..4096, &mapping.pin(0..4096).unwrap(), "asked for again");
        mapping.advise(.., memobj::Advice::DontNeed).unwrap();
    }
    assert_eq!(fake.connections(), 1);
}

/// An answer after the answer to its Tflush is one to nothing.
#[test]
fn an_answer_after_its_flush_ends_the_connection() {
    let (fake, pager) = fake(NineOptions::new().block_bytes(4096));
    let engine_clock = EngineClock::manual();
    let (_cache, mapping) = map(pager, &engine_clock, Duration::from_secs(5));
    fake.script(|request| if matches!(request.kind, TREAD | TFLUSH) { Act::Keep } else { Act::Normal });
    let reader = std::thread::spawn({
        let mapping = mapping.clone();
        move || mapping.pin(0..4096).map(drop)
    });
    let read = fake.kept(1).remove(0);
    engine_clock.advance(Duration::from_secs(6));
    assert!(reader.join().unwrap().is_err());
    let flush = fake.kept(1).remove(0);
    fake.script(|_| Act::Normal);
    fake.answer(&flush);
    fake.answer(&read);
    mapping.retry(..).unwrap();
    check_sample(0..4096, &mapping.pin(0..4096).unwrap(), "asked for again");
    wait_until("a new connection", || fake.connections() == 2);
}

/// A file that is another one after the connection was made anew.
#[test]
fn another_version_after_a_reconnect_is_stale_for_good() {
    type Change = fn(&mut crate::fake::State);
    let changes: [(&str, Change, bool); 4] = [
        ("the time", |state| state.mtime.1 += 1, false),
        ("the qid", |state| state.qid_path += 1, false),
        ("the length", |state| state.bytes.push(0), true),
        ("nothing", |_| (), false),
    ];
    for check in [VersionCheck::Strict, VersionCheck::Mtime, VersionCheck::None] {
        for (what, change, is_seen_by_all) in changes {
            let (fake, pager) = fake(NineOptions::new().version(check));
            fake.script_for(TREAD, |_| Act::Keep);
            let waiting = supply(&pager, 0..4096);
            fake.kept(1);
            change(&mut fake.lock());
            fake.script(|_| Act::Normal);
            fake.hang_up();
            let is_seen = what != "nothing" && (check != VersionCheck::None || is_seen_by_all);
            let answer = waiting.wait().map_err(|error| error.kind);
            let expected = if is_seen { Err(ErrorKind::Stale) } else { Ok(sample_bytes(4096).to_vec()) };
            assert_eq!(answer, expected, "{check:?}: {what}");
            let again = supply(&pager, 0..4096).wait().map_err(|error| error.kind);
            assert_eq!(again, expected, "{check:?}: {what}, again");
        }
    }
}

/// A file that is not there any more, or may not be read any more.
#[test]
fn a_file_that_is_gone_is_stale_and_one_that_is_closed_denied() {
    for (number, kind) in [(2, ErrorKind::Stale), (13, ErrorKind::Denied)] {
        for step in [TWALK, TLOPEN] {
            let clock = EngineClock::manual();
            let (fake, pager) = fake(NineOptions::new().clock(clock.clone()));
            fake.script(move |request| match request.kind {
                TREAD => Act::Keep,
                kind if kind == step => Act::Send(rlerror(request.tag, number)),
                _ => Act::Normal,
            });
            let waiting = supply(&pager, 0..4096);
            fake.kept(1);
            fake.hang_up();
            assert_eq!(passing(&clock, || waiting.kind()), kind, "{step} {number}");
            fake.script(|_| Act::Normal);
            let again = passing(&clock, || supply(&pager, 0..4096).wait().map_err(|error| error.kind));
            let expected = if number == 2 { Err(kind) } else { Ok(sample_bytes(4096).to_vec()) };
            assert_eq!(again, expected, "{step} {number}");
        }
    }
}

/// Strict: bytes are handed out only when attributes that were asked for after them say the same version.
#[test]
fn strict_hands_nothing_out_before_a_look_at_the_version() {
    let (fake, pager) = fake(NineOptions::new().version(VersionCheck::Strict));
    fake.script_for(TGETATTR, |_| Act::Keep);
    let first = supply(&pager, 0..4096);
    let look = fake.kept(1).remove(0);
    let second = supply(&pager, 4096..8192);
    fake.wait("a second read", |state| state.requests.iter().filter(|it| it.kind == TREAD).count() == 2);
    // The second was supplied, if at all, after the look was asked for.
    fake.answer(&look);
    assert!(first.wait().is_ok());
    let look = fake.kept(1).remove(0);
    fake.lock().mtime.1 += 1;
    assert!(!second.is_there());
    fake.answer(&look);
    let later = supply(&pager, 4096..8192);
    assert_eq!(later.kind(), ErrorKind::Stale);
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Stale);
    assert_eq!(counter(&pager, "stat_checks"), 2);
}

/// The default: at most one look a second.
#[test]
fn mtime_looks_once_a_second() {
    let clock = EngineClock::manual();
    let (fake, pager) = fake(NineOptions::new().clock(clock.clone()));
    (0..20).for_each(|_| drop(supply(&pager, 0..4096).wait().unwrap()));
    assert_eq!(counter(&pager, "stat_checks"), 0);
    clock.advance(Duration::from_secs(1));
    (0..20).for_each(|_| drop(supply(&pager, 0..4096).wait().unwrap()));
    fake.wait("a look", |state| state.requests.iter().filter(|it| it.kind == TGETATTR).count() == 2);
    assert_eq!(counter(&pager, "stat_checks"), 1);
    fake.lock().mtime.0 += 1;
    clock.advance(Duration::from_secs(1));
    let asked = Arc::new(AtomicU64::new(0));
    wait_until("it is stale", || {
        asked.fetch_add(1, Ordering::Relaxed);
        supply(&pager, 0..4096).wait().is_err_and(|error| error.kind == ErrorKind::Stale)
    });
    pager.detach();
}
