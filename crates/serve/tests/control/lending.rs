//! Frames that are lent: who has the same, and when a file is another one.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use memobj_serve::control::{Borrowed, Borrower, Lend, LoanKind, ServerOptions};

use crate::fixture::{Fixture, LENGTH, PATIENCE};

fn lending() -> Fixture {
    Fixture::with(ServerOptions::new().lend(Lend::Owner))
}

fn borrow(fixture: &Fixture, kind: LoanKind) -> Borrowed {
    let borrower = Borrower::connect(fixture.path("socket")).unwrap();
    borrower.borrow(File::open(fixture.path("sample")).unwrap(), kind).unwrap()
}

/// Which frames.
fn inode(loan: &Borrowed) -> u64 {
    File::from(loan.frames().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

fn resolve(loan: &Borrowed, offset: u64) {
    let (tell, told) = std::sync::mpsc::channel();
    loan.resolve(offset, &(offset..offset + 4096), move |answer| tell.send(answer).unwrap());
    told.recv_timeout(PATIENCE).unwrap().unwrap();
}

fn bytes_at(loan: &Borrowed, offset: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    let frames = File::from(loan.frames().try_clone_to_owned().unwrap());
    frames.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn an_unchanged_file_has_the_same_frames_for_all_who_map_it_alike() {
    let fixture = lending();
    let first = borrow(&fixture, LoanKind::Private);
    resolve(&first, 8192);
    let inode_before = inode(&first);
    drop(first);
    let again = borrow(&fixture, LoanKind::Private);
    let shared = borrow(&fixture, LoanKind::Shared);
    // Where there are no leases a file is not kept while it is young.
    if fixture.handle.statistics().warm_loans == 0 {
        println!("skipped: no leases on this file system");
        return;
    }
    assert!(inode(&again) == inode_before && again.is_resident(8192) && again.len() == LENGTH);
    assert!(inode(&shared) != inode_before && !shared.is_resident(8192));
}

#[test]
fn a_writer_does_not_wait_for_a_file_that_is_only_warm() {
    let fixture = lending();
    let loan = borrow(&fixture, LoanKind::Private);
    resolve(&loan, 0);
    let before = inode(&loan);
    drop(loan);
    // Waits for the lease of the server, which gives it back.
    let began = Instant::now();
    let writer = File::options().write(true).open(fixture.path("sample")).unwrap();
    assert!(began.elapsed() < PATIENCE);
    writer.write_all_at(b"changed!", 0).unwrap();
    drop(writer);
    let loan = borrow(&fixture, LoanKind::Private);
    assert!(inode(&loan) != before && !loan.is_resident(0));
    resolve(&loan, 0);
    assert_eq!(bytes_at(&loan, 0), *b"changed!");
}

/// While somebody has the file open for writing there is no lease: versions are compared.
#[test]
fn without_a_lease_a_file_is_kept_only_once_it_is_old_and_as_long_as_it_is_the_same() {
    let fixture = lending();
    let writer = File::options().write(true).open(fixture.path("sample")).unwrap();
    writer.write_all_at(b"version1", 0).unwrap();
    let young = [borrow(&fixture, LoanKind::Private), borrow(&fixture, LoanKind::Private)];
    assert_ne!(inode(&young[0]), inode(&young[1]), "a second change could look like the first");
    let began = Instant::now();
    let old = loop {
        let [one, other] = [borrow(&fixture, LoanKind::Private), borrow(&fixture, LoanKind::Private)];
        if inode(&one) == inode(&other) {
            break one;
        }
        assert!(began.elapsed() < PATIENCE, "it does not become old");
        // waits: polls until the server takes the file for old.
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    resolve(&old, 0);
    assert_eq!(bytes_at(&old, 0), *b"version1");
    let modified = writer.metadata().unwrap().modified().unwrap();
    writer.write_all_at(b"version2", 0).unwrap();
    writer.set_modified(modified).unwrap();
    let new = borrow(&fixture, LoanKind::Private);
    assert_ne!(inode(&new), inode(&old));
    resolve(&new, 0);
    assert_eq!(bytes_at(&new, 0), *b"version2");
}

#[test]
fn nothing_is_lent_unless_the_server_was_told_to() {
    let fixture = Fixture::new();
    let refused = Borrower::connect(fixture.path("socket")).unwrap_err();
    assert_eq!(refused.kind(), Some("denied"));
    let mut client = fixture.client();
    let file = File::open(fixture.path("sample")).unwrap();
    assert_eq!(client.request_with("borrow private", &file).unwrap_err().kind(), Some("denied"));
}

#[test]
fn a_loan_takes_a_descriptor_that_can_read_and_ranges_of_the_file() {
    let fixture = lending();
    let mut client = fixture.client();
    let kind = |answer: Result<_, memobj_serve::control::ClientError>| {
        answer.map(|_| ()).unwrap_err().kind().unwrap().to_owned()
    };
    assert_eq!(kind(client.request("borrow private")), "descriptor");
    let writer = File::options().write(true).open(fixture.path("sample")).unwrap();
    assert_eq!(kind(client.request_with("borrow private", &writer)), "descriptor");
    assert_eq!(kind(client.request_with("borrow private", std::io::stdin())), "descriptor");
    let file = File::open(fixture.path("sample")).unwrap();
    assert_eq!(kind(client.request_with("borrow", &file)), "syntax");
    let object = client.request_with("borrow private", &file).unwrap().number("object").unwrap();
    assert_eq!(kind(client.request(&format!("resolve {object} {LENGTH} 0 4096"))), "range");
    assert_eq!(kind(client.request(&format!("resolve {object} 0 1 {}", u64::MAX))), "range");
    client.request(&format!("resolve {object} 0 {} 4096", u64::MAX - 4096)).unwrap();
    client.request(&format!("prefetch-lent {object} {} {}", u64::MAX, u64::MAX)).unwrap();
    // It is no object that is mapped.
    assert_eq!(kind(client.request(&format!("read {object} 0 1"))), "not-found");
    client.request(&format!("give-back {object}")).unwrap();
    assert_eq!(kind(client.request(&format!("give-back {object}"))), "not-found");
}
