//! Lines on standard error.

use std::fmt::Display;
use std::io::{self, Write, stderr};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines that wait while nobody reads standard error. More are lost.
const MOST_LINES: usize = 256;

/// Says something to whoever started the run. A standard error that is full, or that nobody reads any more, is no reason
/// to end what runs.
pub(crate) fn say(text: &dyn Display) {
    // One write, so that lines of several threads do not mix.
    let _ = stderr().write_all(format!("memobj: {text}\n").as_bytes());
}

/// Says lines for threads that must not wait until standard error takes them. When it is dropped all have been said.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    /// Started with the first line; `None` if that cannot be.
    thread: OnceLock<Option<(SyncSender<Said>, JoinHandle<()>)>>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Said {
    Line(String),
    /// Nothing but to say when it has come so far.
    Mark(SyncSender<()>),
}

impl Speaker {
    /// Says `line` soon.
    pub(crate) fn say(&self, line: String) {
        if let Some((lines, _)) = self.thread.get_or_init(|| start().ok()) {
            let _ = lines.try_send(Said::Line(line));
        }
    }

    /// Waits until what was said so far is out, at most `limit`: nobody need read it.
    pub(crate) fn wait(&self, limit: Duration) {
        if let Some(Some((lines, _))) = self.thread.get() {
            let (tells, is_out) = sync_channel(1);
            if lines.try_send(Said::Mark(tells)).is_ok() {
                let _ = is_out.recv_timeout(limit);
            }
        }
    }
}

fn start() -> io::Result<(SyncSender<Said>, JoinHandle<()>)> {
    let (lines, said) = sync_channel::<Said>(MOST_LINES);
    let speak = move || {
        said.iter().for_each(|said| match said {
            Said::Line(line) => say(&line),
            // Nobody may wait any more.
            Said::Mark(tells) => drop(tells.try_send(())),
        });
    };
    let thread = std::thread::Builder::new().name("memobj-say".into()).spawn(speak)?;
    Ok((lines, thread))
}

impl Drop for Speaker {
    fn drop(&mut self) {
        if let Some(Some((lines, thread))) = self.thread.take() {
            drop(lines);
            let _ = thread.join();
        }
    }
}
