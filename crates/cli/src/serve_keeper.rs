//! `memobj serve --keep`: a process that keeps machines and clients, and starts servers.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memobj_serve::keep::{Keeper, Kind, Listeners, Note};
use tracing::{error, warn};

use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// How often it is looked for signals.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A server that ends so early is not started again at once.
const EARLY: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// The keeper: starts servers until one ends by itself.
///
/// `on_ready` is called when others can connect to `listeners`.
pub(crate) fn keep(
    listeners: Listeners,
    interrupt: &Interrupt,
    ends: &Arc<AtomicBool>,
    on_ready: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let again = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&again))
        .map_err(|error| Failure::io("handle SIGHUP", &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find this program", &error))?;
    let words: Vec<OsString> = std::env::args_os()
        .skip(1)
        .map(|word| if word == "--keep" { "--kept".into() } else { word })
        .collect();
    let mut keeper = Keeper::new(listeners);
    let (mut is_first, mut pause) = (true, Duration::ZERO);
    let asked =
        || (interrupt.check().is_err() || ends.load(Ordering::Acquire), again.swap(false, Ordering::AcqRel));
    loop {
        let begun = Instant::now();
        let mut said = Ok(());
        let mut on_note = |note| match note {
            Note::Ready if std::mem::take(&mut is_first) => said = on_ready(),
            Note::NotKept(kind, number) => {
                warn!(number, "no descriptors are left to keep {kind:?} {number}: it ends with the server");
            }
            _ => {}
        };
        let status = one_server(&mut keeper, (&program, &words), &mut on_note, &asked)?;
        said?;
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
        let (machines, clients) = (keeper.count(Kind::Machine), keeper.count(Kind::Session));
        warn!(
            machines,
            clients,
            status = tracing::field::display(status),
            "the server has ended ({status}): another one is started for {machines} machines and {clients} clients"
        );
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
    on_note: &mut dyn FnMut(Note),
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
    let attended = thread::scope(|scope| {
        scope.spawn(|| watch(id, asked, &is_over));
        let attended = keeper.attend(&line, on_note);
        is_over.store(true, Ordering::Release);
        attended
    });
    if let Err(error) = attended {
        error!(why = %error, "the server does not do what servers do ({error}): it is ended");
        let _ = child.kill();
    }
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
