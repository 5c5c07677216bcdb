//! The arguments of `memobj serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use memobj::FailurePolicy;
use memobj_serve::control::{Allowed, Lend};

use crate::inject::FaultPlan;
use crate::machine_args::MachineArguments;
use crate::metrics_server;
use crate::retry::{self, Retry};
use crate::run_args;
use crate::serve_log::ServeLogArguments;
use crate::servers::ServerArguments;
use crate::size;

pub(crate) const SERVE_HELP: &str = "\
Examples:
  memobj serve /run/memobj.sock --export model=/srv/model.bin
  memobj serve --budget 1G --export words=words.dat:rw --export set=s3://bucket/set.bin S.sock
  memobj serve S.sock --export-dir /srv/files --allow-uid 1000
  memobj serve S.sock --export words=words.dat:rw --keep                           may be killed and upgraded
  memobj serve --check /run/memobj.sock --export model=/srv/model.bin       would it? changes nothing
  memobj serve S.sock --lend --budget 2G                 and then: memobj run --via S.sock -- PROGRAM
  printf '1 exports\\n2 open model\\n3 populate 1 0 4096\\n4 read 1 0 16\\n' | socat - UNIX-CONNECT:S.sock

Clients say in lines of text what they want mapped, and hear of errors: docs/serve-protocol.md. They map
objects by memobj::RemoteMapping: pages are in memory once for all of them, within one budget, and each
sees the stores of the others at once. What a client stores is durable after its sync.

The user who starts it may connect, and root; others by --allow-uid and --allow-gid. A client that may
write is trusted with the bytes of the object that it writes, and with nothing else.

The first line of standard output is the socket, once it listens. Each line of standard error is a
client that was refused or dropped, and why; with --log json it is a JSON object, with what it is about as members. Ctrl-C or SIGTERM ends it: objects are synced, and the
socket is removed. A socket that a dead server has left behind is replaced.

With --metrics the last line of standard output is the address of the metrics.

Memory of virtual machines that were snapshotted (docs/serve.md):
  memobj serve --firecracker /run/vm.sock --memory snapshot/mem
  memobj serve --firecracker /run/vm.sock --memory s3://bucket/mem --disk-cache /var/tmp/cache:20G
  memobj serve --firecracker /run/vm.sock --memory mem --record mem.touches        the first machine
  memobj serve --firecracker /run/vm.sock --memory mem --replay mem.touches        later ones
  memobj serve --firecracker /run/vm.sock --memory mem --keep                      may be killed and upgraded

Firecracker: PUT /snapshot/load with \"mem_backend\": {\"backend_type\": \"Uffd\", \"backend_path\": SOCKET}.
Any monitor that sends the same handshake is served: a JSON list of regions, with its userfaultfd. A
page is read once for all machines, within the budget; each machine has copies of its own of the pages
that it touches. Pages that a machine gives up (balloon) are zero from then on.

A page that cannot be supplied, after --retry, ends the machine by SIGKILL, with a line that says why; with
--on-failure wait the machine sleeps, and the page is asked for again each second. It never reads zeros
instead.

--keep: a second process, which only keeps descriptors, starts the server again when it is killed or crashes.
Clients and machines notice a pause: their memory, connections and requests go on, and no store is lost.
SIGHUP to it has the server started anew, from the program that has its name by then. Without --keep, mappings
of clients whose server has died trap, and machines sleep at their next missing page. Records are written when a
machine leaves, and at the end.";

