//! A way to a server on which bytes are counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memobj_sim::fixture::wait_until;

use crate::server::Server;

/// Stands before a server and passes on what clients and server say. It ends with the process.
#[derive(Debug)]
pub struct Passage {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Passage {
    /// A way to `port`. A connection ends when the one behind it does; one for which nobody listens is closed.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                join(&client, &server, &counted);
                join(&server, &client, &counted);
            }
        });
        Self { address, bytes }
    }

    /// Where clients come to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Kills and starts `server` when so many bytes have passed, for each of `moments`, until `has_ended`; how often.
    pub fn restart_at(
        &self,
        server: &mut Server,
        moments: &[u64],
        has_ended: &mut dyn FnMut() -> bool,
    ) -> usize {
        for (restarts, moment) in moments.iter().enumerate() {
            let mut ended = false;
            wait_until("bytes pass", || {
                ended = has_ended();
                ended || self.bytes() >= *moment
            });
            if ended {
                return restarts;
            }
            server.restart();
        }
        moments.len()
    }

    /// Bytes that have passed, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

/// Copies from one to the other until one of them ends, in a thread.
fn join(from: &TcpStream, to: &TcpStream, counted: &Arc<AtomicU64>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let counted = Arc::clone(counted);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            counted.fetch_add(read as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // One that has ended already cannot be ended again.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
