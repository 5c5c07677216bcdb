//! What who looks after the server can ask.

use memobj::GuestProt;
use memobj_serve::control::{Quota, ServerOptions};

use crate::fixture::{Fixture, LENGTH, wait_until};

/// The values of `key`.
fn values(answer: &str, key: &str) -> Vec<String> {
    let prefix = format!("{key}=");
    answer.split(' ').filter_map(|word| word.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn clients_and_objects_are_listed() {
    let fixture = Fixture::new();
    let (mut one, mut two) = (fixture.client(), fixture.client());
    one.request("open words rw").unwrap();
    one.request("open sample").unwrap();
    two.request("open words").unwrap();
    let (mapping, _) = two.map(1, GuestProt::ReadOnly).unwrap();
    let (_store, _) = one.map(1, GuestProt::ReadWrite).unwrap();
    mapping.read_at(5 * 4096, &mut [0; 8]).unwrap();
    let (process, user) = (std::process::id(), rustix::process::geteuid().as_raw());
    let clients = one.request("clients").unwrap();
    assert_eq!(
        values(clients.as_str(), "client"),
        [format!("1:{process}:{user}:2:1:{LENGTH}:0"), format!("2:{process}:{user}:1:1:{LENGTH}:0")]
    );
    assert_eq!(values(one.request("clients 2").unwrap().as_str(), "client").len(), 1);
    let objects = one.request("objects").unwrap();
    let objects = values(objects.as_str(), "object");
    let [sample, words] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(sample.as_str(), format!("ro:{LENGTH}:1:0:0:0:sample"));
    let fields: Vec<&str> = words.split(':').collect();
    assert_eq!((fields[0], fields[2], fields[3], fields[6]), ("rw", "2", "2", "words"), "{words}");
    let numbers: Vec<u64> = fields[4..6].iter().map(|field| field.parse().unwrap()).collect();
    assert!(numbers.iter().all(|number| *number > 0), "{words}");
    assert_eq!(one.request("objects 99").unwrap().as_str(), "count=2");
    for (request, kind) in [("clients x", "syntax"), ("objects 1 2", "syntax")] {
        assert_eq!(one.request(request).unwrap_err().kind(), Some(kind), "{request}");
    }
}

/// More than one line takes.
#[test]
fn long_lists_are_told_in_parts() {
    const CLIENTS: usize = 200;
    if let Err(reason) = memobj_sim::process::need_descriptors(4000) {
        return println!("skipped: {reason}");
    }
    let fixture = Fixture::with(ServerOptions::new().quota(Quota::new()));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| fixture.client()).collect();
    wait_until("all are there", || fixture.handle.statistics().clients == CLIENTS as u64);
    let (mut found, mut from, mut parts) = (Vec::new(), 0, 0);
    loop {
        let answer = clients[0].request(&format!("clients {from}")).unwrap();
        assert_eq!(answer.number("count").unwrap(), CLIENTS as u64);
        let numbers = values(answer.as_str(), "client");
        found.extend(numbers.iter().map(|word| word.split(':').next().unwrap().parse::<u64>().unwrap()));
        parts += 1;
        match answer.number("next") {
            Ok(next) => from = next,
            Err(_) => break,
        }
    }
    assert!(parts > 1, "one line was enough");
    assert_eq!(found, (1..=CLIENTS as u64).collect::<Vec<_>>());
}

#[test]
fn faults_are_counted_by_how_long_they_took() {
    let more = std::sync::Arc::new(|| vec![("machines", 7)]);
    let fixture = Fixture::with(ServerOptions::new().more_stats(more));
    let mut client = fixture.client();
    client.request("open sample").unwrap();
    let (mapping, _) = client.map(1, GuestProt::ReadOnly).unwrap();
    // The loop is that of the process: other tests fault, too. All that is known is that it is more.
    let before = client.request("stats").unwrap();
    client.request("populate 1").unwrap();
    for page in 0..64 {
        mapping.read_at(page * 4096, &mut [0; 8]).unwrap();
    }
    let after = client.request("stats").unwrap();
    let grown = |key: &str| after.number(key).unwrap() - before.number(key).unwrap();
    assert!(grown("read-faults") >= 64 && grown("faults-at-once") >= 64, "{}", after.as_str());
    let sum = |times: &str| -> u64 {
        times.split(',').filter_map(|pair| pair.split_once(':')?.1.parse::<u64>().ok()).sum()
    };
    let times = |answer: &memobj_serve::control::Answer| sum(&answer.get("resolve-times").unwrap());
    assert!(times(&after) - times(&before) >= 64, "{}", after.as_str());
    let (middle, high) = (after.number("resolve-p50-ns").unwrap(), after.number("resolve-p99-ns").unwrap());
    assert!(0 < middle && middle <= high, "{middle} {high}");
    assert_eq!(after.number("machines").unwrap(), 7);
    after.number("waiting").unwrap();
}
