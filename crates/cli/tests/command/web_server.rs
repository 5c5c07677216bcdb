//! A web server with ranges and versions, on loopback, that tests can stop and let serve other bytes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is served, and how.
struct Served {
    bytes: Vec<u8>,
    version: u32,
    /// After so many more answers the version is the next.
    changes_after: Option<usize>,
}

struct Shared {
    served: Mutex<Served>,
    /// Bytes of bodies so far.
    sent: AtomicUsize,
    ends: AtomicBool,
}

/// Serves one object under every path. Ends when dropped.
pub struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl WebServer {
    /// Serves `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("it listens");
        let served = Mutex::new(Served { bytes, version: 1, changes_after: None });
        let shared = Arc::new(Shared { served, sent: AtomicUsize::new(0), ends: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.ends.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, shared) = (stream.expect("a connection"), Arc::clone(&accepting));
                // A client that goes away ends its thread.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Another version of the same bytes is served after `answers` more answers.
    pub fn change_after(&self, answers: usize) {
        self.shared.served.lock().unwrap().changes_after = Some(answers);
    }

    /// Changes the byte at `at`, under the same version: what no server should do.
    pub fn damage(&self, at: usize) {
        self.shared.served.lock().unwrap().bytes[at] ^= 1;
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes who accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let mut range = None;
        let mut has_request = false;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            has_request = true;
            if let Some(wanted) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                let (first, last) = wanted.split_once('-').expect("a range");
                range = Some((first.parse().expect("a number"), last.parse().expect("a number")));
            }
        }
        if !has_request {
            return Ok(());
        }
        answer(stream, shared, range)?;
    }
}

fn answer(mut stream: &TcpStream, shared: &Shared, range: Option<(usize, usize)>) -> std::io::Result<()> {
    let mut served = shared.served.lock().unwrap();
    if let Some(left) = &mut served.changes_after {
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => (served.version, served.changes_after) = (served.version + 1, None),
        }
    }
    let length = served.bytes.len();
    let (first, last) = range.unwrap_or((0, length.saturating_sub(1)));
    let body = served.bytes[first..(last + 1).min(length)].to_vec();
    let version = served.version;
    drop(served);
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let end = first + body.len() - 1;
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"v{version}\"\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{end}/{length}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    shared.sent.fetch_add(body.len(), Ordering::SeqCst);
    Ok(())
}
