//! `memobj serve --firecracker`: memory of virtual machines that were snapshotted.

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use memobj::pagers::{self, Pager};
use memobj::{Cache, CacheOptions, FailurePolicy};
use memobj_serve::keep::{Keeper, Kept};
use memobj_serve::vm::{Event, MachineServer, OnFailure, Options, Touches};

use crate::failure::{Failure, complain, failure};
use crate::interrupt::Interrupt;
use crate::output;
use crate::retry::{self, Retry};
use crate::servers::{self, At, ServerArguments, Servers};
use crate::size;

/// How often it is looked whether Ctrl-C was pressed, and whether a record is to be written.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A server that ends so early is not started again at once.
const EARLY: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) const SERVE_HELP: &str = "\
Examples:
  memobj serve --firecracker /run/vm.sock --memory snapshot/mem
  memobj serve --firecracker /run/vm.sock --memory s3://bucket/mem --disk-cache /var/tmp/cache:20G
  memobj serve --firecracker /run/vm.sock --memory mem --record mem.touches        the first machine
  memobj serve --firecracker /run/vm.sock --memory mem --replay mem.touches        later ones
  memobj serve --firecracker /run/vm.sock --memory mem --keep                      may be killed and upgraded

Firecracker: PUT /snapshot/load with \"mem_backend\": {\"backend_type\": \"Uffd\", \"backend_path\": SOCKET}.
Any monitor that sends the same handshake is served: a JSON list of regions, with its userfaultfd.

OBJECT is the memory file of the snapshot: a file or a URL. It is read when machines touch it, once for
all machines, within the budget; each machine has copies of its own of the pages that it touches. Pages
that a machine gives up (balloon) are zero from then on.

A page that cannot be supplied, after --retry, ends the machine by SIGKILL, with a line that says why; with
--on-failure wait the machine sleeps, and the page is asked for again each second. It never reads zeros
instead.

--keep: a second process, which only keeps descriptors, starts the server again when it is killed or crashes.
Machines sleep meanwhile at pages that are missing, and notice nothing else. SIGHUP to it has the server
started anew, from the program that has its name by then. Without --keep, machines whose server has died sleep
at their next missing page.

Ctrl-C or SIGTERM ends it; the record is written then, and whenever a machine leaves.";

/// What becomes of a machine whose page cannot be supplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FailureChoice {
    /// It is ended
    Kill,
    /// It waits
    Wait,
}

/// `memobj serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Where machine monitors connect: a path that nobody listens at
    #[arg(long, value_name = "SOCKET")]
    firecracker: PathBuf,
    /// The memory file of the snapshot
    #[arg(long, value_name = "OBJECT")]
    memory: PathBuf,
    /// The most memory that holds pages of the object
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse_budget)]
    budget: u64,
    /// How long failed supplies are tried again: never, a time such as 10s, or forever
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    retry: Retry,
    /// What becomes of a machine that touches a page which cannot be supplied
    #[arg(long, value_name = "WHAT", default_value = "kill")]
    on_failure: FailureChoice,
    /// How many bytes around a fault are read with it: a power of two, at least 4k
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = window)]
    window: u64,
    /// Write which pages machines touch first, in order, to this file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Copy what this record tells of before it is touched
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Copy all other pages in the background
    #[arg(long)]
    complete: bool,
    /// Have a second process keep machines, and start the server again when it dies
    #[arg(long)]
    keep: bool,
    /// The server that such a process has started: its standard input is the line to it
    #[arg(long, hide = true)]
    kept: bool,
    /// Serve monitors of this user, too
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
    /// The most machines at once
    #[arg(long, value_name = "N", default_value = "256")]
    machines: NonZeroU16,
    /// Say nothing about machines that come and go
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    servers: ServerArguments,
}

fn window(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    match (4096..=16 << 20).contains(&bytes) && bytes.is_power_of_two() {
        true => Ok(bytes),
        false => Err(format!("{text} is no power of two from 4k to 16M")),
    }
}

