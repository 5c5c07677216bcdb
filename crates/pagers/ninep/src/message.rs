//! The messages that a pager sends and gets.

use crate::attributes::{Attributes, Qid};
use crate::dialect::Dialect;
use crate::server_error::ServerError;
use crate::wire::{Decoder, Encoder, Malformed};

/// The type of a message; that of an answer is one more.
pub(crate) mod kind {
    pub(crate) const RLERROR: u8 = 7;
    pub(crate) const TSTATFS: u8 = 8;
    pub(crate) const TLOPEN: u8 = 12;
    pub(crate) const TLCREATE: u8 = 14;
    pub(crate) const TRENAME: u8 = 20;
    pub(crate) const TREADLINK: u8 = 22;
    pub(crate) const TGETATTR: u8 = 24;
    pub(crate) const TSETATTR: u8 = 26;
    pub(crate) const TXATTRWALK: u8 = 30;
    pub(crate) const TXATTRCREATE: u8 = 32;
    pub(crate) const TREADDIR: u8 = 40;
    pub(crate) const TFSYNC: u8 = 50;
    pub(crate) const TLOCK: u8 = 52;
    pub(crate) const TGETLOCK: u8 = 54;
    pub(crate) const TRENAMEAT: u8 = 74;
    pub(crate) const TVERSION: u8 = 100;
    pub(crate) const TAUTH: u8 = 102;
    pub(crate) const TATTACH: u8 = 104;
    pub(crate) const RERROR: u8 = 107;
    pub(crate) const TFLUSH: u8 = 108;
    pub(crate) const TWALK: u8 = 110;
    pub(crate) const TOPEN: u8 = 112;
    pub(crate) const TCREATE: u8 = 114;
    pub(crate) const TREAD: u8 = 116;
    pub(crate) const TWRITE: u8 = 118;
    pub(crate) const TCLUNK: u8 = 120;
    pub(crate) const TREMOVE: u8 = 122;
    pub(crate) const TSTAT: u8 = 124;
    pub(crate) const TWSTAT: u8 = 126;
}

/// The tag of Tversion, which no other message has.
pub(crate) const NO_TAG: u16 = 0xffff;
/// No fid: there was no authentication.
pub(crate) const NO_FID: u32 = 0xffff_ffff;
/// No number of a user: go by the name.
pub(crate) const NO_NUMBER: u32 = 0xffff_ffff;
/// What messages with data have around them at most, as intro(5) has it (IOHDRSZ).
pub(crate) const OVERHEAD_BYTES: u32 = 24;
/// The least msize with which a pager works.
pub(crate) const LEAST_MSIZE_BYTES: u32 = 256 + OVERHEAD_BYTES;
/// The size, the type and the tag.
pub(crate) const HEADER_BYTES: u32 = 7;
/// The most names in one Twalk (MAXWELEM).
pub(crate) const MOST_NAMES: usize = 16;
/// Tgetattr asks for all attributes.
const ALL_ATTRIBUTES: u64 = 0x3fff;
/// Tsetattr changes the length.
const SET_LENGTH: u32 = 0x8;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply<'a> {
    Version {
        msize_bytes: u32,
        name: &'a [u8],
    },
    Attach,
    /// The qids of the names that were walked: how many, and the last.
    Walk {
        count: usize,
        last: Option<Qid>,
    },
    Open {
        qid: Qid,
        unit_bytes: u32,
    },
    Read(&'a [u8]),
    /// Entries of a folder, as they stand: Rreaddir.
    Entries(&'a [u8]),
    Write {
        count: u32,
    },
    Attributes(Attributes),
    /// Anything without content.
    Done,
    Error(ServerError),
}

/// A message that was taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u8,
    pub(crate) tag: u16,
    pub(crate) reply: Reply<'a>,
}

