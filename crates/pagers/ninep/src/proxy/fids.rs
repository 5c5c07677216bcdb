//! The fids of a client, and how to get each of them again on another connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::request::{Asked, Name};
use crate::attributes::Qid;
use crate::dialect::Dialect;
use crate::message::{NO_FID, kind};
use crate::wire::Decoder;

/// The bits of [`Qid::kind`] of files that can only be appended to, and of authentication.
const APPEND: u8 = 0x40;
/// Opening of Plan 9: cut off; remove when the fid is clunked.
const TRUNCATE: u32 = 0x10;
const REMOVE: u32 = 0x40;
/// Opening of Linux: create, exclusive, cut off, append.
const LINUX_ONCE: u32 = 0o100 | 0o200 | 0o1000;
const LINUX_APPEND: u32 = 0o2000;
/// More files that were written and not synced are not told apart.
const MOST_FILES: usize = 4096;

/// The longest path of a fid, in bytes: more than any server takes.
const LONGEST_PATH: usize = 16 << 10;

/// A path: the tree that was attached to, and the names.
pub(super) type Path = (Arc<[u8]>, Vec<Name>);

/// How a file was opened; without what must not be done twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    /// Tlopen, not Topen.
    pub(super) by_linux: bool,
    pub(super) mode: u32,
    appends: bool,
}

/// A fid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fid {
    pub(super) path: Path,
    pub(super) qid: Qid,
    pub(super) opened: Option<Opened>,
    /// Up to where a folder was read, in 9P2000 and 9P2000.u: reading can only go on from there.
    pub(super) read_up_to: u64,
    /// Why it cannot be got again: it has a lock, removes its file, or is about attributes.
    pub(super) once: Option<&'static str>,
    /// Why it was not got again. Every request for it is answered with this.
    pub(super) dead: Option<Dead>,
}

/// An error that the proxy answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dead {
    pub(super) number: u32,
    pub(super) words: String,
}

impl Dead {
    pub(super) fn new(number: u32, words: impl Into<String>) -> Self {
        Self { number, words: words.into() }
    }
}

/// Files, in bounded memory: where there are too many, all belong to it.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeSet<Path>,
    is_all: bool,
}

impl Files {
    pub(super) fn add(&mut self, path: &Path) {
        self.is_all |= self.files.len() >= MOST_FILES;
        if !self.is_all {
            self.files.insert(path.clone());
        }
    }

    /// Takes a file out, and says whether it was in. Of "all" none is taken out.
    pub(super) fn remove(&mut self, path: &Path) -> bool {
        self.files.remove(path) || self.is_all
    }

    fn take_from(&mut self, other: &mut Files) {
        self.is_all |= std::mem::take(&mut other.is_all);
        std::mem::take(&mut other.files).iter().for_each(|path| self.add(path));
    }
}

/// All fids of a client.
#[derive(Debug, Default)]
pub(super) struct Fids {
    pub(super) fids: BTreeMap<u32, Fid>,
    /// Files that were written and not synced since.
    unsynced: Files,
    /// Those of them of which a server that restarted may have lost something.
    doubtful: Files,
    /// Somebody authenticated: nobody can do that again but the client.
    pub(super) is_authenticated: bool,
}

impl Fids {
    /// Why requests for `fid` are not sent.
    pub(super) fn dead(&self, fid: Option<u32>) -> Option<Dead> {
        self.fids.get(&fid?)?.dead.clone()
    }

    /// Whether walking `names` from `fid` makes a path that is too long to be kept.
    pub(super) fn is_too_long(&self, fid: u32, names: &[Name]) -> bool {
        let before = self.fids.get(&fid).map(|fid| fid.path.1.as_slice()).unwrap_or_default();
        before.iter().chain(names).map(|name| name.len() + 1).sum::<usize>() > LONGEST_PATH
    }

    /// Whether a sync of the file of `fid` has to fail, since writes to it may be lost. Says so once.
    pub(super) fn has_lost_writes(&mut self, fid: u32) -> bool {
        let path = self.fids.get(&fid).map(|fid| fid.path.clone());
        path.is_some_and(|path| self.doubtful.remove(&path))
    }

    /// Whether the request adds to the end of a file: doing so twice is not doing so once.
    pub(super) fn appends(&self, asked: &Asked) -> bool {
        let Asked::Write { fid } = asked else { return false };
        let opened = self.fids.get(fid).and_then(|fid| fid.opened);
        opened.is_some_and(|opened| opened.appends)
    }

    /// The connection is lost.
    pub(super) fn connection_lost(&mut self) {
        self.doubtful.take_from(&mut self.unsynced);
    }

