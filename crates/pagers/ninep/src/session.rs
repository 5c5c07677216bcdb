//! Makes a connection on which the file is open: connect, version, attach, walk, open, stat.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::attributes::{Attributes, Qid};
use crate::dialect::Dialect;
use crate::exchange;
use crate::frames::Frames;
use crate::message::{
    self, Answer, LEAST_MSIZE_BYTES, MOST_NAMES, NO_TAG, OVERHEAD_BYTES, OpenMode, Reply, User, kind,
};
use crate::open_error::{Cause, OpenError, OpenStep};
use crate::stream::{ConnectError, Stream};

/// The fid of the tree, and that of the file.
const ROOT: u32 = 0;
pub(crate) const FILE: u32 = 1;
/// The tag of each request before the file is open: they are made one by one.
const TAG: u16 = 0;

/// What is opened, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) names: Vec<Vec<u8>>,
    pub(crate) user: User,
    pub(crate) tree: String,
    pub(crate) mode: OpenMode,
    pub(crate) msize_bytes: u32,
    /// In the order in which they are tried.
    pub(crate) dialects: Vec<Dialect>,
    /// How long each step may take.
    pub(crate) limit: Duration,
}

/// A connection on which the file is open as [`FILE`].
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: Arc<Stream>,
    pub(crate) frames: Frames,
    pub(crate) dialect: Dialect,
    /// The most data in one message.
    pub(crate) payload_bytes: u32,
    pub(crate) attributes: Attributes,
}

/// A connection on which one thing is asked after the other, between two dialogues.
#[derive(Debug)]
pub(crate) struct Line {
    stream: Arc<Stream>,
    frames: Frames,
    dialect: Dialect,
    msize_bytes: u32,
}

/// Asks one thing after the other on a connection.
pub(crate) struct Dialogue<'a> {
    target: &'a Target,
    stream: Arc<Stream>,
    frames: Frames,
    dialect: Dialect,
    msize_bytes: u32,
    /// When the step that is under way has to be done.
    until: Instant,
    out: Vec<u8>,
}

impl Target {
    /// Makes a connection and opens the file. Blocks; each step at most for the limit.
    pub(crate) fn establish(&self) -> Result<Session, OpenError> {
        self.attached()?.open()
    }

    /// Makes a connection and attaches. Blocks; each step at most for the limit.
    pub(crate) fn attached(&self) -> Result<Dialogue<'_>, OpenError> {
        let mut dialogue = self.agreed()?;
        dialogue.attach()?;
        Ok(dialogue)
    }

    fn agreed(&self) -> Result<Dialogue<'_>, OpenError> {
        let mut dialogue = Dialogue::connect(self)?;
        for index in 0..self.dialects.len() {
            let left = self.dialects.get(index..).unwrap_or_default();
            match dialogue.agree(left) {
                Ok(true) => return Ok(dialogue),
                Ok(false) => {}
                // Some servers end the connection instead of an answer.
                Err(_) if left.len() > 1 => dialogue = Dialogue::connect(self)?,
                Err(error) => return Err(error),
            }
        }
        let names: Vec<_> = self.dialects.iter().map(|dialect| dialect.name()).collect();
        Err(self.wrong(OpenStep::Version, format!("the server does not speak {}", names.join(", "))))
    }

    pub(crate) fn fail(&self, step: OpenStep, cause: Cause) -> OpenError {
        OpenError::new(self.address.to_string(), step, cause)
    }

    pub(crate) fn wrong(&self, step: OpenStep, what: impl Into<String>) -> OpenError {
        self.fail(step, Cause::Answer(what.into()))
    }
}

impl<'a> Dialogue<'a> {
    fn connect(target: &'a Target) -> Result<Self, OpenError> {
        let stream = Stream::connect(&target.address, target.limit).map_err(|error| match error {
            ConnectError::Resolve(error) => target.fail(OpenStep::Resolve, Cause::Connection(error)),
            ConnectError::Connect(error) => target.fail(OpenStep::Connect, Cause::Connection(error)),
        })?;
        let set = stream.set_write_timeout(Some(target.limit));
        set.map_err(|error| target.fail(OpenStep::Connect, Cause::Connection(error)))?;
        Ok(Self {
            target,
            stream: Arc::new(stream),
            frames: Frames::new(target.msize_bytes),
            dialect: Dialect::Plan9,
            msize_bytes: target.msize_bytes,
            until: Instant::now() + target.limit,
            out: Vec::new(),
        })
    }

