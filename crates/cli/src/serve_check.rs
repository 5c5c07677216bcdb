//! `memobj serve --check`: whether a server with these arguments would serve. It changes nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use memobj::pagers::{self, Pager};
use memobj::{ObjectOptions, Writing};
use memobj_serve::control::{Access, descriptors_for};
use memobj_serve::{Place, place_of};
use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit};

use crate::engine;
use crate::failure::{Failure, failure, reason};
use crate::interrupt::Interrupt;
use crate::output::put;
use crate::serve_args::{Export, ServeArguments};
use crate::serve_machines;
use crate::servers::{self, At, Missing, ServerArguments, Servers};

/// How long a server may take to answer, unless `--timeout` says otherwise.
const ANSWER: Duration = Duration::from_secs(10);
/// How much longer the check waits than the server may be silent: names are looked up, and connections made.
const SLACK: Duration = Duration::from_secs(5);
/// Descriptors that a machine takes: its userfaultfd, socket, process and state.
const OF_MACHINE: u64 = 4;

/// What was found.
type Found = Result<String, Problem>;

/// What is wrong, and what helps.
#[derive(Debug, PartialEq)]
struct Problem {
    what: String,
    remedy: String,
}

fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { what: what.into(), remedy: remedy.into() }
}

fn of(failure: &Failure, remedy: &str) -> Problem {
    problem(failure.to_string(), remedy)
}

/// Prints a line for each thing that was looked at.
pub(crate) fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let mut report = Report::default();
    report.line("userfaultfd", userfaultfd())?;
    report.line("budget", budget(arguments.budget))?;
    report.line("descriptors", descriptors(arguments))?;
    let sockets = [&arguments.socket, &arguments.machines.firecracker];
    let mut seen = BTreeSet::new();
    for socket in sockets.into_iter().flatten() {
        let found = match seen.insert(socket) {
            true => socket_place(socket),
            false => Err(problem("it is named twice", "clients and monitors need a socket each")),
        };
        report.line(&format!("socket {}", socket.display()), found)?;
    }
    if let Some(address) = arguments.metrics {
        report.line(&format!("metrics {address}"), metrics(address))?;
    }
    objects(arguments, &mut report)?;
    report.end()
}

#[derive(Default)]
struct Report {
    problems: usize,
}

impl Report {
    fn line(&mut self, what: &str, found: Found) -> Result<(), Failure> {
        let text = match found {
            Ok(detail) => format!("ok     {what}: {detail}\n"),
            Err(Problem { what: wrong, remedy }) => {
                self.problems += 1;
                format!("wrong  {what}: {wrong}; {remedy}\n")
            }
        };
        put(text.as_bytes())
    }

    fn end(self) -> Result<(), Failure> {
        match self.problems {
            0 => Ok(()),
            1 => Err(Failure::Message("serve: 1 problem was found".into())),
            count => Err(Failure::Message(format!("serve: {count} problems were found"))),
        }
    }
}

