//! The process that a user starts, in front of the supervisor.
//!
//! ```text
//!   front         has the number that the shell knows; stops, ends and dies as the program does
//!   supervisor    its child, parent of the program; goes on as long as anything runs that came from the program
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use memobj_sys::trace::{Forward, Side, die_by, is_readable_within, parent_may_end, split};
use rustix::process::{Pid, Signal};

use crate::error::RunError;
use crate::options::Options;
use crate::say::say;
use crate::supervisor::{Outcome, Progress, Supervisor};

/// How long it may take until the program runs.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// When the front ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrontEnds {
    /// With the program. Processes that it has left behind are served until they end.
    WithProgram,
    /// When nothing runs any more and `at_end` has returned.
    WithAll,
}

/// What the front is told, in one byte and a number.
const STARTED: u8 = b'r';
const EXITED: u8 = b'e';
const KILLED: u8 = b'k';

/// Runs `command` as if it had been started in place of this process, and ends as it does. To be called while this
/// process has one thread. `at_end` hears of the history when nothing runs any more, and says whether all went well.
///
/// Exit status, if the program does not run: 127 if there is none, 126 if it cannot be run, 1 for all else.
pub fn run_in_front(
    options: Options,
    command: &[OsString],
    ends: FrontEnds,
    prepare: &dyn Fn(&mut Supervisor),
    at_end: &dyn Fn(&Supervisor) -> i32,
) -> ! {
    match split() {
        Ok(Side::Front { supervisor, news }) => front(supervisor, news.into()),
        Ok(Side::Supervisor { news }) => {
            let status = supervise(options, command, ends, prepare, at_end, news.into());
            std::process::exit(status)
        }
        Err(error) => {
            say(&format_args!("start a supervisor: {error}"));
            std::process::exit(1)
        }
    }
}

fn front(supervisor: i32, mut news: File) -> ! {
    let forward = Forward::to(supervisor);
    let mut started = false;
    loop {
        if !started && !is_readable_within(&news, START_TIMEOUT) {
            say(&format_args!("the program has not started within {} s", START_TIMEOUT.as_secs()));
            crate::supervisor::kill(supervisor);
            std::process::exit(1)
        }
        let mut message = [0; 5];
        if news.read_exact(&mut message).is_err() {
            say(&"the supervisor has ended, and the program with it");
            std::process::exit(1)
        }
        let number = i32::from_le_bytes(message[1..].try_into().unwrap_or_default());
        match message[0] {
            STARTED => started = true,
            KILLED => {
                drop(forward);
                die_by(number)
            }
            _ => std::process::exit(number),
        }
    }
}

fn supervise(
    options: Options,
    command: &[OsString],
    ends: FrontEnds,
    prepare: &dyn Fn(&mut Supervisor),
    at_end: &dyn Fn(&Supervisor) -> i32,
    mut news: File,
) -> i32 {
    let mut tell = move |kind: u8, number: i32| {
        let mut message = [kind; 5];
        message[1..].copy_from_slice(&number.to_le_bytes());
        // A front that is gone needs no news.
        let _ = news.write_all(&message);
    };
    let front = rustix::process::getppid();
    let forward = Forward::to(0);
    let mut supervisor = match Supervisor::new(options) {
        Ok(supervisor) => supervisor,
        Err(error) => return refuse(&error, &mut tell),
    };
    prepare(&mut supervisor);
    let mut progress = |progress: Progress| match progress {
        Progress::Started(pid) => {
            if let Ok(forward) = &forward {
                forward.now_to(pid);
            }
            tell(STARTED, 0);
        }
        Progress::Stopped(_) => like_the_program(front, Signal::STOP),
        Progress::Continued => like_the_program(front, Signal::CONT),
        Progress::Ended(outcome) if ends == FrontEnds::WithProgram => {
            parent_may_end();
            tell_outcome(&mut tell, outcome);
        }
        Progress::Ended(_) => {}
    };
    let outcome = match supervisor.run(command, &mut progress) {
        Ok(outcome) => outcome,
        Err(error) => return refuse(&error, &mut tell),
    };
    let status = at_end(&supervisor);
    drop(supervisor);
    if ends == FrontEnds::WithAll {
        match status {
            0 => tell_outcome(&mut tell, outcome),
            status => tell(EXITED, status),
        }
    }
    0
}

/// Stops the front, or continues it, as the program was. One process sends both, so that they come in order.
fn like_the_program(front: Option<Pid>, signal: Signal) {
    if let Some(front) = front.filter(|front| rustix::process::getppid() == Some(*front)) {
        // One that is gone needs neither.
        let _ = rustix::process::kill_process(front, signal);
    }
}

fn tell_outcome(tell: &mut dyn FnMut(u8, i32), outcome: Outcome) {
    match outcome {
        Outcome::Exited(status) => tell(EXITED, status),
        Outcome::Killed(signal) => tell(KILLED, signal),
    }
}

fn refuse(error: &RunError, tell: &mut dyn FnMut(u8, i32)) -> i32 {
    say(error);
    let status = match error {
        RunError::NotFound { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
        RunError::NotFound { .. } | RunError::NotStarted { .. } => 126,
        _ => 1,
    };
    tell(EXITED, status);
    status
}
