//! An HTTP/1.1 server of threads that does what a test tells it, right or wrong.
//!
//! ```text
//!   Scripted::start(object)    serves ranges of `object`, with an ETag, honouring If-Match
//!      .fault(n, Fault::..)    the next n GETs are answered wrongly
//!      .replace(object)        another version
//!      .stop() .restart()      as SIGKILL: connections are reset; the same port afterwards
//! ```

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memobj_sim::Gate;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The right answer, once the gate is open.
    Hold(Gate),
    /// The head and so many bytes, the rest once the gate is open.
    HoldBody(usize, Gate),
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// The connection is closed without an answer.
    Close,
    /// This status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The right bytes as another version.
    Tag(&'static str),
    /// The right bytes as another range.
    Shifted,
    /// All of the object, with status 200.
    Whole,
    /// More bytes than were asked for: with a Content-Length, or in chunks without one.
    Long,
    LongChunked,
    /// Fewer bytes than were asked for, all that were promised.
    Short,
    /// A wrong byte.
    Corrupt,
}

/// The object that is served.
#[derive(Clone, Debug)]
pub struct Served {
    pub bytes: Arc<[u8]>,
    pub tag: Option<String>,
    pub modified: Option<String>,
    /// Whether conditions are looked at.
    pub honours: bool,
    pub has_ranges: bool,
}

impl Served {
    pub fn new(bytes: &[u8], tag: &str) -> Self {
        let tag = Some(format!("\"{tag}\""));
        Self { bytes: bytes.into(), tag, modified: None, honours: true, has_ranges: true }
    }
}

struct State {
    served: Served,
    faults: VecDeque<Fault>,
    asked: Vec<Asked>,
    connections: Vec<TcpStream>,
    delay: Duration,
}

struct Inside {
    state: Mutex<State>,
    under_way: AtomicUsize,
    most: AtomicUsize,
    stopped: AtomicBool,
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server.
pub struct Scripted {
    address: SocketAddr,
    inside: Arc<Inside>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Scripted {
    pub fn start(served: Served) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            served,
            faults: VecDeque::new(),
            asked: Vec::new(),
            connections: Vec::new(),
            delay: Duration::ZERO,
        };
        let inside = Arc::new(Inside {
            state: Mutex::new(state),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let address = listener.local_addr().unwrap();
        let acceptor = Some(accept(listener, Arc::clone(&inside)));
        Self { address, inside, acceptor }
    }

    pub fn url(&self) -> String {
        format!("http://{}/folder/object", self.address)
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `count` GETs go wrong.
    pub fn fault(&self, count: usize, fault: Fault) {
        self.inside.state().faults.extend(std::iter::repeat_n(fault, count));
    }

    pub fn replace(&self, served: Served) {
        self.inside.state().served = served;
    }

    /// Each answer takes so long.
    pub fn delay(&self, delay: Duration) {
        self.inside.state().delay = delay;
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inside.state().asked.clone()
    }

    /// Requests that wait for their answers now.
    pub fn under_way(&self) -> usize {
        self.inside.under_way.load(Ordering::SeqCst)
    }

    /// The most that ever waited at once.
    pub fn most(&self) -> usize {
        self.inside.most.load(Ordering::SeqCst)
    }

    /// Resets all connections, and refuses others.
    pub fn stop(&mut self) {
        self.inside.stopped.store(true, Ordering::SeqCst);
        for connection in std::mem::take(&mut self.inside.state().connections) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }

    /// Serves again at the same address.
    pub fn restart(&mut self) {
        let mut bound = TcpListener::bind(self.address);
        memobj_sim::fixture::wait_until("the port is free", || {
            if bound.is_err() {
                bound = TcpListener::bind(self.address);
            }
            bound.is_ok()
        });
        self.inside.stopped.store(false, Ordering::SeqCst);
        self.acceptor = Some(accept(bound.unwrap(), Arc::clone(&self.inside)));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if self.acceptor.is_some() {
            self.stop();
        }
    }
}

fn accept(listener: TcpListener, inside: Arc<Inside>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(connection) = connection else { continue };
            if inside.stopped.load(Ordering::SeqCst) {
                return;
            }
            let _ = connection.set_nodelay(true);
            inside.state().connections.push(connection.try_clone().unwrap());
            let inside = Arc::clone(&inside);
            // Ends when its connection does.
            std::thread::spawn(move || {
                while matches!(serve(&connection, &inside), Ok(true)) {}
                let _ = connection.shutdown(Shutdown::Both);
            });
        }
    })
}

/// Serves one request; whether the connection can have another.
fn serve(connection: &TcpStream, inside: &Inside) -> std::io::Result<bool> {
    let mut reader = BufReader::new(connection);
    // What is no text is TLS.
    let is_text = reader.fill_buf()?.first().is_some_and(u8::is_ascii_alphabetic);
    if !is_text || inside.stopped.load(Ordering::SeqCst) {
        return Ok(false);
    }
    let Some(asked) = read_request(&mut reader)? else { return Ok(false) };
    let (served, fault, delay) = {
        let mut state = inside.state();
        state.asked.push(asked.clone());
        // The first question of all, for one byte, is always answered right.
        let is_first = asked.header("range") == Some("bytes=0-0");
        let fault = if asked.method == "GET" && !is_first { state.faults.pop_front() } else { None };
        let served = state.served.clone();
        if asked.method == "PUT" && !is_refused(&asked, &served) {
            let tag = format!("put{}", state.asked.len());
            state.served = Served { has_ranges: true, honours: true, ..Served::new(&asked.body, &tag) };
        }
        (served, fault, state.delay)
    };
    let now = inside.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    inside.most.fetch_max(now, Ordering::SeqCst);
    if !delay.is_zero() {
        // waits: the time on the way that a test asked for.
        std::thread::sleep(delay);
    }
    if let Some(Fault::Hold(gate)) = &fault {
        gate.pass();
    }
    inside.under_way.fetch_sub(1, Ordering::SeqCst);
    answer(connection, &asked, &served, fault, inside)
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, target, headers, body: Vec::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    asked.body = vec![0; length];
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}

