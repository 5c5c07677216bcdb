//! Ways to run a program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::watchdog::Watchdog;

/// Longer than any of the programs may take, in any way.
const LIMIT: Duration = Duration::from_secs(60);
/// Where what a program prints goes, in its directory: files, so that nobody has to read while the clock runs.
pub(super) const OUTPUT: &str = "output.txt";
pub(super) const ERRORS: &str = "errors.txt";

/// What a run took and gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// From before the start until the end was known.
    pub elapsed: Duration,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub output: Vec<u8>,
    /// What it printed on standard error.
    pub errors: Vec<u8>,
}

/// A way to run a program to its end.
///
/// A way that is no command (a supervisor in this process, say) is one more implementation; the others need not know.
pub trait Runner {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Runs `command`, a program and its arguments, in `directory`, and blocks until it has ended.
    ///
    /// Preconditions: `command` has a program. Standard input is empty, standard output and error are taken.
    /// Postconditions: nothing that was started runs on.
    ///
    /// # Errors
    ///
    /// The way does not work here. That the program fails is no error: `status` tells.
    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String>;
}

/// The program itself.
pub struct Native {
    watchdog: Watchdog,
}

/// The program under a command that takes it as arguments.
pub struct Under {
    name: &'static str,
    prefix: Vec<OsString>,
    watchdog: Watchdog,
}

impl Native {
    /// The way.
    pub fn new() -> Self {
        Self { watchdog: Watchdog::new(LIMIT) }
    }
}

impl Under {
    /// Under `memobj run`, with the command at `memobj` or, if that is `None`, beside this program.
    ///
    /// # Errors
    ///
    /// There is none, or it has no `run` that works: with what it says.
    pub fn memobj(memobj: Option<&Path>, directory: &Path) -> Result<Self, String> {
        let memobj = memobj
            .map_or_else(beside, |path| std::path::absolute(path).map_err(|error| error.to_string()))?;
        let mut prefix = vec![memobj.into_os_string()];
        prefix.extend(["run", "--report", "none", "--"].map(OsString::from));
        let under = Self { name: "memobj", prefix, watchdog: Watchdog::new(LIMIT) };
        let ran = under.run(&["true".into()], directory)?;
        match ran.status.success() {
            true => Ok(under),
            false => Err(format!("memobj run -- true: {}", said(&ran))),
        }
    }
}

/// The program under `memobj run --via`, and the server whose frames it borrows.
pub struct UnderVia {
    under: Under,
    server: Child,
}

impl UnderVia {
    /// Starts a server, whose socket is in `directory`.
    ///
    /// # Errors
    ///
    /// As [`Under::memobj`].
    pub fn start(memobj: Option<&Path>, directory: &Path) -> Result<Self, String> {
        let memobj = memobj
            .map_or_else(beside, |path| std::path::absolute(path).map_err(|error| error.to_string()))?;
        let socket = directory.join("via.sock");
        let mut server = Command::new(&memobj);
        server.arg("serve").arg(&socket).args(["--lend", "--quiet"]).stdout(Stdio::piped());
        let mut server = server.spawn().map_err(|error| error.to_string())?;
        let output = server.stdout.take();
        let prefix =
            [memobj.as_os_str(), "run".as_ref(), "--via".as_ref(), socket.as_os_str(), "--".as_ref()];
        let prefix = prefix.map(OsString::from).to_vec();
        let under = Under { name: "memobj-via", prefix, watchdog: Watchdog::new(LIMIT) };
        let via = Self { under, server };
        let mut line = String::new();
        if let Some(output) = output {
            // It listens once it says so.
            BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let ran = via.run(&["true".into()], directory)?;
        match ran.status.success() {
            true => Ok(via),
            false => Err(format!("memobj run --via -- true: {}", said(&ran))),
        }
    }
}

impl Runner for UnderVia {
    fn name(&self) -> &'static str {
        self.under.name
    }

    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String> {
        self.under.run(command, directory)
    }
}

impl Drop for UnderVia {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Runner for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String> {
        measured(command, directory, &self.watchdog)
    }
}

impl Runner for Under {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, command: &[OsString], directory: &Path) -> Result<Ran, String> {
        measured(&[&self.prefix, command].concat(), directory, &self.watchdog)
    }
}

/// The first line that the program said about its failure, and how it ended.
pub fn said(ran: &Ran) -> String {
    let errors = String::from_utf8_lossy(&ran.errors);
    let first = errors.lines().find(|line| !line.trim().is_empty());
    first.map_or_else(|| ran.status.to_string(), |line| format!("{line} ({})", ran.status))
}

fn beside() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let memobj = own.with_file_name("memobj");
    if memobj.is_file() { Ok(memobj) } else { Err("no command memobj beside this program".into()) }
}

fn measured(command: &[OsString], directory: &Path, watchdog: &Watchdog) -> Result<Ran, String> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let failed = |error: io::Error| format!("{}: {error}", program.display());
    let file = |name: &str| File::create(directory.join(name)).map_err(failed);
    let mut prepared = Command::new(program);
    prepared.args(arguments).current_dir(directory).stdin(Stdio::null());
    prepared.stdout(file(OUTPUT)?).stderr(file(ERRORS)?);
    // A group of its own, so that all of it can be ended.
    prepared.process_group(0);
    let begin = Instant::now();
    let mut child = prepared.spawn().map_err(failed)?;
    watchdog.watch(child.id());
    let status = child.wait();
    let elapsed = begin.elapsed();
    if watchdog.done() {
        return Err(format!("{} hangs; killed after {} s", program.display(), LIMIT.as_secs()));
    }
    let read = |name: &str| std::fs::read(directory.join(name)).map_err(failed);
    Ok(Ran { elapsed, status: status.map_err(failed)?, output: read(OUTPUT)?, errors: read(ERRORS)? })
}
