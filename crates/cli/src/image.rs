//! `memobj image`: what of a file is mapped where.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memobj::image::{
    AddressRange, ImageMapOptions, ImagePlan, ImageRecord, Interpret, MapImageError, Model, Placement,
    RecordKind, Step, map_image, plan_image,
};
use rustix::fs::OFlags;
use serde::Serialize;

use crate::engine::{self, Engine};
use crate::failure::{Failure, reason};
use crate::hex::hex_unless_utf8;
use crate::image_args::ImageArguments;
use crate::interrupt::Interrupt;
use crate::options::Settings;
use crate::output::put;
use crate::progress::{Output, Progress};
use crate::servers;
use crate::walk::in_order;

/// Most memory for frames while an object of a server is fetched.
const FETCH_BUDGET_BYTES: u64 = 64 << 20;

/// Everything, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    placement: &'static str,
    length_bytes: Option<u64>,
    align_bytes: Option<u64>,
    mapped: bool,
    segments: Vec<Row>,
    steps: Vec<StepRow>,
}

#[derive(Debug, Serialize)]
struct Row {
    address: u64,
    memory_bytes: u64,
    file_bytes: u64,
    offset: u64,
    protection: String,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct StepRow {
    step: &'static str,
    start: u64,
    end: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<String>,
}

/// Plans, maps unless told not to, and prints.
pub(crate) fn run(arguments: &ImageArguments) -> Result<(), Failure> {
    let name = match servers::url_of(&arguments.file) {
        Some(url) => memobj_url::shown(url),
        None => arguments.file.display().to_string(),
    };
    let file = match servers::url_of(&arguments.file) {
        Some(_) => fetch(arguments)?,
        None => open(&servers::local(&arguments.file)?, arguments)?,
    };
    let interpret = if arguments.flat { Interpret::Flat } else { Interpret::Elf(Model::Elf64) };
    let options =
        ImageMapOptions::new().interpret(interpret).padding_bytes(arguments.padding).room_records(None);
    let failed = |error| failure(&name, &error);
    let plan = plan_image(&file, &options).map_err(failed)?;
    let mut report = if arguments.plan {
        report(&name, &plan, &plan.records, false)
    } else {
        let image = map_image(&file, &options).map_err(failed)?;
        report(&name, &plan, image.records(), true)
    };
    report.file_hex = hex_unless_utf8(arguments.file.as_os_str().as_bytes());
    let text = if arguments.json { json(&report) } else { table(&report) };
    put(text.as_bytes())
}

/// Opens a file of this machine.
fn open(path: &Path, arguments: &ImageArguments) -> Result<File, Failure> {
    let name = path.display();
    let refused = |error: &io::Error| Failure::io(&format!("open {name}"), error);
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| refused(&error))?;
    if file.metadata().map_err(|error| refused(&error))?.is_file() {
        // As the commands that read do: puts in place what was committed to the file.
        let opened = engine::open_file(path, arguments.log.foreign_log())?;
        let untold = || format!("image {name}: the file does not report its length, so it cannot be mapped");
        drop(opened.ok_or_else(|| Failure::Message(untold()))?);
    }
    Ok(file)
}

/// An object of a server as a file without a name: the kernel maps files of this machine only.
fn fetch(arguments: &ImageArguments) -> Result<File, Failure> {
    let interrupt = Interrupt::install()?;
    let settings = Settings::sequential(FETCH_BUDGET_BYTES);
    let (retry, servers) = (arguments.retry, arguments.servers.clone());
    let engine = Engine::new(Settings { retry, servers, ..settings })?;
    let view = engine.open(&arguments.file, &interrupt)?;
    let refused = |error: &io::Error| Failure::io("write a temporary file", error);
    let file = tempfile::tempfile().map_err(|error| refused(&error))?;
    let progress = Progress::begin(&arguments.file.to_string_lossy(), view.length(), Output::Lines);
    in_order(
        &view.plan(0..view.length()),
        &interrupt,
        |piece, buffer| view.load(piece.clone(), buffer, |bytes| file.write_all_at(bytes, piece.start)),
        |piece, written| {
            progress.advance(piece.end - piece.start);
            written.map_err(|error| refused(&error))
        },
    )?;
    Ok(file)
}

fn failure(name: &str, error: &MapImageError) -> Failure {
    let why = match error {
        MapImageError::Read(error) => format!("read the headers: {}", reason(error)),
        MapImageError::Map { range, source } => format!("map {range}: {}", reason(source)),
        other => other.to_string(),
    };
    let hint = match error {
        MapImageError::InUse { .. } => "; --plan shows it without mapping it",
        _ => "",
    };
    Failure::Message(format!("image {name}: {why}{hint}"))
}

fn report(name: &str, plan: &ImagePlan, records: &[ImageRecord], mapped: bool) -> Report {
    let (placement, length_bytes, align_bytes) = match plan.placement {
        Placement::Anywhere { length_bytes, align_bytes, .. } => {
            ("anywhere", Some(length_bytes), Some(align_bytes))
        }
        Placement::Fixed => ("fixed", None, None),
    };
    let segments = records.iter().map(row).collect();
    let steps = plan.steps.iter().map(step_row).collect();
    Report {
        file: name.to_string(),
        file_hex: None,
        placement,
        length_bytes,
        align_bytes,
        mapped,
        segments,
        steps,
    }
}

fn row(record: &ImageRecord) -> Row {
    let kind = match record.kind {
        RecordKind::Plain => "plain",
        RecordKind::Padding => "padding",
        RecordKind::ElfHeader => "elf header",
    };
    Row {
        address: record.address.0,
        memory_bytes: record.memory_bytes,
        file_bytes: record.file_bytes,
        offset: record.offset,
        protection: record.prot.to_string(),
        kind,
    }
}

fn step_row(step: &Step) -> StepRow {
    let make = |step, range: AddressRange, file_offset, protection: Option<String>| StepRow {
        step,
        start: range.start,
        end: range.end,
        file_offset,
        protection,
    };
    match *step {
        Step::Reserve { pages } => make("reserve", pages, None, None),
        Step::MapFile { pages, offset, prot } => {
            make("map file", pages, Some(offset.0), Some(prot.to_string()))
        }
        Step::ZeroTail { bytes, .. } => make("zero tail", bytes, None, None),
        Step::MapZero { pages, prot } => make("map zero", pages, None, Some(prot.to_string())),
        Step::ReadFile { bytes, offset } => make("read file", bytes, Some(offset.0), None),
        Step::Protect { pages, prot } => make("protect", pages, None, Some(prot.to_string())),
        Step::Release { pages } => make("release", pages, None, None),
    }
}

fn json(report: &Report) -> String {
    // Texts, numbers and fixed names are JSON.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

fn table(report: &Report) -> String {
    let mut text = match (report.length_bytes, report.align_bytes) {
        (Some(length), Some(align)) => {
            format!("{}: anywhere, {length:#x} bytes aligned to {align:#x}", report.file)
        }
        _ => format!("{}: at fixed addresses", report.file),
    };
    text += if report.mapped { "\n" } else { "; not mapped\n" };
    text += &format!(
        "{:<18}  {:>12}  {:>12}  {:>6}  {:<10}  kind\n",
        "address", "size", "file bytes", "offset", "protection"
    );
    for row in &report.segments {
        let [size, file, offset] =
            [row.memory_bytes, row.file_bytes, row.offset].map(|number| format!("{number:#x}"));
        let (address, protection, kind) = (row.address, &row.protection, row.kind);
        text += &format!("{address:#018x}  {size:>12}  {file:>12}  {offset:>6}  {protection:<10}  {kind}\n");
    }
    text
}
