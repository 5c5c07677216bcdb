//! Runs a program that finds synthetic objects under names: what the tests of mapped objects start.
//!
//! ```text
//! map_objects [--budget BYTES] [--forever] [--copies] [--progress] [--totals] [--touches] --map GUEST=OBJECT ... -- PROGRAM ARGUMENTS
//!   OBJECT  LENGTH[,seed=N][,block=BYTES][,delay=MS][,fail=START-END][,kind=KIND][,hang=START-END][,opens=MS]
//!           dir:NAME=OBJECT;NAME=OBJECT;...    a folder
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use memobj::pagers::{Blocking, BlockingPager, Description, Pager, SupplyRequest};
use memobj::{ErrorKind, FailurePolicy, SupplyError};
use memobj_run::{
    CopyProgress, Counting, Entry, FrontEnds, MapTarget, NameMap, ObjectAccess, ObjectFolder, OpenedObject,
    Options, Supervisor, run_in_front,
};

/// What all objects together have supplied.
static SUPPLIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// An object whose bytes depend on their position.
#[derive(Clone, Debug, Default)]
struct Synthetic {
    length: u64,
    seed: u64,
    block: u64,
    delay: Duration,
    fail: Range<u64>,
    kind: String,
    hang: Range<u64>,
    opens: Duration,
}

impl Synthetic {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(',');
        let number = |text: &str| text.parse().expect("a number");
        let range = |text: &str| {
            let (start, end) = text.split_once('-').expect("a range");
            number(start)..number(end)
        };
        let mut made = Self { length: number(parts.next().expect("a length")), ..Self::default() };
        for part in parts {
            let (name, value) = part.split_once('=').expect("a name and a value");
            match name {
                "seed" => made.seed = number(value),
                "block" => made.block = number(value),
                "delay" => made.delay = Duration::from_millis(number(value)),
                "fail" => made.fail = range(value),
                "kind" => made.kind = value.to_owned(),
                "hang" => made.hang = range(value),
                "opens" => made.opens = Duration::from_millis(number(value)),
                _ => panic!("{part}: what is that?"),
            }
        }
        made
    }

    fn byte(&self, offset: u64) -> u8 {
        let word = (offset / 8 + self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ (word >> 29)).to_le_bytes()[(offset % 8) as usize]
    }

    fn kind(&self) -> ErrorKind {
        match &self.kind[..] {
            "stale" => ErrorKind::Stale,
            "denied" => ErrorKind::Denied,
            "timeout" => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl BlockingPager for Synthetic {
    fn length(&self) -> u64 {
        self.length
    }

    fn block_bytes(&self) -> u64 {
        self.block.max(4096)
    }

    fn supply(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<usize, SupplyError> {
        std::thread::sleep(self.delay);
        if overlap(&range, &self.fail) {
            return Err(SupplyError::new(self.kind()));
        }
        for (byte, offset) in buffer.iter_mut().zip(range) {
            *byte = self.byte(offset);
        }
        SUPPLIED_BYTES.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(buffer.len())
    }
}

/// Keeps the requests that it does not answer.
struct Hanging(Blocking<Synthetic>, std::sync::Mutex<Vec<SupplyRequest>>);

impl Pager for Hanging {
    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn supply(&self, request: SupplyRequest) {
        match overlap(&request.range(), &self.0.0.hang) {
            true => self.1.lock().expect("requests").push(request),
            false => self.0.supply(request),
        }
    }
}

fn pager(object: &Synthetic) -> Arc<dyn Pager> {
    Arc::new(Hanging(Blocking(object.clone()), std::sync::Mutex::default()))
}

/// Objects by their paths.
struct Folder(BTreeMap<String, Synthetic>);

impl ObjectFolder for Folder {
    fn name(&self) -> String {
        "synthetic:".into()
    }

    fn entries(&self, path: &str) -> io::Result<Vec<Entry>> {
        if path.contains("hangs") {
            loop {
                std::thread::park();
            }
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries = BTreeMap::new();
        for (name, object) in &self.0 {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            let entry = match rest.split_once('/') {
                Some((folder, _)) => Entry::folder(folder),
                None => Entry::object(rest, object.length, time()),
            };
            entries.insert(entry.name.clone(), entry);
        }
        match entries.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(entries.into_values().collect()),
        }
    }

    fn open(&self, path: &str) -> io::Result<OpenedObject> {
        let object = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        std::thread::sleep(object.opens);
        if object.kind == "refused" {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(OpenedObject::new(format!("synthetic:{path}"), pager(object)))
    }
}

fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn target(text: &str) -> MapTarget {
    match text.strip_prefix("dir:") {
        None if text.starts_with('/') => MapTarget::Path(text.into()),
        None => MapTarget::Object {
            name: format!("synthetic:{text}"),
            pager: pager(&Synthetic::parse(text)),
            modified: time(),
        },
        Some(all) => {
            let one = |text: &str| {
                let (name, object) = text.split_once('=').expect("a name and an object");
                (name.to_owned(), Synthetic::parse(object))
            };
            MapTarget::Folder(Arc::new(Folder(all.split(';').map(one).collect())))
        }
    }
}

fn main() {
    let mut options = Options::default();
    let mut arguments = std::env::args_os().skip(1);
    let mut totals = false;
    while let Some(argument) = arguments.next().filter(|argument| argument != "--") {
        let mut value = || arguments.next().and_then(|text| text.into_string().ok()).expect("a value");
        match argument.to_str() {
            Some("--budget") => options.budget_bytes = value().parse().expect("a number"),
            Some("--totals") => totals = true,
            Some("--forever") => options.policy = FailurePolicy::WaitForEver,
            Some("--copies") => options.object_access = ObjectAccess::Copies,
            Some("--progress") => {
                let hear = |name: &str, done, length| eprintln!("{name}: {done} of {length}");
                options.copying = Some(CopyProgress::new(hear));
            }
            Some("--touches") => options.counting = Counting::Touches,
            Some("--map") => {
                let map = value();
                let (guest, object) = map.split_once('=').expect("a guest and an object");
                options.names.push(NameMap { guest: PathBuf::from(guest), target: target(object) });
            }
            other => panic!("{other:?}: what is that?"),
        }
    }
    let command: Vec<_> = arguments.collect();
    let at_end = |supervisor: &Supervisor| {
        if totals {
            let history = supervisor.history();
            let files: Vec<_> = history.files.iter().map(|file| (&file.path, file.mappings)).collect();
            let supplied = SUPPLIED_BYTES.load(Ordering::Relaxed);
            eprintln!("{:?} {files:?} supplied_by_objects: {supplied}.", history.totals);
        }
        0
    };
    run_in_front(options, &command, FrontEnds::WithAll, &|_| {}, &at_end)
}
