//! Starting one child per measurement, each in its own memory cgroup, and waiting for what it says.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{BOUND_SLACK_BYTES, Cgroup, Cgroups, Limit, PROCESS_BYTES};
use crate::data;
use crate::job::{Job, Outcome};

/// A child that takes longer than this on top of its measured phase hangs.
const CHILD_SLACK: Duration = Duration::from_secs(90);

/// What all children of a run share.
pub struct Children {
    cgroups: Option<Cgroups>,
    interrupted: Arc<AtomicBool>,
}

impl Children {
    /// Looks for memory cgroups, and says so if there are none. From here on an interrupt ends the run after the
    /// current child is gone.
    pub fn new() -> Result<Self, String> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&interrupted));
            registered.map_err(|error| format!("installing a signal handler: {error}"))?;
        }
        let cgroups = Cgroups::detect();
        if let Err(reason) = &cgroups {
            println!("skipped: no memory cgroup ({reason}); the kernel's contestants run unlimited\n");
        }
        Ok(Self { cgroups: cgroups.ok(), interrupted })
    }

    /// The cgroup of one child, where one is wanted and to be had.
    pub fn cgroup(&self, limit: Limit, budget_bytes: u64) -> Result<Option<Cgroup>, String> {
        let extra_bytes = match limit {
            Limit::Unlimited => return Ok(None),
            Limit::Budget => PROCESS_BYTES,
            Limit::Bound => BOUND_SLACK_BYTES,
        };
        let create = |cgroups: &Cgroups| cgroups.create(budget_bytes + extra_bytes);
        self.cgroups
            .as_ref()
            .map(create)
            .transpose()
            .map_err(|error| format!("making a memory cgroup: {error}"))
    }

    /// Starts this program again for one job, which measures for about `measured`, and waits for its line.
    pub fn run<J: Job>(&self, job: &J, measured: Duration) -> Result<Outcome, String> {
        let text = serde_json::to_string(job).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
        let mut command = Command::new(program);
        command.args(["one", J::COMMAND, &text]).stdout(Stdio::piped());
        command.envs(job.environment().iter().map(|(name, value)| (name, value)));
        let mut child = Reaped(command.spawn().map_err(|error| format!("starting a child: {error}"))?);
        let deadline = Instant::now() + CHILD_SLACK + 2 * measured;
        let status = loop {
            if let Some(status) =
                child.0.try_wait().map_err(|error| format!("waiting for a child: {error}"))?
            {
                break status;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            if Instant::now() > deadline {
                return Ok(Outcome::Failed("hangs; killed".into()));
            }
            thread::sleep(Duration::from_millis(5));
        };
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        let mut output = String::new();
        if let Some(stdout) = &mut child.0.stdout {
            stdout.read_to_string(&mut output).map_err(|error| format!("reading from a child: {error}"))?;
        }
        Ok(serde_json::from_str(&output)
            .unwrap_or_else(|_| Outcome::Failed(format!("the child ended with {status}"))))
    }
}

/// A child that is killed and waited for on drop, so that its cgroup can go.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only when the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes and frees memory, so that the host of a virtual machine has backed it before the child needs it.
pub fn touch_memory(len_bytes: u64) {
    let mut memory = vec![0_u8; len_bytes as usize];
    for page in memory.chunks_mut(data::PAGE_BYTES as usize) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

/// Makes the directory of the test files: the one that was asked for, or the usual one.
pub fn test_directory(wanted: Option<&Path>) -> Result<PathBuf, String> {
    let here = Path::new(if Path::new("target").is_dir() { "target/bench" } else { "." });
    let directory = wanted.unwrap_or(here).to_path_buf();
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}