/// Serves until Ctrl-C.
pub(crate) fn run(arguments: &ServeArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    // SIGTERM ends it as Ctrl-C does.
    let ends = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&ends))
        .map_err(|error| Failure::io("handle SIGTERM", &error))?;
    let touches = arguments.replay.as_deref().map(read_record).transpose()?;
    if arguments.keep {
        return keep(arguments, interrupt, &ends);
    }
    let (kept, listener, _socket) = match arguments.kept {
        true => {
            let line = std::io::stdin().as_fd().try_clone_to_owned();
            let line = line.map_err(|error| Failure::io("hear the keeper", &error))?;
            let (kept, listener) =
                Kept::hear(line).map_err(|error| Failure::io("hear the keeper", &error))?;
            (Some(Arc::new(kept)), listener, None)
        }
        false => {
            let (listener, socket) = listen(&arguments.firecracker)?;
            (None, listener, Some(socket))
        }
    };
    let server = start(arguments, kept, listener, touches)?;
    if !arguments.kept {
        say_ready(&arguments.firecracker)?;
    }
    let (mut recorded, mut result) = (0, Ok(()));
    while interrupt.check().is_ok() && !ends.load(Ordering::Acquire) {
        thread::sleep(LOOK_AGAIN);
        // A machine that is killed with its server leaves its touches.
        let left = server.statistics().served - server.statistics().machines as u64;
        if left != recorded {
            recorded = left;
            result = write_record(arguments, &server);
        }
    }
    result = write_record(arguments, &server).and(result);
    let statistics = server.statistics();
    complain(&format!(
        "{} machines were served, {} refused; {} faults, half of them within {:.1} us, 99 of 100 within {:.1} us",
        statistics.served,
        statistics.refused,
        statistics.faults,
        statistics.median.as_secs_f64() * 1e6,
        statistics.percentile_99.as_secs_f64() * 1e6
    ));
    result?;
    match ends.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err(Failure::InterruptReported),
    }
}

/// The first line of standard output: monitors can connect.
fn say_ready(socket: &Path) -> Result<(), Failure> {
    output::put(format!("{}\n", socket.display()).as_bytes())?;
    std::io::stdout().flush().map_err(|error| Failure::stdout(&error))
}

fn read_record(path: &Path) -> Result<Touches, Failure> {
    let what = format!("read the record {}", path.display());
    let file = std::fs::File::open(path).map_err(|error| Failure::io(&what, &error))?;
    Touches::read_from(file).map_err(|error| Failure::Message(format!("{what}: {error}")))
}

/// Puts the record in place of what is there, once it is whole.
fn write_record(arguments: &ServeArguments, server: &MachineServer) -> Result<(), Failure> {
    let (Some(path), Some(touches)) = (&arguments.record, server.touches()) else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        touches.write_to(&mut file)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|error| Failure::io(&format!("write the record {}", path.display()), &error))
}

fn start(
    arguments: &ServeArguments,
    kept: Option<Arc<Kept>>,
    listener: UnixListener,
    touches: Option<Touches>,
) -> Result<MachineServer, Failure> {
    let cache = Cache::new(CacheOptions::new().budget_bytes(arguments.budget)).map_err(failure)?;
    servers::tell(cache.events());
    let (name, pager) = pager(arguments)?;
    if let Some(touches) = &touches
        && touches.object_length() != pager.describe().length()
    {
        complain(&format!(
            "the record is of an object of {} bytes: what fits is used",
            touches.object_length()
        ));
    }
    let quiet = arguments.quiet;
    let options = Options {
        policy: match arguments.retry {
            Retry::Never => FailurePolicy::FailAtOnce,
            Retry::For(limit) => FailurePolicy::RetryFor(limit),
            Retry::Forever => FailurePolicy::WaitForEver,
        },
        on_failure: match arguments.on_failure {
            FailureChoice::Kill => OnFailure::End,
            FailureChoice::Wait => OnFailure::Wait,
        },
        users: arguments.allow_uid.clone(),
        most_machines: arguments.machines.get().into(),
        window_bytes: arguments.window,
        records: arguments.record.is_some(),
        touches,
        completes: arguments.complete,
        kept,
        listener: Box::new(move |event| tell(event, quiet)),
    };
    let budget = arguments.budget;
    MachineServer::start(listener, &cache, (&name, pager), budget, options).map_err(failure)
}

fn tell(event: &Event, quiet: bool) {
    let is_usual = matches!(
        event,
        Event::Admitted { .. }
            | Event::TakenOver { .. }
            | Event::Prefetched { failed_bytes: 0, .. }
            | Event::Left { .. }
    );
    if !(quiet && is_usual) {
        complain(&event.to_string());
    }
}

fn pager(arguments: &ServeArguments) -> Result<(String, Arc<dyn Pager>), Failure> {
    let Some(url) = servers::url_of(&arguments.memory) else {
        let path = servers::local(&arguments.memory)?;
        let name = path.display().to_string();
        let file = pagers::File::open(&path).map_err(failure)?;
        return Ok((name, Arc::new(file)));
    };
    let servers = Servers::new(&arguments.servers, arguments.retry)?;
    match servers.find(url, &Interrupt::never())? {
        At::Object(pager) => Ok((memobj_url::shown(url), Arc::from(pager))),
        At::Folder(_) => Err(Failure::Message(format!("{}: it is a folder", memobj_url::shown(url)))),
    }
}

