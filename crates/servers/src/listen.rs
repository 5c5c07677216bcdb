//! Where a server listens.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of loopback, or a socket.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A port of 127.0.0.1.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

impl Listen {
    /// A port that was free a moment ago, and that no other test of this process has. It is below those that the kernel
    /// gives to clients: a server that is started anew finds it free, and no client connects to itself.
    pub fn free_port() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        const PORTS: std::ops::Range<u32> = 10_000..32_000;
        for _ in PORTS {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) + 17 * std::process::id();
            let port = u16::try_from(PORTS.start + next % (PORTS.end - PORTS.start)).unwrap();
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self::Port(port);
            }
        }
        panic!("no port is free");
    }

    /// Whether somebody accepts connections there.
    pub fn answers(&self) -> bool {
        match self {
            Self::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
            Self::Socket(path) => UnixStream::connect(path).is_ok(),
        }
    }

    /// The port.
    ///
    /// # Panics
    ///
    /// If it is a socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Port(port) => *port,
            Self::Socket(path) => panic!("{} has no port", path.display()),
        }
    }
}
