//! A connection: TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::address::Address;

/// A connection to a server or of a client. Read and written through shared references, by several threads.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Which half of connecting failed.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Resolve(io::Error),
    Connect(io::Error),
}

impl Stream {
    /// Connects within `limit`; each address of a name is tried. A Unix socket whose queue is full is waited for longer.
    pub(crate) fn connect(address: &Address, limit: Duration) -> Result<Self, ConnectError> {
        match address {
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix).map_err(ConnectError::Connect),
            Address::Tcp { .. } => Self::connect_tcp(address, limit),
        }
    }

    fn connect_tcp(address: &Address, limit: Duration) -> Result<Self, ConnectError> {
        let until = Instant::now() + limit;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for socket in address.resolve().map_err(ConnectError::Resolve)? {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(&socket, left) {
                Ok(stream) => {
                    // Without it small requests wait for the answers of others. Only slower if it fails.
                    let _ = stream.set_nodelay(true);
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => failure = error,
            }
        }
        Err(ConnectError::Connect(failure))
    }

    /// How long a read waits; for ever if `None`.
    pub(crate) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }

    /// How long a write waits.
    pub(crate) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(limit),
            Self::Unix(stream) => stream.set_write_timeout(limit),
        }
    }

    /// Ends reads and writes of all threads.
    pub(crate) fn shut_down(&self) {
        // It fails if the connection has ended, which is what is wanted.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read or write ended by its time-out.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
