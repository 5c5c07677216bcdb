//! One measurement, in a process of its own.

use std::path::Path;
use std::process::ExitCode;

use crate::job::{Failure, Job, Outcome, Sample, Task};
use crate::{cgroup, index, kernel, patterns, scale, write};

/// Runs the task given as JSON and prints its [`Outcome`] as one line of JSON.
pub fn main(task: &str) -> Result<ExitCode, String> {
    let task: Task = serde_json::from_str(task).map_err(|error| format!("not a task: {error}"))?;
    let cgroup = match &task {
        Task::Read(job) => job.cgroup.as_deref(),
        Task::Write(job) => job.cgroup.as_deref(),
        Task::Index(job) => job.cgroup.as_deref(),
        Task::Scale(job) => job.cgroup.as_deref(),
    };
    let measure = || match &task {
        Task::Read(job) => measure(job),
        Task::Write(job) => write::measure(job),
        Task::Index(job) => index::measure(job),
        Task::Scale(job) => scale::measure(job),
    };
    let outcome = match enter_cgroup(cgroup).and_then(|()| measure()) {
        Ok(mut sample) => {
            sample.page_cache_bytes = cgroup.and_then(cgroup::page_cache_bytes);
            Outcome::Measured(sample)
        }
        Err(failure) => failure.into(),
    };
    println!("{}", serde_json::to_string(&outcome).map_err(|error| error.to_string())?);
    Ok(ExitCode::SUCCESS)
}

/// Enters the memory cgroup made by the parent, before any page of the test is charged.
fn enter_cgroup(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else { return Ok(()) };
    let failed = |error| Failure::Failed(format!("entering {}: {error}", directory.display()));
    cgroup::enter(directory).map_err(failed)
}

fn measure(job: &Job) -> Result<Sample, Failure> {
    match job.contestant.as_str() {
        "mmap" | "mmap-default" | "mmap-willneed" => patterns::run(job, &kernel::mapped(job)?),
        "memmap2" => patterns::run(job, &kernel::memmap(job)?),
        "pread-buffered" | "pread-direct" => patterns::run(job, &kernel::read_calls(job)?),
        #[cfg(feature = "ours")]
        name if name.starts_with("ours-") => crate::ours::measure(job),
        name => Err(Failure::Failed(format!("no contestant {name:?} in this build"))),
    }
}
