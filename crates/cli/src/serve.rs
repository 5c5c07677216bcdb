//! `memobj serve`: objects of one cache for other processes.

use std::fmt::Write as _;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use memobj::pagers::{self, Pager};
use memobj::{Cache, CacheOptions, ObjectOptions};
use memobj_linux::fault_loop::FaultLoop;
use memobj_linux::times::percentile;
use memobj_serve::control::{Access, Exports, LentPager, OpenFailure, Quota, Server, ServerOptions};
use memobj_serve::keep::{Kept, Listeners};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGTERM;

use crate::failure::{Failure, failure};
use crate::interrupt::Interrupt;
use crate::metrics_server::{self, Numbers};
use crate::output;
use crate::retry::Retry;
use crate::serve_args::{Export, ServeArguments};
use crate::serve_check;
use crate::serve_keeper;
use crate::serve_log;
use crate::serve_machines::{self, Machines};
use crate::server_folder::{Faults, with_faults};
use crate::servers::{self, Missing, Servers};

/// How often it is looked whether the server is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Pages that one client may wait for at once, if frames are lent: as many threads of its programs.
const REQUESTS_OF_BORROWER: u64 = 64;

/// Serves until Ctrl-C or SIGTERM.
pub(crate) fn run(arguments: &ServeArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    if arguments.socket.is_none() && arguments.machines.firecracker.is_none() {
        return Err(Failure::Usage("serve: neither SOCKET nor --firecracker says where to listen".into()));
    }
    if arguments.check {
        return serve_check::run(arguments);
    }
    serve_log::install(arguments.log, arguments.quiet)?;
    start(arguments, interrupt).map_err(serve_log::report)
}

fn start(arguments: &ServeArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let monitors = arguments.machines.firecracker.as_deref();
    let terminated = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&terminated))
        .map_err(|error| Failure::io("catch SIGTERM", &error))?;
    raise_descriptor_limit();
    let touches = serve_machines::read_record(arguments)?;
    if arguments.keep {
        return keep(arguments, interrupt, &terminated);
    }
    let (kept, listeners) = match arguments.kept {
        true => {
            let line = std::io::stdin().as_fd().try_clone_to_owned();
            let heard = line.and_then(Kept::hear);
            let (kept, listeners) = heard.map_err(|error| Failure::io("hear the keeper", &error))?;
            (Some(Arc::new(kept)), listeners)
        }
        false => (None, Listeners::default()),
    };
    let cache = CacheOptions::new().budget_bytes(arguments.budget);
    let cache = Cache::new(cache).map_err(failure)?;
    let left = kept.clone().zip(listeners.machines);
    let machines =
        monitors.map(|socket| Machines::start(arguments, socket, &cache, touches, left)).transpose()?;
    let left = kept.clone().zip(listeners.clients);
    let options = options(arguments, machines.as_ref());
    let clients = arguments.socket.as_deref().map(|socket| clients(arguments, socket, &cache, options, left));
    let clients = clients.transpose()?;
    if clients.is_none() {
        // Clients hear of servers that are silent; without any, somebody else is told.
        serve_log::tell_of_servers(cache.events());
    }
    let numbers = numbers(&cache, machines.as_ref(), clients.as_ref());
    let metrics = arguments.metrics.map(|address| {
        let started = metrics_server::start(address, numbers);
        started.map_err(|error| Failure::io(&format!("listen at {address} for metrics"), &error))
    });
    let metrics = metrics.transpose()?;
    if let Some(kept) = kept {
        kept.say_ready();
    } else {
        say_ready(&sockets(arguments))?;
        if let Some(address) = metrics {
            output::put(format!("http://{address}/metrics\n").as_bytes())?;
            std::io::stdout().flush().map_err(|error| Failure::stdout(&error))?;
        }
    }
    serve(clients, machines, &terminated, interrupt)
}

