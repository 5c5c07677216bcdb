//! `memobj doctor URL`: whether a server answers, what its object is good for, and how fast it is.

use std::time::{Duration, Instant};

use memobj::{Cache, CacheOptions, Delivery, MapOptions, Mapping, ObjectOptions};
use memobj_url::object_store::{ComparedBy, Conditions};
use serde::Serialize;

use crate::failure::{Failure, failure};
use crate::interrupt::Interrupt;
use crate::retry::Retry;
use crate::servers::{Missing, ServerArguments, Servers};

/// How often the object is opened.
const OPENS: u32 = 5;
/// At most so many bytes are read to measure.
const MOST_BYTES: u64 = 64 << 20;
const BUDGET: u64 = 128 << 20;

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    url: String,
    length: u64,
    /// What tells versions apart; every answer is compared with it.
    version: Option<String>,
    /// What the server does with conditions; `None` of servers that have none.
    conditions: Option<Honoured>,
    /// Bytes of one request, and how many are under way at once.
    block_bytes: u64,
    depth: usize,
    /// Medians, in milliseconds: opening the object, and reading one block.
    open_ms: f64,
    block_ms: f64,
    /// Reading with all requests at once, and how much was read for that.
    bytes_per_second: f64,
    measured_bytes: u64,
}

/// What the server does with conditions.
#[derive(Debug, Serialize)]
struct Honoured {
    ranges: bool,
    compared_by: &'static str,
    refuses_other_versions: bool,
}

impl From<Conditions> for Honoured {
    fn from(conditions: Conditions) -> Self {
        let compared_by = match conditions.compared_by {
            ComparedBy::EntityTag => "entity tag",
            ComparedBy::LastModified => "date of the last change",
            _ => "nothing",
        };
        let Conditions { ranges, refuses_other_versions, .. } = conditions;
        Self { ranges, compared_by, refuses_other_versions }
    }
}

/// Asks the server.
pub(crate) fn report(
    url: &str,
    arguments: &ServerArguments,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    if crate::servers::url_of(std::path::Path::new(url)).is_none() {
        return Err(Failure::Usage(format!("doctor: {url:?} is no URL of a server")));
    }
    let servers = Servers::new(arguments, Retry::Never)?;
    let mut opens = Vec::new();
    let mut pager = None;
    for _ in 0..OPENS {
        interrupt.check()?;
        let begin = Instant::now();
        pager = Some(servers.pager(url, &ObjectOptions::new(), Missing::IsAnError, interrupt)?);
        opens.push(begin.elapsed());
    }
    let pager = pager.ok_or(Failure::Reported)?;
    let description = pager.describe();
    let conditions = servers.conditions(url)?.map(Honoured::from);
    let cache = Cache::new(CacheOptions::new().budget_bytes(BUDGET)).map_err(failure)?;
    let object = cache.object(&memobj_url::shown(url), pager, ObjectOptions::new()).map_err(failure)?;
    let mapping = object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).map_err(failure)?;
    let block = description.block();
    let blocks = measure_blocks(&mapping, block, interrupt)?;
    let (measured_bytes, took) = measure_all(&mapping, block)?;
    Ok(Report {
        url: memobj_url::shown(url),
        length: description.length(),
        version: description.version_name().map(str::to_owned),
        conditions,
        block_bytes: block,
        depth: description.depth_limit(),
        open_ms: median_ms(opens),
        block_ms: median_ms(blocks),
        bytes_per_second: measured_bytes as f64 / took.as_secs_f64().max(1e-9),
        measured_bytes,
    })
}

