//! Writing: what a sync promised is there, and what was lost is told.

use memobj::{Cache, CacheOptions, Delivery, ErrorKind, MapOptions, ObjectOptions, Writing};
use memobj_9p::{Dialect, NineOptions, NinePager, VersionCheck};
use memobj_sim::fixture::{MIB, sample_bytes};

use crate::asking::{set_length, supply, sync, write};
use crate::fake::{Act, Fake, TFSYNC, TSETATTR, TWRITE, TWSTAT, message, rlerror};
use memobj_servers::{Kind, Server};

const LENGTH: u64 = 300_000;

fn fake() -> (Fake, NinePager) {
    let fake = Fake::new(sample_bytes(LENGTH));
    let pager = NinePager::open(&fake.url(), NineOptions::new().writable()).unwrap();
    (fake, pager)
}

#[test]
fn what_is_written_and_synced_is_in_the_file_of_diod() {
    let Some(server) = Server::start(Kind::Diod) else { return };
    let url = server.file("file", &vec![1; 3 * MIB as usize + 5]);
    for check in [VersionCheck::Strict, VersionCheck::Mtime, VersionCheck::None] {
        let options = NineOptions::new().writable().version(check);
        let pager = NinePager::open(&url, options).unwrap();
        let cache = Cache::new(CacheOptions::new().budget_bytes(2 * MIB)).unwrap();
        let object = cache.object("file", pager, ObjectOptions::new().writing(Writing::InPlace)).unwrap();
        let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
        let length = object.len();
        let bytes = &sample_bytes(4 * MIB)[..length as usize];
        mapping.write_at(0, bytes).unwrap();
        mapping.sync(..).unwrap();
        assert!(std::fs::read(server.path("file")).unwrap() == bytes, "{check:?}");
        assert!(mapping.pin(length - 70_000..length).unwrap()[..] == bytes[bytes.len() - 70_000..]);
        drop(mapping);
        object.set_len(length / 2).unwrap();
        assert_eq!(std::fs::metadata(server.path("file")).unwrap().len(), length / 2);
        object.set_len(length).unwrap();
        let bytes = std::fs::read(server.path("file")).unwrap();
        assert!(bytes[length as usize / 2..].iter().all(|byte| *byte == 0));
    }
}

/// Another changes the file that we write: seen, once our changes are over.
#[test]
fn a_change_by_another_after_ours_is_seen() {
    let (fake, pager) = fake();
    write(&pager, 0, &[7; 4096]).wait().unwrap();
    sync(&pager).wait().unwrap();
    fake.wait("a look at the time", |state| state.requests.last().is_some_and(|last| last.kind == 24));
    assert_eq!(supply(&pager, 0..4096).wait().unwrap(), [7; 4096]);
    fake.lock().mtime.0 += 5;
    fake.hang_up();
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Stale);
}

/// A server that loses what was not synced: the next sync says so, and until then old bytes are not supplied for new ones.
#[test]
fn writes_that_a_crash_may_have_lost_fail_the_next_sync() {
    let (fake, pager) = fake();
    write(&pager, 0, &[7; 8192]).wait().unwrap();
    sync(&pager).wait().unwrap();
    write(&pager, 8192, &[8; 8192]).wait().unwrap();
    fake.crash();
    assert_eq!(supply(&pager, 0..8192).wait().unwrap(), [7; 8192]);
    let error = supply(&pager, 4096..12_288).wait().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.source.unwrap().to_string().contains("not synced"));
    // Written again: known again.
    write(&pager, 8192, &[9; 4096]).wait().unwrap();
    assert_eq!(supply(&pager, 8192..12_288).wait().unwrap(), [9; 4096]);
    assert_eq!(supply(&pager, 12_288..16_384).kind(), ErrorKind::Io);
    assert_eq!(sync(&pager).kind(), ErrorKind::Io);
    // What the engine offers again then.
    write(&pager, 8192, &[8; 8192]).wait().unwrap();
    sync(&pager).wait().unwrap();
    let durable = &fake.lock().durable[8192..16_384].to_vec();
    assert_eq!(durable[..], [8; 8192]);
}

/// A sync that is under way when the server crashes.
#[test]
fn a_sync_that_a_crash_meets_fails() {
    let (fake, pager) = fake();
    write(&pager, 0, &[7; 8192]).wait().unwrap();
    fake.script_for(TFSYNC, |_| Act::Keep);
    let waiting = sync(&pager);
    fake.kept(1);
    fake.script(|_| Act::Normal);
    fake.crash();
    assert_eq!(waiting.kind(), ErrorKind::Io);
    sync(&pager).wait().unwrap();
}

/// The parts of one write that were answered before a crash are written again with the others.
#[test]
fn a_write_that_a_crash_meets_is_written_again_whole() {
    let (fake, pager) = fake();
    let mut count = 0;
    fake.script_for(TWRITE, move |_| {
        count += 1;
        if count > 2 { Act::Keep } else { Act::Normal }
    });
    let waiting = write(&pager, 0, &[7; 256 << 10]);
    fake.kept(1);
    fake.script(|_| Act::Normal);
    fake.crash();
    waiting.wait().unwrap();
    sync(&pager).wait().unwrap();
    assert!(fake.lock().durable[..256 << 10].iter().all(|byte| *byte == 7));
}