/// The process that keeps everything, and starts servers.
fn keep(arguments: &ServeArguments, interrupt: &Interrupt, ends: &Arc<AtomicBool>) -> Result<(), Failure> {
    let (machines, _first) = match arguments.machines.firecracker.as_deref() {
        Some(socket) => {
            serve_machines::listen(arguments, socket).map(|(listener, name)| (Some(listener), Some(name)))?
        }
        None => (None, None),
    };
    let (clients, _second) = match arguments.socket.as_deref() {
        Some(socket) => {
            serve_machines::listen(arguments, socket).map(|(listener, name)| (Some(listener), Some(name)))?
        }
        None => (None, None),
    };
    let listeners = Listeners { machines, clients };
    serve_keeper::keep(listeners, interrupt, ends, &mut || say_ready(&sockets(arguments)))
}

/// A server for clients that connect to `socket`, or to what the keeper has.
fn clients(
    arguments: &ServeArguments,
    socket: &Path,
    cache: &Cache,
    options: ServerOptions,
    left: Option<(Arc<Kept>, UnixListener)>,
) -> Result<Server, Failure> {
    let exports = exports(arguments)?;
    let server = match left {
        Some((kept, listener)) => Server::take_over(kept, listener, cache.clone(), exports, options),
        None => Server::bind(socket, cache.clone(), exports, options),
    };
    server.map_err(|error| Failure::io(&format!("listen at {}", socket.display()), &error))
}

fn sockets(arguments: &ServeArguments) -> Vec<&Path> {
    let monitors = arguments.machines.firecracker.as_deref();
    arguments.socket.as_deref().into_iter().chain(monitors).collect()
}

/// The first lines of standard output: where it listens.
fn say_ready(sockets: &[&Path]) -> Result<(), Failure> {
    for socket in sockets {
        output::put(format!("{}\n", socket.display()).as_bytes())?;
    }
    std::io::stdout().flush().map_err(|error| Failure::stdout(&error))
}

fn serve(
    clients: Option<Server>,
    mut machines: Option<Machines<'_>>,
    terminated: &AtomicBool,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let handle = clients.as_ref().map(Server::handle);
    let mut recorded = Ok(());
    let ended = thread::scope(|scope| {
        let serving = clients.map(|server| scope.spawn(|| server.run()));
        let has_ended = || serving.as_ref().is_some_and(|serving| serving.is_finished());
        while interrupt.check().is_ok() && !terminated.load(Ordering::Relaxed) && !has_ended() {
            thread::sleep(LOOK_AGAIN);
            if let Some(Err(failure)) = machines.as_mut().map(Machines::look) {
                recorded = Err(failure);
            }
        }
        handle.iter().for_each(|handle| handle.stop());
        serving.map_or(Ok(Ok(())), |serving| serving.join())
    });
    let ended = match ended {
        Ok(Ok(())) => interrupt.check(),
        Ok(Err(error)) => Err(Failure::io("serve", &error)),
        Err(_) => Err(Failure::Message("serve: the server has panicked".into())),
    };
    recorded.and(machines.map_or(Ok(()), Machines::end)).and(ended)
}

/// What `--metrics` tells.
fn numbers(cache: &Cache, machines: Option<&Machines<'_>>, clients: Option<&Server>) -> Numbers {
    let (cache, machines) = (cache.clone(), machines.map(Machines::handle));
    let clients = clients.map(Server::handle);
    Arc::new(move || {
        let mut text = cache.metrics().to_prometheus("serve");
        if let Some(clients) = &clients {
            let told = clients.statistics();
            gauge(&mut text, "clients", told.clients);
            gauge(&mut text, "objects", told.objects);
            gauge(&mut text, "requests_under_way", told.running);
            gauge(&mut text, "lent_files", told.lent_files);
            counter(&mut text, "loans", told.loans);
            counter(&mut text, "loans_warm", told.warm_loans);
            counter(&mut text, "clients_refused", told.refused);
            counter(&mut text, "clients_dropped", told.dropped);
            counter(&mut text, "requests", told.requests);
            counter(&mut text, "events", told.events);
            counter(&mut text, "events_lost", told.lost_events);
        }
        if let Some(machines) = &machines {
            let told = machines.statistics();
            gauge(&mut text, "machines", told.machines as u64);
            counter(&mut text, "machines_served", told.served);
            counter(&mut text, "machines_refused", told.refused);
            counter(&mut text, "machine_faults", told.faults);
            for (quantile, time) in [("0.5", told.median), ("0.99", told.percentile_99)] {
                let name = "memobj_serve_fault_seconds";
                let _ = writeln!(text, "{name}{{quantile=\"{quantile}\"}} {}", time.as_secs_f64());
            }
        }
        resolve_times(&mut text);
        text
    })
}

