//! What clients ask, as far as it matters for their fids.

use crate::dialect::Dialect;
use crate::message::kind;
use crate::wire::{Decoder, Malformed};

/// A name of a path.
pub(super) type Name = Vec<u8>;

/// A request, taken apart as far as is needed to do it again on another connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Version,
    Auth,
    /// `rest` is what is behind the fids: who attaches, and to what.
    Attach {
        fid: u32,
        authentication: u32,
        rest: Vec<u8>,
    },
    Walk {
        fid: u32,
        to: u32,
        names: Vec<Name>,
    },
    Open {
        fid: u32,
        mode: u32,
    },
    Create {
        fid: u32,
        name: Name,
        mode: u32,
    },
    Clunk {
        fid: u32,
    },
    Remove {
        fid: u32,
    },
    Read {
        fid: u32,
        offset: u64,
    },
    Write {
        fid: u32,
    },
    Sync {
        fid: u32,
    },
    /// Twstat and Trename that give another name.
    Rename {
        fid: u32,
        folder: Option<u32>,
        name: Name,
    },
    RenameAt {
        from: (u32, Name),
        to: (u32, Name),
    },
    AttributesWalk {
        fid: u32,
        to: u32,
    },
    AttributesCreate {
        fid: u32,
    },
    Lock {
        fid: u32,
    },
    Flush {
        old: u16,
    },
    /// Does the same if it is done twice.
    Repeatable {
        fid: u32,
    },
    /// Does not, or is not known.
    Once {
        fid: Option<u32>,
    },
}

impl Asked {
    /// Takes the body of a request apart.
    pub(super) fn decode(kind: u8, body: &[u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut from = Decoder::new(body);
        let name = |from: &mut Decoder<'_>| from.string().map(<[u8]>::to_vec);
        Ok(match kind {
            kind::TVERSION => Self::Version,
            kind::TAUTH => Self::Auth,
            kind::TFLUSH => Self::Flush { old: from.u16()? },
            kind::TATTACH => {
                let (fid, authentication) = (from.u32()?, from.u32()?);
                Self::Attach { fid, authentication, rest: from.rest().to_vec() }
            }
            kind::TWALK => Self::decode_walk(from)?,
            kind::TOPEN => Self::Open { fid: from.u32()?, mode: u32::from(from.u8()?) },
            kind::TLOPEN => Self::Open { fid: from.u32()?, mode: from.u32()? },
            kind::TLCREATE => Self::Create { fid: from.u32()?, name: name(&mut from)?, mode: from.u32()? },
            kind::TCREATE => {
                let (fid, name) = (from.u32()?, name(&mut from)?);
                from.u32()?;
                Self::Create { fid, name, mode: u32::from(from.u8()?) }
            }
            kind::TCLUNK => Self::Clunk { fid: from.u32()? },
            kind::TREMOVE => Self::Remove { fid: from.u32()? },
            kind::TREAD => Self::Read { fid: from.u32()?, offset: from.u64()? },
            kind::TWRITE => Self::Write { fid: from.u32()? },
            kind::TFSYNC => Self::Sync { fid: from.u32()? },
            kind::TRENAME => {
                let (fid, folder) = (from.u32()?, from.u32()?);
                Self::Rename { fid, folder: Some(folder), name: name(&mut from)? }
            }
            kind::TRENAMEAT => {
                let was = (from.u32()?, name(&mut from)?);
                Self::RenameAt { from: was, to: (from.u32()?, name(&mut from)?) }
            }
            kind::TWSTAT => Self::decode_wstat(from, dialect)?,
            kind::TXATTRWALK => Self::AttributesWalk { fid: from.u32()?, to: from.u32()? },
            kind::TXATTRCREATE => Self::AttributesCreate { fid: from.u32()? },
            kind::TLOCK => Self::Lock { fid: from.u32()? },
            kind::TSTATFS | kind::TREADLINK | kind::TGETATTR | kind::TSETATTR | kind::TREADDIR => {
                Self::Repeatable { fid: from.u32()? }
            }
            kind::TSTAT | kind::TGETLOCK => Self::Repeatable { fid: from.u32()? },
            _ => Self::Once { fid: from.u32().ok() },
        })
    }

    fn decode_walk(mut from: Decoder<'_>) -> Result<Self, Malformed> {
        let (fid, to, count) = (from.u32()?, from.u32()?, from.u16()?);
        if usize::from(count) > crate::message::MOST_NAMES {
            return Err(Malformed("Twalk has too many names"));
        }
        let names = (0..count).map(|_| from.string().map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        Ok(Self::Walk { fid, to, names })
    }

    /// A Twstat that changes nothing is a sync, one that changes a name is a rename: stat(5).
    fn decode_wstat(mut from: Decoder<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        let fid = from.u32()?;
        from.bytes(2 + 2)?;
        let fixed = from.bytes(2 + 4 + 13 + 3 * 4 + 8)?;
        let name = from.string()?.to_vec();
        let others = [from.string()?, from.string()?, from.string()?];
        if !name.is_empty() {
            return Ok(Self::Rename { fid, folder: None, name });
        }
        let extra = if dialect == Dialect::Unix { from.string()?.len() } else { 0 };
        let numbers = from.rest().iter().all(|byte| *byte == u8::MAX);
        let keeps_all = fixed.iter().all(|byte| *byte == u8::MAX) && numbers && extra == 0;
        let is_sync = keeps_all && others.iter().all(|name| name.is_empty());
        Ok(if is_sync { Self::Sync { fid } } else { Self::Repeatable { fid } })
    }

    /// The fid that the request is about, if it has to be there.
    pub(super) fn fid(&self) -> Option<u32> {
        match self {
            Self::Version | Self::Auth | Self::Attach { .. } | Self::Flush { .. } => None,
            Self::Once { fid } => *fid,
            Self::RenameAt { from, .. } => Some(from.0),
            Self::Walk { fid, .. }
            | Self::Open { fid, .. }
            | Self::Create { fid, .. }
            | Self::Clunk { fid }
            | Self::Remove { fid }
            | Self::Read { fid, .. }
            | Self::Write { fid }
            | Self::Sync { fid }
            | Self::Rename { fid, .. }
            | Self::AttributesWalk { fid, .. }
            | Self::AttributesCreate { fid }
            | Self::Lock { fid }
            | Self::Repeatable { fid } => Some(*fid),
        }
    }

    /// Whether it can be asked again when it is not known whether it was done.
    pub(super) fn can_be_repeated(&self) -> bool {
        match self {
            Self::Version | Self::Attach { .. } | Self::Walk { .. } | Self::Open { .. } => true,
            Self::Clunk { .. } | Self::Read { .. } | Self::Write { .. } | Self::Sync { .. } => true,
            Self::AttributesWalk { .. } | Self::Repeatable { .. } => true,
            Self::Auth | Self::Create { .. } | Self::Remove { .. } | Self::Rename { .. } => false,
            Self::RenameAt { .. } | Self::AttributesCreate { .. } | Self::Lock { .. } => false,
            // Answered at once: the connection that it was about is gone.
            Self::Flush { .. } | Self::Once { .. } => false,
        }
    }
}
