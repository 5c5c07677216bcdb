//! Mappings at addresses that the caller chose.

use std::os::unix::net::UnixStream;

use memobj::{
    AdmitError, AdmitOptions, CacheOptions, Delivery, FrameVisibility, MapError, MapOptions, Mapping,
    MemoryObject, Neighbour, ObjectOptions, RemoteMapping, Sharing, Writing,
};
use memobj_sim::fixture::{GUARD, MIB, Sample, cache, sample_bytes, wait_until};
use memobj_sim::process::{child, part, show};
use memobj_sim::writable_fixture::{DELIVERIES, mapped};

const PAGE: u64 = 4096;
/// Addresses that neither programs, nor stacks, nor the kernel's choice come to. Each test takes some of its own.
const HIGH: usize = 0x2000_0000_0000;
const GIB: usize = 1 << 30;

fn at(delivery: Delivery, address: usize) -> MapOptions {
    mapped(delivery).at(address)
}

fn written(visibility: FrameVisibility) -> ObjectOptions {
    ObjectOptions::new().writing(Writing::InPlace).visibility(visibility).max_len(2 * MIB)
}

/// The deliveries with an address that this machine has.
fn deliveries(object: &MemoryObject) -> Vec<Delivery> {
    let touchable = |delivery: &Delivery| *delivery != Delivery::PinOnly;
    let found: Vec<_> = DELIVERIES.into_iter().filter(touchable).collect();
    match object.map(0..0, mapped(Delivery::InThread)) {
        Err(MapError::NoUserfaultfd { source }) => {
            println!("skipped: no userfaultfd: {source}");
            Vec::new()
        }
        _ => found,
    }
}

fn check_sample(start: u64, bytes: &[u8]) {
    let end = start + bytes.len() as u64;
    assert!(bytes == &sample_bytes(end)[start as usize..], "other bytes in [{start}, {end})");
}

fn refused(mapped: Result<Mapping, MapError>) -> MapError {
    mapped.expect_err("a refusal")
}

#[test]
fn a_mapping_is_at_the_address_that_was_asked_for() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    let mut address = HIGH;
    for visibility in [FrameVisibility::Local, FrameVisibility::Shared] {
        for options in [ObjectOptions::new().visibility(visibility), written(visibility)] {
            let probe = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
            for delivery in deliveries(&probe) {
                address += GIB;
                let object = cache.open_file(sample.path(), options.clone()).unwrap();
                let part = 3 * PAGE..MIB;
                let there = address + 3 * PAGE as usize;
                let mapping = object.map(part.clone(), at(delivery, there)).unwrap();
                assert_eq!(mapping.as_ptr() as usize, there);
                let mut bytes = vec![0; 2 * PAGE as usize];
                mapping.touch_at(PAGE - 5, &mut bytes).unwrap();
                check_sample(part.start + PAGE - 5, &bytes);
                check_sample(part.start, &mapping.pin(0..PAGE).unwrap());
                // Another window of the same home.
                let whole = object.map(0..MIB, at(delivery, address)).unwrap();
                assert_eq!(whole.as_ptr() as usize, address);
            }
        }
    }
}

#[test]
fn a_private_mapping_is_at_its_address_beside_the_shared_one() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    let object = cache.open_file(sample.path(), written(FrameVisibility::Local)).unwrap();
    for (index, delivery) in deliveries(&object).into_iter().enumerate() {
        let address = HIGH + (100 + index) * GIB;
        let private = object.map(0..MIB, at(delivery, address).sharing(Sharing::Private)).unwrap();
        private.write_at(0, &[0xaa; 100]).unwrap();
        assert_eq!(private.as_ptr() as usize, address);
        let mut bytes = [0; 100];
        private.touch_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0xaa; 100]);
    }
}

#[test]
fn nobody_is_mapped_over_and_the_error_says_who_is_there() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    let there =
        cache.open_file(sample.path(), ObjectOptions::new().visibility(FrameVisibility::Shared)).unwrap();
    if deliveries(&there).is_empty() {
        return;
    }
    let address = HIGH + 200 * GIB;
    let neighbour = there.map(0..MIB, at(Delivery::InThread, address)).unwrap();
    let options = written(FrameVisibility::Local).max_len(3 * MIB);
    let object = cache.open_file(sample.path(), options).unwrap();
    // In its first byte; and only in addresses that the object may grow to.
    for wanted in [address, address - 2 * MIB as usize] {
        let error = refused(object.map(0..MIB, at(Delivery::InThread, wanted)));
        let MapError::AddressTaken { range, by } = &error else { panic!("{error}") };
        assert_eq!(*range, wanted..wanted + 3 * MIB as usize);
        let Neighbour { range, permissions, name, .. } = by;
        assert_eq!(*range, address..address + MIB as usize, "{by}");
        assert_eq!(permissions, "r--s", "{by}");
        assert!(name.contains("memobj") && error.to_string().contains(name), "{error}");
    }
    let mut bytes = vec![0; MIB as usize];
    neighbour.touch_at(0, &mut bytes).unwrap();
    check_sample(0, &bytes);
    // Right behind it, and after it has gone, there is room.
    let behind = object.map(0..MIB, at(Delivery::InThread, address + 2 * MIB as usize)).unwrap();
    assert_eq!(behind.as_ptr() as usize, address + 2 * MIB as usize);
    drop((neighbour, there));
    let other = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    // Threads of the cache may still be busy with it.
    wait_until("the addresses are free", || other.map(0..MIB, at(Delivery::InThread, address)).is_ok());
}

