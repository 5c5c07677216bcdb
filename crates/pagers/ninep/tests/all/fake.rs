//! A server that does what a test says: for what real ones do not do. It has one file, in memory, and encodes messages on
//! its own, so that an error of the crate's own encoding is seen. It speaks one of the dialects.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use memobj_sim::fixture::GUARD;

pub(crate) const TLOPEN: u8 = 12;
pub(crate) const TGETATTR: u8 = 24;
pub(crate) const TSETATTR: u8 = 26;
pub(crate) const TREADDIR: u8 = 40;
pub(crate) const TFSYNC: u8 = 50;
pub(crate) const TVERSION: u8 = 100;
pub(crate) const TATTACH: u8 = 104;
pub(crate) const TFLUSH: u8 = 108;
pub(crate) const TWALK: u8 = 110;
pub(crate) const TOPEN: u8 = 112;
pub(crate) const TREAD: u8 = 116;
pub(crate) const TWRITE: u8 = 118;
pub(crate) const TCLUNK: u8 = 120;
pub(crate) const TSTAT: u8 = 124;
pub(crate) const TWSTAT: u8 = 126;

/// A request, with its size cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: u8,
    pub(crate) tag: u16,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.body[at..at + 4].try_into().unwrap())
    }
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.body[at..at + 8].try_into().unwrap())
    }
    /// Of Tread and Twrite.
    pub(crate) fn offset(&self) -> u64 {
        self.u64(4)
    }
    /// Of Tread and Twrite.
    pub(crate) fn count(&self) -> u32 {
        self.u32(12)
    }
}

/// A message.
pub(crate) fn message(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(7 + body.len()).unwrap();
    [&size.to_le_bytes()[..], &[kind], &tag.to_le_bytes(), body].concat()
}

pub(crate) fn rread(tag: u16, bytes: &[u8]) -> Vec<u8> {
    message(TREAD + 1, tag, &[&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat())
}

pub(crate) fn rlerror(tag: u16, number: u32) -> Vec<u8> {
    message(7, tag, &number.to_le_bytes())
}

/// What the server does with a request.
pub(crate) enum Act {
    /// What servers do.
    Normal,
    /// Sends this instead.
    Send(Vec<u8>),
    /// Answers nothing. The request is kept: see [`Fake::kept`].
    Keep,
    /// Sends so many bytes of the right answer, and ends the connection.
    Cut(usize),
}

type Script = Box<dyn FnMut(&Request) -> Act + Send>;

pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    /// What a crash leaves.
    pub(crate) durable: Vec<u8>,
    pub(crate) mtime: (u64, u64),
    pub(crate) qid_path: u64,
    /// Whether what is opened is a folder.
    pub(crate) is_folder: bool,
    pub(crate) msize: u32,
    /// The name of its dialect.
    pub(crate) dialect: &'static str,
    script: Script,
    pub(crate) requests: Vec<Request>,
    kept: Vec<Request>,
    connection: Option<TcpStream>,
    connections: usize,
    open: usize,
    refuses: bool,
}

impl State {
    fn count(&self, kind: u8) -> usize {
        self.requests.iter().filter(|request| request.kind == kind).count()
    }
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<(Mutex<State>, Condvar)>,
    port: u16,
}

