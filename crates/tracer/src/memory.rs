//! Memory of other processes, read and written by copies (process_vm_readv(2)).

use std::io;

use super::Pid;

fn part(memory: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: memory.as_ptr().cast_mut().cast(), iov_len: memory.len() }
}

/// Fills `buffer` from `address` of the process on, and returns how many bytes there were.
///
/// Pages of lent frames that are not there are faults like any other: somebody else has to resolve them.
pub fn read_memory(process: Pid, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let there = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: buffer.len() };
    let here = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the kernel writes at most the buffer's length into it.
    let count = unsafe { libc::process_vm_readv(process, &here, 1, &there, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes `bytes` to `address` of the process, as far as it could store there itself.
pub fn write_memory(process: Pid, address: u64, bytes: &[u8]) -> io::Result<()> {
    let there = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel reads `bytes`; what is written is memory of the other process.
    let count = unsafe { libc::process_vm_writev(process, &part(bytes), 1, &there, 1, 0) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The string at `address`, up to its zero and at most `most` bytes; `None` if it has none there.
pub fn read_string(process: Pid, address: u64, most: usize) -> Option<Vec<u8>> {
    let mut string = Vec::new();
    while string.len() < most {
        // Not over the end of a page, behind which nothing may be.
        let at = address.checked_add(string.len() as u64)?;
        let mut buffer = [0; 256];
        let room = (4096 - at % 4096).min(buffer.len() as u64) as usize;
        let count = read_memory(process, at, &mut buffer[..room]).ok()?;
        match buffer[..count].iter().position(|byte| *byte == 0) {
            Some(end) => {
                string.extend_from_slice(&buffer[..end]);
                return Some(string);
            }
            None if count == 0 => return None,
            None => string.extend_from_slice(&buffer[..count]),
        }
    }
    None
}
