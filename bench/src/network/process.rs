//! Programs: the command `memobj`, servers, and mounts.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::job::NetworkJob;
use crate::job::{Failure, Sample};
use crate::usage;

/// How long a server or mount may take to be there.
const READY_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A process, which is killed when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose output goes to `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self, String> {
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let started = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let name = command.get_program().display();
        Ok(Self { child: started.map_err(|error| format!("{name}: {error}"))?, log })
    }

    /// Waits until `is_ready`; an error if the process ends before, or if it takes too long.
    pub fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                return Err(format!("{status}: {}", self.last_words()));
            }
            if is_ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not there after {READY_LIMIT:?}: {}", self.last_words()));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// The last line of its output.
    fn last_words(&self) -> String {
        let output = std::fs::read(&self.log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing").trim().to_string()
    }

    /// The most memory that it had resident.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens there.
pub fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("a free port: {error}"))
}

/// The program that the variable names, or else the one of that name on the path.
pub fn find(variable: Option<&str>, name: &str) -> Result<PathBuf, String> {
    if let Some(named) = variable.and_then(std::env::var_os) {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder: PathBuf| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| match variable {
        Some(variable) => format!("no {name} on the path, and no {variable}"),
        None => format!("no {name} on the path"),
    })
}

/// The digest that `memobj hash` prints. A disk cache is filled on the way.
pub fn digest(program: &Path, place: &str, disk_cache: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("hash");
    if let Some(folder) = disk_cache {
        command.arg("--disk-cache").arg(folder);
    }
    let output = command.arg(place).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split_ascii_whitespace().next().unwrap_or_default();
    match output.status.success() {
        true => Ok(digest.to_string()),
        false => Err(format!("memobj hash {place}: {}", output.status)),
    }
}

/// One run of `memobj hash`: its start, its opening and its end are part of it.
pub fn hash(job: &NetworkJob) -> Result<Sample, Failure> {
    let program = job.program.as_deref().ok_or_else(|| Failure::Skipped("no command memobj".into()))?;
    let (before, start) = ((usage::children_cpu_ns()?, usage::machine_cpu_ns()?), Instant::now());
    let digest = digest(program, &job.place, job.disk_cache.as_deref()).map_err(Failure::Failed)?;
    let elapsed_ns = start.elapsed().as_nanos() as u64;
    if digest != job.digest {
        return Err(Failure::WrongData(format!("{digest} instead of {}", job.digest)));
    }
    let sample = Sample { accesses: 1, bytes: job.length_bytes, elapsed_ns, ..Sample::default() };
    Ok(Sample {
        cpu_ns: usage::children_cpu_ns()? - before.0,
        machine_cpu_ns: usage::machine_cpu_ns()? - before.1,
        ..sample
    })
}