/// How long faults of clients and machines took, from when they were read.
fn resolve_times(text: &mut String) {
    let resolved = FaultLoop::resolved_of_process();
    counter(text, "faults_at_once", resolved.at_once);
    for (quantile, hundredths) in [("0.5", 50), ("0.99", 99)] {
        let time = percentile(&resolved.counts, hundredths).as_secs_f64();
        // A string takes all that is written to it.
        let _ = writeln!(text, "memobj_serve_resolve_seconds{{quantile=\"{quantile}\"}} {time}");
    }
}

fn gauge(text: &mut String, name: &str, value: u64) {
    // A string takes all that is written to it.
    let _ = writeln!(text, "# TYPE memobj_serve_{name} gauge\nmemobj_serve_{name} {value}");
}

fn counter(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "# TYPE memobj_serve_{name}_total counter\nmemobj_serve_{name}_total {value}");
}

/// Mappings of clients take descriptors.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What it is refused for leaves the limit as it is, and the quota follows.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn options(arguments: &ServeArguments, machines: Option<&Machines<'_>>) -> ServerOptions {
    let machines = machines.map(Machines::handle);
    let of_machines = move || {
        let told = machines.as_ref().map(|machines| machines.statistics());
        let numbers = told.map(|told| {
            [
                ("machines", told.machines as u64),
                ("machines-served", told.served),
                ("machine-faults", told.faults),
            ]
        });
        numbers.into_iter().flatten().collect()
    };
    let quota = Quota::new().clients(arguments.clients.into());
    let faults: Arc<Faults> = arguments.inject.clone().into();
    ServerOptions::new()
        .more_stats(Arc::new(of_machines))
        .quota(if arguments.lend.is_some() { quota.requests(REQUESTS_OF_BORROWER) } else { quota })
        .lend(arguments.lend())
        .lent_pager(LentPager::new(move |path, pager| Box::new(with_faults(pager, path, &faults))))
        .allowed(arguments.allowed())
        .policy(arguments.policy())
}

fn exports(arguments: &ServeArguments) -> Result<Exports, Failure> {
    // A client that opens an object hears of a failure, and tries again if it wants.
    let servers = Arc::new(Servers::new(&arguments.servers, Retry::Never)?);
    let faults: Arc<Faults> = arguments.inject.clone().into();
    let mut exports = Exports::new();
    for export in &arguments.export {
        let access = if export.is_writable { Access::ReadWrite } else { Access::ReadOnly };
        let (servers, faults, kept) = (Arc::clone(&servers), Arc::clone(&faults), export.clone());
        exports.object(&export.name, access, move |options| {
            let pager = open(&kept, access, options, &servers)?;
            Ok(Box::new(with_faults(pager, Path::new(&kept.name), &faults)))
        });
    }
    if let Some(folder) = &arguments.export_dir {
        let what = format!("open the folder {}", folder.display());
        exports.folder(folder).map_err(|error| Failure::io(&what, &error))?;
    }
    Ok(exports)
}

fn open(
    export: &Export,
    access: Access,
    options: &ObjectOptions,
    servers: &Servers,
) -> Result<Box<dyn Pager>, OpenFailure> {
    if let Some(url) = servers::url_of(&export.object) {
        let pager = servers.pager(url, options, Missing::IsAnError, &Interrupt::never());
        return pager.map_err(|failure| failure.to_string().into());
    }
    let path = servers::local(&export.object).map_err(|failure| failure.to_string())?;
    Ok(match access {
        Access::ReadOnly => Box::new(pagers::File::open(path)?),
        Access::ReadWrite => Box::new(pagers::File::open_writable(path, options.lock_timeout)?),
    })
}
