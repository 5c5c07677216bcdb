//! `memobj segments`: the segment table of a process, in the texts of several systems.
//!
//! Rows are read, printed and forgotten one by one, so that a table may have millions of them.

mod maps;
mod plan9;
mod source;
mod umem;

#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};

use serde::ser::{SerializeSeq, Serializer};

use crate::failure::Failure;
use crate::image_args::{SegmentsArguments, SegmentsFormat};
use crate::output::Output;
use maps::Row;
use source::TableSource;

/// Prints the table.
pub(crate) fn run(arguments: &SegmentsArguments) -> Result<(), Failure> {
    let mut source = match &arguments.from {
        Some(path) => TableSource::file(path)?,
        None => TableSource::process(arguments.pid)?,
    };
    let mut out = BufWriter::with_capacity(64 << 10, Output);
    print(&mut source, arguments.format, &mut out)?;
    out.flush().map_err(|error| Failure::stdout(&error))
}

fn print(source: &mut TableSource, format: SegmentsFormat, out: &mut impl Write) -> Result<(), Failure> {
    match format {
        SegmentsFormat::Linux => source.each(|row| written(maps::write(out, row))),
        SegmentsFormat::Plan9 => plan9(source, out),
        SegmentsFormat::Umem => source.each(|row| written(umem::write(out, row))),
        SegmentsFormat::Json => json(source, out),
    }
}

/// Three times through: what the columns need, the stack, the others.
fn plan9(source: &mut TableSource, out: &mut impl Write) -> Result<(), Failure> {
    let mut survey = plan9::Survey::default();
    source.each(|row| {
        survey.see(row);
        Ok(())
    })?;
    for is_stack in [true, false] {
        let is_next = |row: &Row| row.is_stack() == is_stack;
        source.each(|row| if is_next(row) { written(survey.write(out, row)) } else { Ok(()) })?;
    }
    Ok(())
}

/// One array, row by row.
fn json(source: &mut TableSource, out: &mut impl Write) -> Result<(), Failure> {
    let mut serializer = serde_json::Serializer::pretty(&mut *out);
    let mut array = serializer.serialize_seq(None).map_err(unwritten)?;
    source.each(|row| array.serialize_element(row).map_err(unwritten))?;
    array.end().map_err(unwritten)?;
    written(writeln!(out))
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::stdout(&error))
}

/// Rows are JSON, so it is the output that failed.
fn unwritten(error: serde_json::Error) -> Failure {
    Failure::stdout(&error.into())
}
