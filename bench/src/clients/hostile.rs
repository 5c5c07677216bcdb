//! Clients that do what clients do not do, each kind in a process of its own.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use memobj::GuestProt;
use memobj_serve::control::Client;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::data::{PAGE_BYTES, mix};

/// Threads of a kind that works without a pause.
const THREADS: usize = 2;
/// Connections of a kind that waits.
const CONNECTIONS: usize = 200;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// It takes the processors, and does not talk to the server: what any program does to its neighbours.
    Compute,
    /// It sends bytes that are no lines, and connects again.
    Garbage,
    /// It sends half a line and is silent, on many connections.
    HalfLine,
    /// It connects and hangs up.
    Connects,
    /// It asks for a million mappings that it does not attach to.
    Mappings,
    /// It maps and unmaps.
    Remaps,
    /// It sends requests without a pause, and reads the answers.
    Requests,
    /// It sends requests without a pause, and never reads.
    Unread,
    /// It wants events, of a page that fails again and again, and never reads them.
    Events,
    /// It faults without a pause.
    Faults,
}

/// Options of the hidden command `hostile`.
#[derive(Args, Debug)]
pub struct HostileOptions {
    kind: Kind,
    socket: PathBuf,
}

/// A client that is killed when it is dropped.
pub struct Hostile(Child);

impl Hostile {
    /// Starts one, and waits until it does what it does.
    pub fn start(kind: Kind, socket: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
        let name = name(kind);
        let child =
            Command::new(program).arg("hostile").arg(&name).arg(socket).stdout(Stdio::piped()).spawn();
        let mut started = Self(child.map_err(|error| format!("starting {name}: {error}"))?);
        let ready = started.0.stdout.as_mut().map(|output| output.read_exact(&mut [0]));
        ready.and_then(Result::ok).ok_or_else(|| format!("{name} did not begin"))?;
        Ok(started)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As it is named in the arguments.
pub fn name(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// `memobj-bench hostile`: goes on until it is killed.
pub fn hostile(options: &HostileOptions) -> Result<ExitCode, String> {
    let (kind, socket) = (options.kind, options.socket.clone());
    let threads = if matches!(kind, Kind::HalfLine | Kind::Events) { 1 } else { THREADS };
    for _ in 1..threads {
        let socket = socket.clone();
        std::thread::spawn(move || go_on(kind, &socket));
    }
    println!("+");
    go_on(kind, &socket);
    Ok(ExitCode::SUCCESS)
}

/// What fails, since the server has hung up for example, begins again.
fn go_on(kind: Kind, socket: &Path) {
    loop {
        let turn = match kind {
            Kind::Compute => compute(),
            Kind::Garbage => garbage(socket),
            Kind::HalfLine => half_lines(socket),
            Kind::Connects => UnixStream::connect(socket).map(drop).map_err(drop),
            Kind::Mappings => mappings(socket),
            Kind::Remaps => remaps(socket),
            Kind::Requests => requests(socket),
            Kind::Unread => unread(socket),
            Kind::Events => events(socket),
            Kind::Faults => faults(socket),
        };
        if turn.is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

type Turn = Result<(), ()>;

fn compute() -> Turn {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        std::hint::spin_loop();
    }
    Ok(())
}

fn garbage(socket: &Path) -> Turn {
    let mut stream = UnixStream::connect(socket).map_err(drop)?;
    let bytes: Vec<u8> = (0..8192).flat_map(|at| mix(at).to_ne_bytes()).collect();
    stream.write_all(&bytes).map_err(drop)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(drop)?;
    stream.read_to_end(&mut Vec::new()).map(drop).map_err(drop)
}

fn half_lines(socket: &Path) -> Turn {
    let mut streams: Vec<UnixStream> =
        (0..CONNECTIONS).filter_map(|_| UnixStream::connect(socket).ok()).collect();
    streams.iter_mut().for_each(|stream| drop(stream.write_all(b"1 sta")));
    // Until the server has dropped them all.
    streams.iter_mut().for_each(|stream| drop(stream.read_to_end(&mut Vec::new())));
    Ok(())
}

/// Requests one after the other, each with one end of a pair whose other end says nothing.
fn mappings(socket: &Path) -> Turn {
    let mut stream = UnixStream::connect(socket).map_err(drop)?;
    let mut answers = stream.try_clone().map_err(drop)?;
    std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    stream.write_all(b"1 open data\n").map_err(drop)?;
    let mut kept = std::collections::VecDeque::new();
    for _ in 0..1_000_000 {
        let (ours, theirs) = UnixStream::pair().map_err(drop)?;
        send_with(&stream, b"1 map 1 ro\n", theirs.as_fd()).map_err(drop)?;
        kept.push_back(ours);
        if kept.len() > 500 {
            kept.pop_front();
        }
    }
    Ok(())
}

fn send_with(stream: &UnixStream, line: &[u8], descriptor: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)
}

fn remaps(socket: &Path) -> Turn {
    let mut client = Client::connect(socket).map_err(drop)?;
    client.request("open data").map_err(drop)?;
    loop {
        let (mapping, number) = client.map(1, GuestProt::ReadOnly).map_err(drop)?;
        let _ = mapping.read_at(number % 4096 * PAGE_BYTES, &mut [0; 8]);
        client.request(&format!("unmap {number}")).map_err(drop)?;
    }
}

fn requests(socket: &Path) -> Turn {
    let mut stream = UnixStream::connect(socket).map_err(drop)?;
    let mut answers = stream.try_clone().map_err(drop)?;
    std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let lines = "1 stats\n2 nonsense\n3 open\n4 exports\n".repeat(100);
    loop {
        stream.write_all(lines.as_bytes()).map_err(drop)?;
    }
}

fn unread(socket: &Path) -> Turn {
    let mut stream = UnixStream::connect(socket).map_err(drop)?;
    let lines = "1 stats\n".repeat(1000);
    loop {
        stream.write_all(lines.as_bytes()).map_err(drop)?;
    }
}

fn events(socket: &Path) -> Turn {
    let mut deaf = Client::connect(socket).map_err(drop)?;
    deaf.request("events on").map_err(drop)?;
    deaf.request("open bad").map_err(drop)?;
    let mut client = Client::connect(socket).map_err(drop)?;
    client.request("open bad").map_err(drop)?;
    loop {
        // It fails, and that is an event for the other.
        let _ = client.request("populate 1 0 4096");
        client.request("retry 1 0 4096").map_err(drop)?;
    }
}

/// Faults on all pages, one after the other, and again in a new mapping.
fn faults(socket: &Path) -> Turn {
    let mut client = Client::connect(socket).map_err(drop)?;
    client.request("open data").map_err(drop)?;
    loop {
        let (mapping, number) = client.map(1, GuestProt::ReadOnly).map_err(drop)?;
        for page in 0..mapping.len() / PAGE_BYTES {
            mapping.read_at(page * PAGE_BYTES, &mut [0; 8]).map_err(drop)?;
        }
        client.request(&format!("unmap {number}")).map_err(drop)?;
    }
}
