//! Where servers are.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The port of 9P (9pfs).
pub const DEFAULT_PORT: u16 = 564;

/// Where a server is: a host and a port, or a Unix socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Text that names no server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressError(pub(crate) String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// `host`, `host:port`, `[v6]:port`, `/path/of/socket`; or the same as URLs: `9p://host:port`, `9p+unix:///path`. The
    /// path and query of a URL are left out.
    ///
    /// # Errors
    ///
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("9p+unix://") {
            let path = rest.split('?').next().unwrap_or_default();
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let rest = text.strip_prefix("9p://").unwrap_or(text);
        Self::parse_authority(rest.split(['/', '?']).next().unwrap_or_default())
    }

    /// `host`, `host:port`, `[v6]:port`.
    pub(crate) fn parse_authority(text: &str) -> Result<Self, AddressError> {
        let wrong = |what: &str| AddressError(format!("{what} in \"{text}\""));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| wrong("no closing bracket"))?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| wrong("a wrong port"))?,
            None => return Err(wrong("text behind a bracket")),
        };
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        Ok(Self::Tcp { host: host.into(), port })
    }

    /// The socket addresses of the name; none of a Unix socket. May block.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
            Self::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "9p://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "9p://{host}:{port}"),
            Self::Unix(path) => write!(f, "9p+unix://{}", path.display()),
        }
    }
}
