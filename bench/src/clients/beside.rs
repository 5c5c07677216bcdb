//! How long faults of a good client take, alone and beside each kind of hostile one.
//!
//! The pages are in frames of the server, and not shown to the client yet: what is timed is a fault, the way to the server
//! and back. Kinds take turns, so that what the machine does besides strikes all of them.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use memobj::GuestProt;
use memobj_serve::control::{Client, ClientError};

use super::hostile::{Hostile, Kind, name};
use super::options::ClientOptions;
use super::server::Place;
use crate::data::{PAGE_BYTES, PAGE_WORDS, check_word};
use crate::report::{Bar, Direction};

const ROUNDS: usize = 4;
/// How long a hostile client has before it is measured.
const HEAD_START: Duration = Duration::from_millis(300);

struct Row {
    kind: Option<Kind>,
    times: Vec<Duration>,
}

/// Measures and prints.
pub fn measure(place: &Place, options: &ClientOptions) -> Result<Vec<Bar>, String> {
    let wanted = |kind: &Kind| options.beside.is_empty() || options.beside.contains(&name(*kind));
    let kinds = Kind::value_variants().iter().copied().filter(wanted).map(Some);
    let mut rows: Vec<Row> =
        [None].into_iter().chain(kinds).map(|kind| Row { kind, times: Vec::new() }).collect();
    let serving = place.serve(None)?;
    let mut good = Good::new(place).map_err(|error| error.to_string())?;
    let pages = options.faults.div_ceil(ROUNDS);
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let hostile = row.kind.map(|kind| Hostile::start(kind, &place.socket)).transpose()?;
            std::thread::sleep(HEAD_START);
            let faulted = good.fault(pages, &mut row.times);
            faulted.map_err(|error| format!("the good client beside {:?}: {error}", row.kind))?;
            drop(hostile);
        }
    }
    let held = serving.held()?;
    let bars = print(&mut rows);
    println!(
        "\nThe server has {} KiB resident, {} threads and {} descriptors then.\n",
        held.private_bytes >> 10,
        held.threads,
        held.descriptors
    );
    Ok(bars)
}

fn print(rows: &mut [Row]) -> Vec<Bar> {
    println!("### faults of a client beside hostile ones, us\n");
    println!("| beside | p50 | p99 | most | p50 / alone | p99 / alone |\n|---|--:|--:|--:|--:|--:|");
    let mut alone = [1.0; 2];
    let mut bars = Vec::new();
    for row in rows {
        row.times.sort();
        let at = |part: usize| {
            let index = (row.times.len() * part / 100).min(row.times.len().saturating_sub(1));
            row.times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let [middle, high] = [at(50), at(99)];
        let what = row.kind.map_or_else(|| "nobody".into(), name);
        if row.kind.is_none() {
            alone = [middle, high];
        } else {
            let what = format!("p99 of faults beside {what}, to alone");
            bars.push(Bar { what, direction: Direction::AtMost, required: 2.0, measured: high / alone[1] });
        }
        let [ratio_middle, ratio_high] = [middle / alone[0], high / alone[1]];
        println!(
            "| {what} | {middle:.1} | {high:.1} | {:.0} | {ratio_middle:.2} | {ratio_high:.2} |",
            at(100)
        );
    }
    bars
}

/// The client whose faults are timed.
struct Good {
    client: Client,
    pages: u64,
}

impl Good {
    fn new(place: &Place) -> Result<Self, ClientError> {
        let mut client = Client::connect(&place.socket)?;
        client.request("open data ro")?;
        client.request("populate 1")?;
        Ok(Self { client, pages: place.length / PAGE_BYTES })
    }

    /// Loads a word of so many pages that this client has not seen.
    fn fault(&mut self, mut count: usize, times: &mut Vec<Duration>) -> Result<(), ClientError> {
        while count > 0 {
            let (mapping, number) = self.client.map(1, GuestProt::ReadOnly)?;
            let pages = self.pages.min(count as u64);
            for page in 0..pages {
                let mut word = [0; 8];
                let begun = Instant::now();
                let read = mapping.read_at(page * PAGE_BYTES, &mut word);
                times.push(begun.elapsed());
                read.map_err(|error| ClientError::Protocol(format!("page {page}: {error}")))?;
                let checked = check_word(page * PAGE_WORDS, u64::from_ne_bytes(word));
                checked.map_err(|failure| ClientError::Protocol(format!("{failure:?}")))?;
            }
            self.client.request(&format!("unmap {number}"))?;
            count -= pages as usize;
        }
        Ok(())
    }
}
