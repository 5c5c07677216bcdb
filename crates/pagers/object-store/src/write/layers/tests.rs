use memobj_sim::Random;

use super::*;
use crate::version::Version;

const LENGTH: u64 = 64;

fn base(length: u64) -> Base {
    Base { version: Version::Tag(format!("{length}")), length, is_whole: false }
}

/// What the layers say the object is, given the bytes of the base.
fn read(layers: &Layers, published: &[u8]) -> Vec<u8> {
    bytes(layers.pieces(0..layers.length()), published)
}

fn bytes(pieces: Vec<Piece>, published: &[u8]) -> Vec<u8> {
    let mut object = Vec::new();
    for Piece { range, origin } in pieces {
        assert_eq!(range.start, object.len() as u64);
        let mut part = vec![0; (range.end - range.start) as usize];
        match origin {
            Origin::Base(_) => part.copy_from_slice(&published[range.start as usize..range.end as usize]),
            Origin::Spool(spool) => spool.read(range.start, &mut part).unwrap(),
            Origin::Zero => {}
        }
        object.extend(part);
    }
    object
}

/// Random writes, lengths and publications that succeed or fail, against a vector.
#[test]
fn layers_are_the_object_that_was_written() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut published: Vec<u8> = (0..LENGTH).map(|at| at as u8).collect();
        let mut model = published.clone();
        let layers = Layers::new(base(LENGTH), None).unwrap();
        let mut under_way: Option<(Snapshot, Vec<u8>)> = None;
        for step in 0..40 {
            match random.below(6) {
                0..=2 if !model.is_empty() => {
                    let start = random.below(model.len() as u64);
                    let end = start + random.below(model.len() as u64 - start) + 1;
                    let new = vec![100 + step as u8; (end.min(model.len() as u64) - start) as usize];
                    layers.write(start, &new).unwrap();
                    model[start as usize..start as usize + new.len()].copy_from_slice(&new);
                }
                3 => {
                    let length = random.below(2 * LENGTH);
                    layers.set_length(length);
                    model.resize(length as usize, 0);
                }
                4 if under_way.is_none() => match layers.begin().unwrap() {
                    Some(snapshot) => under_way = Some((snapshot, model.clone())),
                    None => assert_eq!(model, published),
                },
                _ => {
                    if let Some((snapshot, object)) = under_way.take() {
                        assert_eq!(snapshot.length, object.len() as u64);
                        assert_eq!(bytes(layers.pieces_of(snapshot, 0..snapshot.length), &published), object);
                        if random.below(2) == 0 {
                            layers.published(snapshot, base(object.len() as u64));
                            published = object;
                        } else {
                            layers.not_published(snapshot).unwrap();
                        }
                    }
                }
            }
            assert_eq!(read(&layers, &published), model, "seed {seed}, step {step}");
            assert!(layers.state().layers.len() <= 2);
        }
    }
}
