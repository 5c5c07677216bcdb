//! What `memobj top` shows: the difference of two samples, on a screen, on a line, as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use memobj_linux::times::percentile;
use serde::Serialize;

/// So many clients and objects are listed on a screen.
const LISTED: usize = 12;
/// The longest name on a screen.
const NAME: usize = 60;

/// What a server said at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    /// The words of the answer to `stats`.
    pub(crate) stats: String,
    /// The words of `clients` and `objects`; `None` if they are not told.
    pub(crate) clients: Option<Vec<String>>,
    pub(crate) objects: Option<Vec<String>>,
}

/// What happened between two samples, and what there is at the second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Shown {
    server: String,
    seconds: f64,
    clients: u64,
    objects: u64,
    machines: u64,
    requests_running: u64,
    faults_per_second: f64,
    /// Of a hundred; `null` if there were no faults.
    hit_rate: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    faults_waiting: u64,
    supplied_pages_per_second: f64,
    evicted_pages_per_second: f64,
    failed_pages: u64,
    budget_bytes: u64,
    frame_bytes: u64,
    dirty_bytes: u64,
    lost_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_list: Option<Vec<ClientRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_list: Option<Vec<ObjectRow>>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct ClientRow {
    client: u64,
    process: i64,
    user: u64,
    objects: u64,
    mappings: u64,
    mapped_bytes: u64,
    requests_running: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct ObjectRow {
    /// As the protocol has it: no control bytes.
    name: String,
    access: String,
    length: u64,
    clients: u64,
    mappings: u64,
    faults: u64,
    supplied_pages: u64,
}

/// The values of an answer.
fn values(words: &str) -> BTreeMap<&str, &str> {
    words.split(' ').filter_map(|word| word.split_once('=')).collect()
}

/// Counts by their bounds.
fn counts(word: &str) -> BTreeMap<u64, u64> {
    let pair = |pair: &str| {
        pair.split_once(':').and_then(|(bound, count)| Some((bound.parse().ok()?, count.parse().ok()?)))
    };
    word.split(',').filter_map(pair).collect()
}

impl Shown {
    pub(crate) fn between(server: &str, before: &Sample, now: &Sample) -> Self {
        let (old, new) = (values(&before.stats), values(&now.stats));
        let of = |values: &BTreeMap<&str, &str>, key| {
            values.get(key).and_then(|value| value.parse().ok()).unwrap_or(0u64)
        };
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-6);
        let get = |key| of(&new, key);
        let grown = |key| get(key).saturating_sub(of(&old, key));
        let rate = |key| grown(key) as f64 / seconds;
        let times =
            |values: &BTreeMap<&str, &str>| counts(values.get("resolve-times").copied().unwrap_or(""));
        let earlier = times(&old);
        let since = |(bound, count): (u64, u64)| {
            (bound, count.saturating_sub(earlier.get(&bound).copied().unwrap_or(0)))
        };
        let took: Vec<(u64, u64)> = times(&new).into_iter().map(since).collect();
        let resolved = took.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        let us = |hundredths| (resolved > 0).then(|| percentile(&took, hundredths).as_secs_f64() * 1e6);
        let hits = grown("faults-at-once").min(resolved) as f64 * 100.0;
        Self {
            server: server.to_owned(),
            seconds,
            clients: get("clients"),
            objects: get("all-objects"),
            machines: get("machines"),
            requests_running: get("all-running"),
            faults_per_second: rate("read-faults"),
            hit_rate: (resolved > 0).then(|| hits / resolved as f64),
            p50_us: us(50),
            p99_us: us(99),
            faults_waiting: get("waiting"),
            supplied_pages_per_second: rate("supplied-pages"),
            evicted_pages_per_second: rate("evicted-pages"),
            failed_pages: get("failed-pages"),
            budget_bytes: get("budget-bytes"),
            frame_bytes: get("frame-bytes"),
            dirty_bytes: get("dirty-bytes"),
            lost_events: get("lost-events"),
            client_list: now.clients.as_ref().map(|rows| rows.iter().filter_map(|row| client(row)).collect()),
            object_list: now.objects.as_ref().map(|rows| rows.iter().filter_map(|row| object(row)).collect()),
        }
    }
}

fn client(word: &str) -> Option<ClientRow> {
    let mut fields = word.split(':');
    let mut number = || fields.next()?.parse::<u64>().ok();
    Some(ClientRow {
        client: number()?,
        process: i64::try_from(number()?).ok()?,
        user: number()?,
        objects: number()?,
        mappings: number()?,
        mapped_bytes: number()?,
        requests_running: number()?,
    })
}

fn object(word: &str) -> Option<ObjectRow> {
    let mut fields = word.splitn(7, ':');
    let access = fields.next()?.to_owned();
    let mut number = || fields.next()?.parse::<u64>().ok();
    let numbers = [number()?, number()?, number()?, number()?, number()?];
    let [length, clients, mappings, faults, supplied_pages] = numbers;
    let name = fields.next()?.to_owned();
    Some(ObjectRow { name, access, length, clients, mappings, faults, supplied_pages })
}

