//! A proxy between any 9P client and a server: the client never knows that the server was away.
//!
//! ```text
//!   client -- requests --> [ fids: attach, names, how opened    ] --> server
//!          <-- answers --- [ outstanding: what is not answered  ] <--
//!                             server away: connects again, attaches, walks and opens each fid,
//!                             compares its qid, asks again what was not answered; the client waits
//! ```
//!
//! Each client has a connection of its own to the server. While that is away requests wait. When it is back, each fid is got
//! again, without creating or cutting off a file a second time, and what was not answered is asked again.
//!
//! What cannot be done again is answered with an error, never silently dropped:
//!
//! * a request that must not be done twice (create, remove, rename, link, lock, append) and was with the server: EIO, "it is
//!   not known whether this was done";
//! * a fid whose file is gone, or is another one by its qid; which has a lock; which was to remove its file: each of its
//!   requests, until it is clunked;
//! * the first sync of a file with writes that were answered and not synced: EIO, as a server that restarted may have lost them;
//! * all of a client that authenticated itself, or of a server that grants another size of messages: the connection ends.

mod client;
mod fids;
mod options;
mod request;
mod restore;
mod state;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use options::{ProxyEvent, ProxyOptions};

use crate::address::Address;
use crate::stream::Stream;
use client::{Client, Counts};

/// The pause after a connection could not be accepted: no descriptors, for example.
const PAUSE: Duration = Duration::from_millis(50);

/// Where clients connect.
#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, std::path::PathBuf),
}

/// What a proxy and its handles share.
struct Shared {
    is_stopped: AtomicBool,
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    counts: Arc<Counts>,
    /// Where it listens: a connection to there wakes it up.
    address: Address,
}

/// What a proxy has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ProxyStatistics {
    /// Clients that connected.
    pub clients: u64,
    /// Requests of clients.
    pub requests: u64,
    /// Connections to the server that were made anew.
    pub reconnects: u64,
    /// Fids that were got again.
    pub fids_restored: u64,
    /// Fids that were not.
    pub fids_lost: u64,
}

/// A proxy that listens. See the [module](self).
pub struct Proxy {
    listener: Listener,
    server: Address,
    options: ProxyOptions,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Stops a [`Proxy`], and says what it has done. Clones are for the same proxy.
#[derive(Clone)]
pub struct ProxyHandle(Arc<Shared>);

impl std::fmt::Debug for ProxyHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyHandle").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens at `listen` for clients of `server`; both as [`Address::parse`] reads them. The server need not be there yet. A
    /// Unix socket that is left of a proxy that is not there any more is replaced.
    ///
    /// # Errors
    ///
    /// If an address is wrong or in use.
    pub fn listen(listen: &str, server: &str, options: ProxyOptions) -> io::Result<Self> {
        let parse = |text: &str| {
            Address::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        let (listen, server) = (parse(listen)?, parse(server)?);
        let (listener, address) = match listen {
            Address::Unix(path) => (Listener::Unix(bind(&path)?, path.clone()), Address::Unix(path)),
            Address::Tcp { .. } => {
                let listener = TcpListener::bind(&listen.resolve()?[..])?;
                let socket = listener.local_addr()?;
                let address = Address::Tcp { host: socket.ip().to_string(), port: socket.port() };
                (Listener::Tcp(listener), address)
            }
        };
        let shared = Shared {
            is_stopped: AtomicBool::new(false),
            clients: Mutex::default(),
            counts: Arc::default(),
            address,
        };
        Ok(Self { listener, server, options, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// What stops it.
    pub fn handle(&self) -> ProxyHandle {
        ProxyHandle(Arc::clone(&self.shared))
    }

    /// Serves clients until a [handle](Self::handle) stops it. Blocks.
    pub fn run(&self) {
        let mut threads: Vec<thread::JoinHandle<()>> = Vec::new();
        for number in 0.. {
            let stream = self.accept();
            if self.shared.is_stopped.load(Ordering::SeqCst) {
                break;
            }
            threads.retain(|thread| !thread.is_finished());
            match stream {
                Ok(stream) if threads.len() < self.options.clients => {
                    threads.extend(self.serve(number, stream));
                }
                // One too many: the connection ends.
                Ok(_) => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
        for client in self.shared.lock().values() {
            client.end("the proxy is stopped");
        }
        // They have no way to fail, and end since their clients have ended.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }

    fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Without it answers wait for each other. Only slower if it fails.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }

    fn serve(&self, number: u64, stream: Stream) -> Option<thread::JoinHandle<()>> {
        let counts = Arc::clone(&self.shared.counts);
        counts.clients.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(number, stream, self.server.clone(), self.options.clone(), counts);
        let client = Arc::new(client);
        self.shared.lock().insert(number, Arc::clone(&client));
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("memobj-9p-client".into()).spawn(move || {
            client.serve();
            shared.lock().remove(&number);
        });
        if thread.is_err() {
            self.shared.lock().remove(&number);
        }
        thread.ok()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProxyHandle {
    /// Has [`Proxy::run`] end its clients and return, soon.
    pub fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::SeqCst);
        let mut address = self.0.address.clone();
        if let Address::Tcp { host, port } = &mut address {
            let listens = format!("{host}:{port}").parse::<SocketAddr>();
            if listens.is_ok_and(|listens| listens.ip().is_unspecified()) {
                *host = "127.0.0.1".into();
            }
        }
        // It only wakes up who waits in accept.
        drop(Stream::connect(&address, Duration::from_secs(1)));
        for client in self.0.lock().values() {
            client.end("the proxy is stopped");
        }
    }

    /// What the proxy has done so far.
    pub fn statistics(&self) -> ProxyStatistics {
        let counts = &self.0.counts;
        ProxyStatistics {
            clients: counts.clients.load(Ordering::Relaxed),
            requests: counts.requests.load(Ordering::Relaxed),
            reconnects: counts.reconnects.load(Ordering::Relaxed),
            fids_restored: counts.fids_restored.load(Ordering::Relaxed),
            fids_lost: counts.fids_lost.load(Ordering::Relaxed),
        }
    }
}

/// Binds a Unix socket; one that nobody listens at any more is replaced.
fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_left = std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !is_left {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}