/// Removes the socket when it is dropped.
#[derive(Debug)]
struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`, also if a server that has died has left a socket there.
fn listen(path: &Path) -> Result<(UnixListener, SocketPath), Failure> {
    use std::os::unix::fs::FileTypeExt;
    let what = format!("listen at {}", path.display());
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(|error| Failure::io(&what, &error))?;
            }
            _ => return Err(Failure::Message(format!("{what}: another server listens there"))),
        }
    }
    let listener = UnixListener::bind(path).map_err(|error| Failure::io(&what, &error))?;
    Ok((listener, SocketPath(path.to_owned())))
}

/// The keeper: starts servers until one ends by itself.
fn keep(arguments: &ServeArguments, interrupt: &Interrupt, ends: &Arc<AtomicBool>) -> Result<(), Failure> {
    let again = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&again))
        .map_err(|error| Failure::io("handle SIGHUP", &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find this program", &error))?;
    let words: Vec<OsString> = std::env::args_os()
        .skip(1)
        .map(|word| if word == "--keep" { "--kept".into() } else { word })
        .collect();
    let (listener, _socket) = listen(&arguments.firecracker)?;
    let mut keeper = Keeper::new(listener);
    let (mut is_first, mut pause) = (true, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let status = one_server(&mut keeper, (&program, &words), &mut is_first, arguments, &|| {
            (interrupt.check().is_err() || ends.load(Ordering::Acquire), again.swap(false, Ordering::AcqRel))
        })?;
        if interrupt.check().is_err() {
            return Err(Failure::InterruptReported);
        }
        if ends.load(Ordering::Acquire) {
            return Ok(());
        }
        if is_first || status.code() == Some(2) {
            // It has not come so far that another one would do better.
            return Err(Failure::Reported);
        }
        complain(&format!(
            "the server has ended ({status}): another one is started for {} machines",
            keeper.machines()
        ));
        pause =
            if begun.elapsed() > EARLY { Duration::ZERO } else { (pause * 2).clamp(LOOK_AGAIN, MOST_PAUSE) };
        thread::sleep(pause);
    }
}

/// Starts a server and keeps what it tells of until it has ended. `asked` says whether all is to end, and whether another
/// server is to be started.
fn one_server(
    keeper: &mut Keeper,
    (program, words): (&Path, &[OsString]),
    is_first: &mut bool,
    arguments: &ServeArguments,
    asked: &(dyn Fn() -> (bool, bool) + Sync),
) -> Result<ExitStatus, Failure> {
    let system = |what: &'static str| move |error| Failure::io(what, &error);
    let (server, line) = Keeper::line().map_err(system("make a line to the server"))?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::from(server))
        .stdout(Stdio::null())
        .spawn()
        .map_err(system("start a server"))?;
    let id = child.id() as i32;
    let is_over = AtomicBool::new(false);
    let mut said = Ok(());
    let attended = thread::scope(|scope| {
        scope.spawn(|| watch(id, asked, &is_over));
        let attended = keeper.attend(&line, &mut || {
            if std::mem::take(is_first) {
                said = say_ready(&arguments.firecracker);
            }
        });
        is_over.store(true, Ordering::Release);
        attended
    });
    if let Err(error) = attended {
        complain(&format!("the server does not do what servers do ({error}): it is ended"));
        let _ = child.kill();
    }
    let status = wait(&mut child)?;
    said.and(Ok(status))
}

fn wait(child: &mut Child) -> Result<ExitStatus, Failure> {
    child.wait().map_err(|error| Failure::io("wait for the server", &error))
}

/// Passes on to the server what this process is asked for.
fn watch(server: i32, asked: &(dyn Fn() -> (bool, bool) + Sync), is_over: &AtomicBool) {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(server) = Pid::from_raw(server) else { return };
    let mut has_ended = false;
    while !is_over.load(Ordering::Acquire) {
        let (ends, again) = asked();
        if ends && !has_ended {
            has_ended = true;
            let _ = kill_process(server, Signal::TERM);
        }
        if again {
            // It leaves everything to the next one.
            let _ = kill_process(server, Signal::KILL);
        }
        thread::sleep(LOOK_AGAIN);
    }
}
