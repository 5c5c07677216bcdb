//! What holds for any bytes that are read as a record. The fuzz target `run_record` runs this too.

use std::collections::HashMap;
use std::path::Path;

use memobj_run::record::{MOST_PAGES, PAGE_BYTES, Plan, Record, RecordError};
use twox_hash::XxHash3_64;

/// Bytes that have the right beginning, length and checksum, so that what is between them is looked at.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(32), 0);
    let length = bytes.len() as u64 + 8;
    bytes[..8].copy_from_slice(b"memobjRR");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    let sum = XxHash3_64::oneshot(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// The body of the fuzz target: the bytes as they are, and with a checksum that is right. Whether that is a record.
pub fn check_input(bytes: &[u8]) -> bool {
    // Most are none, which is an error and nothing else.
    let _ = check_bytes(bytes);
    check_bytes(&sealed(bytes[..bytes.len().saturating_sub(8)].to_vec())).is_ok()
}

/// Reads any bytes. What is a record is written as the same bytes, and planned.
pub fn check_bytes(bytes: &[u8]) -> Result<Record, RecordError> {
    let record = Record::read(bytes)?;
    let mut again = Vec::new();
    record.write(&mut again).expect("a vector takes all bytes");
    assert_eq!(again, bytes, "a record has one form");
    check_plan(&record, u64::MAX);
    check_plan(&record, bytes.iter().map(|byte| u64::from(*byte) * 512).sum());
    Ok(record)
}

/// Plans for files as they were recorded.
pub fn check_plan(record: &Record, limit_bytes: u64) -> Plan {
    let plan = record.plan(record.files(), limit_bytes);
    let mut ranges: HashMap<&Path, Vec<(u64, u64)>> = HashMap::new();
    let mut asked_pages = 0_u64;
    for request in &plan.requests {
        let file =
            record.files().iter().rev().find(|file| file.path == request.path).expect("a recorded file");
        assert!(!request.ranges.is_empty());
        for range in &request.ranges {
            assert!(range.start < range.end && range.end <= file.length_bytes, "{range:?}");
            assert!(range.end - range.start <= MOST_PAGES * PAGE_BYTES, "{range:?}");
            assert!(range.start.is_multiple_of(PAGE_BYTES));
            assert!(range.end.is_multiple_of(PAGE_BYTES) || range.end == file.length_bytes, "{range:?}");
            asked_pages += (range.end - range.start).div_ceil(PAGE_BYTES);
            ranges.entry(&request.path).or_default().push((range.start, range.end));
        }
    }
    assert!(asked_pages <= limit_bytes / PAGE_BYTES, "the room is kept to");
    for list in ranges.values_mut() {
        list.sort_unstable();
        assert!(list.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no byte is asked for twice: {list:?}");
    }
    if limit_bytes == u64::MAX {
        check_covers(record, &plan, &ranges);
    }
    plan
}

fn check_covers(record: &Record, plan: &Plan, ranges: &HashMap<&Path, Vec<(u64, u64)>>) {
    for run in record.touches() {
        let file = &record.files()[run.file as usize];
        if plan.left_out.iter().any(|left_out| left_out.path == file.path) {
            continue;
        }
        let mut at = run.first * PAGE_BYTES;
        let end = ((run.first + run.pages) * PAGE_BYTES).min(file.length_bytes);
        let list = ranges.get(file.path.as_path()).map(Vec::as_slice).unwrap_or_default();
        let from = list.partition_point(|(_, until)| *until <= at);
        for (start, until) in &list[from..] {
            if *start <= at {
                at = at.max(*until);
            }
        }
        assert!(at >= end, "{run:?} of {file:?} is not asked for");
    }
}
