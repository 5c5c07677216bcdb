//! A thousand clients with a mapping each: what they cost the server, and how long each waits for its first byte.

use std::path::Path;
use std::time::{Duration, Instant};

use memobj::{GuestProt, RemoteMapping};
use memobj_serve::control::{Client, ClientError};

use super::server::{Place, Serving};
use crate::data::{PAGE_BYTES, PAGE_WORDS, check_word};
use crate::report::{Bar, Direction};

/// What the kernel has of a thread besides what it counts as the process's memory.
const KERNEL_STACK: u64 = 16 << 10;

/// A client that has its first byte.
pub struct Connected {
    /// The connection.
    pub client: Client,
    /// All of the object.
    pub mapping: RemoteMapping,
    /// How long each step took: the connection, opening, mapping, the first load.
    pub steps: [Duration; 4],
}

/// Connects to `socket`, maps the object `name`, and loads the first word of `page`.
pub fn connect(socket: &Path, name: &str, page: u64) -> Result<Connected, ClientError> {
    let mut steps = [Duration::ZERO; 4];
    let mut at = Instant::now();
    let mut step = |number: usize| {
        let now = Instant::now();
        steps[number] = now - std::mem::replace(&mut at, now);
    };
    let mut client = Client::connect(socket)?;
    step(0);
    let object = client.request(&format!("open {name} ro"))?.number("object")?;
    step(1);
    let (mapping, _) = client.map(object, GuestProt::ReadOnly)?;
    step(2);
    let mut word = [0; 8];
    let read = mapping.read_at(page * PAGE_BYTES, &mut word);
    read.map_err(|error| ClientError::Protocol(format!("page {page}: {error}")))?;
    step(3);
    check_word(page * PAGE_WORDS, u64::from_ne_bytes(word))
        .map_err(|failure| ClientError::Protocol(format!("{failure:?}")))?;
    Ok(Connected { client, mapping, steps })
}

/// Measures and prints.
pub fn measure(place: &Place, count: usize) -> Result<Vec<Bar>, String> {
    let text = |error: ClientError| error.to_string();
    let serving = place.serve(None)?;
    let mut first = connect(&place.socket, "data", 0).map_err(text)?;
    first.client.request("populate 1").map_err(text)?;
    let pages = place.length / PAGE_BYTES;
    // All threads and tables that stay are there after one that has left.
    drop(connect(&place.socket, "data", 1).map_err(text)?);
    let before = serving.held()?;
    let populate = |client: &mut Client| {
        client.request(&format!("advise 1 0 {} dontneed", place.length)).map_err(text)?;
        let begun = Instant::now();
        client.request("populate 1").map_err(text)?;
        Ok::<_, String>(begun.elapsed())
    };
    let alone = populate(&mut first.client)?;
    let mut connected = Vec::new();
    for number in 0..count as u64 {
        let client = connect(&place.socket, "data", (number + 2) % pages);
        connected.push(client.map_err(|error| format!("client {number}: {error}"))?);
    }
    let with = serving.held()?;
    let each = |with: u64, before: u64| with.saturating_sub(before) as f64 / count as f64;
    let threads = each(with.threads, before.threads);
    let private = each(with.private_bytes, before.private_bytes) / 1024.0;
    let tables = each(with.table_bytes, before.table_bytes) / 1024.0;
    let all = private + tables + threads * KERNEL_STACK as f64 / 1024.0;
    println!("### {count} clients with a mapping each\n");
    println!("| of the server, for each client | |\n|---|--:|");
    println!("| resident memory, KiB | {private:.1} |");
    println!("| page tables, KiB | {tables:.1} |");
    println!("| threads | {threads:.2} |");
    println!("| all of these, with 16 KiB of the kernel for a thread, KiB | {all:.1} |");
    println!("| descriptors | {:.2} |", each(with.descriptors, before.descriptors));
    println!("\n| until the first byte, ms | p50 | p99 | most |\n|---|--:|--:|--:|");
    let mut bars = vec![Bar {
        what: "KiB of the server for a client".into(),
        direction: Direction::AtMost,
        required: 64.0,
        measured: all,
    }];
    for (step, name) in ["connection", "opening", "mapping", "first load"].iter().enumerate() {
        table_row(name, connected.iter().map(|client| client.steps[step]).collect());
    }
    let (early, late) = (count / 10, count - count / 10);
    table_row(
        "all, the first tenth",
        connected[..early].iter().map(|client| client.steps.iter().sum()).collect(),
    );
    table_row(
        "all, the last tenth",
        connected[late..].iter().map(|client| client.steps.iter().sum()).collect(),
    );
    let total = connected.iter().map(|client| client.steps.iter().sum()).collect();
    let [middle, high] = table_row("all", total);
    for (what, measured) in [("median", middle), ("p99", high)] {
        let what = format!("ms until the first byte, {what}");
        bars.push(Bar { what, direction: Direction::AtMost, required: 1.0, measured });
    }
    let beside = populate(&mut first.client)?;
    let rate = |time: Duration| place.length as f64 / f64::from(1 << 20) / time.as_secs_f64();
    println!("\nPopulating {:.0} MiB/s with one mapping, {:.0} MiB/s with all.", rate(alone), rate(beside));
    leave(connected, &serving)?;
    Ok(bars)
}

fn table_row(name: &str, mut times: Vec<Duration>) -> [f64; 2] {
    times.sort();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1));
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let values = [ms(at(50)), ms(at(99)), ms(times.last())];
    println!("| {name} | {:.3} | {:.3} | {:.3} |", values[0], values[1], values[2]);
    [values[0], values[1]]
}

/// All leave at once; what the server has left then.
fn leave(connected: Vec<Connected>, serving: &Serving) -> Result<(), String> {
    let begun = Instant::now();
    drop(connected);
    let mut held = serving.held()?;
    while held.threads > 32 && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(10));
        held = serving.held()?;
    }
    println!(
        "All left within {:.2} s; {} threads and {} descriptors are left.\n",
        begun.elapsed().as_secs_f64(),
        held.threads,
        held.descriptors
    );
    Ok(())
}
