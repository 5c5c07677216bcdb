//! `memobj top`: what a server does, now and again.
//!
//! ```text
//!   a thread asks the server ----> Sample, each interval ----> this one: the difference of two is shown
//! ```
//!
//! So a server that does not answer keeps nobody from ending this, and leaves the terminal as it was.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use memobj_serve::control::{Client, ClientError};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{self, put};
use crate::retry;
use crate::top_show::{self, Sample, Shown};

pub(crate) const TOP_HELP: &str = "\
Examples:
  memobj top /run/memobj.sock                 redraws itself each second; Ctrl-C ends it
  memobj top --once --json S.sock             one JSON object, of one second
  memobj top --interval 10s S.sock >>log      not a terminal: a line each ten seconds

It connects to a server that was started with this SOCKET, and counts as one of its clients.

  clients, objects, machines   there are now
  faults/s     accesses of clients and machines that slept until the server had done something
  hit rate     how many of a hundred of these were of pages in frames: answered without a wait
  p50, p99     how long faults of this interval took, from when the server read them: half of them, and
               99 of a hundred, at most; up to a fifth too long
  waiting      faults that wait for their pages
  supplied/s, evicted/s        pages of 4 KiB that came into frames, and that left them
  budget, frames, dirty        the bound on frames, what is used of it, and what is not written back
  lost events  what clients did not read in time

Lists of clients and objects are told to the user of the server and root only.";

/// `memobj top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Where the server listens for clients
    #[arg(value_name = "SOCKET", default_value = "/run/memobj.sock")]
    socket: PathBuf,
    /// How often it is asked: a time such as 500ms, 2s or 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Show one interval, and end
    #[arg(long)]
    once: bool,
    /// Print a JSON object, on a line, for each interval
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = retry::parse_time_argument(text)?;
    match time >= Duration::from_millis(50) {
        true => Ok(time),
        false => Err(format!("{text} is too short; the least is 50ms")),
    }
}

/// How often it is looked whether this is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A server that has not answered for so long is said to be silent.
const SILENT: Duration = Duration::from_secs(3);
/// The most parts of one list that are asked for.
const MOST_PARTS: usize = 8;

/// Shows until it is interrupted, or the server has ended.
pub(crate) fn run(arguments: &TopArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let terminated = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&terminated))
        .map_err(|error| Failure::io("catch SIGTERM", &error))?;
    let ends = || interrupt.check().is_err() || terminated.load(Ordering::Relaxed);
    let samples = ask(&arguments.socket, arguments.interval)?;
    let redraws = std::io::stdout().is_terminal() && !arguments.json && !arguments.once;
    let form = match (arguments.json, redraws || arguments.once) {
        (true, _) => top_show::json,
        (_, true) => top_show::screen,
        _ => top_show::line,
    };
    let name = arguments.socket.display().to_string();
    let Some(mut last) = next(&samples, &ends, &mut || Ok(()))? else { return interrupt.check() };
    let screen = redraws.then(Screen::enter).transpose()?;
    loop {
        let mut silent = || match &screen {
            Some(screen) => screen.draw(&format!("{name}: the server does not answer\n")),
            None => Ok(()),
        };
        let Some(sample) = next(&samples, &ends, &mut silent)? else { break };
        let text = form(&Shown::between(&name, &last, &sample));
        match &screen {
            Some(screen) => screen.draw(&text)?,
            None => put(text.as_bytes())?,
        }
        if arguments.once {
            break;
        }
        last = sample;
    }
    // Before a message about why it ends.
    drop(screen);
    interrupt.check()
}

type Sampled = Result<Sample, Failure>;

/// Asks the server each interval, in a thread of its own.
fn ask(socket: &Path, interval: Duration) -> Result<Receiver<Sampled>, Failure> {
    // One waits to be shown: a reader that is slow is told of fewer.
    let (sender, receiver) = mpsc::sync_channel(1);
    let socket = socket.to_owned();
    let work = move || {
        let failed = |error: &ClientError| Failure::Message(format!("top: {}: {error}", socket.display()));
        let mut client = match Client::connect(&socket) {
            Ok(client) => client,
            Err(error) => return drop(sender.send(Err(failed(&error)))),
        };
        loop {
            let begun = Instant::now();
            let sampled = sample(&mut client).map_err(|error| failed(&error));
            let is_over = sampled.is_err();
            if sender.send(sampled).is_err() || is_over {
                return;
            }
            thread::sleep(interval.saturating_sub(begun.elapsed()));
        }
    };
    let started = thread::Builder::new().name("ask".into()).spawn(work);
    started.map_err(|error| Failure::io("start a thread", &error))?;
    Ok(receiver)
}

/// The next sample; `None` if this is to end. `silent` is called when none has come for a while.
fn next(
    samples: &Receiver<Sampled>,
    ends: &dyn Fn() -> bool,
    silent: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<Option<Sample>, Failure> {
    let begun = Instant::now();
    let mut is_told = false;
    while !ends() {
        match samples.recv_timeout(LOOK_AGAIN) {
            Ok(sampled) => return sampled.map(Some),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Message("top: nobody asks the server any more".into()));
            }
        }
        if begun.elapsed() > SILENT && !std::mem::replace(&mut is_told, true) {
            silent()?;
        }
    }
    Ok(None)
}

fn sample(client: &mut Client) -> Result<Sample, ClientError> {
    let stats = client.request("stats")?.as_str().to_owned();
    let at = Instant::now();
    let clients = list(client, "clients", "client")?;
    let objects = list(client, "objects", "object")?;
    Ok(Sample { at, stats, clients, objects })
}

/// The words of a list; `None` if the server does not tell it, to this user or at all.
fn list(client: &mut Client, verb: &str, key: &str) -> Result<Option<Vec<String>>, ClientError> {
    let (mut words, mut from) = (Vec::new(), 0);
    for _ in 0..MOST_PARTS {
        let answer = match client.request(&format!("{verb} {from}")) {
            Err(error) if matches!(error.kind(), Some("denied" | "verb")) => return Ok(None),
            answer => answer?,
        };
        let prefix = format!("{key}=");
        words.extend(
            answer.as_str().split(' ').filter_map(|word| word.strip_prefix(&prefix)).map(str::to_owned),
        );
        match answer.number("next") {
            Ok(next) => from = next,
            Err(_) => break,
        }
    }
    Ok(Some(words))
}

/// A terminal that is redrawn in place, and is as before when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        // The other screen, so that what was there comes back; no cursor.
        put(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    fn draw(&self, text: &str) -> Result<(), Failure> {
        // Each line is cleared behind its text, and all below the last: nothing flickers.
        let text = text.replace('\n', "\x1b[K\r\n");
        put(format!("\x1b[H{text}\x1b[J").as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If it cannot be written to there is nothing to restore.
        let _ = output::Output.write_all(b"\x1b[?25h\x1b[?1049l");
    }
}