/// One JSON object on one line.
pub(crate) fn json(shown: &Shown) -> String {
    serde_json::to_string(shown).expect("numbers and texts are JSON") + "\n"
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// All numbers on one line.
pub(crate) fn line(shown: &Shown) -> String {
    format!(
        "clients {} objects {} machines {} faults/s {:.0} hit rate {} % p50 {} us p99 {} us waiting {} supplied/s {:.0} \
         evicted/s {:.0} budget {} frames {} dirty {} requests {} lost events {}\n",
        shown.clients,
        shown.objects,
        shown.machines,
        shown.faults_per_second,
        or_dash(shown.hit_rate, 1),
        or_dash(shown.p50_us, 1),
        or_dash(shown.p99_us, 1),
        shown.faults_waiting,
        shown.supplied_pages_per_second,
        shown.evicted_pages_per_second,
        mib(shown.budget_bytes),
        mib(shown.frame_bytes),
        mib(shown.dirty_bytes),
        shown.requests_running,
        shown.lost_events
    )
}

/// A screen of it.
pub(crate) fn screen(shown: &Shown) -> String {
    let mut text = format!("memobj serve {}, the last {:.1} s\n\n", shown.server, shown.seconds);
    // A string takes all that is written to it.
    let _ = writeln!(
        text,
        "clients   {:<10} objects   {:<10} machines  {:<10} requests  {}",
        shown.clients, shown.objects, shown.machines, shown.requests_running
    );
    let _ = writeln!(
        text,
        "faults/s  {:<10.0} hit rate  {:<10} p50       {:<10} p99       {}",
        shown.faults_per_second,
        or_dash(shown.hit_rate, 1) + " %",
        or_dash(shown.p50_us, 1) + " us",
        or_dash(shown.p99_us, 1) + " us"
    );
    let _ = writeln!(
        text,
        "waiting   {:<10} supplied/s {:<9.0} evicted/s {:<10.0} failed    {}",
        shown.faults_waiting,
        shown.supplied_pages_per_second,
        shown.evicted_pages_per_second,
        shown.failed_pages
    );
    let _ = writeln!(
        text,
        "budget    {:<10} frames    {:<10} dirty     {:<10} lost events {}",
        mib(shown.budget_bytes),
        mib(shown.frame_bytes),
        mib(shown.dirty_bytes),
        shown.lost_events
    );
    lists(shown, &mut text);
    text
}

fn lists(shown: &Shown, text: &mut String) {
    if let Some(rows) = &shown.client_list {
        let _ =
            writeln!(text, "\nCLIENT     PROCESS    USER       OBJECTS  MAPPINGS  MAPPED        REQUESTS");
        for row in rows.iter().take(LISTED) {
            let ClientRow { client, process, user, objects, mappings, mapped_bytes, requests_running } = row;
            let mapped = mib(*mapped_bytes);
            let _ = writeln!(
                text,
                "{client:<10} {process:<10} {user:<10} {objects:<8} {mappings:<9} {mapped:<13} {requests_running}"
            );
        }
        and_more(rows.len(), text);
    }
    if let Some(rows) = &shown.object_list {
        let _ = writeln!(text, "\nACCESS  LENGTH         CLIENTS  MAPPINGS  FAULTS      SUPPLIED    OBJECT");
        for row in rows.iter().take(LISTED) {
            let ObjectRow { name, access, length, clients, mappings, faults, supplied_pages } = row;
            let (length, name): (_, String) = (mib(*length), name.chars().take(NAME).collect());
            let _ = writeln!(
                text,
                "{access:<7} {length:<14} {clients:<8} {mappings:<9} {faults:<11} {supplied_pages:<11} {name}"
            );
        }
        and_more(rows.len(), text);
    }
}

fn and_more(rows: usize, text: &mut String) {
    if rows > LISTED {
        let _ = writeln!(text, "and {} more", rows - LISTED);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples() -> (Sample, Sample) {
        let at = Instant::now();
        let sample = |at, stats: &str| Sample {
            at,
            stats: stats.into(),
            clients: Some(vec!["1:10:0:1:2:4096:0".into(), "nonsense".into()]),
            objects: Some(vec!["rw:8192:1:2:3:4:a:b%20c".into()]),
        };
        let before = "clients=1 read-faults=100 faults-at-once=50 resolve-times=1000:100 supplied-pages=7 evicted-pages=9";
        let now = "clients=2 all-objects=1 read-faults=300 faults-at-once=200 waiting=3 supplied-pages=27 evicted-pages=9 \
                   resolve-times=1000:200,5000:98,90000:2 budget-bytes=1048576 future=x";
        (sample(at, before), sample(at + Duration::from_secs(2), now))
    }

    #[test]
    fn the_difference_of_two_samples_is_shown() {
        let (before, now) = samples();
        let shown = Shown::between("S", &before, &now);
        assert_eq!((shown.faults_per_second, shown.hit_rate), (100.0, Some(75.0)));
        assert_eq!((shown.p50_us, shown.p99_us), (Some(1.0), Some(5.0)));
        assert_eq!((shown.supplied_pages_per_second, shown.evicted_pages_per_second), (10.0, 0.0));
        assert_eq!(shown.client_list.as_ref().map(Vec::len), Some(1));
        let text = screen(&shown);
        for words in ["faults/s  100", "hit rate  75.0 %", "a:b%20c", "budget    1.0 MiB"] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert_eq!(line(&shown).lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json(&shown)).expect("it is JSON");
        assert_eq!(value["object_list"][0]["name"], "a:b%20c");
    }

    #[test]
    fn nothing_that_a_server_says_is_too_strange() {
        let (before, mut now) = samples();
        // A server that was started anew counts from nothing.
        now.stats =
            "read-faults=1 resolve-times=1000:1,x,7:,:,18446744073709551615:18446744073709551615".into();
        now.objects = None;
        let shown = Shown::between("S", &before, &now);
        assert_eq!((shown.faults_per_second, shown.hit_rate), (0.0, Some(0.0)));
        let empty = Sample { stats: String::new(), ..now };
        let shown = Shown::between("S", &before, &empty);
        assert_eq!((shown.hit_rate, shown.p50_us), (None, None));
        assert!(line(&shown).contains("p50 - us"));
    }
}