/// `memobj serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Where clients connect: the path of a Unix socket
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Clients open OBJECT, a file or a URL, by NAME; to be read, or with :rw behind it also to be written in place.
    /// May be given several times
    #[arg(long, value_name = "NAME=OBJECT[:ro|:rw]", value_parser = parse_export)]
    pub(crate) export: Vec<Export>,
    /// Clients open the regular files below DIR by their paths in it, to be read; symbolic links are not followed
    #[arg(long, value_name = "DIR")]
    pub(crate) export_dir: Option<PathBuf>,
    /// Lend frames of files that clients have open (memobj run --via SOCKET): to the user of the server and root; with
    /// --lend=allowed to all who may connect, who then trust one another with the bytes of the files that they run
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "owner", value_name = "TO")]
    pub(crate) lend: Option<LendTo>,
    /// Most memory to hold pages in, for all clients together, a hard bound
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse_budget)]
    pub(crate) budget: u64,
    /// Try a failed page again for this long: a time such as 500ms, 10s or 2m, never, or forever; clients can choose
    /// otherwise when they open an object
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    pub(crate) retry: Retry,
    /// Inject faults into the export NAME, and into lent files whose path ends with NAME: as in `memobj hash`, NAME and a
    /// colon in front; `*` is every export and file. May be given several times
    #[arg(long, value_name = "NAME:SPEC", value_parser = run_args::parse_inject)]
    pub(crate) inject: Vec<(PathBuf, FaultPlan)>,
    /// Let processes of this user connect, too; may be given several times
    #[arg(long, value_name = "N")]
    pub(crate) allow_uid: Vec<u32>,
    /// Let processes of this group connect, too; may be given several times
    #[arg(long, value_name = "N")]
    pub(crate) allow_gid: Vec<u32>,
    /// Most clients at once
    #[arg(long, value_name = "N", default_value = "1024")]
    pub(crate) clients: u16,
    /// Answer GET /metrics at this address in the text form of Prometheus; without a host, on loopback; port 0 is any
    #[arg(long, value_name = "[HOST:]PORT", value_parser = metrics_server::parse_address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Have a second process keep clients and machines, and start the server again when it dies
    #[arg(long)]
    pub(crate) keep: bool,
    /// The server that such a process has started: its standard input is the line to it
    #[arg(long, hide = true)]
    pub(crate) kept: bool,
    /// Look whether a server with these arguments would serve, and serve nothing: a line for each thing, `ok` or what is
    /// wrong and what helps. The exit status is 0 if all is well, else 1. Changes nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// Say nothing about clients and machines that come, go, or are refused or dropped; only what is lost, and machines
    /// that are ended
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) log: ServeLogArguments,
    #[command(flatten)]
    pub(crate) machines: MachineArguments,
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
}

impl ServeArguments {
    /// Who may connect.
    pub(crate) fn allowed(&self) -> Allowed {
        Allowed::new().users(self.allow_uid.iter().copied()).groups(self.allow_gid.iter().copied())
    }

    /// To whom frames are lent.
    pub(crate) fn lend(&self) -> Lend {
        match self.lend {
            None => Lend::Nobody,
            Some(LendTo::Owner) => Lend::Owner,
            Some(LendTo::Allowed) => Lend::Allowed,
        }
    }

    /// What happens when a page cannot be supplied.
    pub(crate) fn policy(&self) -> FailurePolicy {
        match self.retry {
            Retry::Never => FailurePolicy::FailAtOnce,
            Retry::For(limit) => FailurePolicy::RetryFor(limit),
            Retry::Forever => FailurePolicy::WaitForEver,
        }
    }
}

/// To whom frames are lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LendTo {
    /// The user of the server, and root
    Owner,
    /// All who may connect
    Allowed,
}

/// One `--export`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) object: PathBuf,
    pub(crate) is_writable: bool,
}

fn parse_export(text: &str) -> Result<Export, String> {
    let (name, object) = text.split_once('=').ok_or_else(|| format!("{text:?}: no NAME=OBJECT"))?;
    let (object, is_writable) = match (object.strip_suffix(":rw"), object.strip_suffix(":ro")) {
        (Some(object), _) => (object, true),
        (_, Some(object)) => (object, false),
        _ => (object, false),
    };
    if name.is_empty() || object.is_empty() {
        return Err(format!("{text:?}: NAME and OBJECT are not empty"));
    }
    Ok(Export { name: name.into(), object: object.into(), is_writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_have_a_name_an_object_and_what_may_be_done() {
        let export = |name: &str, object: &str, is_writable| {
            Ok(Export { name: name.into(), object: object.into(), is_writable })
        };
        assert_eq!(parse_export("a=b"), export("a", "b", false));
        assert_eq!(parse_export("a=/b:c:rw"), export("a", "/b:c", true));
        assert_eq!(parse_export("a b=9p://host:564/x=y:ro"), export("a b", "9p://host:564/x=y", false));
        for text in ["", "a", "=b", "a=", "a=:rw"] {
            assert!(parse_export(text).expect_err(text).contains(&format!("{text:?}")));
        }
    }
}
