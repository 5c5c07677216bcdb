//! The process that a user starts, in front of the supervisor.
//!
//! ```text
//!   front         has the number that the shell knows; stops, ends and dies as the program does
//!   supervisor    its child, parent of the program; goes on as long as anything runs that came from the program
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use memobj_tracer::{
    Beats, Errors, Forward, Handles, Side, beat_by, become_silent, die_by, is_readable_within,
    parent_may_end, split,
};
use rustix::process::{Pid, Signal};

use crate::error::RunError;
use crate::map_target::MapTarget;
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
/// Objects are made ready, which takes as long as it takes; and they are.
const PREPARES: u8 = b'p';
const PREPARED: u8 = b'd';
/// The program has ended, and the front waits for what it has left behind.
const LEFT_BEHIND: u8 = b'l';
/// How long the supervisor may take until it looks for reports again, once a signal has asked the program to end.
const STUCK: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
    run_in_front_with(&move || Ok(options.clone()), command, ends, prepare, at_end)
}

/// What makes the options of a run. It may start threads.
pub type MakeOptions<'a> = &'a dyn Fn() -> Result<Options, Box<dyn std::error::Error + Send + Sync>>;

/// As [`run_in_front`], with options that are made in the process in which they are used: pagers of objects have threads and
/// connections, which a fork does not copy.
pub fn run_in_front_with(
    options: MakeOptions<'_>,
    command: &[OsString],
    ends: FrontEnds,
    prepare: &dyn Fn(&mut Supervisor),
    at_end: &dyn Fn(&Supervisor) -> i32,
) -> ! {
    match split() {
        Ok(Side::Front { supervisor, news, beats }) => front(supervisor, news.into(), beats),
        Ok(Side::Supervisor { news, beats }) => {
            beat_by(beats);
            let status = supervise(options, command, ends, prepare, at_end, news.into());
            std::process::exit(status)
        }
        Err(error) => {
            say(&format_args!("start a supervisor: {error}"));
            std::process::exit(1)
        }
    }
}

/// The front, while it waits.
struct Front {
    supervisor: i32,
    news: File,
    beats: Beats,
    forward: Forward,
    /// The program that was run has ended; what it has left behind has not.
    has_ended: bool,
}

fn front(supervisor: i32, news: File, beats: Beats) -> ! {
    let forward = match Forward::start(Handles::AllBut(supervisor)) {
        Ok(forward) => forward,
        Err(error) => {
            say(&format_args!("handle signals: {error}"));
            crate::supervisor::kill(supervisor);
            std::process::exit(1)
        }
    };
    let mut front = Front { supervisor, news, beats, forward, has_ended: false };
    let mut starts_since = Some(Instant::now());
    loop {
        let limit = starts_since.map(|since| START_TIMEOUT.saturating_sub(since.elapsed()));
        match front.next(limit) {
            None => {
                say(&format_args!("the program has not started within {} s", START_TIMEOUT.as_secs()));
                crate::supervisor::kill(supervisor);
                std::process::exit(1)
            }
            Some((STARTED, process)) => {
                starts_since = None;
                front.forward.now_to(process);
                // Who reads its output is told of its end by the program itself.
                become_silent(Errors::Told);
            }
            Some((PREPARES, _)) => starts_since = None,
            Some((PREPARED, _)) => starts_since = Some(Instant::now()),
            Some((LEFT_BEHIND, _)) => front.has_ended = true,
            Some((KILLED, signal)) => {
                drop(front);
                die_by(signal)
            }
            Some((_, status)) => std::process::exit(status),
        }
    }
}

impl Front {
    /// What the supervisor tells next. `None`: nothing in this time.
    fn next(&mut self, limit: Option<Duration>) -> Option<(u8, i32)> {
        loop {
            let [is_told, is_signalled] =
                is_readable_within([self.news.as_fd(), self.forward.as_fd()], limit);
            if !is_told && is_signalled {
                if let Some(signal) = self.forward.take_end() {
                    self.see_to_end(signal);
                }
                continue;
            }
            if !is_told {
                return None;
            }
            let mut message = [0; 5];
            if self.news.read_exact(&mut message).is_err() {
                say(&"the supervisor has ended, and the program with it");
                std::process::exit(1)
            }
            return Some((message[0], i32::from_le_bytes(message[1..].try_into().unwrap_or_default())));
        }
    }

    /// `signal` was passed on, or there is nobody any more to pass it on to. What the program makes of it is its
    /// business; that it can make something of it is the supervisor's, which may be stuck.
    fn see_to_end(&mut self, signal: i32) {
        let (since, beats) = (Instant::now(), self.beats.count());
        while !self.has_ended && since.elapsed() < STUCK {
            let [is_told] = is_readable_within([self.news.as_fd()], Some(LOOK_AGAIN));
            if is_told || self.beats.count() != beats {
                return;
            }
        }
        if !self.has_ended {
            say(&"the supervisor does not answer: it is killed, and the programs with it");
        }
        crate::supervisor::kill(self.supervisor);
        die_by(signal)
    }
}

fn supervise(
    options: MakeOptions<'_>,
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
    // For the whole group, or for nobody.
    let _forward = Forward::start(Handles::Nothing);
    // What makes the options may wait for servers, too.
    tell(PREPARES, 0);
    let made = options().map_err(RunError::Options).and_then(|options| {
        let has_objects = options.names.iter().any(|map| !matches!(map.target, MapTarget::Path(_)));
        if !has_objects {
            tell(PREPARED, 0);
        }
        let supervisor = Supervisor::new(options);
        if has_objects {
            tell(PREPARED, 0);
        }
        supervisor
    });
    let mut supervisor = match made {
        Ok(supervisor) => supervisor,
        Err(error) => return refuse(&error, &mut tell),
    };
    prepare(&mut supervisor);
    let mut progress = |progress: Progress| match progress {
        Progress::Started(pid) => {
            tell(STARTED, pid);
            become_silent(Errors::Told);
        }
        Progress::Stopped(_) => like_the_program(front, Signal::STOP),
        Progress::Continued => like_the_program(front, Signal::CONT),
        Progress::Ended(outcome) if ends == FrontEnds::WithProgram => {
            parent_may_end();
            tell_outcome(&mut tell, outcome);
            // Nobody reads messages any more, and somebody may wait for the end of what is said.
            become_silent(Errors::Silent);
        }
        Progress::Ended(_) => tell(LEFT_BEHIND, 0),
    };
    let outcome = match supervisor.run(command, &mut progress) {
        Ok(outcome) => outcome,
        Err(error) => return refuse(&error, &mut tell),
    };
    let status = at_end(&supervisor);
    supervisor.clean_up();
    if ends == FrontEnds::WithAll {
        match status {
            0 => tell_outcome(&mut tell, outcome),
            status => tell(EXITED, status),
        }
    }
    // Threads that still wait for a page end with this process: nobody needs the page any more.
    std::process::exit(0)
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