impl<'a> Answer<'a> {
    /// Takes a whole message apart, with its size in front. Every byte of it has to belong to a field.
    pub(crate) fn decode(message: &'a [u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut from = Decoder::new(message);
        if usize::try_from(from.u32()?).ok() != Some(message.len()) {
            return Err(Malformed("a size is not that of its message"));
        }
        let (kind, tag) = (from.u8()?, from.u16()?);
        let reply = match kind.wrapping_sub(1) {
            _ if kind == kind::RLERROR => Reply::Error(ServerError::decode_number(from)?),
            _ if kind == kind::RERROR => Reply::Error(ServerError::decode_words(from, dialect)?),
            kind::TGETATTR => Reply::Attributes(Attributes::decode_getattr(from)?),
            kind::TSTAT => Reply::Attributes(Attributes::decode_stat(from)?),
            request => Reply::decode(request, from)?,
        };
        Ok(Self { kind, tag, reply })
    }
}

impl<'a> Reply<'a> {
    /// The body of the answer to a request of the type `request`.
    fn decode(request: u8, mut from: Decoder<'a>) -> Result<Self, Malformed> {
        let reply = match request {
            kind::TVERSION => Self::Version { msize_bytes: from.u32()?, name: from.string()? },
            kind::TATTACH => {
                Qid::decode(&mut from)?;
                Self::Attach
            }
            kind::TWALK => Self::decode_walk(&mut from)?,
            kind::TOPEN | kind::TLOPEN => {
                Self::Open { qid: Qid::decode(&mut from)?, unit_bytes: from.u32()? }
            }
            kind::TREAD => {
                let count = from.u32()?;
                Self::Read(from.bytes(count)?)
            }
            kind::TREADDIR => {
                let count = from.u32()?;
                Self::Entries(from.bytes(count)?)
            }
            kind::TWRITE => Self::Write { count: from.u32()? },
            kind::TFLUSH | kind::TCLUNK | kind::TSETATTR | kind::TFSYNC | kind::TWSTAT => Self::Done,
            _ => return Err(Malformed("a message of an unknown type")),
        };
        from.end()?;
        Ok(reply)
    }

    fn decode_walk(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let count = usize::from(from.u16()?);
        if count > MOST_NAMES {
            return Err(Malformed("Rwalk has too many qids"));
        }
        let mut last = None;
        for _ in 0..count {
            last = Some(Qid::decode(from)?);
        }
        Ok(Self::Walk { count, last })
    }
}

pub(crate) fn version(out: &mut Vec<u8>, msize_bytes: u32, name: &str) {
    Encoder::new(out, kind::TVERSION, NO_TAG).u32(msize_bytes).string(name.as_bytes()).end();
}

/// Who attaches: a name, and a number for the dialects that have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) number: u32,
}

pub(crate) fn attach(out: &mut Vec<u8>, tag: u16, fid: u32, (user, tree): (&User, &str), dialect: Dialect) {
    let message = Encoder::new(out, kind::TATTACH, tag).u32(fid).u32(NO_FID);
    let message = message.string(user.name.as_bytes()).string(tree.as_bytes());
    match dialect {
        Dialect::Plan9 => message.end(),
        Dialect::Unix | Dialect::Linux => message.u32(user.number).end(),
    }
}

