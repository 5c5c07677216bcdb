//! Clients in other processes: what they share, and what an end on either side leaves.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use memobj::{Cache, CacheOptions, GuestProt, RemoteError, RemoteMapping};
use memobj_serve::control::{Access, Client, Exports, Server, ServerOptions};
use memobj_sim::fixture::{MIB, sample_bytes};
use memobj_sim::process::{Usage, alone, part, start};

use crate::fixture::{Fixture, LENGTH, PATIENCE, wait_until};

const SIGKILL: i32 = 9;
const WORDS: u64 = LENGTH / 8;
/// The words by which two processes wait for one another; the others are stored to.
const SIGNALS: u64 = 2;

fn words_of(client: &mut Client) -> RemoteMapping {
    let object = client.request("open words rw").unwrap().number("object").unwrap();
    client.map(object, GuestProt::ReadWrite).unwrap().0
}

fn value(word: u64) -> u64 {
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Stores to every other word, waits for the other side, and checks what that stored.
fn store_and_check(mapping: &RemoteMapping, side: u64) {
    const DONE: u64 = u64::from_le_bytes(*b"all done");
    let words = mapping.shared_words().unwrap();
    let of = |side: u64| (SIGNALS..WORDS).filter(move |word| word % 2 == side);
    of(side).for_each(|word| words.store(word, value(word)));
    words.store(side, DONE);
    wait_until("stores of the other process", || words.load(1 - side) == DONE);
    for word in of(1 - side) {
        assert_eq!(words.load(word), value(word), "word {word}");
    }
}

#[test]
fn two_processes_store_to_every_other_word_of_one_object() {
    const NAME: &str = "two_processes_store_to_every_other_word_of_one_object";
    if let Some(part) = part(NAME) {
        let mut client = Client::connect(part).unwrap();
        let mapping = words_of(&mut client);
        store_and_check(&mapping, 1);
        // The first syncs for both.
        return;
    }
    let fixture = Fixture::new();
    let mut client = fixture.client();
    let mapping = words_of(&mut client);
    let mut other = start(NAME, fixture.path("socket").to_str().unwrap());
    store_and_check(&mapping, 0);
    assert!(other.wait(30).success());
    client.request("sync 1").unwrap();
    let bytes = std::fs::read(fixture.path("words")).unwrap();
    for (word, stored) in bytes.chunks_exact(8).enumerate().skip(SIGNALS as usize) {
        assert_eq!(u64::from_le_bytes(stored.try_into().unwrap()), value(word as u64), "word {word}");
    }
}

/// A client that has mapped and stored is killed.
#[test]
fn what_a_killed_client_had_is_cleaned_up() {
    const NAME: &str = "what_a_killed_client_had_is_cleaned_up";
    if let Some(path) = part(NAME).filter(|part| part != "alone") {
        let mut client = Client::connect(path).unwrap();
        let mapping = words_of(&mut client);
        client.request("open sample").unwrap();
        let _read = client.map(2, GuestProt::ReadOnly).unwrap();
        mapping.write_at(4096, b"stored").unwrap();
        loop {
            std::thread::park();
        }
    }
    alone(NAME, || kill_a_client(NAME));
}

fn kill_a_client(name: &str) {
    let fixture = Fixture::new();
    let before = warm(&fixture);
    let mut child = start(name, fixture.path("socket").to_str().unwrap());
    let mut watching = fixture.client();
    let mapping = words_of(&mut watching);
    let mut bytes = [0; 6];
    wait_until("the store of the child", || {
        mapping.read_at(4096, &mut bytes).unwrap();
        &bytes == b"stored"
    });
    assert_eq!(child.kill().signal(), Some(SIGKILL));
    // What it stored is part of the object.
    wait_until("the end of its session", || fixture.handle.statistics().clients == 1);
    mapping.read_at(4096, &mut bytes).unwrap();
    assert_eq!(&bytes, b"stored");
    drop((mapping, watching));
    is_as_before(&fixture, before);
    assert_eq!(std::fs::read(fixture.path("words")).unwrap()[4096..4102], *b"stored");
}

/// Opens, maps and leaves once, so that all threads and tables that stay are there. Descriptors then.
pub(crate) fn warm(fixture: &Fixture) -> usize {
    let mut client = fixture.client();
    client.request("open words rw").unwrap();
    client.request("open sample").unwrap();
    drop(client.map(1, GuestProt::ReadWrite).unwrap());
    drop(client.map(2, GuestProt::ReadOnly).unwrap());
    client.request("populate 2").unwrap();
    client.request("sync 1").unwrap();
    drop(client);
    wait_until("nobody is connected", || fixture.handle.statistics().clients == 0);
    settled_descriptors()
}

/// The descriptors of the process, once what closes them aside has done so.
fn settled_descriptors() -> usize {
    let mut last = (usize::MAX, 0);
    wait_until("the descriptors stay", || {
        let now = Usage::now().descriptors;
        last = if last.0 == now { (now, last.1 + 1) } else { (now, 0) };
        last.1 > 20
    });
    last.0
}

/// Nothing is left of clients, and descriptors are as they were.
pub(crate) fn is_as_before(fixture: &Fixture, descriptors: usize) {
    wait_until("nobody is connected", || {
        let statistics = fixture.handle.statistics();
        (statistics.clients, statistics.objects, statistics.running, statistics.descriptors) == (0, 0, 0, 0)
    });
    wait_until(&format!("{descriptors} descriptors"), || Usage::now().descriptors <= descriptors);
}

fn serve_for_ever(folder: &Path) {
    let mut exports = Exports::new();
    exports.file("words", folder.join("words"), Access::ReadWrite);
    let cache = Cache::new(CacheOptions::new().budget_bytes(4 * MIB)).unwrap();
    Server::bind(folder.join("socket"), cache, exports, ServerOptions::new()).unwrap().run().unwrap();
}

/// All of a mapping traps when the server is killed, and a new server takes the place of its socket.
#[test]
fn mappings_trap_when_the_server_is_killed() {
    const NAME: &str = "mappings_trap_when_the_server_is_killed";
    if let Some(part) = part(NAME) {
        return serve_for_ever(Path::new(&part));
    }
    let folder = tempfile::tempdir_in(memobj_sim::fixture::folder()).unwrap();
    std::fs::write(folder.path().join("words"), sample_bytes(LENGTH)).unwrap();
    let socket = folder.path().join("socket");
    let begin = || {
        let server = start(NAME, folder.path().to_str().unwrap());
        let mut client = None;
        wait_until("a server", || {
            client = Client::connect(&socket).ok();
            client.is_some()
        });
        (server, client.unwrap())
    };
    let (mut server, mut client) = begin();
    let mapping = words_of(&mut client);
    mapping.write_at(0, b"synced").unwrap();
    client.request("sync 1").unwrap();
    server.kill();
    wait_until("the mapping hears of it", || !mapping.is_attached());
    assert_eq!(mapping.read_at(0, &mut [0; 6]), Err(RemoteError::OwnerGone));
    assert_eq!(mapping.write_at(0, b"x"), Err(RemoteError::OwnerGone));
    assert!(client.request("stats").is_err());
    let (_server, mut client) = begin();
    let mapping = words_of(&mut client);
    let mut bytes = [0; 6];
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"synced");
}

