//! `memobj segments`: the segment table of a process, in the texts of several systems.

mod maps;
mod plan9;
mod umem;

#[cfg(test)]
mod tests;

use std::io::{Write, stdout};

use crate::failure::{Failure, reason};
use crate::image_args::{SegmentsArguments, SegmentsFormat};
use maps::Row;

/// Prints the table.
pub(crate) fn run(arguments: &SegmentsArguments) -> Result<(), Failure> {
    let (path, name) = match arguments.pid {
        Some(pid) => (format!("/proc/{pid}/maps"), format!("process {pid}")),
        None => ("/proc/self/maps".to_string(), "this process".to_string()),
    };
    let failed = |why: String| Failure::Message(format!("segments of {name}: {why}"));
    // File names may be anything but a newline.
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("no such process".to_string()),
        _ => failed(reason(&error)),
    })?;
    let text = String::from_utf8_lossy(&text);
    let rows: Option<Vec<Row>> = text.lines().map(maps::parse).collect();
    let rows = rows.ok_or_else(|| failed(format!("{path} has a line of another form")))?;
    let text = match arguments.format {
        SegmentsFormat::Linux => maps::format(&rows),
        SegmentsFormat::Plan9 => plan9::format(&rows),
        SegmentsFormat::Umem => umem::format(&rows),
        SegmentsFormat::Json => json(&rows),
    };
    stdout().write_all(text.as_bytes()).map_err(|error| Failure::stdout(&error))
}

fn json(rows: &[Row]) -> String {
    // Texts and numbers are JSON.
    serde_json::to_string_pretty(rows).unwrap_or_default() + "\n"
}
