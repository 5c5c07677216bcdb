//! Every verb, and every kind of error.

use memobj::GuestProt;
use memobj_sim::fixture::sample_bytes;

use crate::fixture::{Fixture, LENGTH};

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
