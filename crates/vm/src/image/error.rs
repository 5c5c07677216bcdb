//! Why a file cannot be planned.

use crate::image::Model;
use core::fmt;
use memobj_core::address::ByteRange;

/// Why there is no plan. The kinds are in the order in which they are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// The padding, rounded up to pages, does not fit 64 bits. ENOMEM in C.
    PaddingTooLarge {
        /// The bytes that were asked for.
        padding_bytes: u64,
    },
    /// The caller has no room for so many records. E2BIG in C. For a file that is not interpreted this comes before
    /// anything else that is said of the file, for others when all else is fine.
    TooFewRecords {
        /// How many there are.
        needed: u32,
        /// How many fit.
        room: u32,
    },
    /// The file has no byte. EINVAL in C.
    Empty,
    /// An executable of fixed addresses on a file system that is mounted noexec. EACCES in C. It is checked when the
    /// ELF header is known, before the phdrs are.
    NoExec,
    /// The file ends before its table of phdrs does. EIO in C.
    TableCutOff {
        /// Where the table, or the part that was asked for, should be.
        range: ByteRange,
    },
    /// Not a file that can be interpreted. ENOTSUP in C.
    Unsupported(Unsupported),
    /// The image with its padding does not fit the address space. ENOMEM in C.
    NoRoom,
}

/// What is wrong with a file that is to be interpreted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unsupported {
    /// It is shorter than an ELF header.
    TooShort {
        /// Its length.
        length_bytes: u64,
    },
    /// It does not begin with the ELF magic number.
    NotElf,
    /// Its addresses have another size.
    WrongModel {
        /// What was asked for.
        wanted: Model,
    },
    /// It is big-endian, or of no byte order there is.
    ByteOrder,
    /// A version of ELF that does not exist.
    Version,
    /// Neither an executable, nor a shared object, nor an object file or core file.
    FileType {
        /// `e_type`.
        value: u16,
    },
    /// Phdrs of this size cannot be: too small, or not aligned.
    PhdrSize {
        /// `e_phentsize`.
        value: u16,
    },
    /// No phdr, or more than the header can tell.
    PhdrCount {
        /// `e_phnum`.
        value: u16,
    },
    /// A shared object whose first phdr is not in its page zero.
    FirstAddress {
        /// `p_vaddr`.
        value: u64,
    },
    /// A shared object in which there is no place for the ELF header before the first byte that is loaded.
    HeaderPlace {
        /// `p_vaddr` of that phdr.
        address: u64,
        /// `p_offset` of that phdr.
        offset: u64,
    },
    /// A phdr begins before the page where the one before it ends, or in it.
    Order {
        /// Its index in the table.
        index: u16,
    },
    /// Nothing is to be loaded.
    NothingToLoad,
    /// A phdr has more bytes in the file than in memory.
    FileExceedsMemory {
        /// Its index in the table.
        index: u16,
    },
    /// A phdr's addresses or file offsets do not fit.
    Overflow {
        /// Its index in the table.
        index: u16,
    },
}

impl From<Unsupported> for ImageError {
    fn from(reason: Unsupported) -> Self {
        Self::Unsupported(reason)
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ImageError::PaddingTooLarge { padding_bytes } => {
                write!(f, "a padding of {padding_bytes} bytes does not fit the address space")
            }
            ImageError::TooFewRecords { needed, room } => {
                write!(f, "there are {needed} records and room for {room}")
            }
            ImageError::Empty => f.write_str("the file is empty"),
            ImageError::NoExec => {
                f.write_str("an executable of fixed addresses on a file system mounted noexec")
            }
            ImageError::TableCutOff { range } => {
                write!(f, "the file ends before its program headers at {range} do")
            }
            ImageError::Unsupported(reason) => reason.fmt(f),
            ImageError::NoRoom => f.write_str("the image with its padding does not fit the address space"),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Unsupported::TooShort { length_bytes } => {
                write!(f, "not an ELF file: {length_bytes} bytes are less than a header")
            }
            Unsupported::NotElf => f.write_str("not an ELF file"),
            Unsupported::WrongModel { wanted: Model::Elf64 } => f.write_str("not a 64-bit ELF file"),
            Unsupported::WrongModel { wanted: Model::Elf32 } => f.write_str("not a 32-bit ELF file"),
            Unsupported::ByteOrder => f.write_str("not a little-endian ELF file"),
            Unsupported::Version => f.write_str("not an ELF file of version 1"),
            Unsupported::FileType { value } => write!(f, "ELF files of type {value} are not mapped"),
            Unsupported::PhdrSize { value } => write!(f, "program headers cannot have {value} bytes each"),
            Unsupported::PhdrCount { value } => write!(f, "{value} program headers cannot be"),
            Unsupported::FirstAddress { value } => {
                write!(f, "the first program header of a shared object begins at {value:#x}, not in page 0")
            }
            Unsupported::HeaderPlace { address, offset } => {
                write!(f, "no place for the ELF header: bytes from {offset:#x} on begin at {address:#x}")
            }
            Unsupported::Order { index } => {
                write!(f, "program header {index} begins before the pages of the one before it end")
            }
            Unsupported::NothingToLoad => f.write_str("no program header is to be loaded"),
            Unsupported::FileExceedsMemory { index } => {
                write!(f, "program header {index} has more bytes in the file than in memory")
            }
            Unsupported::Overflow { index } => {
                write!(f, "the range of program header {index} does not fit the address space")
            }
        }
    }
}

impl core::error::Error for ImageError {}
