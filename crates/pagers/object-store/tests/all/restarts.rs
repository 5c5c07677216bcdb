//! A store that keeps its objects is killed and started again while one of them is read and written.

use memobj::{Cache, CacheOptions, EngineClock, FailurePolicy, ObjectOptions, Writing};
use memobj_object_store::{ObjectStoreOptions, ObjectStorePager};
use memobj_servers::{Passage, moments, random};
use memobj_sim::fixture::{MIB, check_sample, sample_bytes};
use memobj_sim::known_byte;

use crate::help::{map, options};
use crate::servers::{Store, s3s_fs};

const PAGE: u64 = 4096;
const RESTARTS: usize = 20;

/// Makes an object of the store.
fn publish(store: &Store, key: &str, bytes: &[u8]) {
    let pager = store.open(key, ObjectStoreOptions::new().creating());
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
    let options = ObjectOptions::new().writing(Writing::InPlace).max_len(bytes.len() as u64);
    let object = cache.object("object", pager, options).unwrap();
    object.set_len(bytes.len() as u64).unwrap();
    let mapping = object.map_all(memobj::MapOptions::new()).unwrap();
    mapping.write_at(0, bytes).unwrap();
    mapping.sync(..).unwrap();
}

fn open_by(store: &Store, passage: &Passage, options: ObjectStoreOptions) -> ObjectStorePager {
    let endpoint = format!("http://127.0.0.1:{}", passage.port());
    let options = store.options(options).setting("aws_endpoint", endpoint);
    ObjectStorePager::open(&store.url("object"), options).unwrap()
}

#[test]
fn reading_goes_on_through_twenty_restarts() {
    let Some(mut store) = s3s_fs() else { return };
    let mut random = random();
    let length = 24 * MIB;
    publish(&store, "object", sample_bytes(length));
    let passage = Passage::to(store.port());
    let clock = EngineClock::system();
    let pager = open_by(&store, &passage, options(&clock));
    let cache = Cache::new(CacheOptions::new().budget_bytes(4 * MIB)).unwrap();
    let mapping = map(&cache, &pager, FailurePolicy::WaitForEver);
    let moments = moments(&mut random, RESTARTS, 0..length);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for page in 0..length / PAGE {
                let range = page * PAGE..(page + 1) * PAGE;
                check_sample(range.clone(), &mapping.pin(range).unwrap(), "beside restarts");
            }
        });
        let restarts = passage.restart_at(&mut store, &moments, &mut || reader.is_finished());
        assert_eq!(restarts, moments.len());
    });
}

/// What a sync has promised is in the store, whole; what it has not is either of the two.
#[test]
fn what_a_sync_promised_survives_twenty_restarts() {
    let Some(mut store) = s3s_fs() else { return };
    let mut random = random();
    let (length, changed, rounds) = (12 * MIB, 4 * MIB, 15);
    let mut model = sample_bytes(length).to_vec();
    publish(&store, "object", &model);
    let file = store.path("object");
    assert!(std::fs::read(&file).unwrap() == model);
    let passage = Passage::to(store.port());
    let pager = open_by(&store, &passage, ObjectStoreOptions::new().writable());
    let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
    let options = ObjectOptions::new().writing(Writing::InPlace);
    let mapping = cache.object("object", pager, options).unwrap().map_all(memobj::MapOptions::new()).unwrap();
    // One round moves at least the part with the changes.
    let moments = moments(&mut random, RESTARTS, 0..rounds * 8 * MIB);
    let mut failed = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..rounds {
                let before = model.clone();
                for _ in 0..16 {
                    let page = random.below(changed / PAGE);
                    let (seed, range) = (random.draw(), (page * PAGE) as usize..((page + 1) * PAGE) as usize);
                    model[range.clone()]
                        .iter_mut()
                        .zip(0..)
                        .for_each(|(byte, at)| *byte = known_byte(seed, at));
                    mapping.write_at(range.start as u64, &model[range]).unwrap();
                }
                while let Err(error) = mapping.sync(..) {
                    assert!(error.may_retry(), "{error}");
                    let now = std::fs::read(&file).unwrap();
                    assert!(now == before || now == model, "the old version or the new");
                    failed += 1;
                }
                assert!(std::fs::read(&file).unwrap() == model, "what was synced is there");
            }
        });
        let restarts = passage.restart_at(&mut store, &moments, &mut || writer.is_finished());
        println!("{restarts} restarts");
    });
    println!("{failed} syncs failed and were made again");
}