#[test]
fn answers_to_writes_are_checked() {
    let (fake, pager) = fake();
    // One that is short is gone on with.
    let mut is_short = true;
    fake.script_for(TWRITE, move |request| match std::mem::take(&mut is_short) {
        true => Act::Send(message(TWRITE + 1, request.tag, &1000u32.to_le_bytes())),
        false => Act::Normal,
    });
    write(&pager, 0, &[7; 8192]).wait().unwrap();
    assert!(fake.lock().bytes[1000..8192].iter().all(|byte| *byte == 7));
    fake.script_for(TWRITE, |request| Act::Send(message(TWRITE + 1, request.tag, &[0; 4])));
    assert_eq!(write(&pager, 0, &[7; 8192]).kind(), ErrorKind::Io);
    fake.script_for(TWRITE, |request| Act::Send(rlerror(request.tag, 28)));
    assert_eq!(write(&pager, 0, &[7; 8192]).kind(), ErrorKind::NoSpace);
    fake.script_for(TWRITE, |request| Act::Send(message(TWRITE + 1, request.tag, &[255, 255, 0, 0])));
    assert_eq!(write(&pager, 0, &[7; 8192]).kind(), ErrorKind::Integrity);
}

/// No failure of a sync says "nothing is lost", which Stale would.
#[test]
fn a_sync_is_never_stale() {
    let (fake, pager) = fake();
    write(&pager, 0, &[7; 4096]).wait().unwrap();
    for number in [2, 116, 5, 38] {
        fake.script_for(TFSYNC, move |request| Act::Send(rlerror(request.tag, number)));
        assert_eq!(sync(&pager).kind(), ErrorKind::Io, "{number}");
    }
    fake.script(|_| Act::Normal);
    write(&pager, 0, &[8; 4096]).wait().unwrap();
    fake.lock().qid_path += 1;
    fake.hang_up();
    // Not what was written: it is refused even before the connection is there.
    assert_eq!(supply(&pager, 8192..12_288).kind(), ErrorKind::Stale);
    assert_eq!(sync(&pager).kind(), ErrorKind::Io);
    assert_eq!(write(&pager, 0, &[8; 4096]).kind(), ErrorKind::Stale);
}

/// A length that was answered is durable; one that a crash meets is set again.
#[test]
fn lengths_are_durable_when_they_are_answered() {
    let (fake, pager) = fake();
    set_length(&pager, 100_000).wait().unwrap();
    assert_eq!(fake.lock().durable.len(), 100_000);
    for request in [TSETATTR, TFSYNC] {
        fake.script_for(request, |_| Act::Keep);
        let waiting = set_length(&pager, 200_000);
        fake.kept(1);
        fake.script(|_| Act::Normal);
        fake.crash();
        waiting.wait().unwrap();
        assert_eq!(fake.lock().durable.len(), 200_000);
        assert_eq!(supply(&pager, 196_608..200_000).wait().unwrap(), [0; 200_000 - 196_608]);
        set_length(&pager, 100_000).wait().unwrap();
    }
}

/// A sync and a length are Twstats there.
#[test]
fn the_dialects_of_plan_9_sync_and_set_lengths_too() {
    for dialect in [Dialect::Plan9, Dialect::Unix] {
        let fake = Fake::new(sample_bytes(LENGTH));
        fake.lock().dialect = dialect.name();
        let pager = NinePager::open(&fake.url(), NineOptions::new().writable()).unwrap();
        write(&pager, 0, &[7; 8192]).wait().unwrap();
        assert_ne!(fake.lock().durable[..8192], [7; 8192]);
        sync(&pager).wait().unwrap();
        assert_eq!(fake.lock().durable[..8192], [7; 8192]);
        write(&pager, 0, &[8; 8192]).wait().unwrap();
        fake.crash();
        assert_eq!(sync(&pager).kind(), ErrorKind::Io);
        set_length(&pager, 4096).wait().unwrap();
        assert_eq!(fake.lock().durable.len(), 4096);
        assert_eq!(supply(&pager, 0..4096).wait().unwrap(), [7; 4096]);
        fake.script_for(TWSTAT, |request| Act::Send(message(107, request.tag, b"\x09\0read only")));
        assert_eq!(sync(&pager).kind(), ErrorKind::Denied);
    }
}

#[test]
fn a_pager_that_is_read_only_takes_no_writes() {
    let fake = Fake::new(sample_bytes(LENGTH));
    let pager = NinePager::open(&fake.url(), NineOptions::new()).unwrap();
    assert_eq!(write(&pager, 0, &[7; 4096]).kind(), ErrorKind::Denied);
    assert_eq!(set_length(&pager, 7).kind(), ErrorKind::Denied);
    sync(&pager).wait().unwrap();
    assert_eq!(fake.count(TWRITE), 0);
    let Some(server) = Server::start(Kind::Py9p) else { return };
    let url = server.file("file", b"x");
    let error = NinePager::open(&url, NineOptions::new().writable().dialect(Dialect::Plan9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}
