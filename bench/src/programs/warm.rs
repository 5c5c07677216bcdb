//! A way to run programs: under one supervisor, in a process of its own, which has run them before.
//!
//! What starting `memobj run` itself takes is in the other way; this is what each further program takes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use memobj_run::{Options, Outcome, Supervisor};
use serde::{Deserialize, Serialize};

use super::runner::{ERRORS, OUTPUT, Ran, Runner};

/// What the process is asked for, on a line.
#[derive(Serialize, Deserialize)]
struct Order {
    directory: Vec<u8>,
    command: Vec<Vec<u8>>,
}

/// What it answers, on a line.
#[derive(Serialize, Deserialize)]
struct Answer {
    elapsed_ns: u64,
    /// As wait(2) has it.
    status: i32,
}

/// See the module.
pub struct Warm {
    process: Mutex<Talk>,
}

struct Talk {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Warm {
    /// Starts the process.
    pub fn start() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(own)
            .arg("supervise")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else { return Err("no pipes".into()) };
        Ok(Self { process: Mutex::new(Talk { child, orders, answers: BufReader::new(answers) }) })
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let talk = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = talk.child.kill();
        let _ = talk.child.wait();
    }
}

impl Runner for Warm {
    fn name(&self) -> &'static str {
        "memobj-warm"
    }

    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String> {
        let order = Order {
            directory: directory.as_os_str().as_bytes().to_vec(),
            command: command.iter().map(|word| word.as_bytes().to_vec()).collect(),
        };
        let mut talk = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let order = serde_json::to_string(&order).map_err(|error| error.to_string())?;
        writeln!(talk.orders, "{order}").map_err(|error| error.to_string())?;
        let mut line = String::new();
        talk.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        let answer: Answer = serde_json::from_str(&line).map_err(|_| "the supervisor has ended")?;
        let read = |name: &str| std::fs::read(directory.join(name)).map_err(|error| error.to_string());
        Ok(Ran {
            elapsed: Duration::from_nanos(answer.elapsed_ns),
            status: ExitStatus::from_raw(answer.status),
            output: read(OUTPUT)?,
            errors: read(ERRORS)?,
        })
    }
}

/// `memobj-bench supervise`: the process.
pub fn supervise() -> Result<ExitCode, String> {
    let failed = |error: io::Error| error.to_string();
    let orders = rustix::io::dup(rustix::stdio::stdin()).map_err(|error| failed(error.into()))?;
    let answers = rustix::io::dup(rustix::stdio::stdout()).map_err(|error| failed(error.into()))?;
    let errors = rustix::io::dup(rustix::stdio::stderr()).map_err(|error| failed(error.into()))?;
    for descriptor in [&orders, &answers, &errors] {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
    }
    let nothing = File::open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
    let mut answers = File::from(answers);
    let mut supervisor = Supervisor::new(Options::default()).map_err(|error| error.to_string())?;
    for line in BufReader::new(File::from(orders)).lines() {
        let order: Order = serde_json::from_str(&line.map_err(failed)?).map_err(|error| error.to_string())?;
        let answer = carry_out(&mut supervisor, order)?;
        let answer = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        writeln!(answers, "{answer}").map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn carry_out(supervisor: &mut Supervisor, order: Order) -> Result<Answer, String> {
    let failed = |error: io::Error| error.to_string();
    let directory = PathBuf::from(OsString::from_vec(order.directory));
    std::env::set_current_dir(&directory).map_err(failed)?;
    let file = |name: &str| File::create(directory.join(name)).map_err(failed);
    rustix::stdio::dup2_stdout(file(OUTPUT)?).map_err(|error| failed(error.into()))?;
    rustix::stdio::dup2_stderr(file(ERRORS)?).map_err(|error| failed(error.into()))?;
    let command: Vec<OsString> = order.command.into_iter().map(OsString::from_vec).collect();
    let begin = Instant::now();
    let outcome = supervisor.run(&command, &mut |_| {}).map_err(|error| error.to_string())?;
    let elapsed_ns = begin.elapsed().as_nanos() as u64;
    let status = match outcome {
        Outcome::Exited(status) => status << 8,
        Outcome::Killed(signal) => signal,
    };
    Ok(Answer { elapsed_ns, status })
}
