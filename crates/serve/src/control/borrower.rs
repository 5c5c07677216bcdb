//! The other side of a connection that borrows frames.
//!
//! ```text
//!   borrow      sends, and waits for the answer: whoever waits reads the socket, and hands on what others wait for
//!   resolve     sends, and is called back; from the first one on a thread reads the socket
//!   lost        the server is gone or silent: all who wait hear of it, and all who come
//! ```
//!
//! A borrower whose pages are all there never starts a thread.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

use super::client::{Answer, ClientError};
use super::locked;
use super::words::LONGEST_LINE;

/// How long the server may take for what it answers at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may say nothing while it owes pages, before it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);
/// Requests for pages that are under way at once, unless the server says that these are too many. Further ones wait here.
const MOST_UNDER_WAY: usize = 64;
/// The pause before a request that the server was too busy for is sent again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// How the borrower maps the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoanKind {
    /// For programs that map the file privately.
    Private,
    /// For programs that map it shared.
    Shared,
}

/// The frames of a file, lent by a server. Dropped, they are given back.
///
/// The descriptor is of a file that has page `i` of the lent file as its page `i` while that is resident, and a hole
/// otherwise. Whoever maps it keeps the rules of [`lend_frames`](memobj::MemoryObject::lend_frames), or all who borrow the
/// same file may read zeros.
#[derive(Debug)]
pub struct Borrowed {
    shared: Arc<Shared>,
    object: u64,
    length: u64,
    frames: OwnedFd,
}

/// Why a page did not come.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoanFailure {
    /// It could not be supplied: with what the server says about range, kind and source.
    Page(String),
    /// The server is gone, or does not answer: with what is known of it.
    Lost(String),
}

impl fmt::Display for LoanFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(message) => f.write_str(message),
            Self::Lost(why) => write!(f, "the server is gone: {why}"),
        }
    }
}

impl std::error::Error for LoanFailure {}

/// Is called once, by a thread that reads the socket or by the one that asks. Blocks nobody for long.
type Done = Box<dyn FnOnce(Result<(), LoanFailure>) + Send>;

/// A connection that borrows frames. Any number of threads may use it at once; cheap to clone.
#[derive(Clone, Debug)]
pub struct Borrower(Arc<Shared>);

struct Shared {
    socket: UnixStream,
    talk: Mutex<Talk>,
    /// An answer has come, or nobody reads any more.
    changed: Condvar,
}

#[derive(Default)]
struct Talk {
    last_tag: u64,
    /// By tag. A line is sent with the lock held, so that lines do not mix.
    waiting: BTreeMap<u64, Waiting>,
    /// Pages that are to be asked for when there is room.
    later: VecDeque<(String, Done)>,
    under_way: usize,
    /// So many the server has taken, if it has refused one more.
    most_under_way: Option<usize>,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    somebody_reads: bool,
    has_thread: bool,
    heard: Option<Instant>,
    lost: Option<String>,
}

enum Waiting {
    /// A thread waits for this answer.
    Thread(Option<Reply>),
    /// Nobody needs it.
    Nobody,
    /// For a page, and what was asked.
    Page(String, Done),
}

/// An answer, and the descriptor that came with it.
type Reply = (String, Option<OwnedFd>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrower").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A connection that the server has not greeted yet.
#[derive(Debug)]
pub struct Connecting(UnixStream);

impl Connecting {
    /// Connects to the server at `path`, and does not wait for it.
    ///
    /// # Errors
    ///
    /// That nobody listens there.
    pub fn begin(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self(UnixStream::connect(path)?))
    }

    /// Waits for the server, 10 s at most.
    ///
    /// # Errors
    ///
    /// As [`Borrower::connect`].
    pub fn finish(self) -> Result<Borrower, ClientError> {
        let shared = Shared { socket: self.0, talk: Mutex::default(), changed: Condvar::new() };
        // The greeting has no tag of a request.
        let greeting = shared.greeting()?;
        let words = greeting.strip_prefix("memobj 1 ").ok_or(ClientError::Protocol(greeting.clone()))?;
        let refused =
            |kind: &str, words: &str| ClientError::Refused { kind: kind.into(), words: words.into() };
        if words.starts_with("refused ") {
            return Err(refused("refused", words));
        }
        match super::client::value_of(words, "lends").as_deref() {
            Some("frames") => {
                // A server waits for a first request for some time only.
                shared.tell("events off");
                Ok(Borrower(Arc::new(shared)))
            }
            Some("not-to-you") => Err(refused(
                "denied",
                "message=it%20lends%20frames%20to%20its%20own%20user%20and%20to%20root%20only",
            )),
            _ => Err(refused("denied", "message=it%20lends%20no%20frames%20(memobj%20serve%20--lend)")),
        }
    }
}

