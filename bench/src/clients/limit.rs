//! More clients than there are descriptors: each is served, or refused with a reason; none waits.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use memobj_serve::control::{Client, ClientError};

use super::many::{Connected, connect};
use super::server::Place;
use crate::data::PAGE_BYTES;

/// Who has neither been served nor refused by then hangs.
const HANGS: Duration = Duration::from_secs(10);
/// So many are refused before it is believed.
const REFUSALS: usize = 50;

/// Measures and prints.
pub fn measure(place: &Place, descriptors: u32) -> Result<(), String> {
    let serving = place.serve(Some(descriptors))?;
    let mut served = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let (mut longest, mut refused) = (Duration::ZERO, 0);
    while refused < REFUSALS {
        let begun = Instant::now();
        match attempt(place, served.len() as u64)? {
            Ok(client) => served.push(client),
            Err(error) => {
                longest = longest.max(begun.elapsed());
                refused += 1;
                let why = error.get("why").or(error.get("which")).unwrap_or_default();
                let kind = error.kind().unwrap_or("connection").to_owned();
                *reasons.entry(format!("{kind} {why}")).or_default() += 1;
            }
        }
    }
    println!("### a limit of {descriptors} descriptors\n");
    let held = serving.held()?;
    println!(
        "{} clients with a mapping each were served, with {} descriptors.",
        served.len(),
        held.descriptors
    );
    for (reason, count) in &reasons {
        println!("{count} were refused: {reason}.");
    }
    let (held_open, why) = idle(place)?;
    println!("{held_open} more connected and mapped nothing; the next was refused: {why}.");
    println!("The longest refusal took {:.2} ms; nobody waited.", longest.as_secs_f64() * 1e3);
    let page = place.length / PAGE_BYTES - 1;
    for Connected { mapping, .. } in &served {
        mapping.read_at(page * PAGE_BYTES, &mut [0; 8]).map_err(|error| format!("a client: {error}"))?;
    }
    // One that leaves makes room for another.
    drop(served.pop());
    let begun = Instant::now();
    while attempt(place, 0)?.is_err() {
        if begun.elapsed() > HANGS {
            return Err("nobody is served after one has left".into());
        }
    }
    println!(
        "After one had left, another was served within {:.2} ms.\n",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

/// How many clients connect and map nothing until one is refused, and why that is.
fn idle(place: &Place) -> Result<(usize, String), String> {
    let mut open = Vec::new();
    loop {
        match Client::connect(&place.socket) {
            Ok(client) => open.push(client),
            Err(error) => return Ok((open.len(), error.get("why").unwrap_or_else(|| error.to_string()))),
        }
    }
}

/// One more client, in a thread of its own, so that it is noticed if it waits for ever.
fn attempt(place: &Place, number: u64) -> Result<Result<Connected, ClientError>, String> {
    let (sender, receiver) = mpsc::channel();
    let (socket, pages) = (place.socket.clone(), place.length / PAGE_BYTES);
    std::thread::spawn(move || drop(sender.send(connect(&socket, "data", number % pages))));
    receiver.recv_timeout(HANGS).map_err(|_| format!("client {number} hangs: neither served nor refused"))
}