impl Fake {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            bytes: bytes.to_vec(),
            durable: bytes.to_vec(),
            mtime: (1000, 0),
            qid_path: 7,
            is_folder: false,
            msize: 65_536,
            dialect: "9P2000.L",
            script: Box::new(|_| Act::Normal),
            requests: Vec::new(),
            kept: Vec::new(),
            connection: None,
            connections: 0,
            open: 0,
            refuses: false,
        };
        let fake = Self { state: Arc::new((Mutex::new(state), Condvar::new())), port };
        let server = fake.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, stream) = (server.clone(), stream.unwrap());
                if server.lock().refuses {
                    continue;
                }
                std::thread::spawn(move || server.serve(stream));
            }
        });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("9p://127.0.0.1:{}/folder/file", self.port)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// Has `script` say what to do with each request from now on.
    pub(crate) fn script(&self, script: impl FnMut(&Request) -> Act + Send + 'static) {
        self.lock().script = Box::new(script);
    }

    /// Has `script` say what to do with requests of one type.
    pub(crate) fn script_for(&self, kind: u8, mut script: impl FnMut(&Request) -> Act + Send + 'static) {
        self.script(move |request| if request.kind == kind { script(request) } else { Act::Normal });
    }

    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    /// How many requests of a type there were.
    pub(crate) fn count(&self, kind: u8) -> usize {
        self.lock().count(kind)
    }

    /// Waits until there were more than `before` requests of a type.
    pub(crate) fn wait_for_more(&self, kind: u8, before: usize) {
        self.wait("another request of a type", |state| state.count(kind) > before);
    }

    /// Waits until `ready`.
    pub(crate) fn wait(&self, what: &str, ready: impl Fn(&State) -> bool) {
        let waited = self.state.1.wait_timeout_while(self.lock(), GUARD, |state| !ready(state)).unwrap();
        assert!(!waited.1.timed_out(), "in vain waited for {what}");
    }

    /// Waits for requests that are kept, and takes them.
    pub(crate) fn kept(&self, count: usize) -> Vec<Request> {
        self.wait("requests that are kept", |state| state.kept.len() >= count);
        std::mem::take(&mut self.lock().kept)
    }

    /// Sends bytes on the newest connection.
    pub(crate) fn send(&self, bytes: &[u8]) {
        // The client may have ended it, which the test sees otherwise.
        let _ = self.lock().connection.as_ref().unwrap().write_all(bytes);
    }

    /// Answers a request as servers do.
    pub(crate) fn answer(&self, request: &Request) {
        let answer = answer(&mut self.lock(), request);
        self.send(&answer);
    }

    /// Ends the connection.
    pub(crate) fn hang_up(&self) {
        if let Some(connection) = self.lock().connection.take() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections end at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// Whether all connections have ended.
    pub(crate) fn is_left(&self) -> bool {
        self.lock().open == 0
    }

    /// Loses what was not synced, and ends the connection.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        state.bytes = state.durable.clone();
        drop(state);
        self.hang_up();
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let mut state = self.lock();
        state.connection = Some(stream.try_clone().unwrap());
        state.connections += 1;
        drop(state);
        self.lock().open += 1;
        let _closed = Closed(self);
        while let Some(request) = read(&mut reader) {
            let mut state = self.lock();
            state.requests.push(request.clone());
            let act = (state.script)(&request);
            let bytes = match act {
                Act::Normal => answer(&mut state, &request),
                Act::Send(bytes) => bytes,
                Act::Keep => {
                    state.kept.push(request);
                    Vec::new()
                }
                Act::Cut(count) => {
                    let _ = (&stream).write_all(&answer(&mut state, &request)[..count]);
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            };
            self.state.1.notify_all();
            drop(state);
            if (&stream).write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

struct Closed<'a>(&'a Fake);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
    }
}

fn read(reader: &mut TcpStream) -> Option<Request> {
    let mut size = [0; 4];
    reader.read_exact(&mut size).ok()?;
    let mut rest = vec![0; u32::from_le_bytes(size) as usize - 4];
    reader.read_exact(&mut rest).ok()?;
    Some(Request { kind: rest[0], tag: u16::from_le_bytes([rest[1], rest[2]]), body: rest[3..].to_vec() })
}

fn qid(kind: u8, path: u64) -> Vec<u8> {
    [&[kind][..], &0u32.to_le_bytes(), &path.to_le_bytes()].concat()
}

/// A name with its length.
fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

