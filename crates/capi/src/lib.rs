//! memobj for C programs: `mmapobj`, with the structure, the numbers and the errors of Solaris and illumos.
//!
//! `include/memobj.h` is what C sees, `docs/images.md` what it means. Unsafe code is here only to take what C hands
//! over: a descriptor, and addresses, through which everything is copied by system calls that answer EFAULT.

mod errno;
mod result;

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::BorrowedFd;

use memobj::image::{
    ImageError, ImageMapOptions, Interpret, MapImageError, Model, check_descriptor, map_image,
};

pub use result::{MR_HDR_AOUT, MR_HDR_ELF, MR_PADDING, MR_TYPE_MASK, MmapobjResult};

/// `arg` points to a `size_t`, the bytes of padding.
pub const MMOBJ_PADDING: c_uint = 0x10000;
/// Map the segments of the file by its format.
pub const MMOBJ_INTERPRET: c_uint = 0x20000;
/// All flags there are.
pub const MMOBJ_ALL_FLAGS: c_uint = MMOBJ_PADDING | MMOBJ_INTERPRET;

/// Maps the file of `fd`, all of it or nothing, and tells its segments.
///
/// `*elements` is how many records `storage` has room for, and after success how many there are. Returns 0, or -1
/// with `errno` set; if that is E2BIG, `*elements` is how many there would be. Nothing else is written on failure.
///
/// # Safety
///
/// What `storage` and `elements` point to, if it is memory of this process at all, is for this function to write: no
/// reference to it is alive. Addresses that are not mapped are answered with EFAULT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmapobj(
    fd: c_int,
    flags: c_uint,
    storage: *mut MmapobjResult,
    elements: *mut c_uint,
    arg: *mut c_void,
) -> c_int {
    let call = Call { fd, flags, storage: storage as usize, elements: elements as usize, arg: arg as usize };
    // SAFETY: the caller's promise, handed on.
    match unsafe { call.run() } {
        Ok(()) => 0,
        Err(number) => {
            errno::set(number);
            -1
        }
    }
}

/// The arguments of one call.
struct Call {
    fd: c_int,
    flags: c_uint,
    storage: usize,
    elements: usize,
    arg: usize,
}

impl Call {
    /// # Safety
    ///
    /// As of [`mmapobj`].
    unsafe fn run(&self) -> Result<(), c_int> {
        let has_padding = self.flags & MMOBJ_PADDING != 0;
        if self.flags & !MMOBJ_ALL_FLAGS != 0 || (!has_padding && self.arg != 0) {
            return Err(libc::EINVAL);
        }
        if self.fd < 0 {
            return Err(libc::EBADF);
        }
        // SAFETY: not negative; what is no descriptor is answered with EBADF by the first system call. The caller
        // keeps it open during the call, or takes the answer about whatever has its number then.
        let file = unsafe { BorrowedFd::borrow_raw(self.fd) };
        check_descriptor(&file).map_err(|error| errno::of(&error))?;
        let room = c_uint::from_ne_bytes(fetch(self.elements)?);
        let padding = if has_padding { usize::from_ne_bytes(fetch(self.arg)?) } else { 0 };
        let interpret = match self.flags & MMOBJ_INTERPRET {
            0 => Interpret::Flat,
            _ => Interpret::Elf(Model::Elf64),
        };
        let options =
            ImageMapOptions::new().interpret(interpret).padding_bytes(padding as u64).room_records(room);
        let image = match map_image(&file, &options) {
            Ok(image) => image,
            Err(error) => {
                if let MapImageError::Plan(ImageError::TooFewRecords { needed, .. }) = error {
                    // SAFETY: the caller's promise about `elements`.
                    unsafe { store(self.elements, &needed.to_ne_bytes()) }?;
                }
                return Err(errno::of(&error));
            }
        };
        let records = image.records();
        // SAFETY: the caller's promise about `elements`.
        unsafe { store(self.elements, &(records.len() as c_uint).to_ne_bytes()) }?;
        let bytes: Vec<u8> = records.iter().flat_map(result::bytes).collect();
        // SAFETY: the caller's promise about `storage`, which has room for so many (`room_records`).
        unsafe { store(self.storage, &bytes) }?;
        image.leak();
        Ok(())
    }
}

fn fetch<const N: usize>(address: usize) -> Result<[u8; N], c_int> {
    let mut bytes = [0; N];
    memobj_linux::image::copy_from(address, &mut bytes).map_err(|_| libc::EFAULT)?;
    Ok(bytes)
}

/// # Safety
///
/// No reference to `bytes.len()` bytes at `address` is alive, if they are memory of this process.
unsafe fn store(address: usize, bytes: &[u8]) -> Result<(), c_int> {
    // SAFETY: the caller's promise, handed on.
    unsafe { memobj_linux::image::copy_to(address, bytes) }.map_err(|_| libc::EFAULT)
}
