//! Every verb.

use memobj::GuestProt;
use memobj::pagers::{Blocking, BlockingPager, Operation, Pager, Zero};
use memobj_serve::control::{Access, Exports, ServerOptions, encode};
use memobj_sim::Gate;
use memobj_sim::fixture::sample_bytes;

use crate::fixture::{Fixture, LENGTH, PATIENCE, wait_until};

/// Supplies once its gate is open.
pub(crate) struct Behind(pub(crate) Gate);

impl BlockingPager for Behind {
    fn length(&self) -> u64 {
        LENGTH
    }

    fn supply(&self, _: std::ops::Range<u64>, buffer: &mut [u8]) -> Result<usize, memobj::SupplyError> {
        self.0.pass();
        buffer.fill(7);
        Ok(buffer.len())
    }
}

/// Adds the export `slow`, which supplies nothing before the gate is open.
pub(crate) fn slow(exports: &mut Exports, gate: &Gate) {
    let gate = gate.clone();
    exports.object("slow", Access::ReadOnly, move |_| {
        Ok(Box::new(Blocking(Behind(gate.clone()))) as Box<dyn Pager>)
    });
}

#[test]
fn a_client_opens_populates_maps_and_reads() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    let opened = client.request("open sample").unwrap();
    assert_eq!(opened.number("length").unwrap(), LENGTH);
    assert_eq!(opened.get("writable").as_deref(), Some("no"));
    let object = opened.number("object").unwrap();
    assert_eq!(client.request(&format!("populate {object}")).unwrap().number("bytes").unwrap(), LENGTH);
    let (mapping, number) = client.map(object, GuestProt::ReadOnly).unwrap();
    let mut bytes = vec![0; LENGTH as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes == sample_bytes(LENGTH));
    client.request(&format!("unmap {number}")).unwrap();
    client.request(&format!("close {object}")).unwrap();
    assert_eq!(client.request(&format!("length {object}")).unwrap_err().kind(), Some("not-found"));
    // The last has left it.
    assert_eq!(client.request("stats").unwrap().number("all-objects").unwrap(), 0);
}

#[test]
fn a_client_writes_and_the_file_has_it_after_sync() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    let object = client.request("open words rw").unwrap().number("object").unwrap();
    let (mapping, _) = client.map(object, GuestProt::ReadWrite).unwrap();
    mapping.write_at(5000, b"changed").unwrap();
    client.request(&format!("sync {object}")).unwrap();
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[5000..5007], *b"changed");
}

#[test]
fn what_is_closed_or_left_is_synced() {
    let mut fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
    mapping.write_at(0, b"closed").unwrap();
    client.request("unmap 1").unwrap();
    client.request("close 1").unwrap();
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[..6], *b"closed");
    client.request("open words rw").unwrap();
    let (mapping, _) = client.map(2, GuestProt::ReadWrite).unwrap();
    mapping.write_at(0, b"left").unwrap();
    drop(client);
    wait_until("synced file", || std::fs::read(fixture.path("words")).unwrap()[..4] == *b"left");
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
    mapping.write_at(0, b"stop").unwrap();
    fixture.stop();
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[..4], *b"stop");
    assert!(!fixture.path("socket").exists());
}

#[test]
fn exports_are_listed_in_parts() {
    let names: Vec<String> = (0..300).map(|number| format!("{number:03} {}", "x".repeat(40))).collect();
    let fixture = Fixture::with_exports(ServerOptions::new(), |exports| {
        for name in &names {
            exports.object(name, Access::ReadOnly, |_| Ok(Box::new(Zero::new(1))));
        }
    });
    let mut client = fixture.client();
    let mut listed = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let answer = client.request(&format!("exports {from}")).unwrap();
        assert!(answer.as_str().len() < 4000);
        assert_eq!((answer.number("count").unwrap(), answer.get("folder").unwrap()), (302, "yes".into()));
        let exports = answer.as_str().split(' ').filter_map(|word| word.strip_prefix("export="));
        listed.extend(exports.map(str::to_owned));
        next = answer.number("next").ok();
    }
    let expected = names.iter().map(|name| format!("ro:{}", encode(name)));
    assert!(listed.iter().cloned().eq(expected.chain(["ro:sample".into(), "rw:words".into()])));
    assert_eq!(client.request("exports 400").unwrap().as_str(), "count=302 folder=yes");
    assert!(client.request(&format!("open {}", encode(&names[7]))).is_ok());
}

