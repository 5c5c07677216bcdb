//! Minor faults: the file has the page, the mapping is to show it.

use std::io;

use super::{MOST_IDLE_ROUNDS, Userfaultfd, abi, control};
use crate::region::SMALL;

impl Userfaultfd {
    /// Makes `[start, start + len)`, a mapping of a memory file, show the pages that the file has there, and wakes
    /// sleepers. Pages that are shown already count as done. (The kernel does this for any registered range; one
    /// that is not registered for [`Modes::MINOR`](super::Modes::MINOR) shows the file's pages by itself too.)
    ///
    /// EFAULT: the file does not have the page any more. On error, which comes with the count of bytes that are
    /// shown, sleepers are woken too, which the kernel leaves to us: they fault again, and find out why.
    ///
    /// # Safety
    ///
    /// * the range lies in a range that is registered here;
    /// * the caller keeps others from changing or replacing the file's bytes under it until this returns.
    pub unsafe fn show(&self, start: usize, len: usize) -> Result<(), (usize, io::Error)> {
        self.continue_in(start, len, 0)
    }

    /// As `show`, but what is shown by this call is write-protected: there is no moment at which it could be written
    /// unnoticed. What was shown before stays as it is. The range is registered for
    /// [`Modes::WRITE_PROTECT`](super::Modes::WRITE_PROTECT) too.
    ///
    /// # Safety
    ///
    /// As for [`show`](Self::show).
    pub unsafe fn show_protected(&self, start: usize, len: usize) -> Result<(), (usize, io::Error)> {
        self.continue_in(start, len, abi::CONTINUE_WP)
    }

    fn continue_in(&self, start: usize, len: usize, mode: u64) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        let mut idle_rounds = 0;
        let mut some_were_shown = false;
        while done < len {
            let range = abi::Range { start: (start + done) as u64, len: (len - done) as u64 };
            let mut argument = abi::Continue { range, mode, mapped: 0 };
            let answer = control(&self.descriptor, abi::UFFDIO_CONTINUE, &mut argument);
            let progress = usize::try_from(argument.mapped).unwrap_or(0);
            done += progress;
            let Err(error) = answer else { continue };
            idle_rounds = if progress > 0 { 0 } else { idle_rounds + 1 };
            match error.raw_os_error() {
                Some(libc::EEXIST) => {
                    done += SMALL;
                    some_were_shown = true;
                }
                // The rest of a range that was shown in part, or an event that nobody has read yet.
                Some(libc::EAGAIN) if idle_rounds <= MOST_IDLE_ROUNDS => {
                    if progress == 0 {
                        std::thread::yield_now();
                    }
                }
                _ => {
                    self.wake(start, len);
                    return Err((done, error));
                }
            }
        }
        if some_were_shown {
            self.wake(start, len);
        }
        Ok(())
    }
}