/// `names` are at most [`MOST_NAMES`].
pub(crate) fn walk(out: &mut Vec<u8>, tag: u16, (from, to): (u32, u32), names: &[Vec<u8>]) {
    let count = u16::try_from(names.len()).unwrap_or(u16::MAX);
    let message = Encoder::new(out, kind::TWALK, tag).u32(from).u32(to).u16(count);
    names.iter().fold(message, |message, name| message.string(name)).end();
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenMode {
    Read,
    ReadWrite,
}

pub(crate) fn open(out: &mut Vec<u8>, tag: u16, fid: u32, mode: OpenMode, dialect: Dialect) {
    // ORDWR of Plan 9 and O_RDWR of Linux are the same number.
    let mode = if mode == OpenMode::ReadWrite { 2 } else { 0 };
    match dialect {
        Dialect::Linux => Encoder::new(out, kind::TLOPEN, tag).u32(fid).u32(mode.into()).end(),
        Dialect::Plan9 | Dialect::Unix => Encoder::new(out, kind::TOPEN, tag).u32(fid).u8(mode).end(),
    }
}

pub(crate) fn read(out: &mut Vec<u8>, tag: u16, fid: u32, offset: u64, count: u32) {
    Encoder::new(out, kind::TREAD, tag).u32(fid).u64(offset).u32(count).end();
}

/// `bytes` are no more than fit into a message.
pub(crate) fn write(out: &mut Vec<u8>, tag: u16, fid: u32, offset: u64, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Encoder::new(out, kind::TWRITE, tag).u32(fid).u64(offset).u32(count).bytes(bytes).end();
}

/// Treaddir, of 9P2000.L: `offset` is that of the entry before, or zero.
pub(crate) fn readdir(out: &mut Vec<u8>, tag: u16, fid: u32, offset: u64, count: u32) {
    Encoder::new(out, kind::TREADDIR, tag).u32(fid).u64(offset).u32(count).end();
}

pub(crate) fn clunk(out: &mut Vec<u8>, tag: u16, fid: u32) {
    Encoder::new(out, kind::TCLUNK, tag).u32(fid).end();
}

pub(crate) fn flush(out: &mut Vec<u8>, tag: u16, old: u16) {
    Encoder::new(out, kind::TFLUSH, tag).u16(old).end();
}

/// Tgetattr or Tstat.
pub(crate) fn stat(out: &mut Vec<u8>, tag: u16, fid: u32, dialect: Dialect) {
    match dialect {
        Dialect::Linux => Encoder::new(out, kind::TGETATTR, tag).u32(fid).u64(ALL_ATTRIBUTES).end(),
        Dialect::Plan9 | Dialect::Unix => Encoder::new(out, kind::TSTAT, tag).u32(fid).end(),
    }
}

/// Tfsync; or a Twstat that changes nothing, which means to commit the file to stable storage: stat(5).
pub(crate) fn sync(out: &mut Vec<u8>, tag: u16, fid: u32, dialect: Dialect) {
    match dialect {
        // The last field says that data alone is not enough.
        Dialect::Linux => Encoder::new(out, kind::TFSYNC, tag).u32(fid).u32(0).end(),
        Dialect::Plan9 | Dialect::Unix => wstat(out, tag, fid, u64::MAX, dialect),
    }
}

/// Tsetattr or Twstat.
pub(crate) fn set_length(out: &mut Vec<u8>, tag: u16, fid: u32, length: u64, dialect: Dialect) {
    match dialect {
        Dialect::Linux => {
            let message = Encoder::new(out, kind::TSETATTR, tag).u32(fid).u32(SET_LENGTH);
            // mode, uid, gid; length; times of access and change
            message.u32(0).u32(0).u32(0).u64(length).u64(0).u64(0).u64(0).u64(0).end();
        }
        Dialect::Plan9 | Dialect::Unix => wstat(out, tag, fid, length, dialect),
    }
}

/// A Twstat that says "do not touch" of all but the length: all bits set, and empty strings.
fn wstat(out: &mut Vec<u8>, tag: u16, fid: u32, length: u64, dialect: Dialect) {
    const KEPT: u32 = u32::MAX;
    let extra: u16 = if dialect == Dialect::Unix { 2 + 3 * 4 } else { 0 };
    // type, dev; qid; mode, atime, mtime; length; name, uid, gid, muid
    let size: u16 = 2 + 4 + 13 + 3 * 4 + 8 + 4 * 2 + extra;
    let message = Encoder::new(out, kind::TWSTAT, tag).u32(fid).u16(size + 2).u16(size);
    let message = message.u16(u16::MAX).u32(KEPT).u8(u8::MAX).u32(KEPT).u64(u64::MAX);
    let message = message.u32(KEPT).u32(KEPT).u32(KEPT).u64(length).string(b"").string(b"").string(b"");
    let message = message.string(b"");
    match dialect {
        Dialect::Unix => message.string(b"").u32(KEPT).u32(KEPT).u32(KEPT).end(),
        Dialect::Plan9 | Dialect::Linux => message.end(),
    }
}
