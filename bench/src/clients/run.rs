//! The parent: what is measured, one after the other.

use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::options::ClientOptions;
use super::server::{Place, data_file};
use super::{beside, limit, many};
use crate::children;
use crate::machine::Machine;
use crate::report::bar_table;

/// Bytes of the exported file.
const LENGTH: u64 = 16 << 20;

/// `memobj-bench clients`.
pub fn clients(options: &ClientOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    let folder = tempfile::tempdir_in(children::test_directory(options.dir.as_deref())?);
    let folder = folder.map_err(|error| format!("a folder: {error}"))?;
    println!("{}\n", Machine::find(folder.path()).line());
    raise_descriptor_limit();
    let place = Place {
        memobj: memobj(&options)?,
        socket: folder.path().join("socket"),
        file: data_file(folder.path(), LENGTH)?,
        length: LENGTH,
    };
    let mut bars = Vec::new();
    if options.wants("many") {
        bars.extend(many::measure(&place, options.clients)?);
    }
    if options.wants("limit") {
        limit::measure(&place, options.descriptors)?;
    }
    if options.wants("beside") {
        bars.extend(beside::measure(&place, &options)?);
    }
    println!("{}", bar_table(&bars));
    Ok(ExitCode::SUCCESS)
}

fn memobj(options: &ClientOptions) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let memobj = options.memobj.clone().unwrap_or_else(|| own.with_file_name("memobj"));
    if memobj.is_file() { Ok(memobj) } else { Err(format!("no command {}", memobj.display())) }
}

/// The clients are in this process.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What it is refused for is seen when a client cannot connect.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
