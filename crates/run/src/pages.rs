//! Who supplies what programs map: memory objects, or the kernel where page faults are not reported.

use std::path::Path;

use crate::error::RunError;
use crate::map_target::MapTarget;
use crate::options::{Counting, Messages, Options};
use crate::say::say;

/// Who supplies what programs map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// Memory objects. Processes get a userfaultfd this way.
    Objects(FaultsBy),
    /// The kernel, from files, since faults cannot be told of. Names are looked at all the same.
    Kernels,
}

/// How processes get a userfaultfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultsBy {
    /// By the system call.
    Call,
    /// By /dev/userfaultfd.
    Device,
}

/// Who is to supply pages here. Where faults cannot be told of, mapped names are worth a run all the same, unless something
/// is asked for that takes faults.
pub(crate) fn pages(options: &Options) -> Result<Pages, RunError> {
    match faults_by() {
        Ok(way) => Ok(Pages::Objects(way)),
        Err(error) => {
            if options.names.is_empty() || take_faults(options) {
                return Err(error);
            }
            if options.messages == Messages::StandardError {
                say(&format_args!("names are mapped, and the kernel supplies pages of files: {error}"));
            }
            Ok(Pages::Kernels)
        }
    }
}

/// Whether something is asked for that the kernel does not do. What is injected into objects is their pagers' business.
fn take_faults(options: &Options) -> bool {
    let is_of_objects = |path: &Path| {
        options.names.iter().any(|map| match map.target {
            MapTarget::Path(_) => false,
            MapTarget::Folder(_) => true,
            MapTarget::Object { .. } => path == Path::new("*") || map.guest.ends_with(path),
        })
    };
    options.counting == Counting::Touches
        || options.via.is_some()
        || options.injections.iter().any(|these| !is_of_objects(&these.path))
}

/// How faults can be told of here.
fn faults_by() -> Result<FaultsBy, RunError> {
    let features =
        memobj_linux::uffd::probe().map_err(|source| RunError::NoFaults { source: Some(source) })?;
    if !features.kernel_faults {
        return Err(RunError::NoFaults { source: None });
    }
    Ok(match memobj_linux::uffd::may_open_by_call() {
        true => FaultsBy::Call,
        false => FaultsBy::Device,
    })
}