/// An answer before it is spoiled.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// Whether a condition of the request does not hold.
fn is_refused(asked: &Asked, served: &Served) -> bool {
    let differs =
        |name, is: &Option<String>| asked.header(name).is_some_and(|wanted| Some(wanted) != is.as_deref());
    differs("if-match", &served.tag)
        || differs("if-unmodified-since", &served.modified)
        || differs("x-goog-if-generation-match", &served.tag.as_deref().map(generation))
        || asked.header("if-none-match").is_some()
}

/// The headers of the version that is served now.
fn tags(inside: &Inside) -> Vec<(&'static str, String)> {
    let tag = inside.state().served.tag.clone().unwrap_or_default();
    vec![("x-goog-generation", generation(&tag)), ("ETag", tag)]
}

/// What the server says as generation of a version.
fn generation(tag: &str) -> String {
    tag.bytes().map(u64::from).sum::<u64>().to_string()
}

fn plain(asked: &Asked, served: &Served) -> Answer {
    let mut headers = Vec::new();
    headers.extend(served.tag.clone().map(|tag| ("ETag", tag)));
    headers.extend(served.modified.clone().map(|date| ("Last-Modified", date)));
    headers.extend(served.tag.as_deref().map(|tag| ("x-goog-generation", generation(tag))));
    if served.honours && is_refused(asked, served) {
        return Answer { status: 412, headers, body: Vec::new() };
    }
    let length = served.bytes.len();
    let range = asked.header("range").filter(|_| served.has_ranges);
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else {
        return Answer { status: 200, headers, body: served.bytes.to_vec() };
    };
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if first >= length {
        headers.push(("Content-Range", format!("bytes */{length}")));
        return Answer { status: 416, headers, body: Vec::new() };
    }
    let end = (last + 1).min(length);
    headers.push(("Content-Range", format!("bytes {first}-{}/{length}", end - 1)));
    Answer { status: 206, headers, body: served.bytes[first..end].to_vec() }
}

fn spoil(answer: &mut Answer, fault: &Fault, served: &Served) {
    match fault {
        Fault::Status(status, headers) => {
            *answer = Answer { status: *status, headers: headers.clone(), body: Vec::new() };
        }
        Fault::Tag(tag) => {
            answer.headers.retain(|(name, _)| *name != "ETag");
            answer.headers.push(("ETag", format!("\"{tag}\"")));
        }
        Fault::Shifted => {
            let length = served.bytes.len();
            answer.headers.retain(|(name, _)| *name != "Content-Range");
            answer.headers.push(("Content-Range", format!("bytes 1-{}/{length}", answer.body.len())));
        }
        Fault::Whole => {
            answer.headers.retain(|(name, _)| *name != "Content-Range");
            (answer.status, answer.body) = (200, served.bytes.to_vec());
        }
        Fault::Long | Fault::LongChunked => answer.body.extend([0xee; 4096]),
        Fault::Short => answer.body.truncate(answer.body.len() / 2),
        Fault::Corrupt => {
            let middle = answer.body.len() / 2;
            answer.body[middle] ^= 0x10;
        }
        Fault::Hold(_) | Fault::HoldBody(..) | Fault::Cut(_) | Fault::Close => {}
    }
}

fn answer(
    mut connection: &TcpStream,
    asked: &Asked,
    served: &Served,
    fault: Option<Fault>,
    inside: &Inside,
) -> std::io::Result<bool> {
    let mut answer = plain(asked, served);
    if asked.method == "PUT" && answer.status == 200 {
        answer = Answer { status: 201, headers: tags(inside), body: Vec::new() };
    }
    if let Some(fault) = &fault {
        spoil(&mut answer, fault, served);
    }
    if matches!(fault, Some(Fault::Close)) {
        connection.shutdown(Shutdown::Both)?;
        return Ok(false);
    }
    let chunked = matches!(fault, Some(Fault::LongChunked));
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    match chunked {
        true => head.push_str("Transfer-Encoding: chunked\r\n"),
        false => head.push_str(&format!("Content-Length: {}\r\n", answer.body.len())),
    }
    answer.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    if chunked {
        let size = format!("{:x}\r\n", answer.body.len());
        connection.write_all(&[size.as_bytes(), &answer.body, b"\r\n0\r\n\r\n"].concat())?;
        return Ok(true);
    }
    match fault {
        Some(Fault::Cut(count)) => {
            connection.write_all(&answer.body[..count])?;
            connection.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        Some(Fault::HoldBody(count, gate)) => {
            connection.write_all(&answer.body[..count])?;
            gate.pass();
            connection.write_all(&answer.body[count..])?;
        }
        _ => connection.write_all(&answer.body)?,
    }
    Ok(true)
}
