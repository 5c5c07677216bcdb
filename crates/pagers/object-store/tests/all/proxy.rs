//! A proxy before a real server, which spoils what a test wants spoiled. One connection for each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    Pass,
    /// So many bytes of the body arrive, then both connections end.
    CutBody(u64),
    /// The server gets all, its answer is dropped.
    DropAnswer,
    /// The server gets nothing.
    Refuse,
    /// The server gets nothing, and the proxy answers that a condition does not hold.
    PreconditionFailed,
}

type Rules = Arc<dyn Fn(&str) -> Rule + Send + Sync>;

pub struct Proxy {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    under_way: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards to `port` what `rules` let pass, by the head of each request. Ends with the process.
    pub fn start(port: u16, rules: impl Fn(&str) -> Rule + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bytes) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let (counted, rules): (_, Rules) = (Arc::clone(&bytes), Arc::new(rules));
        let under_way = Arc::new(AtomicU64::new(0));
        let busy = Arc::clone(&under_way);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (counted, rules, busy) = (Arc::clone(&counted), Arc::clone(&rules), Arc::clone(&busy));
                busy.fetch_add(1, Ordering::SeqCst);
                // Ends when its connection does.
                std::thread::spawn(move || {
                    // A connection that ends early is one of the rules, or the client's wish.
                    let _ = forward(&client, port, &rules, &counted);
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, bytes, under_way }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes at the socket so far, both ways, heads included. Waits for requests that are under way.
    pub fn bytes(&self) -> u64 {
        let is_idle = || self.under_way.load(Ordering::SeqCst) == 0;
        memobj_sim::fixture::wait_until("no request is under way", is_idle);
        self.bytes.load(Ordering::SeqCst)
    }
}

fn forward(client: &TcpStream, port: u16, rules: &Rules, counted: &AtomicU64) -> std::io::Result<()> {
    let (mut reader, mut head, mut length) = (BufReader::new(client), String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push_str(&line);
    }
    let rule = rules(&head);
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    let sent = match rule {
        Rule::Refuse => return client.shutdown(Shutdown::Both),
        Rule::PreconditionFailed => {
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
            let answer = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let mut client = client;
            client.write_all(answer.as_bytes())?;
            return client.shutdown(Shutdown::Both);
        }
        Rule::CutBody(most) => most.min(length),
        _ => length,
    };
    let ending = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(ending.as_bytes())?;
    let body = std::io::copy(&mut (&mut reader).take(sent), &mut server)?;
    counted.fetch_add(head.len() as u64 + body, Ordering::SeqCst);
    if matches!(rule, Rule::CutBody(_)) {
        server.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut sink: Box<dyn Write> = match rule {
        Rule::DropAnswer => Box::new(std::io::sink()),
        _ => Box::new(client),
    };
    let answer = std::io::copy(&mut server, &mut sink)?;
    counted.fetch_add(answer, Ordering::SeqCst);
    client.shutdown(Shutdown::Both)
}
