//! `memobj run`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use memobj::FailurePolicy;
use memobj_run::record::{LeftOut, Record};
use memobj_run::{
    CopyProgress, Counting, FileInjections, FrontEnds, LEAST_BUDGET_BYTES, MapTarget, Messages, NameMap,
    Options, Supervisor, report, run_in_front_with,
};
use rustix::fs::OFlags;

use crate::engine::injections;
use crate::failure::{Failure, complain};
use crate::interrupt::Interrupt;
use crate::options::Frames;
use crate::output;
use crate::progress::{Output, Progress};
use crate::retry::Retry;
use crate::run_args::{MapObject, ReportKind, RunArguments};
use crate::server_folder::{Faults, ServerFolder, with_faults};
use crate::servers::{self, At, Servers};

/// Runs the program, and ends as it does.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    if arguments.frames == Frames::Large {
        return Err(Failure::Message(
            "run: programs map files in pages of 4k; --frames 2m is not possible".into(),
        ));
    }
    check_budget(arguments)?;
    check_via(arguments)?;
    arguments.map.iter().try_for_each(|(_, object)| object.check())?;
    output::pass_on_what_is_closed()?;
    if arguments.report != ReportKind::None && arguments.report_file.is_none() {
        output::check_error()?;
    }
    check_places(arguments)?;
    let waits = arguments.report != ReportKind::None || arguments.record.is_some();
    let ends = if waits { FrontEnds::WithAll } else { FrontEnds::WithProgram };
    let at_end = |supervisor: &Supervisor| match tell(arguments, supervisor) {
        Ok(()) => 0,
        Err(failure) => {
            complain(&failure);
            1
        }
    };
    let record = arguments.replay.as_deref().map(read_record).transpose()?;
    let has_servers = arguments.map.iter().any(|(_, object)| matches!(object, MapObject::Url(_)));
    let prepare = |supervisor: &mut Supervisor| {
        if has_servers {
            supervisor.events().into_iter().for_each(servers::tell);
        }
        for left_out in record.iter().flat_map(|record| supervisor.replay(record)) {
            let why = match left_out.reason {
                LeftOut::Missing => "is not there, or is left to the kernel",
                _ => "has changed since it was recorded",
            };
            complain(&format!("replay: {} {why}", left_out.path.display()));
        }
    };
    // In the process of the supervisor: what opens objects of servers has threads.
    let make = || options(arguments, waits).map_err(|failure| failure.to_string().into());
    run_in_front_with(&make, &arguments.command, ends, &prepare, &at_end)
}

/// Refuses a budget in which programs get nowhere.
fn check_budget(arguments: &RunArguments) -> Result<(), Failure> {
    if arguments.tight || arguments.budget >= LEAST_BUDGET_BYTES {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "run: a budget of {}k is too small for most programs; the least is {}M, or any with --tight",
        arguments.budget >> 10,
        LEAST_BUDGET_BYTES >> 20
    )))
}

/// A server that lends frames has files of this machine only.
fn check_via(arguments: &RunArguments) -> Result<(), Failure> {
    let is_url = |object: &MapObject| matches!(object, MapObject::Url(_));
    match arguments.via.is_some() && arguments.map.iter().any(|(_, object)| is_url(object)) {
        true => Err(Failure::Usage(
            "run: --via lends frames of local files; --map to an object of a server takes a cache of its own"
                .into(),
        )),
        false => Ok(()),
    }
}

fn read_record(path: &Path) -> Result<Record, Failure> {
    let refused =
        |error: &dyn std::error::Error| Failure::Message(format!("replay {}: {error}", path.display()));
    let file = open_regular(path).map_err(|error| refused(&error))?;
    Record::read(std::io::BufReader::new(file)).map_err(|error| refused(&error))
}

/// Opens a regular file for reading, and waits for nobody.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Opens a file to write a report to. A FIFO has to have a reader.
fn create_report(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    // What reads it may be slow.
    rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Looks at where the record goes before the program runs: the record takes the place of what is there.
fn check_places(arguments: &RunArguments) -> Result<(), Failure> {
    let Some(path) = &arguments.record else { return Ok(()) };
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            Err(Failure::Message(format!("record {}: it is not a regular file", path.display())))
        }
        _ => Ok(()),
    }
}

