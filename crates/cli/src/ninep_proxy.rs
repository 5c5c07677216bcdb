//! `memobj 9p-proxy`: between 9P clients and a server that may be restarted.

use std::io::Write;
use std::num::NonZeroU16;
use std::thread;
use std::time::Duration;

use clap::Args;
use memobj_url::ninep::proxy::{Proxy, ProxyOptions};

use crate::failure::{Failure, complain};
use crate::interrupt::Interrupt;
use crate::output;
use crate::retry;

/// How often it is looked whether Ctrl-C was pressed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) const PROXY_HELP: &str = "\
Examples:
  memobj 9p-proxy 127.0.0.1:5640 fileserver:564
  mount -t 9p -o trans=tcp,port=5640 127.0.0.1 /mnt     a mount that survives the server's restarts
  memobj 9p-proxy unix:/run/files.sock fileserver:564

Clients see one server that never goes away. When the server is away, their requests wait; when it
is back, each fid is attached, walked and opened again, and the requests go on. What cannot be done
twice, such as a create or a remove that was with the server when it died, is answered with an
error that says that it is not known whether it was done. A file that is another one after a restart, by
its qid, is lost: its fid answers with an error. Clients that authenticate are ended instead.

Each line of standard error says what happens: \"server not responding, still trying\", \"server ok
again\". The first line of standard output is the address at which it listens. Ctrl-C ends it.";

/// `memobj 9p-proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyArguments {
    /// Where to listen: HOST:PORT (port 0: any that is free), or unix:PATH
    #[arg(value_name = "LISTEN")]
    listen: String,
    /// The server: HOST, HOST:PORT, or unix:PATH
    #[arg(value_name = "SERVER")]
    server: String,
    /// How long the server may be silent before its connection is made anew, such as 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = retry::parse_time_argument)]
    timeout: Duration,
    /// Most clients at once
    #[arg(long, value_name = "N", default_value = "64")]
    clients: NonZeroU16,
    /// Take what has the path of a file for that file after a restart, whatever its qid: for servers that name files anew
    #[arg(long)]
    trust_paths: bool,
    /// Say nothing about clients and the server
    #[arg(long)]
    quiet: bool,
}

/// Serves until Ctrl-C.
pub(crate) fn run(arguments: &ProxyArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let options = ProxyOptions::new().silence(arguments.timeout).clients(arguments.clients.get().into());
    let options = if arguments.trust_paths { options.trust_paths() } else { options };
    let options = match arguments.quiet {
        true => options,
        false => options.listener(|event| complain(&event.to_string())),
    };
    let what = format!("listen at {} for {}", arguments.listen, arguments.server);
    let proxy = Proxy::listen(&arguments.listen, &arguments.server, options);
    let proxy = proxy.map_err(|error| Failure::io(&what, &error))?;
    output::put(format!("{}\n", proxy.address()).as_bytes())?;
    std::io::stdout().flush().map_err(|error| Failure::stdout(&error))?;
    let handle = proxy.handle();
    thread::scope(|scope| {
        scope.spawn(|| proxy.run());
        while interrupt.check().is_ok() {
            thread::sleep(LOOK_AGAIN);
        }
        handle.stop();
    });
    let statistics = handle.statistics();
    complain(&format!(
        "{} clients, {} requests; the server was connected to again {} times, {} fids were restored and {} lost",
        statistics.clients,
        statistics.requests,
        statistics.reconnects,
        statistics.fids_restored,
        statistics.fids_lost
    ));
    Err(Failure::InterruptReported)
}