impl Borrower {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    ///
    /// `Refused` if this process may not be a client (`refused`), or the server does not lend to it (`denied`).
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Connecting::begin(path)?.finish()
    }

    /// Borrows the frames of the file that `file` is open of for reading. Blocks until the server has answered, 10 s at most.
    ///
    /// # Errors
    ///
    /// What the server answered, or that it is gone.
    pub fn borrow(&self, file: impl AsFd, kind: LoanKind) -> Result<Borrowed, ClientError> {
        let verb = match kind {
            LoanKind::Private => "borrow private",
            LoanKind::Shared => "borrow shared",
        };
        let (line, frames) = self.0.request(verb, Some(file.as_fd()))?;
        let answer = Answer::parse(&line)?;
        let frames = frames.ok_or_else(|| ClientError::Protocol("a loan without frames".into()))?;
        let (object, length) = (answer.number("object")?, answer.number("length")?);
        Ok(Borrowed { shared: Arc::clone(&self.0), object, length, frames })
    }

    /// Why the server is gone, if it is known to be.
    pub fn lost(&self) -> Option<String> {
        self.0.talk().lost.clone()
    }
}

impl Borrowed {
    /// The file of frames, which can be read only.
    pub fn frames(&self) -> BorrowedFd<'_> {
        self.frames.as_fd()
    }

    /// Bytes of the lent file.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the lent file has no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the page at `offset` has its bytes in a frame now. It may lose it at any time.
    pub fn is_resident(&self, offset: u64) -> bool {
        // The position of the file is nobody's.
        rustix::fs::seek(&self.frames, rustix::fs::SeekFrom::Data(offset)).is_ok_and(|data| data == offset)
    }

    /// Asks for the page at `offset`, and for absent pages of `around` on the way. `done` is called when it was resident at
    /// some moment, or has failed, or the server is gone.
    pub fn resolve(
        &self,
        offset: u64,
        around: &Range<u64>,
        done: impl FnOnce(Result<(), LoanFailure>) + Send + 'static,
    ) {
        let length = around.end.saturating_sub(around.start);
        let words = format!("resolve {} {offset} {} {length}", self.object, around.start);
        self.shared.ask(words, Box::new(done));
    }

    /// Asks for the pages of `ranges` in the background, in this order.
    pub fn prefetch(&self, ranges: &[Range<u64>]) {
        for range in ranges {
            let length = range.end.saturating_sub(range.start);
            self.shared.tell(&format!("prefetch-lent {} {} {length}", self.object, range.start));
        }
    }

    /// Gives the frames back since the file is about to change: the server has no lease on it any more when this returns.
    pub fn give_back_changed(&self) {
        // One that is gone has no lease.
        let _ = self.shared.request(&format!("give-back {} changes", self.object), None);
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.shared.tell(&format!("give-back {}", self.object));
    }
}

