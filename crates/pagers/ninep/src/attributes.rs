//! What a server says of a file: qid, length, time of the last change.

use crate::wire::{Decoder, Malformed};

/// The bit of [`Qid::kind`] of a folder.
pub(crate) const FOLDER: u8 = 0x80;
/// The bit of a symbolic link, in 9P2000.u and 9P2000.L.
const LINK: u8 = 0x02;
/// The bits of a mode of Linux that say what a file is; of a folder and of a regular file.
const TYPE_BITS: u32 = 0o170_000;
const FOLDER_TYPE: u32 = 0o040_000;
const FILE_TYPE: u32 = 0o100_000;
/// The bits of a mode of 9P2000.u of all that is no folder and no regular file: link, device, pipe, socket.
const UNIX_OTHERS: u32 = 0x02b0_0000;
/// Bits of `valid` in Rgetattr (protocol of 9P2000.L): the length, the time of the last change, the version of the data.
const HAS_MTIME: u64 = 0x20;
const HAS_LENGTH: u64 = 0x200;
const HAS_DATA_VERSION: u64 = 0x2000;

/// What a server calls the same file: intro(5). `version` is 0 in most servers, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Qid {
    pub(crate) kind: u8,
    pub(crate) version: u32,
    pub(crate) path: u64,
}

impl Qid {
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self { kind: from.u8()?, version: from.u32()?, path: from.u64()? })
    }

    pub(crate) fn is_folder(self) -> bool {
        self.kind & FOLDER != 0
    }

    /// What it is of, as far as it says.
    pub(crate) fn kind_alone(self) -> FileKind {
        match () {
            () if self.is_folder() => FileKind::Folder,
            () if self.kind & LINK != 0 => FileKind::Other,
            () => FileKind::File,
        }
    }

    /// The same with a mode of Linux. A server that has none sends zeros.
    fn kind_with(self, mode: u32) -> FileKind {
        match mode & TYPE_BITS {
            0 => self.kind_alone(),
            FOLDER_TYPE => FileKind::Folder,
            FILE_TYPE => FileKind::File,
            _ => FileKind::Other,
        }
    }
}

/// What a name of a folder stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FileKind {
    Folder,
    #[default]
    File,
    /// A link, a device, a pipe, a socket: nothing that a pager opens.
    Other,
}

/// The attributes of a file by which its versions are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) qid: Qid,
    pub(crate) kind: FileKind,
    pub(crate) length: u64,
    pub(crate) mtime_seconds: u64,
    /// 0 in 9P2000 and 9P2000.u, which have none.
    pub(crate) mtime_nanoseconds: u64,
    /// 0 unless the server has it.
    pub(crate) data_version: u64,
}

impl Attributes {
    /// The body of Rgetattr.
    pub(crate) fn decode_getattr(mut from: Decoder<'_>) -> Result<Self, Malformed> {
        let valid = from.u64()?;
        if valid & (HAS_MTIME | HAS_LENGTH) != HAS_MTIME | HAS_LENGTH {
            return Err(Malformed("Rgetattr has no length or no time"));
        }
        let qid = Qid::decode(&mut from)?;
        let mode = from.u32()?;
        // uid, gid; nlink, rdev
        from.bytes(4 + 4 + 8 + 8)?;
        let length = from.u64()?;
        // blksize, blocks; atime
        from.bytes(8 + 8 + 16)?;
        let (mtime_seconds, mtime_nanoseconds) = (from.u64()?, from.u64()?);
        // ctime, btime; gen
        from.bytes(16 + 16 + 8)?;
        let data_version = from.u64()?;
        from.end()?;
        let data_version = if valid & HAS_DATA_VERSION != 0 { data_version } else { 0 };
        Ok(Self { qid, kind: qid.kind_with(mode), length, mtime_seconds, mtime_nanoseconds, data_version })
    }

    /// The body of Rstat. What 9P2000.u has behind the names is not looked at.
    pub(crate) fn decode_stat(mut from: Decoder<'_>) -> Result<Self, Malformed> {
        let count = from.u16()?;
        let mut stat = Decoder::new(from.bytes(u32::from(count))?);
        from.end()?;
        Self::decode_record(&mut stat).map(|(attributes, _)| attributes)
    }

    /// One stat record with its name: also the entries of a folder in 9P2000 and 9P2000.u are such.
    pub(crate) fn decode_record<'a>(from: &mut Decoder<'a>) -> Result<(Self, &'a [u8]), Malformed> {
        let size = from.u16()?;
        let mut stat = Decoder::new(from.bytes(u32::from(size))?);
        // type, dev
        stat.bytes(2 + 4)?;
        let qid = Qid::decode(&mut stat)?;
        let mode = stat.u32()?;
        // atime
        stat.bytes(4)?;
        let mtime_seconds = u64::from(stat.u32()?);
        let length = stat.u64()?;
        let name = stat.string()?;
        let kind = match qid.kind_alone() {
            FileKind::File if mode & UNIX_OTHERS != 0 => FileKind::Other,
            kind => kind,
        };
        Ok((Self { qid, kind, length, mtime_seconds, ..Self::default() }, name))
    }
}
