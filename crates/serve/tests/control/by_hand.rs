//! Mappings that appear in another process than the client's, and those of programs without this library.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use memobj::{GuestProt, RemoteError, RemoteMapping};
use memobj_serve::control::{Client, ServerOptions};
use memobj_sim::fixture::sample_bytes;
use memobj_sim::process::{part, start};

use crate::fixture::{Fixture, LENGTH, PATIENCE, wait_until};

const DOCUMENT: &str = include_str!("../../../../docs/serve-protocol.md");

/// The client asks, a third process maps: it agrees by attaching at the other end of the pair.
#[test]
fn a_third_process_has_the_mapping_that_a_client_asked_for() {
    const NAME: &str = "a_third_process_has_the_mapping_that_a_client_asked_for";
    if let Some(path) = part(NAME) {
        let mapping = RemoteMapping::attach(UnixStream::connect(path).unwrap(), PATIENCE).unwrap();
        let mut bytes = vec![0; 5000];
        mapping.read_at(4000, &mut bytes).unwrap();
        assert!(bytes == sample_bytes(9000)[4000..]);
        mapping.write_at(4000, b"by a third").unwrap();
        // Until the client has it dismissed.
        wait_until("the end of the mapping", || !mapping.is_attached());
        assert_eq!(mapping.read_at(0, &mut [0]), Err(RemoteError::OwnerGone));
        return;
    }
    let fixture = Fixture::with(ServerOptions::new().attach(PATIENCE));
    let mut client = fixture.client();
    client.request("events on").unwrap();
    client.request("open words rw").unwrap();
    let path = fixture.path("third");
    let listener = UnixListener::bind(&path).unwrap();
    let mut third = start(NAME, path.to_str().unwrap());
    let (stream, _) = listener.accept().unwrap();
    // The connection to the third process is the pair.
    let mapping = client.request_with("map 1 rw", &stream).unwrap().number("mapping").unwrap();
    drop(stream);
    let read = |client: &mut Client| client.request("read 1 4000 10").unwrap().get("data");
    let stored: String = b"by a third".iter().map(|byte| format!("{byte:02x}")).collect();
    wait_until("the store of the third", || read(&mut client).as_deref() == Some(&stored));
    client.request(&format!("unmap {mapping}")).unwrap();
    assert!(third.wait(30).success());
    // One that ends by itself is told of.
    let mut third = start(NAME, path.to_str().unwrap());
    let (stream, _) = listener.accept().unwrap();
    client.request_with("map 1 rw", &stream).unwrap();
    drop(stream);
    third.kill();
    let event = client.next_event(PATIENCE).unwrap().unwrap();
    assert!(event.starts_with("ended mapping=2 object=1 why=left"), "{event}");
}

/// The script of the document: no library, a part of the object, privately.
#[test]
fn the_script_of_the_document_maps_by_hand() {
    if Command::new("python3").arg("-c").arg("import ctypes, os; os.pidfd_open").status().is_err() {
        return println!("skipped: there is no python3");
    }
    if !cfg!(target_arch = "x86_64") {
        return println!("skipped: the script has the numbers of x86-64");
    }
    let (_, script) = DOCUMENT.split_once("```python\n").expect("a script");
    let (script, _) = script.split_once("```").expect("the end of the script");
    let fixture = Fixture::new();
    for _ in 0..2 {
        let output =
            Command::new("python3").args(["-c", script]).arg(fixture.path("socket")).output().unwrap();
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if said.contains("userfaultfd") {
            return println!("skipped: {said}");
        }
        assert!(output.status.success(), "{said}");
        let hex: String = sample_bytes(8208)[8192..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, format!("{hex}\nmine\n"));
    }
    assert!(std::fs::read(fixture.path("words")).unwrap() == sample_bytes(LENGTH));
}

/// What a client stores to a private mapping is seen by nobody, and takes no right to write the object.
#[test]
fn a_private_mapping_is_its_own() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    // Of an object that it may only read, too.
    client.request("open words").unwrap();
    let (mapping, number) = client.map(1, GuestProt::Private).unwrap();
    mapping.write_at(10_000, b"mine").unwrap();
    let mut bytes = [0; 4];
    mapping.read_at(10_000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"mine");
    let (other, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    other.read_at(10_000, &mut bytes).unwrap();
    assert_eq!(bytes, sample_bytes(10_004)[10_000..]);
    client.request(&format!("unmap {number}")).unwrap();
    wait_until("the end of the mapping", || !mapping.is_attached());
    assert!(std::fs::read(fixture.path("words")).unwrap() == sample_bytes(LENGTH));
}