    /// Goes on with a connection on which the tree is attached.
    pub(crate) fn resume(target: &'a Target, line: Line) -> Self {
        let Line { stream, frames, dialect, msize_bytes } = line;
        Self { target, stream, frames, dialect, msize_bytes, until: Instant::now(), out: Vec::new() }
    }

    /// Keeps the connection for later.
    pub(crate) fn into_line(self) -> Line {
        let Self { stream, frames, dialect, msize_bytes, .. } = self;
        Line { stream, frames, dialect, msize_bytes }
    }

    /// The dialect that was agreed on.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The most data in one message.
    fn payload_bytes(&self, unit_bytes: u32) -> u32 {
        let most = self.msize_bytes - OVERHEAD_BYTES;
        if unit_bytes == 0 { most } else { most.min(unit_bytes) }
    }

    /// Sends the request that is in `out`, and gives the answer to it to `take`.
    fn ask<R>(
        &mut self,
        step: &OpenStep,
        (request, tag): (u8, u16),
        take: impl FnOnce(Reply<'_>) -> Option<R>,
    ) -> Result<R, OpenError> {
        self.until = Instant::now() + self.target.limit;
        let failed = |cause| self.target.fail(step.clone(), cause);
        (&*self.stream).write_all(&self.out).map_err(|error| failed(Cause::Connection(error)))?;
        self.out.clear();
        let bytes = exchange::next(&mut self.frames, &self.stream, self.until).map_err(failed)?;
        let wrong = |what: &str| failed(Cause::Answer(what.into()));
        let answer = Answer::decode(bytes, self.dialect).map_err(|malformed| wrong(malformed.0))?;
        if answer.tag != tag {
            return Err(wrong("the answer has another tag"));
        }
        match answer.reply {
            Reply::Error(error) => Err(failed(Cause::Server(error))),
            reply if answer.kind == request + 1 => take(reply).ok_or_else(|| wrong("an unexpected answer")),
            _ => Err(wrong("the answer has another type")),
        }
    }

    /// Offers the first of `dialects`. Whether the server took it, or a lesser one of them.
    fn agree(&mut self, dialects: &[Dialect]) -> Result<bool, OpenError> {
        let Some(offered) = dialects.first() else { return Ok(false) };
        self.dialect = *offered;
        message::version(&mut self.out, self.target.msize_bytes, offered.name());
        let answer = self.ask(&OpenStep::Version, (kind::TVERSION, NO_TAG), |reply| match reply {
            Reply::Version { msize_bytes, name } => {
                Some((msize_bytes, Dialect::named(name), name == b"unknown"))
            }
            _ => None,
        });
        let (msize_bytes, dialect) = match answer {
            Err(error) if error.server_error().is_some() => return Ok(false),
            Err(error) => return Err(error),
            Ok((_, _, true)) => return Ok(false),
            Ok((msize_bytes, dialect, false)) => (msize_bytes, dialect),
        };
        self.dialect = match dialect {
            Some(dialect) if dialects.contains(&dialect) => dialect,
            _ => return Ok(false),
        };
        if !(LEAST_MSIZE_BYTES..=self.target.msize_bytes).contains(&msize_bytes) {
            let what =
                format!("the server answers {} with a msize of {msize_bytes}", self.target.msize_bytes);
            return Err(self.target.wrong(OpenStep::Version, what));
        }
        self.msize_bytes = msize_bytes;
        self.frames.limit(msize_bytes);
        Ok(true)
    }

    fn attach(&mut self) -> Result<(), OpenError> {
        message::attach(&mut self.out, TAG, ROOT, (&self.target.user, &self.target.tree), self.dialect);
        let is_attached = |reply: Reply<'_>| (reply == Reply::Attach).then_some(());
        self.ask(&OpenStep::Attach, (kind::TATTACH, TAG), is_attached)
    }

    /// Walk, open, stat.
    fn open(mut self) -> Result<Session, OpenError> {
        self.walk(&self.target.names)?;
        let (qid, unit_bytes) = self.open_file(self.target.mode)?;
        if qid.is_folder() {
            return Err(self.target.fail(OpenStep::Open, Cause::IsFolder));
        }
        let attributes = self.stat()?;
        let payload_bytes = self.payload_bytes(unit_bytes);
        let Self { stream, frames, dialect, .. } = self;
        Ok(Session { stream, frames, dialect, payload_bytes, attributes })
    }

    /// Opens [`FILE`]: its qid, and the most bytes of a message of it, or 0.
    fn open_file(&mut self, mode: OpenMode) -> Result<(Qid, u32), OpenError> {
        message::open(&mut self.out, TAG, FILE, mode, self.dialect);
        let request = if self.dialect == Dialect::Linux { kind::TLOPEN } else { kind::TOPEN };
        self.ask(&OpenStep::Open, (request, TAG), |reply| match reply {
            Reply::Open { qid, unit_bytes } => Some((qid, unit_bytes)),
            _ => None,
        })
    }

    /// The attributes of [`FILE`].
    pub(crate) fn stat(&mut self) -> Result<Attributes, OpenError> {
        message::stat(&mut self.out, TAG, FILE, self.dialect);
        let request = if self.dialect == Dialect::Linux { kind::TGETATTR } else { kind::TSTAT };
        self.ask(&OpenStep::Stat, (request, TAG), |reply| match reply {
            Reply::Attributes(attributes) => Some(attributes),
            _ => None,
        })
    }

    /// Gives [`FILE`] back, so that the connection can be used for another.
    pub(crate) fn clunk(&mut self) -> Result<(), OpenError> {
        message::clunk(&mut self.out, TAG, FILE);
        self.ask(&OpenStep::Stat, (kind::TCLUNK, TAG), |reply| (reply == Reply::Done).then_some(()))
    }

    /// Opens [`FILE`], which is a folder, and gives each answer with entries of it to `take`, which returns where the next one is
    /// to begin; `None`: it has had enough.
    pub(crate) fn entries(
        &mut self,
        mut take: impl FnMut(u64, &[u8]) -> Result<Option<u64>, OpenError>,
    ) -> Result<(), OpenError> {
        let (qid, unit_bytes) = self.open_file(OpenMode::Read)?;
        if !qid.is_folder() {
            return Err(self.target.wrong(OpenStep::Open, "it is no folder"));
        }
        let most = self.payload_bytes(unit_bytes);
        let mut offset = 0;
        loop {
            let is_linux = self.dialect == Dialect::Linux;
            let request = if is_linux { kind::TREADDIR } else { kind::TREAD };
            match is_linux {
                true => message::readdir(&mut self.out, TAG, FILE, offset, most),
                false => message::read(&mut self.out, TAG, FILE, offset, most),
            }
            let next = self.ask(&OpenStep::List, (request, TAG), |reply| match reply {
                Reply::Entries(bytes) | Reply::Read(bytes) if bytes.is_empty() => Some(Ok(None)),
                Reply::Entries(bytes) | Reply::Read(bytes) if bytes.len() as u64 <= u64::from(most) => {
                    Some(take(offset, bytes))
                }
                _ => None,
            })??;
            match next {
                Some(next) => offset = next,
                None => return Ok(()),
            }
        }
    }

    /// Walks from [`ROOT`] to what becomes [`FILE`]: some names at once. If it fails [`FILE`] is nothing, as before.
    pub(crate) fn walk(&mut self, names: &[Vec<u8>]) -> Result<(), OpenError> {
        let target = self.target;
        let mut from = ROOT;
        let mut names = names;
        loop {
            let (some, rest) = names.split_at(names.len().min(MOST_NAMES));
            message::walk(&mut self.out, TAG, (from, FILE), some);
            let step = |index: usize| {
                let name = some.get(index).map_or("/".into(), |name| String::from_utf8_lossy(name));
                OpenStep::Walk(name.into_owned())
            };
            let walked = self.ask(&step(0), (kind::TWALK, TAG), |reply| match reply {
                Reply::Walk { count, .. } => Some(count),
                _ => None,
            });
            let walked = walked.and_then(|count| match count == some.len() {
                true => Ok(()),
                false => {
                    let error = crate::server_error::ServerError::new("file not found", None);
                    Err(target.fail(step(count), Cause::Server(error)))
                }
            });
            if let Err(error) = walked {
                if from == FILE && error.server_error().is_some() {
                    self.clunk()?;
                }
                return Err(error);
            }
            if rest.is_empty() {
                return Ok(());
            }
            (from, names) = (FILE, rest);
        }
    }
}