/// Everything that is opened.
fn objects(arguments: &ServeArguments, report: &mut Report) -> Result<(), Failure> {
    let servers = match Servers::without_cache(&arguments.servers) {
        Ok(servers) => Some(Arc::new(servers)),
        Err(failure) => {
            report.line("manifest", Err(of(&failure, "--manifest names a file of `memobj digest`")))?;
            None
        }
    };
    if let Some(folder) = arguments.servers.disk_cache_folder() {
        report.line(&format!("disk cache {}", folder.display()), disk_cache(folder))?;
    }
    let mut names = BTreeSet::new();
    for export in &arguments.export {
        let found = match names.insert(&export.name) {
            true => opened(export, servers.as_ref(), &arguments.servers),
            false => Err(problem("the name is exported twice", "each export needs a name of its own")),
        };
        report.line(&format!("export {}={}", export.name, export.object.display()), found)?;
    }
    if let Some(folder) = &arguments.export_dir {
        let found = match std::fs::read_dir(folder) {
            Ok(_) => Ok("a folder, whose files can be opened to be read".into()),
            Err(error) => Err(problem(reason(&error), "--export-dir names a folder that this user may read")),
        };
        report.line(&format!("export-dir {}", folder.display()), found)?;
    }
    if let Some(memory) = &arguments.machines.memory {
        report.line(
            &format!("memory {}", memory.display()),
            memory_object(memory, servers.as_ref(), &arguments.servers),
        )?;
    }
    if let Some(path) = &arguments.machines.replay {
        let found = serve_machines::read_record(arguments)
            .map(|touches| {
                let bytes = touches.map_or(0, |touches| touches.object_length());
                format!("a record of an object of {bytes} bytes")
            })
            .map_err(|failure| of(&failure, "--replay names what --record has written"));
        report.line(&format!("replay {}", path.display()), found)?;
    }
    if let Some(path) = &arguments.machines.record {
        let found = may_write(folder_of(path)).map(|()| "its folder can be written".into());
        report.line(&format!("record {}", path.display()), found)?;
    }
    for (name, _) in &arguments.inject {
        let is_known = name.as_os_str() == "*"
            || arguments.export.iter().any(|export| Path::new(&export.name).ends_with(name))
            || arguments.machines.memory.is_some();
        if !is_known {
            let what = Err(problem("no export has this name", "--inject takes NAME of an --export"));
            report.line(&format!("inject {}", name.display()), what)?;
        }
    }
    Ok(())
}

fn userfaultfd() -> Found {
    let facilities = engine::doctor();
    let Some(found) = facilities.into_iter().find(|facility| facility.name == "userfaultfd") else {
        return Err(problem("nothing is known of it", "see `memobj doctor`"));
    };
    match found.status {
        "missing" => Err(problem(found.detail, found.fix.unwrap_or_else(|| "see `memobj doctor`".into()))),
        _ => Ok("permitted".into()),
    }
}

fn budget(bytes: u64) -> Found {
    let memory = memobj_linux::capability::memory_bytes();
    match bytes > memory {
        true => Err(problem(
            format!("{} MiB are more than the {} MiB of memory of this process", bytes >> 20, memory >> 20),
            "give a smaller --budget, or the machine or memory cgroup more memory",
        )),
        false => Ok(format!("{} MiB of {} MiB of memory", bytes >> 20, memory >> 20)),
    }
}

