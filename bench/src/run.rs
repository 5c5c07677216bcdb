//! The parent: plans, starts children in turns, collects.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{Cgroup, Cgroups};
use crate::cli::ReadOptions;
use crate::job::{Job, Outcome, Sample};
use crate::machine::Machine;
use crate::plan::{self, BOUND_SLACK_BYTES, Cell, Group, Limit, PROCESS_BYTES};
use crate::report::{self, Line};
use crate::{bars, data};

/// A child that takes longer than this on top of its measured phase hangs.
const CHILD_SLACK: Duration = Duration::from_secs(90);

/// What all measurements of a run share.
struct Run {
    options: ReadOptions,
    directory: PathBuf,
    cgroups: Option<Cgroups>,
    interrupted: Arc<AtomicBool>,
}

/// `memobj-bench read`.
pub fn read(options: &ReadOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    check_names(&options)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        registered.map_err(|error| format!("installing a signal handler: {error}"))?;
    }
    let directory = directory(&options);
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let machine = Machine::find(&directory);
    println!("{}\n", machine.line());
    let cgroups = Cgroups::detect();
    if let Err(reason) = &cgroups {
        println!("skipped: no memory cgroup ({reason}); the kernel's contestants run unlimited\n");
    }
    let run = Run { options, directory, cgroups: cgroups.ok(), interrupted };
    println!("{}\n", report::settings(&run.options));
    let lines = run.all_groups()?;
    let bars = bars::bars(&lines);
    print!("{}", bars::table(&bars));
    if let Some(path) = &run.options.json {
        let text = report::json(&machine, &lines, &bars);
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let failed = lines.iter().any(|line| line.note.as_ref().is_some_and(|note| note.starts_with("failed")));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check_names(options: &ReadOptions) -> Result<(), String> {
    for name in &options.contestants {
        if !plan::is_contestant(name) {
            return Err(format!("no contestant {name:?}"));
        }
        if name.starts_with("ours-") && !cfg!(feature = "ours") {
            return Err(format!("{name:?}: this program was built without the feature `ours`"));
        }
    }
    Ok(())
}

fn directory(options: &ReadOptions) -> PathBuf {
    let here = Path::new(if Path::new("target").is_dir() { "target/bench" } else { "." });
    options.dir.clone().unwrap_or_else(|| here.to_path_buf())
}

impl Run {
    /// Measures group after group and prints each pattern's table when its last group is done.
    fn all_groups(&self) -> Result<Vec<Line>, String> {
        let groups = plan::groups(&self.options);
        let mut lines: Vec<Line> = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            lines.extend(self.group(group)?);
            if groups.get(index + 1).is_none_or(|next| next.pattern != group.pattern) {
                println!("{}", report::table(group.pattern, &lines));
            }
        }
        Ok(lines)
    }

    /// All cells once per repetition, each repetition starting with another one.
    fn group(&self, group: &Group) -> Result<Vec<Line>, String> {
        let baseline = plan::batch_baseline_threads(&self.options.threads);
        let mut lines: Vec<Line> =
            group.cells.iter().map(|cell| Line::new(group.pattern, cell, baseline)).collect();
        let file_bytes = group.file_bytes.max(self.options.size);
        let file =
            data::test_file(&self.directory, file_bytes).map_err(|error| format!("test file: {error}"))?;
        for repetition in 0..self.options.reps {
            for turn in 0..group.cells.len() {
                let index = (turn + repetition as usize) % group.cells.len();
                if lines[index].note.is_none() {
                    self.measure(group, &group.cells[index], &file, repetition, &mut lines[index])?;
                }
            }
        }
        Ok(lines)
    }

    fn measure(
        &self,
        group: &Group,
        cell: &Cell,
        file: &Path,
        turn: u32,
        line: &mut Line,
    ) -> Result<(), String> {
        let left =
            data::drop_page_cache(file).map_err(|error| format!("dropping the page cache: {error}"))?;
        if left > 0 {
            eprintln!("memobj-bench: {left} pages of the test file stay in the page cache");
        }
        touch_memory(group.budget_bytes + BOUND_SLACK_BYTES);
        let cgroup = self.cgroup(cell.limit, group.budget_bytes)?;
        line.limited = cgroup.is_some();
        let job = Job {
            pattern: group.pattern,
            contestant: cell.contestant.to_string(),
            threads: cell.threads,
            file: file.to_path_buf(),
            file_bytes: group.file_bytes,
            budget_bytes: group.budget_bytes,
            seconds: self.options.seconds,
            accesses: self.options.zipf_accesses(),
            seed: u64::from(turn) + 1,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_path_buf()),
        };
        let name = format!("{} {} at {} threads", group.pattern.name(), cell.contestant, cell.threads);
        match self.child(&job)? {
            Outcome::Measured(mut sample) => {
                sample.peak_cgroup_bytes = cgroup.as_ref().and_then(Cgroup::peak_bytes);
                self.say(&name, &sample);
                line.samples.push(sample);
            }
            Outcome::Skipped(reason) => line.note = Some(format!("skipped: {reason}")),
            Outcome::Failed(reason) => {
                eprintln!("memobj-bench: {name}: {reason}");
                line.note = Some(format!("failed: {reason}"));
            }
            Outcome::WrongData(reason) => return Err(format!("{name}: wrong data: {reason}")),
        }
        Ok(())
    }

    fn say(&self, name: &str, sample: &Sample) {
        if self.options.verbose {
            let per_second = sample.accesses as f64 * 1e9 / sample.elapsed_ns.max(1) as f64;
            eprintln!("{name}: {per_second:.0}/s, p99 {} ns", sample.p99_ns);
        }
    }

    fn cgroup(&self, limit: Limit, budget_bytes: u64) -> Result<Option<Cgroup>, String> {
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

    /// Starts this program again for one job and waits for its line.
    fn child(&self, job: &Job) -> Result<Outcome, String> {
        let text = serde_json::to_string(job).map_err(|error| error.to_string())?;
        let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
        let command = Command::new(program).arg("one").arg(text).stdout(Stdio::piped()).spawn();
        let mut child = Reaped(command.map_err(|error| format!("starting a child: {error}"))?);
        let deadline = Instant::now() + CHILD_SLACK + 2 * job.measured();
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
fn touch_memory(len_bytes: u64) {
    let mut memory = vec![0_u8; len_bytes as usize];
    for page in memory.chunks_mut(data::PAGE_BYTES as usize) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}