/// How long single blocks take, from the end of the object on.
fn measure_blocks(mapping: &Mapping, block: u64, interrupt: &Interrupt) -> Result<Vec<Duration>, Failure> {
    const BLOCKS: u64 = 5;
    let mut times = Vec::new();
    for number in (0..mapping.len().div_ceil(block)).rev().take(BLOCKS as usize) {
        interrupt.check()?;
        let begin = Instant::now();
        let start = number * block;
        mapping.pin(start..(start + 1).min(mapping.len())).map_err(failure)?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Reads the beginning of the object, as many requests at once as the pager takes.
fn measure_all(mapping: &Mapping, block: u64) -> Result<(u64, Duration), Failure> {
    let end = mapping.len().min(MOST_BYTES);
    let ranges: Vec<_> = (0..end.div_ceil(block)).map(|at| at * block..((at + 1) * block).min(end)).collect();
    let begin = Instant::now();
    mapping.prefetch(&ranges).map_err(failure)?;
    for range in ranges {
        mapping.pin(range).map_err(failure)?;
    }
    Ok((end, begin.elapsed()))
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Lines for people.
pub(crate) fn table(report: &Report) -> String {
    let version = match &report.version {
        Some(version) => format!("{version}; every answer is compared with it"),
        None => {
            "none: changes of the object while it is read cannot be seen, and no disk cache is used".into()
        }
    };
    let speed = report.bytes_per_second;
    let mut text = format!(
        "{}\nlength      {} bytes\nversion     {version}\n{}open        {:.1} ms\n\
         one block   {:.1} ms for {} KiB, {} at once\nthroughput  {:.1} MB/s over {} MiB\n",
        report.url,
        report.length,
        report.conditions.as_ref().map_or_else(String::new, conditions_line),
        report.open_ms,
        report.block_ms,
        report.block_bytes >> 10,
        report.depth,
        speed / 1e6,
        report.measured_bytes >> 20,
    );
    for advice in advice(report) {
        text += &format!("advice      {advice}\n");
    }
    text
}

fn conditions_line(honoured: &Honoured) -> String {
    let parts = if honoured.ranges { "parts can be asked for" } else { "only all of it can be asked for" };
    let refuses = match honoured.refuses_other_versions {
        true => "the server refuses requests for another version",
        false => "the server answers with another version, which is noticed here",
    };
    match honoured.compared_by {
        "nothing" => format!("conditions  {parts}\n"),
        by => format!("conditions  {parts}; versions have another {by}; {refuses}\n"),
    }
}

/// What the figures mean.
fn advice(report: &Report) -> Vec<String> {
    let mut advice = Vec::new();
    let transfer_ms = report.block_bytes as f64 / report.bytes_per_second.max(1.0) * 1e3;
    if report.block_ms > 5.0 && report.block_ms > 20.0 * transfer_ms && report.block_bytes < 16 << 20 {
        advice.push(format!(
            "a block takes {:.0} ms, most of it waiting: for reads from end to end, --block {}M moves more at once",
            report.block_ms,
            ((report.block_bytes * 4) >> 20).clamp(1, 16)
        ));
    }
    if report.block_ms > 2.0 && report.version.is_some() {
        advice.push("what is read again comes from the disk with --disk-cache DIR:SIZE".into());
    }
    if report.open_ms > 1000.0 {
        advice
            .push("opening takes more than a second: --timeout and --retry decide how long is waited".into());
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far() -> Report {
        Report {
            url: "s3://b/k".into(),
            length: 1 << 30,
            version: Some("\"e\"".into()),
            conditions: Some(Honoured {
                ranges: true,
                compared_by: "entity tag",
                refuses_other_versions: true,
            }),
            block_bytes: 1 << 20,
            depth: 64,
            open_ms: 40.0,
            block_ms: 50.0,
            bytes_per_second: 1e9,
            measured_bytes: 64 << 20,
        }
    }

    #[test]
    fn a_far_server_is_worth_larger_blocks_and_a_disk_cache() {
        let text = table(&far());
        assert!(text.contains("one block   50.0 ms for 1024 KiB, 64 at once"), "{text}");
        assert!(
            text.contains("\nconditions  parts can be asked for; versions have another entity tag;"),
            "{text}"
        );
        assert!(text.contains("--block 4M") && text.contains("--disk-cache"), "{text}");
    }

    #[test]
    fn without_a_version_no_disk_cache_is_praised() {
        let report = Report { version: None, block_ms: 3.0, ..far() };
        assert!(!table(&report).contains("--disk-cache DIR"), "{}", table(&report));
        assert_eq!(median_ms(vec![]), 0.0);
    }
}
