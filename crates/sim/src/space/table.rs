//! Tables of mappings, made comparable.
//!
//! The kernel keeps neighbours apart that could be one, for reasons of its own (pages of one anonymous mapping and of
//! another were touched before they met), and guards are not in its table. So both sides are brought to one form:
//! neighbours that say the same and continue one another are one line.

use super::machine::WINDOW_START;
use memobj_core::prot::Prot;
use memobj_linux::oracle::Detail;
use memobj_vm::space::{
    AddressSpace, Backing, Dump, Growth, Lock, ObjectId, OnFork, Pattern, Segment, Sharing,
};
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    start: u64,
    end: u64,
    prot: String,
    /// Which object, in the order of the table if it has no name, and the offset.
    object: Option<(String, u64)>,
    flags: String,
}

fn to_text(rows: Vec<Row>) -> String {
    let mut text = String::new();
    let mut merged: Vec<Row> = Vec::new();
    for row in rows {
        match merged.last_mut() {
            Some(last) if continues(last, &row) => last.end = row.end,
            _ => merged.push(row),
        }
    }
    let mut names = BTreeMap::new();
    for Row { start, end, prot, object, flags } in merged {
        let (from, to) = ((start - WINDOW_START) / 4096, (end - WINDOW_START) / 4096);
        let object = object.map_or("anonymous".to_string(), |(name, offset)| {
            let count = names.len();
            let name = if name.starts_with("file") {
                name
            } else {
                names.entry(name).or_insert(format!("memory {count}")).clone()
            };
            format!("{name} at {}", offset / 4096)
        });
        writeln!(text, "[{from}, {to}) {prot} {object}{flags}").expect("a string takes everything");
    }
    text
}

fn continues(last: &Row, next: &Row) -> bool {
    let advanced = last.object.clone().map(|(name, offset)| (name, offset + (last.end - last.start)));
    last.end == next.start && last.prot == next.prot && last.flags == next.flags && advanced == next.object
}

/// The table of a space in software, whose files are its first objects.
pub(super) fn of_space(space: &AddressSpace, detail: Detail) -> String {
    of_segments(space.iter(), |id| Some(id.0).filter(|file| *file < 2), detail)
}

/// A table of segments; `file` tells which file an object is.
pub(super) fn of_segments(
    segments: impl Iterator<Item = Segment>,
    file: impl Fn(ObjectId) -> Option<u64>,
    detail: Detail,
) -> String {
    let row = |segment: Segment| {
        let attributes = segment.attributes;
        let sharing = if attributes.sharing == Sharing::Shared { 's' } else { 'p' };
        let object = match segment.backing {
            Backing::Object { id, offset } => match file(id) {
                Some(file) => Some((format!("file {file}"), offset.0)),
                None => Some((format!("{}", id.0), offset.0)),
            },
            Backing::Anonymous | Backing::Reserved => None,
        };
        let flags = if detail == Detail::Flags { flags_of(&segment) } else { String::new() };
        let prot = format!("{}{sharing}", attributes.prot);
        Row { start: segment.start.0, end: segment.end().0, prot, object, flags }
    };
    to_text(segments.map(row).collect())
}

fn flags_of(segment: &Segment) -> String {
    let attributes = segment.attributes;
    let on_fork = attributes.on_fork;
    let flags = [
        ("mr", attributes.max_prot.contains(Prot::READ)),
        ("mw", attributes.max_prot.contains(Prot::WRITE)),
        ("me", attributes.max_prot.contains(Prot::EXECUTE)),
        ("gd", attributes.growth == Growth::Down),
        ("lo", attributes.lock != Lock::Unlocked),
        ("sr", attributes.pattern == Pattern::Sequential),
        ("rr", attributes.pattern == Pattern::Random),
        ("dc", !on_fork.is_inherited()),
        ("wf", matches!(on_fork, OnFork::Wipe | OnFork::DropWiped)),
        ("dd", attributes.dump == Dump::Excluded),
    ];
    flags.iter().filter(|(_, set)| *set).fold(String::new(), |text, (name, _)| text + " " + name)
}

const FLAGS: [&str; 10] = ["mr", "mw", "me", "gd", "lo", "sr", "rr", "dc", "wf", "dd"];

/// The kernel's table, as far as the window of so many pages; `files` are the inodes of the files.
pub(super) fn of_kernel(text: &[u8], pages: u64, files: &[u64]) -> Option<String> {
    let end = WINDOW_START + pages * 4096;
    let text = String::from_utf8_lossy(text);
    let (mut rows, mut beyond, mut inside) = (Vec::<Row>::new(), false, false);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let words: Vec<&str> = flags.split_whitespace().collect();
            if let Some(row) = rows.last_mut().filter(|_| inside) {
                row.flags = FLAGS
                    .iter()
                    .filter(|flag| words.contains(flag))
                    .fold(String::new(), |all, flag| all + " " + flag);
            }
        } else if let Some(row) = parse_row(line, files) {
            inside = row.start >= WINDOW_START && row.start < end;
            beyond |= row.start >= end;
            if inside {
                rows.push(row);
            }
        }
    }
    beyond.then(|| to_text(rows))
}

fn parse_row(line: &str, files: &[u64]) -> Option<Row> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end, prot) = (hex(start)?, hex(end)?, words.next()?.to_string());
    let offset = hex(words.next()?)?;
    let inode: u64 = words.nth(1)?.parse().ok()?;
    let object = match files.iter().position(|&file| file == inode) {
        _ if inode == 0 => None,
        Some(file) => Some((format!("file {file}"), offset)),
        None => Some((format!("{inode}"), offset)),
    };
    Some(Row { start, end, prot, object, flags: String::new() })
}
