//! What a proxy may use, and whom it tells.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::message::OVERHEAD_BYTES;

/// What happens in a proxy, for logs. Prints as a line.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProxyEvent {
    /// A client has connected.
    ClientConnected {
        /// Its number.
        client: u64,
    },
    /// The client is gone, or was sent away.
    ClientEnded {
        /// Its number.
        client: u64,
        /// Why.
        why: String,
    },
    /// The server has not answered the client for this long, and is still tried.
    ServerSilent {
        /// The number of the client.
        client: u64,
        /// For how long.
        silence: Duration,
        /// How the last try went.
        why: String,
    },
    /// It answers again.
    ServerAnswers {
        /// The number of the client.
        client: u64,
        /// How long it did not.
        silence: Duration,
    },
    /// A fid could not be got again after the server was away. Requests for it fail.
    FidLost {
        /// The number of the client.
        client: u64,
        /// The path of its file.
        path: String,
        /// Why.
        why: String,
    },
}

impl fmt::Display for ProxyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientConnected { client } => write!(f, "client {client}: connected"),
            Self::ClientEnded { client, why } => write!(f, "client {client}: ended: {why}"),
            Self::ServerSilent { client, silence, why } => {
                write!(f, "client {client}: server not responding for {silence:.1?}, still trying: {why}")
            }
            Self::ServerAnswers { client, silence } => {
                write!(f, "client {client}: server ok again after {silence:.1?}")
            }
            Self::FidLost { client, path, why } => write!(f, "client {client}: {path} is lost: {why}"),
        }
    }
}

/// Whom a proxy tells what happens. Called on its threads; must not block.
pub(super) type Listener = Arc<dyn Fn(&ProxyEvent) + Send + Sync>;

/// Options of [`Proxy::listen`](super::Proxy::listen).
#[derive(Clone)]
#[non_exhaustive]
pub struct ProxyOptions {
    pub(super) clients: usize,
    pub(super) requests: usize,
    pub(super) bytes: usize,
    pub(super) fids: usize,
    pub(super) msize_bytes: u32,
    pub(super) silence: Duration,
    pub(super) silence_told: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) compares_qids: bool,
    pub(super) listener: Listener,
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyOptions").field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            clients: 64,
            requests: 512,
            bytes: 4 << 20,
            fids: 16 << 10,
            msize_bytes: (1 << 20) + OVERHEAD_BYTES,
            silence: Duration::from_secs(10),
            silence_told: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            compares_qids: true,
            listener: Arc::new(|_| ()),
        }
    }
}

impl ProxyOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most clients at once, 64 by default. Each has three threads and two buffers of the size of the largest message.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = count.max(1);
        self
    }

    /// The most requests of a client at once, 512 by default, and their bytes, 4 MiB by default. A client that asks more is not
    /// read until some are answered.
    #[must_use]
    pub fn requests(mut self, count: usize, bytes: usize) -> Self {
        (self.requests, self.bytes) = (count.max(1), bytes.max(1));
        self
    }

    /// The most fids of a client, 16,384 by default. More are answered with an error.
    #[must_use]
    pub fn fids(mut self, count: usize) -> Self {
        self.fids = count.max(1);
        self
    }

    /// How long a server may answer nothing while requests are with it, until its connection is given up; 10 s by default. At half
    /// of it the server gets a Tflush of a tag that is not in use, which it has to answer: one that works on slow requests is
    /// not silent.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit.max(Duration::from_millis(10));
        self
    }

    /// After which silence it is [told](ProxyEvent::ServerSilent); 1 s by default.
    #[must_use]
    pub fn silence_told(mut self, after: Duration) -> Self {
        self.silence_told = after;
        self
    }

    /// How long each step of making a connection may take; 5 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit.max(Duration::from_millis(1));
        self
    }

    /// Takes whatever has the path of a file for that file after the server was away. For servers that name the same file by another
    /// qid after a restart. Otherwise such fids are lost, as the file may be another one.
    #[must_use]
    pub fn trust_paths(mut self) -> Self {
        self.compares_qids = false;
        self
    }

    /// Has `listener` hear what happens, on the proxy's threads. It must not block.
    #[must_use]
    pub fn listener(mut self, listener: impl Fn(&ProxyEvent) + Send + Sync + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }
}
