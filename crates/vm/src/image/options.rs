//! What is to be planned.

use memobj_core::address::PageSize;

/// What the planner must know of a file beyond its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileFacts {
    /// The file's length in bytes, at the moment of planning.
    pub length_bytes: u64,
    /// Whether its bytes may be executed.
    pub execution: Execution,
}

/// Whether a file system lets its files be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Execution {
    /// As far as each file's permissions go.
    Allowed,
    /// Never: it is mounted `noexec`.
    Forbidden,
}

/// The size of addresses in an ELF file. Both models are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Model {
    /// `ELFCLASS32`.
    Elf32,
    /// `ELFCLASS64`.
    Elf64,
}

/// Whether the format of a file matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interpret {
    /// No: the whole file is mapped, whatever it is.
    Flat,
    /// Yes: it must be an ELF file of this model.
    Elf(Model),
}

/// How a file is to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageOptions {
    /// Whether the format of the file matters.
    pub interpret: Interpret,
    /// Bytes before the first and behind the last segment that nobody may access; rounded up to pages. Zero for none.
    pub padding_bytes: u64,
    /// How many records the caller has room for; `None` for any number.
    pub room_records: Option<u32>,
    /// The size of the host's pages.
    pub page_size: PageSize,
}

impl Default for ImageOptions {
    /// 64-bit ELF, no padding, any number of records, pages of 4 KiB.
    fn default() -> Self {
        Self {
            interpret: Interpret::Elf(Model::Elf64),
            padding_bytes: 0,
            room_records: None,
            page_size: PageSize::SMALL,
        }
    }
}

impl Model {
    /// Bytes of the ELF header.
    pub(super) const fn header_bytes(self) -> u64 {
        match self {
            Model::Elf32 => 52,
            Model::Elf64 => 64,
        }
    }

    /// Bytes of a phdr.
    pub(super) const fn phdr_bytes(self) -> u16 {
        match self {
            Model::Elf32 => 32,
            Model::Elf64 => 56,
        }
    }

    /// What the distance between phdrs must be a multiple of.
    pub(super) const fn phdr_alignment(self) -> u16 {
        match self {
            Model::Elf32 => 4,
            Model::Elf64 => 8,
        }
    }

    /// One past the highest address that an image may have, less what no host has anyway.
    pub(super) const fn address_limit(self) -> u64 {
        match self {
            Model::Elf32 => 1 << 32,
            Model::Elf64 => 1 << 63,
        }
    }
}
