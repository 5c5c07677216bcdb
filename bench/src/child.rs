//! One measurement, in a process of its own.

use std::path::Path;
use std::process::ExitCode;

use crate::cgroup;
use crate::job::{Failure, Job, Outcome};

/// Measures what the job, given as JSON, says, and prints its [`Outcome`] as one line of JSON.
pub fn main<J: Job>(job: &str) -> Result<ExitCode, String> {
    let job: J = serde_json::from_str(job).map_err(|error| format!("not a job: {error}"))?;
    let outcome = match enter_cgroup(job.cgroup()).and_then(|()| job.measure()) {
        Ok(mut sample) => {
            sample.page_cache_bytes = job.cgroup().and_then(cgroup::page_cache_bytes);
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
