//! The protocol under any bytes: a random mixture of requests that are nearly right. `MEMOBJ_FUZZ_SECONDS` is how long (2),
//! `MEMOBJ_SEED` what is drawn (the time). The same body is the fuzz target `control` (`fuzz/`).

mod check;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memobj_sim::random::Random;

const WORDS: [&str; 46] = [
    "exports",
    "open",
    "open-descriptor",
    "close",
    "length",
    "read",
    "populate",
    "prefetch",
    "advise",
    "retry",
    "sync",
    "discard",
    "map",
    "unmap",
    "events",
    "stats",
    "clients",
    "objects",
    "borrow",
    "resolve",
    "prefetch-lent",
    "give-back",
    "words",
    "zeros",
    "file",
    "../words",
    "rw",
    "ro",
    "private",
    "on",
    "off",
    "policy=fail",
    "policy=retry:10",
    "willneed",
    "dontneed",
    "random",
    "0",
    "1",
    "2",
    "4096",
    "1048576",
    "1048577",
    "18446744073709551615",
    "%2e%2e%2f",
    "quit",
    "\u{e9}",
];

/// A request that makes sense in parts.
fn request(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut pick = |of: u64| random.below(of);
    bytes.extend_from_slice(format!("{}", pick(20)).as_bytes());
    for _ in 0..pick(6) {
        bytes.push(b' ');
        bytes.extend_from_slice(WORDS[pick(WORDS.len() as u64) as usize].as_bytes());
    }
    bytes.push(b'\n');
}

fn input(random: &mut Random) -> Vec<u8> {
    let mut bytes = b"a open words rw\nb open zeros\n".to_vec();
    for _ in 0..random.below(30) {
        request(random, &mut bytes);
    }
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(3) {
            0 => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, b"\n \0%~"[random.below(5) as usize]),
        }
    }
    if random.below(50) == 0 {
        bytes.extend(std::iter::repeat_n(b'x', 5000));
    }
    bytes
}

#[test]
fn nothing_that_a_client_sends_harms_others() {
    let setting = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seconds = setting("MEMOBJ_FUZZ_SECONDS").unwrap_or(2);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seed = setting("MEMOBJ_SEED").unwrap_or(time);
    println!("MEMOBJ_SEED={seed} MEMOBJ_FUZZ_SECONDS={seconds}");
    let (mut random, begun, mut inputs) = (Random::new(seed), Instant::now(), 0);
    while inputs < 20 || begun.elapsed() < Duration::from_secs(seconds) {
        check::check_input(&input(&mut random));
        inputs += 1;
    }
    println!("{inputs} inputs");
}
