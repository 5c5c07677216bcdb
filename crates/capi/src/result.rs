//! `mmapobj_result_t`.

use std::ffi::{c_char, c_uint};

use memobj::image::{ImageRecord, RecordKind};

/// The record is padding.
pub const MR_PADDING: c_uint = 1;
/// The ELF header is at `mr_addr + mr_offset`.
pub const MR_HDR_ELF: c_uint = 2;
/// The a.out header is there. Never told: a.out files are not supported.
pub const MR_HDR_AOUT: c_uint = 3;
/// The bits of `mr_flags` that are the type: one of the above, not a set of bits.
pub const MR_TYPE_MASK: c_uint = 0xffff;

/// One segment: `mmapobj_result_t`, 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MmapobjResult {
    /// The first address, that of a page.
    pub mr_addr: *mut c_char,
    /// Bytes from there to the end of the segment; not rounded.
    pub mr_msize: usize,
    /// Bytes that come from the file.
    pub mr_fsize: usize,
    /// Where the segment's own bytes begin, from `mr_addr` on; less than a page.
    pub mr_offset: usize,
    /// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC`.
    pub mr_prot: c_uint,
    /// One of `MR_*`, or zero.
    pub mr_flags: c_uint,
}

/// The bytes of the structure for `record`.
pub(crate) fn bytes(record: &ImageRecord) -> impl Iterator<Item = u8> + use<> {
    use memobj::image::Prot;
    let pairs =
        [(Prot::READ, libc::PROT_READ), (Prot::WRITE, libc::PROT_WRITE), (Prot::EXECUTE, libc::PROT_EXEC)];
    let prot =
        pairs.iter().filter(|(bit, _)| record.prot.contains(*bit)).map(|(_, value)| value).sum::<i32>();
    let flags = match record.kind {
        RecordKind::Plain => 0,
        RecordKind::Padding => MR_PADDING,
        RecordKind::ElfHeader => MR_HDR_ELF,
    };
    let words = [record.address.0, record.memory_bytes, record.file_bytes, record.offset];
    let halves = [prot as u32, flags];
    words.into_iter().flat_map(u64::to_ne_bytes).chain(halves.into_iter().flat_map(u32::to_ne_bytes))
}

// What C relies on. The order of fields is that of `bytes`.
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<MmapobjResult>() == 40);
    assert!(offset_of!(MmapobjResult, mr_addr) == 0 && offset_of!(MmapobjResult, mr_msize) == 8);
    assert!(offset_of!(MmapobjResult, mr_fsize) == 16 && offset_of!(MmapobjResult, mr_offset) == 24);
    assert!(offset_of!(MmapobjResult, mr_prot) == 32 && offset_of!(MmapobjResult, mr_flags) == 36);
};