impl Shared {
    fn talk(&self) -> MutexGuard<'_, Talk> {
        locked(&self.talk)
    }

    fn greeting(&self) -> Result<String, ClientError> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.talk().next_line() {
                return Ok(line);
            }
            let (bytes, descriptors) = self.receive(until)?;
            self.talk().take(&bytes, descriptors);
        }
    }

    /// Sends a request, and waits for its answer.
    fn request(
        self: &Arc<Self>,
        words: &str,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, ClientError> {
        let until = Instant::now() + PATIENCE;
        let mut talk = self.talk();
        let tag = self.send(&mut talk, words, descriptor, Waiting::Thread(None))?;
        loop {
            if let Some(Waiting::Thread(Some(_))) = talk.waiting.get(&tag) {
                let Some(Waiting::Thread(Some(reply))) = talk.waiting.remove(&tag) else { continue };
                return Ok(reply);
            }
            if let Some(why) = &talk.lost {
                return Err(io::Error::other(why.clone()).into());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.lose(talk, "it does not answer");
                talk = self.talk();
                continue;
            }
            if talk.somebody_reads {
                let waited = self.changed.wait_timeout(talk, left);
                talk = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            talk = self.read(talk, until);
        }
    }

    /// Reads once from the socket as the one who reads.
    fn read<'a>(self: &'a Arc<Self>, mut talk: MutexGuard<'a, Talk>, until: Instant) -> MutexGuard<'a, Talk> {
        talk.somebody_reads = true;
        drop(talk);
        let came = self.receive(until);
        let mut talk = self.talk();
        talk.somebody_reads = false;
        match came {
            Ok((bytes, descriptors)) => {
                talk.heard = Some(Instant::now());
                talk.take(&bytes, descriptors);
                let done = self.hand_on(&mut talk);
                self.changed.notify_all();
                drop(talk);
                done.into_iter().for_each(|(done, answer)| done(answer));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.changed.notify_all();
                drop(talk);
            }
            Err(error) => self.lose(talk, &error.to_string()),
        }
        self.talk()
    }

    /// Sends a request that nobody waits for.
    fn tell(&self, words: &str) {
        let mut talk = self.talk();
        // One that is gone needs no telling.
        let _ = self.send(&mut talk, words, None, Waiting::Nobody);
    }

    /// Asks for a page.
    fn ask(self: &Arc<Self>, words: String, done: Done) {
        let mut talk = self.talk();
        talk.later.push_back((words, done));
        self.start_thread(&mut talk);
        self.send_later(&mut talk);
        if let Some(why) = talk.lost.clone() {
            self.lose(talk, &why);
        }
    }

    /// Sends what waits for room.
    fn send_later(&self, talk: &mut Talk) {
        while talk.under_way < talk.most_under_way.unwrap_or(MOST_UNDER_WAY) && talk.lost.is_none() {
            let Some((words, done)) = talk.later.pop_front() else { return };
            let waiting = Waiting::Page(words.clone(), done);
            talk.under_way += 1;
            talk.heard.get_or_insert_with(Instant::now);
            // An error is in `lost` as well.
            let _ = self.send(talk, &words, None, waiting);
        }
    }

    /// Hands the lines that have come to those who wait for them. Returns who is to be called, without the lock.
    fn hand_on(&self, talk: &mut Talk) -> Vec<(Done, Result<(), LoanFailure>)> {
        let mut finished = Vec::new();
        while let Some(line) = talk.next_line() {
            let (tag, words) = line.split_once(' ').unwrap_or((&line, ""));
            let Some(tag) = tag.parse().ok() else { continue };
            match talk.waiting.remove(&tag) {
                Some(Waiting::Thread(_)) => {
                    let is_loan = words.starts_with("ok object=");
                    let frames = if is_loan { talk.descriptors.pop_front() } else { None };
                    talk.waiting.insert(tag, Waiting::Thread(Some((words.to_owned(), frames))));
                }
                Some(Waiting::Page(asked, done)) => {
                    talk.under_way -= 1;
                    match answer_of(words) {
                        Some(answer) => finished.push((done, answer)),
                        None => {
                            // An answer to another makes room, or it is asked again after a pause.
                            talk.later.push_front((asked, done));
                            talk.most_under_way = Some(talk.under_way.max(1));
                            if talk.under_way == 0 {
                                std::thread::sleep(BUSY_PAUSE);
                            }
                        }
                    }
                }
                Some(Waiting::Nobody) | None => {}
            }
            self.send_later(talk);
        }
        finished
    }

    /// The server is gone: all who wait hear of it.
    fn lose(&self, mut talk: MutexGuard<'_, Talk>, why: &str) {
        let why = talk.lost.get_or_insert(why.to_owned()).clone();
        let _ = shutdown(&self.socket, Shutdown::Both);
        let pages: Vec<u64> = talk
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Page(..)))
            .map(|(tag, _)| *tag)
            .collect();
        let mut left: Vec<Done> = talk.later.drain(..).map(|(_, done)| done).collect();
        for tag in pages {
            if let Some(Waiting::Page(_, done)) = talk.waiting.remove(&tag) {
                left.push(done);
            }
        }
        talk.under_way = 0;
        self.changed.notify_all();
        drop(talk);
        left.into_iter().for_each(|done| done(Err(LoanFailure::Lost(why.clone()))));
    }

    /// From now on a thread reads.
    fn start_thread(self: &Arc<Self>, talk: &mut Talk) {
        if std::mem::replace(&mut talk.has_thread, true) {
            return;
        }
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("memobj-borrower".into());
        if let Err(error) = thread.spawn(move || shared.read_on()) {
            talk.lost.get_or_insert(format!("start a thread: {error}"));
        }
    }

    /// Reads until the connection ends. Asks a server that owes pages and says nothing whether it is there.
    fn read_on(self: Arc<Self>) {
        let mut asked = None;
        let mut talk = self.talk();
        // Until nobody else has the connection.
        while talk.lost.is_none() && Arc::strong_count(&self) > 1 {
            if talk.somebody_reads {
                talk = self.changed.wait(talk).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            talk = self.read(talk, Instant::now() + SILENCE);
            let is_silent = talk.under_way > 0 && talk.heard.is_some_and(|heard| heard.elapsed() >= SILENCE);
            match asked {
                _ if !is_silent => asked = None,
                None => {
                    asked = Some(Instant::now());
                    let _ = self.send(&mut talk, "events off", None, Waiting::Nobody);
                }
                Some(since) if since.elapsed() >= PATIENCE => {
                    self.lose(talk, "it does not answer");
                    talk = self.talk();
                }
                Some(_) => {}
            }
        }
        self.lose(talk, "the connection has ended");
    }

    /// Sends a line. An error is that the server is gone, or takes nothing, and is in `lost` as well.
    fn send(
        &self,
        talk: &mut Talk,
        words: &str,
        descriptor: Option<BorrowedFd<'_>>,
        waiting: Waiting,
    ) -> io::Result<u64> {
        let sent = self.try_send(talk, words, descriptor, waiting);
        sent.inspect_err(|error| {
            talk.lost.get_or_insert(error.to_string());
        })
    }

    fn try_send(
        &self,
        talk: &mut Talk,
        words: &str,
        descriptor: Option<BorrowedFd<'_>>,
        waiting: Waiting,
    ) -> io::Result<u64> {
        talk.last_tag += 1;
        let tag = talk.last_tag;
        talk.waiting.insert(tag, waiting);
        let line = format!("{tag} {words}\n");
        let mut sent = 0;
        let until = Instant::now() + PATIENCE;
        while sent < line.len() {
            let descriptors: Vec<_> = descriptor.iter().copied().filter(|_| sent == 0).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let piece = &[IoSlice::new(&line.as_bytes()[sent..])];
            match sendmsg(&self.socket, piece, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => wait_for(&self.socket, PollFlags::OUT, until)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(tag)
    }

    /// Receives what comes, until then.
    fn receive(&self, until: Instant) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut piece = vec![0; LONGEST_LINE];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut piece)], &mut control, flags) {
                Ok(received) if received.bytes == 0 => return Err(io::Error::other("it has hung up")),
                Ok(received) => {
                    let mut descriptors = Vec::new();
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(came) = message {
                            descriptors.extend(came);
                        }
                    }
                    piece.truncate(received.bytes);
                    return Ok((piece, descriptors));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => wait_for(&self.socket, PollFlags::IN, until)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a line says of a page that was asked for. `None`: the server is too busy.
fn answer_of(words: &str) -> Option<Result<(), LoanFailure>> {
    match Answer::parse(words) {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == Some("busy") => None,
        Err(error) => {
            let message = error.get("message").unwrap_or_else(|| error.to_string());
            Some(Err(LoanFailure::Page(message)))
        }
    }
}

fn wait_for(socket: &UnixStream, what: PollFlags, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::new(socket, what)], Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Talk {
    fn take(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        self.received.extend_from_slice(bytes);
        self.descriptors.extend(descriptors);
    }

    fn next_line(&mut self) -> Option<String> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.received.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}