#[test]
fn the_end_of_a_mapping_is_told() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    client.request("events on").unwrap();
    client.request("open sample").unwrap();
    let (mapping, number) = client.map(1, GuestProt::ReadOnly).unwrap();
    drop(mapping);
    let event = client.next_event(PATIENCE).unwrap().unwrap();
    assert_eq!(event, format!("ended mapping={number} object=1 why=left"));
    client.request("close 1").unwrap();
    let (mapping, number) = {
        client.request("open sample").unwrap();
        client.map(2, GuestProt::ReadOnly).unwrap()
    };
    client.request(&format!("unmap {number}")).unwrap();
    wait_until("the mapping hears of it", || !mapping.is_attached());
    assert_eq!(mapping.read_at(0, &mut [0]), Err(RemoteError::OwnerGone));
}

#[test]
fn three_hundred_clients_have_a_mapping_each_of_one_object() {
    alone("three_hundred_clients_have_a_mapping_each_of_one_object", three_hundred_clients);
}

/// Some may store. What they do reaches all others, and the file, also after the object was synced.
fn three_hundred_clients() {
    const CLIENTS: usize = 300;
    const WRITERS: usize = 20;
    if let Err(reason) = memobj_sim::process::need_descriptors(8000) {
        return println!("skipped: {reason}");
    }
    let fixture = Fixture::new();
    let before = (warm(&fixture), Usage::now());
    // Writers are spread, so that they lie between those who only load.
    let is_writer = |number: usize| number % (CLIENTS / WRITERS) == 7;
    let mut mapped: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut client = fixture.client();
            let (access, prot) = match is_writer(number) {
                true => ("rw", GuestProt::ReadWrite),
                false => ("ro", GuestProt::ReadOnly),
            };
            client.request(&format!("open words {access}")).unwrap();
            let mapping = client.map(1, prot).unwrap().0;
            (client, mapping)
        })
        .collect();
    let with = Usage::now();
    println!(
        "server and clients in one process: {} KiB of private memory and {} descriptors for each client",
        (with.anonymous_bytes.saturating_sub(before.1.anonymous_bytes)) / CLIENTS as u64 / 1024,
        (with.descriptors - before.0) / CLIENTS
    );
    assert_eq!(fixture.handle.statistics().clients, CLIENTS as u64);
    let mut bytes = sample_bytes(LENGTH).to_vec();
    for round in 0..3 {
        for number in (0..CLIENTS).filter(|number| is_writer(*number)) {
            let (at, word) = (number * 2000, (round * 1000 + number as u64).to_le_bytes());
            mapped[number].1.write_at(at as u64, &word).unwrap();
            bytes[at..at + 8].copy_from_slice(&word);
        }
        for (number, (_, mapping)) in mapped.iter().enumerate() {
            let mut read = vec![0; LENGTH as usize];
            mapping.read_at(0, &mut read).unwrap();
            assert!(read == bytes, "client {number}, round {round}");
        }
        let writer = &mut mapped[7].0;
        writer.request("sync 1").unwrap();
        assert!(std::fs::read(fixture.path("words")).unwrap() == bytes, "round {round}");
    }
    drop(mapped);
    is_as_before(&fixture, before.0);
}
