//! `memobj serve --firecracker`: memory of virtual machines that were snapshotted.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use memobj::Cache;
use memobj::pagers::{self, Pager};
use memobj_serve::keep::Kept;
use memobj_serve::vm::{MachineServer, MachineServerHandle, OnFailure, Options, Touches};
use memobj_serve::{Listening, OpenTo};
use tracing::{info, warn};

use crate::failure::{Failure, failure};
use crate::interrupt::Interrupt;
use crate::machine_args::FailureChoice;
use crate::serve_args::ServeArguments;
use crate::server_folder::{Faults, with_faults};
use crate::servers::{self, At, Servers};

/// Machines that are served, until this is dropped.
pub(crate) struct Machines<'a> {
    arguments: &'a ServeArguments,
    server: MachineServer,
    /// How many had left when the record was written last.
    recorded: u64,
    _socket: Option<Listening>,
}

/// A record that is to be replayed.
pub(crate) fn read_record(arguments: &ServeArguments) -> Result<Option<Touches>, Failure> {
    let Some(path) = &arguments.machines.replay else { return Ok(None) };
    let what = format!("read the record {}", path.display());
    let file = std::fs::File::open(path).map_err(|error| Failure::io(&what, &error))?;
    Touches::read_from(file).map(Some).map_err(|error| Failure::Message(format!("{what}: {error}")))
}

/// Listens where machine monitors connect.
pub(crate) fn listen(
    arguments: &ServeArguments,
    socket: &Path,
) -> Result<(UnixListener, Listening), Failure> {
    let what = format!("listen at {}", socket.display());
    let open_to = if arguments.allowed().has_others() { OpenTo::All } else { OpenTo::Owner };
    let listening = Listening::bind(socket, open_to);
    let listening = listening.map_err(|error| Failure::io(&what, &error))?;
    let listener = listening.listener().map_err(|error| Failure::io(&what, &error))?;
    Ok((listener, listening))
}

impl<'a> Machines<'a> {
    /// Serves monitors that connect to `socket`, or to what the keeper has, in frames of `cache`.
    pub(crate) fn start(
        arguments: &'a ServeArguments,
        socket: &Path,
        cache: &Cache,
        touches: Option<Touches>,
        kept: Option<(Arc<Kept>, UnixListener)>,
    ) -> Result<Self, Failure> {
        let (kept, listener, listening) = match kept {
            Some((kept, listener)) => (Some(kept), listener, None),
            None => {
                let (listener, listening) = listen(arguments, socket)?;
                (None, listener, Some(listening))
            }
        };
        let server = start(arguments, cache, kept, listener, touches)?;
        Ok(Self { arguments, server, recorded: 0, _socket: listening })
    }

    /// What tells what was done so far.
    pub(crate) fn handle(&self) -> MachineServerHandle {
        self.server.handle()
    }

    /// Writes the record if machines have left since it was written last.
    pub(crate) fn look(&mut self) -> Result<(), Failure> {
        let statistics = self.server.statistics();
        let left = statistics.served - statistics.machines as u64;
        if left == std::mem::replace(&mut self.recorded, left) {
            return Ok(());
        }
        write_record(self.arguments, &self.server)
    }

    /// Writes the record, and says what was done.
    pub(crate) fn end(self) -> Result<(), Failure> {
        let written = write_record(self.arguments, &self.server);
        let statistics = self.server.statistics();
        let (served, refused, faults) = (statistics.served, statistics.refused, statistics.faults);
        let (median, high) =
            (statistics.median.as_secs_f64() * 1e6, statistics.percentile_99.as_secs_f64() * 1e6);
        info!(
            served,
            refused,
            faults,
            median_us = median,
            p99_us = high,
            "{served} machines were served, {refused} refused; {faults} faults, half of them within {median:.1} us, \
             99 of 100 within {high:.1} us"
        );
        written
    }
}

/// Puts the record in place of what is there, once it is whole.
fn write_record(arguments: &ServeArguments, server: &MachineServer) -> Result<(), Failure> {
    let (Some(path), Some(touches)) = (&arguments.machines.record, server.touches()) else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        touches.write_to(&mut file)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|error| Failure::io(&format!("write the record {}", path.display()), &error))
}

fn start(
    arguments: &ServeArguments,
    cache: &Cache,
    kept: Option<Arc<Kept>>,
    listener: UnixListener,
    touches: Option<Touches>,
) -> Result<MachineServer, Failure> {
    let (name, pager) = pager(arguments)?;
    if let Some(touches) = &touches
        && touches.object_length() != pager.describe().length()
    {
        let bytes = touches.object_length();
        warn!(bytes, "the record is of an object of {bytes} bytes: what fits is used");
    }
    let machines = &arguments.machines;
    let options = Options {
        policy: arguments.policy(),
        on_failure: match machines.on_failure {
            FailureChoice::Kill => OnFailure::End,
            FailureChoice::Wait => OnFailure::Wait,
        },
        allowed: arguments.allowed(),
        most_machines: machines.machines.get().into(),
        window_bytes: machines.window,
        records: machines.record.is_some(),
        touches,
        completes: machines.complete,
        kept,
    };
    let budget = arguments.budget;
    MachineServer::start(listener, cache, (&name, pager), budget, options).map_err(failure)
}

fn pager(arguments: &ServeArguments) -> Result<(String, Arc<dyn Pager>), Failure> {
    let memory = arguments.machines.memory.as_deref().unwrap_or(Path::new(""));
    let faults: Arc<Faults> = arguments.inject.clone().into();
    let Some(url) = servers::url_of(memory) else {
        let path = servers::local(memory)?;
        let name = path.display().to_string();
        let file = pagers::File::open(&path).map_err(failure)?;
        return Ok((name, with_faults(Box::new(file), &path, &faults)));
    };
    let servers = Servers::new(&arguments.servers, arguments.retry)?;
    match servers.find(url, &Interrupt::never())? {
        At::Object(pager) => Ok((memobj_url::shown(url), with_faults(pager, memory, &faults))),
        At::Folder(_) => Err(Failure::Message(format!("{}: it is a folder", memobj_url::shown(url)))),
    }
}