#[test]
fn bytes_are_read_advised_and_prefetched() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open sample ro policy=retry:50").unwrap();
    assert!(client.request("length 1").unwrap().as_str().starts_with("length=1048576 version="));
    client.request("prefetch 1 0 65536").unwrap();
    client.request("prefetch 1").unwrap();
    for advice in ["normal", "random", "sequential", "willneed", "dontneed"] {
        client.request(&format!("advise 1 0 1048576 {advice}")).unwrap();
    }
    let digits = |range: std::ops::Range<usize>| {
        sample_bytes(LENGTH)[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(client.request("read 1 4090 16").unwrap().get("data"), Some(digits(4090..4106)));
    assert_eq!(client.request("read 1 1047552 1024").unwrap().get("data"), Some(digits(1047552..1048576)));
    assert_eq!(client.request("read 1 0 0").unwrap().get("data"), Some(String::new()));
    assert_eq!(client.request("populate 1 1048576 0").unwrap().number("bytes").unwrap(), 0);
}

#[test]
fn changes_are_discarded() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    // So that none is written back meanwhile.
    fixture.inject(Operation::WriteBack, 0..LENGTH, None);
    let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
    mapping.write_at(4096, b"changed").unwrap();
    assert_eq!(client.request("discard 1 4096 4096").unwrap().number("pages").unwrap(), 1);
    let mut bytes = [0; 7];
    mapping.read_at(4096, &mut bytes).unwrap();
    assert_eq!(bytes, sample_bytes(LENGTH)[4096..4103]);
    client.request("sync 1").unwrap();
}

#[test]
fn two_clients_have_one_object_and_events_of_it() {
    let fixture = Fixture::new();
    let (mut one, mut two) = (fixture.client(), fixture.client());
    two.request("open sample").unwrap();
    one.request("open words").unwrap();
    two.request("open words rw").unwrap();
    assert_eq!(two.request("stats").unwrap().number("all-objects").unwrap(), 2);
    two.request("events on").unwrap();
    fixture.inject(Operation::Supply, 8192..12288, Some(1));
    let error = one.request("populate 1 8192 4096").unwrap_err();
    assert_eq!(error.kind(), Some("page"));
    assert_eq!(error.get("range").as_deref(), Some("8192+4096"));
    let event = two.next_event(PATIENCE).unwrap().unwrap();
    assert!(event.starts_with("failed object=2 range=8192+4096 kind=io tries=1"), "{event}");
    assert_eq!(two.request("retry 2").unwrap().number("pages").unwrap(), 1);
    one.request("populate 1").unwrap();
    two.request("events off").unwrap();
}

#[test]
fn a_failed_sync_reaches_who_asked_and_who_has_the_object() {
    let fixture = Fixture::new();
    let (mut one, mut two) = (fixture.client(), fixture.client());
    one.request("open words rw").unwrap();
    two.request("open words").unwrap();
    two.request("events on").unwrap();
    let (mapping, _) = one.map(1, GuestProt::ReadWrite).unwrap();
    mapping.write_at(0, b"changed").unwrap();
    fixture.inject(Operation::Sync, 0..LENGTH, Some(1));
    let error = one.request("sync 1").unwrap_err();
    assert_eq!((error.kind(), error.get("step").as_deref()), (Some("write"), Some("sync")));
    let event = two.next_event(PATIENCE).unwrap().unwrap();
    assert!(event.starts_with("write-failed object=1 range=0+"), "{event}");
    one.request("sync 1").unwrap();
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[..7], *b"changed");
    // A close that cannot sync leaves it open.
    mapping.write_at(0, b"again").unwrap();
    fixture.inject(Operation::Sync, 0..LENGTH, Some(1));
    one.request("unmap 1").unwrap();
    assert_eq!(one.request("close 1").unwrap_err().kind(), Some("write"));
    one.request("close 1").unwrap();
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[..5], *b"again");
}

