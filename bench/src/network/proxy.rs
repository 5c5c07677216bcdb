//! A TCP proxy that makes a server of this machine look as if it were far away.
//!
//! ```text
//!   client ---- bytes ----> reader --(bytes, time)--> queue --> writer: sleeps until time + D ----> server
//!   client <--- bytes ------------------- splice, at once ---------------------------------------- server
//! ```
//!
//! It is a delay line: bytes of a client are held for D from their arrival, whatever came before them. Bytes of the server
//! pass at once, through a pipe in the kernel. So each request takes D longer, whether its connection is new or kept;
//! requests that are under way at once wait at once; and the throughput of answers is not limited. Connections are
//! accepted at once: what a client would wait for a handshake of TCP is not added. Each connection has three threads.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};

/// The most pieces of one connection that wait; a client that sends more waits too.
const MOST_WAITING: usize = 1024;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes of the pipe that answers pass through.
const PIPE_BYTES: usize = 1 << 20;
const STACK_BYTES: usize = 256 << 10;

/// A proxy, which accepts until it is dropped. Its connections live for as long as their two ends.
pub struct Proxy {
    port: u16,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a free port of this machine for clients of the server at `server_port`.
    pub fn start(server_port: u16, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                // A client that cannot be served sees its connection closed.
                let _ = client.and_then(|client| connect(client, server_port, delay));
            }
        })?;
        Ok(Self { port, is_over })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts. If it fails, there is none.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("proxy".into()).stack_size(STACK_BYTES).spawn(work).map(drop)
}

fn connect(client: TcpStream, server_port: u16, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (sender, receiver) = sync_channel(MOST_WAITING);
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    // An end of one side is passed to the other, in its turn. Errors end the connection, which both sides notice.
    spawn(move || {
        let _ = hold(&mut from_client, &sender, delay);
    })?;
    spawn(move || {
        let _ = release(&receiver, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    })?;
    spawn(move || {
        let _ = pass(&server, &client);
        let _ = client.shutdown(Shutdown::Write);
        // Of no use any more: the reader is to end.
        let _ = client.shutdown(Shutdown::Read);
    })
}

/// A piece, and when it is due at the server.
type Piece = (Instant, Vec<u8>);

fn hold(client: &mut impl Read, pieces: &SyncSender<Piece>, delay: Duration) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = client.read(&mut buffer)?;
        let piece = (Instant::now() + delay, buffer[..count].to_vec());
        if count == 0 || pieces.send(piece).is_err() {
            return Ok(());
        }
    }
}

fn release(pieces: &Receiver<Piece>, server: &mut impl Write) -> io::Result<()> {
    for (due, bytes) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        server.write_all(&bytes)?;
    }
    Ok(())
}

/// Moves bytes through a pipe until the server has no more.
fn pass(server: &TcpStream, client: &TcpStream) -> io::Result<()> {
    let (out, into) = pipe()?;
    // A smaller one does too.
    let _ = fcntl_setpipe_size(&into, PIPE_BYTES);
    loop {
        let mut left = splice(server, None, &into, None, PIPE_BYTES, SpliceFlags::MOVE)?;
        if left == 0 {
            return Ok(());
        }
        while left > 0 {
            left -= splice(&out, None, client, None, left, SpliceFlags::MOVE)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and its port.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (mut from, mut to) = (connection.as_ref().unwrap(), connection.as_ref().unwrap());
                // A client may leave at any time.
                let _ = io::copy(&mut from, &mut to);
            }
        });
        port
    }

    #[test]
    fn every_request_is_delayed_and_bytes_stay_as_they_are() {
        let delay = Duration::from_millis(30);
        let proxy = Proxy::start(echo(), delay).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        for request in [&sent[..], &sent[..1], &sent[..70_000]] {
            let (start, mut writer) = (Instant::now(), client.try_clone().unwrap());
            let mut answer = vec![0; request.len()];
            thread::scope(|scope| {
                scope.spawn(|| writer.write_all(request).unwrap());
                client.read_exact(&mut answer[..1]).unwrap();
                assert!(start.elapsed() >= delay);
                client.read_exact(&mut answer[1..]).unwrap();
            });
            assert!(answer == request);
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is passed on");
    }

    /// A delay line, and no delay after each piece: what arrives at once is due at once.
    #[test]
    fn pieces_do_not_wait_for_each_other() {
        let delay = Duration::from_secs(3600);
        let (sender, receiver) = sync_channel(MOST_WAITING);
        let before = Instant::now();
        for _ in 0..100 {
            hold(&mut &b"x"[..], &sender, delay).unwrap();
        }
        let after = Instant::now();
        drop(sender);
        let dues: Vec<Instant> = receiver.iter().map(|(due, _)| due).collect();
        assert_eq!(dues.len(), 100);
        assert!(dues.iter().all(|due| before + delay <= *due && *due <= after + delay));
    }
}
