//! Write protection: a store to the range is blocked until the protection is lifted.

use std::io;

use super::{MOST_IDLE_ROUNDS, Userfaultfd, abi, control};

impl Userfaultfd {
    /// Write-protects what is present in `[start, start + len)`, registered for
    /// [`Modes::WRITE_PROTECT`](super::Modes::WRITE_PROTECT); in a mapping of a memory file also what is not. Once
    /// this has returned, no store to it goes through unnoticed.
    ///
    /// ENOENT: the range is not registered so.
    pub fn write_protect(&self, start: usize, len: usize) -> io::Result<()> {
        self.protection(start, len, abi::WRITEPROTECT_WP)
    }

    /// Lifts the protection and wakes sleepers. On error they are woken too, which the kernel leaves to us.
    pub fn unprotect(&self, start: usize, len: usize) -> io::Result<()> {
        let lifted = self.protection(start, len, 0);
        if lifted.is_err() {
            self.wake(start, len);
        }
        lifted
    }

    fn protection(&self, start: usize, len: usize, mode: u64) -> io::Result<()> {
        let mut idle_rounds = 0;
        loop {
            let range = abi::Range { start: start as u64, len: len as u64 };
            let mut argument = abi::WriteProtect { range, mode };
            let Err(error) = control(&self.descriptor, abi::UFFDIO_WRITEPROTECT, &mut argument) else {
                return Ok(());
            };
            idle_rounds += 1;
            // An event that nobody has read yet.
            if error.raw_os_error() != Some(libc::EAGAIN) || idle_rounds > MOST_IDLE_ROUNDS {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
}
