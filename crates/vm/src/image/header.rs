//! What the planner takes from an ELF header and from its table of phdrs.

use crate::image::{ImageError, Model, Unsupported};
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::{ParseAt, ParseError};
use elf::segment::ProgramHeader;
use memobj_core::address::ByteRange;
use memobj_core::prot::Prot;

/// Solaris's own kind of zero-filled phdr; not in the generic list.
const PT_SUNWBSS: u32 = 0x6fff_fffa;

/// What is to be mapped, by `e_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ObjectType {
    /// `ET_REL`, `ET_CORE`: the file as it is.
    Whole,
    /// `ET_EXEC`.
    Executable,
    /// `ET_DYN`.
    Shared,
}

/// The checked ELF header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) object: ObjectType,
    pub(super) model: Model,
    table_offset: u64,
    phdr_bytes: u16,
    phdr_count: u16,
}

/// A phdr that is to be loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loadable {
    pub(super) index: u16,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) align_bytes: u64,
    pub(super) prot: Prot,
}

impl Header {
    /// Reads the header from its bytes, all of them.
    pub(super) fn parse(bytes: &[u8], model: Model) -> Result<Self, ImageError> {
        if !bytes.starts_with(&abi::ELFMAGIC) {
            return Err(Unsupported::NotElf.into());
        }
        let ident = parse_ident::<LittleEndian>(bytes).map_err(|error| match error {
            ParseError::UnsupportedElfClass(_) => Unsupported::WrongModel { wanted: model },
            ParseError::UnsupportedElfEndianness(_) => Unsupported::ByteOrder,
            ParseError::UnsupportedVersion(_) => Unsupported::Version,
            _ => Unsupported::NotElf,
        })?;
        if ident.1 != class(model) {
            return Err(Unsupported::WrongModel { wanted: model }.into());
        }
        let tail = bytes.get(abi::EI_NIDENT..).unwrap_or_default();
        let header = FileHeader::parse_tail(ident, tail).map_err(|_| Unsupported::NotElf)?;
        let object = match header.e_type {
            abi::ET_REL | abi::ET_CORE => ObjectType::Whole,
            abi::ET_EXEC => ObjectType::Executable,
            abi::ET_DYN => ObjectType::Shared,
            value => return Err(Unsupported::FileType { value }.into()),
        };
        let FileHeader { e_phoff: table_offset, e_phentsize: phdr_bytes, e_phnum: phdr_count, .. } = header;
        Ok(Self { object, model, table_offset, phdr_bytes, phdr_count })
    }

    /// Where the table is in a file of `length_bytes`, after the checks that come before reading it.
    pub(super) fn table(&self, length_bytes: u64) -> Result<ByteRange, ImageError> {
        if self.phdr_bytes < self.model.phdr_bytes() {
            return Err(Unsupported::PhdrSize { value: self.phdr_bytes }.into());
        }
        if matches!(self.phdr_count, 0 | abi::PN_XNUM) {
            return Err(Unsupported::PhdrCount { value: self.phdr_count }.into());
        }
        let table_bytes = u64::from(self.phdr_bytes) * u64::from(self.phdr_count);
        let whole = ByteRange::at(self.table_offset, table_bytes);
        match whole {
            Some(table) if table.end <= length_bytes => Ok(table),
            _ => {
                let range = ByteRange { start: self.table_offset, end: u64::MAX };
                Err(ImageError::TableCutOff { range: whole.unwrap_or(range) })
            }
        }
    }

    /// The check that comes after reading the table.
    pub(super) fn check_alignment(&self) -> Result<(), ImageError> {
        let value = self.phdr_bytes;
        if value.is_multiple_of(self.model.phdr_alignment()) {
            Ok(())
        } else {
            Err(Unsupported::PhdrSize { value }.into())
        }
    }

    /// The bytes that hold the phdrs from `first` on, and how many of them; `None` behind the last. No more than
    /// `most_bytes`, unless one phdr has more. Where they are far apart, one without what separates it from the next.
    pub(super) fn piece(&self, first: u16, most_bytes: u64) -> Option<(ByteRange, u16)> {
        let left = self.phdr_count.checked_sub(first).filter(|&left| left > 0)?;
        let size = u64::from(self.phdr_bytes);
        let start = self.table_offset.checked_add(size * u64::from(first))?;
        let (count, bytes) = if size > 4 * u64::from(self.model.phdr_bytes()) {
            (1, u64::from(self.model.phdr_bytes()))
        } else {
            let count = u64::from(left).min(most_bytes / size).max(1);
            (count as u16, count * size)
        };
        ByteRange::at(start, bytes).map(|range| (range, count))
    }

    /// The phdr number `index`, the `nth` of a piece; `None` if it is not to be loaded.
    pub(super) fn loadable(&self, piece: &[u8], nth: u16, index: u16) -> Option<Loadable> {
        let mut at = usize::from(nth) * usize::from(self.phdr_bytes);
        // The piece has the bytes that `piece` asked for, and an offset inside it: this does not fail.
        let phdr = ProgramHeader::parse_at(LittleEndian, class(self.model), &mut at, piece).ok()?;
        let is_loaded = matches!(phdr.p_type, abi::PT_LOAD | PT_SUNWBSS) && phdr.p_memsz != 0;
        is_loaded.then_some(Loadable {
            index,
            address: phdr.p_vaddr,
            offset: phdr.p_offset,
            file_bytes: phdr.p_filesz,
            memory_bytes: phdr.p_memsz,
            align_bytes: phdr.p_align,
            prot: prot(phdr.p_flags),
        })
    }
}

fn class(model: Model) -> Class {
    match model {
        Model::Elf32 => Class::ELF32,
        Model::Elf64 => Class::ELF64,
    }
}

fn prot(flags: u32) -> Prot {
    let pairs = [(abi::PF_R, Prot::READ), (abi::PF_W, Prot::WRITE), (abi::PF_X, Prot::EXECUTE)];
    pairs.iter().filter(|(bit, _)| flags & bit != 0).fold(Prot::NONE, |all, &(_, prot)| all | prot)
}