fn descriptors(arguments: &ServeArguments) -> Found {
    // The server raises its limit to the hard one.
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let clients = arguments.socket.as_ref().map_or(0, |_| u64::from(arguments.clients));
    let exports = arguments.export.len() as u64 + u64::from(arguments.export_dir.is_some());
    let is_for_machines = arguments.machines.firecracker.is_some();
    let machines = if is_for_machines { u64::from(arguments.machines.machines.get()) } else { 0 };
    let needed = descriptors_for(clients, exports) + machines * OF_MACHINE;
    let whom = match (clients, machines) {
        (clients, 0) => format!("{clients} clients with a mapping each"),
        (0, machines) => format!("{machines} machines"),
        (clients, machines) => format!("{clients} clients with a mapping each and {machines} machines"),
    };
    match needed > limit {
        true => Err(problem(
            format!("{whom} take {needed}, and the limit is {limit}"),
            format!(
                "ulimit -n {needed}, or LimitNOFILE={needed} of its service, or fewer --clients or --machines"
            ),
        )),
        false => Ok(format!("{whom} take {needed}, and the limit is {limit}")),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn may_write(folder: &Path) -> Result<(), Problem> {
    let metadata = std::fs::metadata(folder);
    let there = metadata.map_err(|error| {
        problem(format!("folder {}: {}", folder.display(), reason(&error)), "make it, or name another one")
    })?;
    if !there.is_dir() {
        return Err(problem(format!("{} is no folder", folder.display()), "name a place in a folder"));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let flags = rustix::fs::AtFlags::EACCESS;
    rustix::fs::accessat(rustix::fs::CWD, folder, access, flags).map_err(|error| {
        let what = format!("folder {}: {}", folder.display(), reason(&error.into()));
        problem(what, "let this user write there, or name another one")
    })
}

fn socket_place(path: &Path) -> Found {
    may_write(folder_of(path))?;
    match place_of(path) {
        Ok(Place::Free) => Ok("its folder can be written, and nobody listens there".into()),
        Ok(Place::LeftBehind) => Ok("a dead server has left it behind: it is replaced".into()),
        Ok(Place::InUse) => Err(problem("another server listens there", "end it, or name another socket")),
        Ok(Place::SomethingElse) => {
            Err(problem("something else than a socket has this name", "remove it, or name another socket"))
        }
        Err(error) => Err(problem(reason(&error), "name another socket")),
    }
}

fn metrics(address: std::net::SocketAddr) -> Found {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok("nobody listens there".into()),
        Err(error) => Err(problem(reason(&error), "name another port, or port 0 for any")),
    }
}

fn disk_cache(folder: &Path) -> Found {
    if folder.is_dir() {
        return may_write(folder).map(|()| "it can be written".into());
    }
    may_write(folder_of(folder)).map(|()| "it is made when it is used".into())
}

/// Opens what an export names.
fn opened(export: &Export, servers: Option<&Arc<Servers>>, arguments: &ServerArguments) -> Found {
    let access = if export.is_writable { Access::ReadWrite } else { Access::ReadOnly };
    let done = if export.is_writable { "written" } else { "read" };
    if let Some(url) = servers::url_of(&export.object) {
        let Some(servers) = servers else { return Err(problem("it is not asked for", "see above")) };
        let writing = if export.is_writable { Writing::InPlace } else { Writing::ReadOnly };
        let options = ObjectOptions::new().writing(writing);
        let (servers, url) = (Arc::clone(servers), url.to_owned());
        let pager = in_time(arguments, move || {
            servers.pager(&url, &options, Missing::IsAnError, &Interrupt::never())
        })?;
        return Ok(format!("{} bytes, to be {done}", pager.describe().length()));
    }
    local(&export.object, access).map(|bytes| format!("{bytes} bytes, to be {done}"))
}

/// Opens a file of this machine; its length. Of one that is to be written, the lock is tried and given back.
fn local(object: &Path, access: Access) -> Result<u64, Problem> {
    const NAME_A_FILE: &str = "name a regular file or a block device that this user may open";
    let path = servers::local(object).map_err(|failure| of(&failure, NAME_A_FILE))?;
    let pager = pagers::File::open(&path).map_err(|error| of(&failure(error), NAME_A_FILE))?;
    let length = Pager::describe(&pager).length();
    if access == Access::ReadWrite {
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|error| {
            problem(reason(&error), "let this user write it, or leave :rw out to have it read only")
        })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(problem("another process has it open to be written", "end that process"));
            }
            Err(error) => return Err(problem(reason(&io::Error::from(error)), NAME_A_FILE)),
        }
    }
    Ok(length)
}

fn memory_object(memory: &Path, servers: Option<&Arc<Servers>>, arguments: &ServerArguments) -> Found {
    let bytes = match servers::url_of(memory) {
        None => local(memory, Access::ReadOnly)?,
        Some(url) => {
            let Some(servers) = servers else { return Err(problem("it is not asked for", "see above")) };
            let (servers, url) = (Arc::clone(servers), url.to_owned());
            match in_time(arguments, move || servers.find(&url, &Interrupt::never()))? {
                At::Object(pager) => pager.describe().length(),
                At::Folder(_) => return Err(problem("it is a folder", "name the memory file in it")),
            }
        }
    };
    match bytes {
        0 => Err(problem("it has no bytes", "name the memory file of a snapshot")),
        bytes => Ok(format!("{bytes} bytes")),
    }
}

/// What `work` gives, if it does so in time. Else its thread is left behind: the process ends soon.
fn in_time<T: Send + 'static>(
    arguments: &ServerArguments,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Problem> {
    const ASK: &str = "`memobj doctor URL` says more";
    let limit = arguments.timeout().unwrap_or(ANSWER) + SLACK;
    let (sender, receiver) = mpsc::channel();
    let started = thread::Builder::new().name("check".into()).spawn(move || drop(sender.send(work())));
    started.map_err(|error| problem(reason(&error), ASK))?;
    match receiver.recv_timeout(limit) {
        Ok(done) => done.map_err(|failure| of(&failure, ASK)),
        Err(_) => Err(problem(format!("no answer within {} s", limit.as_secs()), ASK)),
    }
}