#[test]
fn a_changed_file_is_stale_and_never_read_as_two_versions() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open sample").unwrap();
    client.request("events on").unwrap();
    client.request("populate 1 0 4096").unwrap();
    std::fs::write(fixture.path("sample"), vec![1; LENGTH as usize]).unwrap();
    let error = client.request("populate 1 524288 4096").unwrap_err();
    assert_eq!((error.kind(), error.get("kind").as_deref()), (Some("page"), Some("stale")));
    let event = client.next_event(PATIENCE).unwrap().unwrap();
    assert!(event.starts_with("stale object=1 range=524288+"), "{event}");
}

#[test]
fn a_long_request_does_not_hold_up_others() {
    let gate = Gate::default();
    let fixture = Fixture::with_exports(ServerOptions::new(), |exports| slow(exports, &gate));
    let mut client = fixture.client();
    client.request("open slow").unwrap();
    client.request("open sample").unwrap();
    let long = client.begin("populate 1 0 4096").unwrap();
    assert_eq!(client.request("length 1").unwrap().number("length").unwrap(), LENGTH);
    client.request("populate 2").unwrap();
    assert_eq!(client.request("stats").unwrap().number("running").unwrap(), 1);
    gate.open();
    assert_eq!(client.answer(&long).unwrap().number("bytes").unwrap(), 4096);
}

#[test]
fn who_shuts_its_side_gets_the_answers_that_are_due() {
    let gate = Gate::default();
    let fixture = Fixture::with_exports(ServerOptions::new(), |exports| slow(exports, &gate));
    for end in ["", "quit"] {
        let mut raw = fixture.raw();
        raw.line();
        assert!(raw.ask("a open slow").starts_with("a ok object=1 "));
        raw.send("b populate 1\n");
        match end {
            "" => raw.0.shutdown(std::net::Shutdown::Write).unwrap(),
            _ => assert_eq!(raw.ask("c quit"), "c ok"),
        }
        gate.open();
        assert_eq!(raw.rest(), "b ok bytes=1048576\n");
    }
}

#[test]
fn files_are_opened_by_descriptor() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    let file = std::fs::File::open(fixture.path("folder/file")).unwrap();
    std::fs::remove_file(fixture.path("folder/file")).unwrap();
    assert_eq!(client.request_with("open-descriptor ro", &file).unwrap().number("object").unwrap(), 1);
    // The same file is the same object.
    client.request_with("open-descriptor", &file).unwrap();
    assert_eq!(client.request("stats").unwrap().number("all-objects").unwrap(), 1);
    let (mapping, _) = client.map(2, GuestProt::ReadOnly).unwrap();
    let mut bytes = vec![0; LENGTH as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    assert!(bytes == sample_bytes(LENGTH));
}

#[test]
fn files_of_the_folder_are_opened_by_path() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("folder/a b")).unwrap();
    std::fs::write(fixture.path("folder/a b/c%"), b"text").unwrap();
    let mut client = fixture.client();
    client.request("open a%20b/c%25 ro policy=wait").unwrap();
    assert_eq!(client.request("read 1 0 4").unwrap().get("data").as_deref(), Some("74657874"));
    client.request("open file").unwrap();
    client.request("populate 2").unwrap();
}

#[test]
fn a_sync_that_fails_when_the_last_client_leaves_is_logged() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadWrite).unwrap();
    mapping.write_at(0, b"changed").unwrap();
    fixture.inject(Operation::Sync, 0..LENGTH, None);
    drop((client, mapping));
    fixture.wait_for_log("sync [0, 1048576) of words: input/output error; the last client has left it");
}
