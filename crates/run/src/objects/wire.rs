//! The messages of FUSE, as the kernel writes and reads them: linux/fuse.h, protocol 7.31 and later.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version that is spoken.
pub(super) const MAJOR: u32 = 7;
/// The least minor version: all structures below are of this size since then.
pub(super) const LEAST_MINOR: u32 = 31;
/// What is answered: the kernel takes the lower of the two.
pub(super) const MINOR: u32 = 38;

/// The node of the root.
pub(super) const ROOT: u64 = 1;

/// Operation codes.
pub(super) mod code {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const TMPFILE: u32 = 51;
}

/// Flags of INIT.
pub(super) mod init {
    /// Several reads of one file at once.
    pub(in super::super) const ASYNC_READ: u32 = 1;
    /// Direct reads may be split and sent at once.
    pub(in super::super) const ASYNC_DIO: u32 = 1 << 15;
    /// Lookups and listings of one folder at once.
    pub(in super::super) const PARALLEL_DIROPS: u32 = 1 << 18;
    /// `max_pages` counts.
    pub(in super::super) const MAX_PAGES: u32 = 1 << 22;
    /// `flags2` counts.
    pub(in super::super) const INIT_EXT: u32 = 1 << 30;
    /// Of `flags2`: files that are read directly can be mapped shared all the same. Linux 6.6.
    pub(in super::super) const DIRECT_IO_ALLOW_MMAP: u32 = 1 << 4;
}

/// Of an open file: its reads bypass the page cache of the kernel.
pub(super) const FOPEN_DIRECT_IO: u32 = 1;
pub(super) const FOPEN_KEEP_CACHE: u32 = 2;

/// Begins each request.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct RequestHeader {
    pub(super) length: u32,
    pub(super) code: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) user: u32,
    pub(super) group: u32,
    /// The thread that asks.
    pub(super) thread: u32,
    pub(super) extensions: u16,
    pub(super) padding: u16,
}

/// Begins each answer. `error` is zero or a negative error number.
#[derive(Clone, Copy, Debug, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct AnswerHeader {
    pub(super) length: u32,
    pub(super) error: i32,
    pub(super) unique: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitRequest {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_read_ahead: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitAnswer {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_read_ahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_granularity_ns: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    pub(super) unused: [u32; 7],
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Attributes {
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Of 512 bytes.
    pub(super) blocks: u64,
    /// Seconds: of the last access, of the last change of contents, of the last change of attributes.
    pub(super) seconds: [u64; 3],
    pub(super) nanoseconds: [u32; 3],
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) device: u32,
    pub(super) block_bytes: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct EntryAnswer {
    pub(super) node: u64,
    pub(super) generation: u64,
    pub(super) entry_seconds: u64,
    pub(super) attributes_seconds: u64,
    pub(super) entry_nanoseconds: u32,
    pub(super) attributes_nanoseconds: u32,
    pub(super) attributes: Attributes,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct AttributesAnswer {
    pub(super) seconds: u64,
    pub(super) nanoseconds: u32,
    pub(super) padding: u32,
    pub(super) attributes: Attributes,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct OpenRequest {
    pub(super) flags: u32,
    pub(super) open_flags: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct OpenAnswer {
    pub(super) handle: u64,
    pub(super) flags: u32,
    pub(super) backing: u32,
}

/// Of READ and READDIR.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct ReadRequest {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) read_flags: u32,
    pub(super) lock_owner: u64,
    pub(super) flags: u32,
    pub(super) padding: u32,
}

/// Of RELEASE and RELEASEDIR, as far as it is looked at.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct ReleaseRequest {
    pub(super) handle: u64,
}

/// How many lookups of a node are taken back.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct ForgetRequest {
    pub(super) lookups: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct BatchForgetRequest {
    pub(super) count: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct ForgetOne {
    pub(super) node: u64,
    pub(super) lookups: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InterruptRequest {
    pub(super) unique: u64,
}

/// Begins each entry of a listing; the name follows, and zeros up to a multiple of eight bytes.
#[derive(Clone, Copy, Debug, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct FolderEntry {
    pub(super) inode: u64,
    /// Where the next entry begins.
    pub(super) next: u64,
    pub(super) name_length: u32,
    /// As in dirent: the type bits of a mode, shifted right by twelve.
    pub(super) kind: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct StatfsAnswer {
    pub(super) blocks: u64,
    pub(super) free: u64,
    pub(super) available: u64,
    pub(super) files: u64,
    pub(super) free_files: u64,
    pub(super) block_bytes: u32,
    pub(super) name_bytes: u32,
    pub(super) fragment_bytes: u32,
    pub(super) padding: u32,
    pub(super) spare: [u32; 6],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of linux/fuse.h.
    #[test]
    fn structures_have_the_sizes_that_the_kernel_expects() {
        let sizes = [
            (size_of::<RequestHeader>(), 40),
            (size_of::<AnswerHeader>(), 16),
            (size_of::<InitAnswer>(), 64),
            (size_of::<Attributes>(), 88),
            (size_of::<EntryAnswer>(), 128),
            (size_of::<AttributesAnswer>(), 104),
            (size_of::<OpenAnswer>(), 16),
            (size_of::<ReadRequest>(), 40),
            (size_of::<ForgetOne>(), 16),
            (size_of::<FolderEntry>(), 24),
            (size_of::<StatfsAnswer>(), 80),
        ];
        sizes.iter().for_each(|(ours, kernels)| assert_eq!(ours, kernels));
    }
}