fn write_record(path: &Path, record: &Record) -> Result<(), String> {
    // Not over an older one before it is whole.
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    // Whatever has this name is not written to: it could be somebody else's, or one that has to be waited for.
    let _ = std::fs::remove_file(&name);
    let written = File::create_new(&name).and_then(|file| {
        let mut file = std::io::BufWriter::new(file);
        record.write(&mut file)?;
        file.flush()?;
        std::fs::rename(&name, path)
    });
    written.map_err(|error| format!("record {}: {error}", path.display()))
}

/// What `--map` says that GUEST stands for.
fn target(
    (guest, object): (&Path, &MapObject),
    servers: &Arc<Servers>,
    faults: &Arc<Faults>,
) -> Result<MapTarget, Failure> {
    let url = match object {
        MapObject::Path(path) => return Ok(MapTarget::Path(path.clone())),
        MapObject::Url(url) => url,
    };
    Ok(match servers.find(url, &Interrupt::never())? {
        At::Folder(folder) => MapTarget::Folder(Arc::new(ServerFolder::new(*folder, servers, guest, faults))),
        At::Object(pager) => MapTarget::Object {
            name: memobj_url::shown(url),
            pager: with_faults(pager, guest, faults),
            modified: SystemTime::now(),
        },
    })
}

/// Shows how objects are copied, where that has to be done before the program starts.
fn copying() -> CopyProgress {
    let bar: Mutex<Option<(String, Progress, u64)>> = Mutex::default();
    CopyProgress::new(move |object, done, length| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        if bar.as_ref().is_none_or(|(shown, ..)| shown != object) {
            *bar = Some((object.to_owned(), Progress::begin(object, length, Output::Lines), 0));
        }
        if let Some((_, progress, before)) = &mut *bar {
            progress.advance(done.saturating_sub(*before));
            *before = done;
        }
        if done == length {
            *bar = None;
        }
    })
}

fn options(arguments: &RunArguments, counts: bool) -> Result<Options, Failure> {
    let servers = Arc::new(Servers::new(&arguments.servers, arguments.retry)?);
    let faults: Arc<Faults> = arguments.inject.clone().into();
    let injections = arguments.inject.iter().map(|(path, plan)| FileInjections {
        path: path.clone(),
        faults: injections(plan),
        seed: plan.seed,
    });
    let names = arguments.map.iter().map(|(guest, object)| {
        Ok(NameMap { guest: guest.clone(), target: target((guest, object), &servers, &faults)? })
    });
    Ok(Options {
        budget_bytes: arguments.budget,
        policy: match arguments.retry {
            Retry::Never => FailurePolicy::FailAtOnce,
            Retry::For(limit) => FailurePolicy::RetryFor(limit),
            Retry::Forever => FailurePolicy::WaitForEver,
        },
        injections: injections.collect(),
        names: names.collect::<Result<_, Failure>>()?,
        counting: if counts { Counting::Touches } else { Counting::Totals },
        via: arguments.via.clone(),
        messages: Messages::StandardError,
        copying: Some(copying()),
        ..Options::default()
    })
}

/// Writes what was asked for.
fn tell(arguments: &RunArguments, supervisor: &Supervisor) -> Result<(), String> {
    let history = supervisor.history();
    if let Some(path) = &arguments.record {
        write_record(path, &Record::from_history(&history))?;
    }
    let text = match arguments.report {
        ReportKind::Text => report::text(&history),
        ReportKind::Json => report::json(&history),
        ReportKind::Html => report::html(&history),
        ReportKind::None => return Ok(()),
    };
    match &arguments.report_file {
        None => {
            std::io::stderr().write_all(text.as_bytes()).map_err(|error| format!("write the report: {error}"))
        }
        Some(path) => {
            let written = create_report(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| format!("write {}: {error}", path.display()))
        }
    }
}
