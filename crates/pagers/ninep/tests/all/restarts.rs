//! A real server is killed and started again while an object of it is read and written.

use std::sync::mpsc::channel;

use memobj::{
    Cache, CacheOptions, Delivery, ErrorKind, MapOptions, Mapping, MemoryObject, ObjectOptions, Writing,
};
use memobj_9p::{NineOptions, NinePager, VersionCheck};
use memobj_sim::Random;
use memobj_sim::fixture::MIB;
use memobj_sim::known_byte;

use memobj_servers::{Kind, Server};

const PAGE: u64 = 4096;
const RESTARTS: usize = 20;

pub(crate) fn seed() -> u64 {
    let seed = std::env::var("MEMOBJ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand);
    println!("MEMOBJ_SEED={seed}");
    seed
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}

/// Bytes of which no two pages are alike.
pub(crate) fn known(length: u64) -> Vec<u8> {
    (0..length).step_by(8).flat_map(|at| Random::new(at).draw().to_le_bytes()).collect()
}

fn map(pager: NinePager, budget_bytes: u64, options: ObjectOptions) -> (MemoryObject, Mapping) {
    let cache = Cache::new(CacheOptions::new().budget_bytes(budget_bytes)).unwrap();
    let object = cache.object("file", pager, options).unwrap();
    let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
    (object, mapping)
}

/// Kills and starts `server` whenever it is told to.
pub(crate) fn restarting(server: &mut Server, moments: std::sync::mpsc::Receiver<()>) {
    for () in moments {
        server.kill();
        assert!(server.run(), "{}", server.output());
    }
}

#[test]
fn reading_goes_on_through_twenty_restarts() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    let mut random = Random::new(seed());
    let length = 64 * MIB;
    let bytes = known(length);
    let url = server.file("file", &bytes);
    for check in [VersionCheck::Strict, VersionCheck::Mtime] {
        let pager = NinePager::open(&url, NineOptions::new().version(check)).unwrap();
        let (object, mapping) = map(pager, 8 * MIB, ObjectOptions::new());
        // After which pages the server is killed.
        let mut moments: Vec<u64> = (0..RESTARTS).map(|_| random.below(length / PAGE)).collect();
        moments.sort_unstable();
        let (kill, kills) = channel();
        std::thread::scope(|scope| {
            let server = &mut server;
            scope.spawn(move || restarting(server, kills));
            let kill = kill;
            for page in 0..length / PAGE {
                moments.iter().filter(|moment| **moment == page).for_each(|_| kill.send(()).unwrap());
                let range = page * PAGE..(page + 1) * PAGE;
                let pinned = mapping.pin(range.clone()).unwrap();
                assert!(pinned[..] == bytes[range.start as usize..range.end as usize], "{check:?} {range:?}");
            }
        });
        println!("{check:?}: {:?}", object.pager_counters());
    }
}

#[test]
fn what_a_sync_promised_survives_twenty_restarts() {
    let Some(mut server) = Server::start(Kind::Diod) else { return };
    let seed = seed();
    let mut random = Random::new(seed);
    let length = 8 * MIB;
    let url = server.file("file", &vec![0; length as usize]);
    let path = server.path("file");
    let pager = NinePager::open(&url, NineOptions::new().writable()).unwrap();
    let options = ObjectOptions::new().writing(Writing::InPlace);
    // All of it stays in memory, so that nothing can be lost.
    let (object, mapping) = map(pager, 32 * MIB, options);
    let mut model = vec![0; length as usize];
    let (kill, kills) = channel();
    let (mut failed, mut synced) = (0, 0);
    std::thread::scope(|scope| {
        let server = &mut server;
        scope.spawn(move || restarting(server, kills));
        let kill = kill;
        for round in 0..3 * RESTARTS {
            let moment = 60 + random.below(4);
            for write in 0..64 {
                let page = random.below(length / PAGE);
                let bytes: Vec<u8> = (0..PAGE).map(|at| known_byte(random.draw(), at)).collect();
                let range = page * PAGE..(page + 1) * PAGE;
                mapping.write_at(range.start, &bytes).unwrap();
                model[range.start as usize..range.end as usize].copy_from_slice(&bytes);
                if round % 3 == 0 && write == moment {
                    kill.send(()).unwrap();
                }
            }
            while let Err(error) = mapping.sync(..) {
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                failed += 1;
            }
            synced += 1;
            assert!(std::fs::read(&path).unwrap() == model, "what was synced is in the file");
        }
    });
    println!("{synced} syncs, {failed} failed and were made again: {:?}", object.pager_counters());
}