/// The right answer.
fn answer(state: &mut State, request: &Request) -> Vec<u8> {
    let body = match request.kind {
        TVERSION => {
            let msize = request.u32(0).min(state.msize);
            let speaks = request.body[4..] == string(state.dialect);
            let version = if speaks { state.dialect } else { "unknown" };
            [&msize.to_le_bytes()[..], &string(version)].concat()
        }
        TATTACH => qid(0x80, 1),
        TWALK => [&2u16.to_le_bytes()[..], &qid(0x80, 2), &qid(0, state.qid_path)].concat(),
        TLOPEN | TOPEN if state.is_folder => [&qid(0x80, 1)[..], &0u32.to_le_bytes()].concat(),
        TLOPEN | TOPEN => [&qid(0, state.qid_path)[..], &0u32.to_le_bytes()].concat(),
        TGETATTR => attributes(state),
        TSTAT => stat(state),
        TWSTAT => wstat(state, request),
        TREAD => {
            let start = (request.offset() as usize).min(state.bytes.len());
            let end = (start + request.count() as usize).min(state.bytes.len());
            return rread(request.tag, &state.bytes[start..end]);
        }
        TWRITE => {
            let (start, bytes) = (request.offset() as usize, &request.body[16..]);
            state.bytes[start..start + bytes.len()].copy_from_slice(bytes);
            state.mtime.1 += 1;
            request.count().to_le_bytes().to_vec()
        }
        TSETATTR => {
            state.bytes.resize(request.u64(20) as usize, 0);
            state.mtime.1 += 1;
            Vec::new()
        }
        TFSYNC => {
            state.durable = state.bytes.clone();
            Vec::new()
        }
        TFLUSH | TCLUNK => Vec::new(),
        other => panic!("a request of type {other}"),
    };
    message(request.kind + 1, request.tag, &body)
}

fn attributes(state: &State) -> Vec<u8> {
    let mut body = 0x7ffu64.to_le_bytes().to_vec();
    body.extend(qid(0, state.qid_path));
    body.extend([0; 4 + 4 + 4 + 8 + 8]);
    body.extend((state.bytes.len() as u64).to_le_bytes());
    body.extend([0; 8 + 8 + 16]);
    body.extend(state.mtime.0.to_le_bytes());
    body.extend(state.mtime.1.to_le_bytes());
    body.extend([0; 16 + 16 + 8 + 8]);
    body
}

/// Rstat of 9P2000 and 9P2000.u.
fn stat(state: &State) -> Vec<u8> {
    let mut body = [0; 2 + 4].to_vec();
    body.extend(qid(0, state.qid_path));
    body.extend([0; 4 + 4]);
    body.extend(u32::try_from(state.mtime.0).unwrap().to_le_bytes());
    body.extend((state.bytes.len() as u64).to_le_bytes());
    ["file", "u", "g", "u"].iter().for_each(|name| body.extend(string(name)));
    if state.dialect == "9P2000.u" {
        body.extend([0; 2 + 3 * 4]);
    }
    let size = u16::try_from(body.len()).unwrap();
    [&(size + 2).to_le_bytes()[..], &size.to_le_bytes(), &body].concat()
}

/// Twstat: a length, or a sync if nothing is to be changed. Anything else is a mistake of the client.
fn wstat(state: &mut State, request: &Request) -> Vec<u8> {
    let length_at = 4 + 2 + 2 + 2 + 4 + 13 + 3 * 4;
    let length = request.u64(length_at);
    let names = if state.dialect == "9P2000.u" { 4 * 2 + 2 } else { 4 * 2 };
    let kept = [&request.body[8..length_at], &request.body[length_at + 8 + names..]].concat();
    assert!(kept.iter().all(|byte| *byte == 255), "{request:?}");
    assert!(request.body[length_at + 8..length_at + 8 + names].iter().all(|byte| *byte == 0), "{request:?}");
    if length == u64::MAX {
        state.durable = state.bytes.clone();
    } else {
        state.bytes.resize(length as usize, 0);
        state.mtime.0 += 1;
    }
    Vec::new()
}
