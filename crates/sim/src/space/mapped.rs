//! The kernel's own table of a space of this process.

use memobj::space::{Backing, Segment, Space};
use std::collections::HashMap;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    range: (u64, u64),
    prot: String,
    /// Which object, and the byte of it.
    object: Option<(u64, u64)>,
}

/// Panics if the kernel has anything else in the window of `space` than its table says, if a mapping of an object is
/// not registered for missing pages, or if a child of fork would get one.
pub fn check_mapped(space: &Space) {
    if let Err(difference) = compare_mapped(space) {
        panic!("{difference}");
    }
}

/// What [`check_mapped`] panics about.
pub(super) fn compare_mapped(space: &Space) -> Result<(), String> {
    let ours = named(space.table().into_iter().filter_map(of_segment).collect());
    let kernel = named(of_kernel(space)?);
    match kernel == ours {
        true => Ok(()),
        false => Err(format!("the kernel has mapped {kernel:x?}, and the table says {ours:x?}")),
    }
}

fn of_segment(segment: Segment) -> Option<Row> {
    let object = match segment.backing {
        Backing::Object { id, offset } => Some((id.0, offset.0)),
        Backing::Anonymous => None,
        Backing::Reserved => return None,
    };
    let range = (segment.start.0, segment.end().0);
    Some(Row { range, prot: segment.attributes.prot.to_string(), object })
}

/// Neighbours that continue one another are one row, and objects are numbered in the order in which they come.
fn named(rows: Vec<Row>) -> Vec<Row> {
    let (mut names, mut merged) = (HashMap::new(), Vec::<Row>::new());
    for mut row in rows {
        if let Some((object, _)) = &mut row.object {
            let next = names.len() as u64;
            *object = *names.entry(*object).or_insert(next);
        }
        match merged.last_mut() {
            Some(last)
                if last.range.1 == row.range.0
                    && last.prot == row.prot
                    && row.object == last.object.map(|(id, at)| (id, at + (last.range.1 - last.range.0))) =>
            {
                last.range.1 = row.range.1;
            }
            _ => merged.push(row),
        }
    }
    merged
}

fn of_kernel(space: &Space) -> Result<Vec<Row>, String> {
    let (window_start, window_end) = space.window();
    let text = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let (mut rows, mut inside) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag| flags.split_whitespace().any(|word| word == flag);
            let Some(row): Option<Row> = inside.take() else { continue };
            if !has("dc") {
                return Err(format!("children of fork would get {row:x?}"));
            }
            // What is reserved is kept out of dumps, and nothing else.
            if has("dd") {
                continue;
            }
            if row.object.is_some() && !has("um") {
                return Err(format!("not registered for missing pages: {row:x?}"));
            }
            rows.push(row);
        } else if let Some(row) = parse(line) {
            inside = Some(row).filter(|row| window_start.0 <= row.range.0 && row.range.0 < window_end.0);
        }
    }
    Ok(rows)
}

fn parse(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (range, prot) = ((hex(start)?, hex(end)?), words.next()?[..3].to_string());
    let offset = hex(words.next()?)?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    Some(Row { range, prot, object: (inode != 0).then_some((inode, offset)) })
}
