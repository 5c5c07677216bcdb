use super::*;

fn object(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// Around every change of the tree's shape.
#[test]
fn the_root_is_the_hash_of_the_object() {
    for length in [0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 3 * 1024, 5 * 1024 + 1, 8 * 1024, 37 * 1024 + 5]
    {
        let object = object(length);
        for block in [1024, 2048, 4096, 65536] {
            let manifest = Manifest::make(&object[..], block).unwrap();
            assert_eq!(
                manifest.root(),
                blake3::hash(&object).as_bytes(),
                "{length} bytes in blocks of {block}"
            );
            assert_eq!(manifest.digests.len() as u64, (length as u64).div_ceil(block));
        }
    }
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let manifest = Manifest::make(&object(10_000)[..], 1024).unwrap();
    let mut file = Vec::new();
    manifest.write_to(&mut file).unwrap();
    assert_eq!(Manifest::read_from(&file[..]).unwrap(), manifest);
    for length in 0..file.len() {
        assert!(Manifest::read_from(&file[..length]).is_err(), "cut at {length}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        let read = Manifest::read_from(&damaged[..]);
        // A length of other 10 blocks cannot be told from the right one: the first answer is of another length.
        assert!(read.is_err() || (24..26).contains(&at), "byte {at}");
    }
    file.push(0);
    assert!(Manifest::read_from(&file[..]).is_err());
    assert!(matches!(Manifest::make(&[][..], 1000), Err(ManifestError::Block(1000))));
}

#[test]
fn every_wrong_byte_is_noticed() {
    for length in [1000, 5000] {
        let object = object(length);
        let manifest = Manifest::make(&object[..], 1024).unwrap();
        let fed = |bytes: &[u8], piece: usize| {
            let mut check = manifest.check_from(0);
            let fed = bytes.chunks(piece).try_for_each(|piece| check.feed(piece));
            assert_eq!(fed.is_err(), check.is_wrong());
            fed
        };
        for piece in [1, 100, 1024, 5000] {
            assert_eq!(fed(&object, piece), Ok(()), "pieces of {piece}");
        }
        for at in (0..length).step_by(97) {
            let mut damaged = object.clone();
            damaged[at] ^= 0x40;
            assert_eq!(fed(&damaged, 300), Err(WrongDigest(at as u64 / 1024)));
        }
        let mut long = object.clone();
        long.push(0);
        assert!(fed(&long, 64).is_err());
    }
}

#[test]
fn ranges_are_asked_for_in_whole_blocks() {
    let manifest = Manifest::make(&object(10_000)[..], 4096).unwrap();
    assert_eq!(manifest.covering(&(0..4096)), 0..4096);
    assert_eq!(manifest.covering(&(4095..4097)), 0..8192);
    assert_eq!(manifest.covering(&(8192..10_000)), 8192..10_000);
}