#[test]
fn addresses_that_cannot_be_are_refused_with_a_reason() {
    let sample = Sample::new(4 * MIB);
    let cache = cache(4 * MIB);
    let object = cache.open_file(sample.path(), ObjectOptions::default()).unwrap();
    if deliveries(&object).is_empty() {
        return;
    }
    let large = 2 * MIB as usize;
    for (start, address) in [
        (0, 0),
        (PAGE, PAGE as usize),
        (0, HIGH + 1),
        (0, HIGH + PAGE as usize),
        (PAGE, HIGH),
        (MIB, 4096),
        (0, usize::MAX),
        (0, usize::MAX - (large - 1)),
        (0, 1 << 47),
        (0, (1 << 47) - large),
        (0, 1 << 56),
    ] {
        let error = refused(object.map(start..4 * MIB, at(Delivery::InThread, address)));
        assert!(matches!(error, MapError::BadAddress { .. }), "{start} at {address:#x}: {error}");
    }
    let error = refused(object.map(0..MIB, at(Delivery::PinOnly, HIGH)));
    assert!(matches!(error, MapError::Unsupported { .. }), "{error}");
    // Nothing was made on the way.
    let anywhere = object.map(0..4 * MIB, mapped(Delivery::InThread)).unwrap();
    check_sample(0, &anywhere.pin(0..PAGE).unwrap());
}

#[test]
fn an_object_has_one_home() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    for (index, visibility) in [FrameVisibility::Local, FrameVisibility::Shared].into_iter().enumerate() {
        let object = cache.open_file(sample.path(), ObjectOptions::new().visibility(visibility)).unwrap();
        if deliveries(&object).is_empty() {
            return;
        }
        let mapping = object.map(PAGE..MIB, mapped(Delivery::InThread)).unwrap();
        let address = HIGH + (300 + index) * GIB;
        let error = refused(object.map(0..MIB, at(Delivery::InThread, address)));
        let MapError::MappedElsewhere { object: name, wanted, address: is_at } = error else {
            panic!("{error}")
        };
        assert_eq!((&*name, wanted, is_at + 4096), (object.name(), address, mapping.as_ptr() as usize));
        object.map(0..MIB, at(Delivery::InThread, is_at)).unwrap();
        // Its last mapping gone, it can be elsewhere.
        drop(mapping);
        let moved = object.map(0..MIB, at(Delivery::InThread, address)).unwrap();
        assert_eq!(moved.as_ptr() as usize, address);
    }
}

/// A list in an object, whose links are addresses.
fn link(mapping: &Mapping, store: bool) -> u64 {
    let words = mapping.shared_words().unwrap();
    let base = mapping.as_ptr() as u64;
    let (mut at, mut seen) = (0, 0);
    for step in 1..64u64 {
        let next = step * 37 % 128 * (PAGE / 8);
        if store {
            words.store(at, base + next * 8);
        }
        at = (words.load(at) - base) / 8;
        seen = (seen * 31 + at) % 1_000_003;
    }
    seen
}

#[test]
fn pointers_in_an_object_hold_in_the_next_process() {
    const NAME: &str = "pointers_in_an_object_hold_in_the_next_process";
    const ADDRESS: usize = HIGH + 400 * GIB;
    let map = |path: &std::path::Path| {
        let cache = memobj::Cache::new(CacheOptions::new().budget_bytes(MIB / 4)).unwrap();
        let object = cache.open_file(path, written(FrameVisibility::Local)).unwrap();
        (object.map(0..MIB, at(Delivery::InThread, ADDRESS)), object)
    };
    if let Some(path) = part(NAME) {
        let (mapping, _object) = map(path.as_ref());
        println!("the list adds up to {}", link(&mapping.unwrap(), false));
        return;
    }
    let sample = Sample::new(MIB);
    let (mapping, object) = map(sample.path());
    let mapping = match mapping {
        Err(MapError::NoUserfaultfd { source }) => return println!("skipped: no userfaultfd: {source}"),
        mapping => mapping.unwrap(),
    };
    let sum = link(&mapping, true);
    object.close().unwrap();
    drop((mapping, object));
    let output = child(NAME, sample.path().to_str().unwrap());
    show(&output);
    assert!(output.status.success(), "{}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("adds up to {sum}\n")));
}

#[test]
fn a_guest_is_at_its_address() {
    let sample = Sample::new(MIB);
    let cache = cache(4 * MIB);
    let object = cache.open_file(sample.path(), written(FrameVisibility::Shared)).unwrap();
    if deliveries(&object).is_empty() {
        return;
    }
    let attach = |address| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let attaching = std::thread::spawn(move || RemoteMapping::attach_at(theirs, GUARD, address));
        let guest = object.admit(ours, AdmitOptions::new().timeout(GUARD));
        (guest, attaching.join().unwrap())
    };
    let address = HIGH + 500 * GIB;
    let (guest, remote) = attach(address);
    let (_guest, remote) = (guest.unwrap(), remote.unwrap());
    assert_eq!(remote.as_ptr() as usize, address);
    let mut bytes = vec![0; 3 * PAGE as usize];
    remote.read_at(100, &mut bytes).unwrap();
    check_sample(100, &bytes);

    let (guest, taken) = attach(address);
    assert!(guest.is_err(), "a guest that could not map is attached");
    let taken = taken.expect_err("a refusal");
    assert!(matches!(&taken, AdmitError::Map(MapError::AddressTaken { .. })), "{taken}");
    assert!(matches!(
        RemoteMapping::attach_at(UnixStream::pair().unwrap().0, GUARD, 0),
        Err(AdmitError::Map(MapError::BadAddress { .. }))
    ));
}