    /// The server did what was asked; `reply` is the body of its answer.
    pub(super) fn done(&mut self, asked: &Asked, (answer, reply): (u8, &[u8]), dialect: Dialect) {
        match asked {
            Asked::Version => *self = Self::default(),
            Asked::Auth => self.is_authenticated = true,
            Asked::Attach { fid, authentication, rest } => {
                self.is_authenticated |= *authentication != NO_FID;
                self.insert(*fid, (rest.as_slice().into(), Vec::new()), qid(reply));
            }
            Asked::Walk { fid, to, names } => self.walked(*fid, *to, names, reply),
            Asked::Open { fid, mode } => self.opened(*fid, *mode, answer, reply),
            Asked::Create { fid, name, mode } => {
                if let Some(fid) = self.fids.get_mut(fid) {
                    fid.path.1.push(name.clone());
                }
                self.opened(*fid, *mode, answer, reply);
            }
            Asked::Clunk { fid } | Asked::Remove { fid } => drop(self.fids.remove(fid)),
            Asked::Read { fid, offset } => self.read(*fid, *offset, reply, dialect),
            Asked::Write { fid } => {
                if let Some(fid) = self.fids.get(fid) {
                    self.unsynced.add(&fid.path);
                }
            }
            Asked::Sync { fid } => {
                if let Some(fid) = self.fids.get(fid) {
                    self.unsynced.remove(&fid.path);
                }
            }
            Asked::Rename { .. } | Asked::RenameAt { .. } => self.renamed(asked),
            Asked::AttributesWalk { fid, to } => self.attributes(*fid, *to),
            Asked::AttributesCreate { fid } => self.mark(*fid, "it is about attributes"),
            Asked::Lock { fid } => self.mark(*fid, "its lock is lost"),
            Asked::Flush { .. } | Asked::Repeatable { .. } | Asked::Once { .. } => {}
        }
    }

    /// The server refused. Tclunk and Tremove end the fid all the same.
    pub(super) fn refused(&mut self, asked: &Asked) {
        if let Asked::Clunk { fid } | Asked::Remove { fid } = asked {
            self.fids.remove(fid);
        }
    }

    fn insert(&mut self, fid: u32, path: Path, qid: Qid) {
        let new = Fid { path, qid, opened: None, read_up_to: 0, once: None, dead: None };
        self.fids.insert(fid, new);
    }

    fn mark(&mut self, fid: u32, why: &'static str) {
        if let Some(fid) = self.fids.get_mut(&fid) {
            fid.once = Some(why);
        }
    }

    fn walked(&mut self, fid: u32, to: u32, names: &[Name], reply: &[u8]) {
        let mut reply = Decoder::new(reply);
        let Some(Fid { path, qid, .. }) = self.fids.get(&fid).cloned() else { return };
        if reply.u16().map(usize::from) != Ok(names.len()) {
            return;
        }
        let (mut path, mut qid) = (path, qid);
        for name in names {
            match &name[..] {
                b".." => drop(path.1.pop()),
                b"." => {}
                _ => path.1.push(name.clone()),
            }
            qid = Qid::decode(&mut reply).unwrap_or(qid);
        }
        self.insert(to, path, qid);
    }

    fn opened(&mut self, fid: u32, mode: u32, answer: u8, reply: &[u8]) {
        let Some(fid) = self.fids.get_mut(&fid) else { return };
        let by_linux = matches!(answer.wrapping_sub(1), kind::TLOPEN | kind::TLCREATE);
        fid.qid = qid(reply);
        let appends = fid.qid.kind & APPEND != 0 || by_linux && mode & LINUX_APPEND != 0;
        let kept = if by_linux { mode & !LINUX_ONCE } else { mode & !TRUNCATE };
        fid.opened = Some(Opened { by_linux, mode: kept, appends });
        if !by_linux && mode & REMOVE != 0 {
            fid.once = Some("its file was to be removed with it");
        }
    }

    fn read(&mut self, fid: u32, offset: u64, reply: &[u8], dialect: Dialect) {
        let Some(fid) = self.fids.get_mut(&fid) else { return };
        if dialect != Dialect::Linux && fid.qid.is_folder() {
            let count = Decoder::new(reply).u32().unwrap_or(0);
            fid.read_up_to = offset.saturating_add(u64::from(count));
        }
    }

    fn attributes(&mut self, fid: u32, to: u32) {
        if let Some(Fid { path, qid, .. }) = self.fids.get(&fid).cloned() {
            self.insert(to, path, qid);
            self.mark(to, "it is about attributes");
        }
    }

    /// The names below what was renamed change for all fids.
    fn renamed(&mut self, asked: &Asked) {
        let path_of = |fid: &u32| self.fids.get(fid).map(|fid| fid.path.clone());
        let (was, is) = match asked {
            Asked::Rename { fid, folder, name } => {
                let Some(was) = path_of(fid) else { return };
                let mut is = was.clone();
                is.1.pop();
                if let Some(folder) = folder {
                    let Some(path) = path_of(folder) else { return };
                    is = path;
                }
                is.1.push(name.clone());
                (was, is)
            }
            Asked::RenameAt { from, to } => {
                let (Some(mut was), Some(mut is)) = (path_of(&from.0), path_of(&to.0)) else { return };
                was.1.push(from.1.clone());
                is.1.push(to.1.clone());
                (was, is)
            }
            _ => return,
        };
        for fid in self.fids.values_mut().filter(|fid| fid.path.0 == was.0) {
            if let Some(rest) = fid.path.1.strip_prefix(&was.1[..]) {
                fid.path.1 = [&is.1[..], rest].concat();
            }
        }
    }
}

/// The qid at the front of an answer.
fn qid(reply: &[u8]) -> Qid {
    Qid::decode(&mut Decoder::new(reply)).unwrap_or_default()
}
