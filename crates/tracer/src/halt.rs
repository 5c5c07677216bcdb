//! A thread that was stopped wherever it was, makes calls for its tracer, and goes on as if nothing had been.
//!
//! ```text
//!   in user code              it goes on with the registers that it had
//!   before a call             (at the filter) the call is made again from its beginning, and stops there again
//!   in a call that sleeps     the kernel has ended the call for the stop, and would begin it again on the way out. The
//!                             calls for the tracer come between, so it is begun again from here: by restart_syscall(2)
//!                             if it counts time, else by itself. Signals are blocked until it has begun: one that is
//!                             pending then interrupts it, as it would have
//! ```
//!
//! ppoll(2), pselect(2), sigsuspend(2) and others change the signal mask while they sleep. What the tracer reads as the
//! mask is the one from before; the call sets its own once more when it begins again.
//! Some calls are not begun again by the kernel: epoll_wait(2), for example, is interrupted by any stop (signal(7)). They
//! are begun again here, with all of their time.
//! Sources: ptrace(2), signal(7), rseq(2), arch_do_signal_or_restart in arch/x86/kernel/signal.c for the numbers.

use std::io;

use super::calls::{CallError, run_to};
use super::memory::read_memory;
use super::thread::{Registers, Resume, Thread};
use super::wait::Stop;

const EINTR: i64 = -4;
/// Answers of calls that the kernel begins again.
const RESTART: std::ops::RangeInclusive<i64> = -514..=-512;
/// One of them: not if a handler has run.
const UNLESS_HANDLED: i64 = -514;
/// The same, by restart_syscall(2).
const RESTART_BLOCK: i64 = -516;
/// Bytes of the instruction.
const SYSCALL_BYTES: u64 = 2;

/// Calls that a stop interrupts without a signal.
const INTERRUPTED: [i64; 10] = [
    libc::SYS_read,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_io_getevents,
];

/// A stopped thread in whose name calls can be made. [`go_on`](Self::go_on) puts it back.
#[derive(Debug)]
pub struct Halted {
    thread: Thread,
    stop: Stop,
    registers: Registers,
    /// The call that it begins again.
    again: Option<i64>,
}

impl Halted {
    /// The thread, which has just stopped for `stop`. `None`: no calls can be made there. It is to be handled as any that
    /// stops, and stops again soon after it was interrupted.
    pub fn at(thread: Thread, stop: Stop) -> Option<Self> {
        if !matches!(stop, Stop::Call | Stop::Trap | Stop::Group(_)) {
            return None;
        }
        let mut registers = thread.registers().ok().filter(Registers::is_64_bit)?;
        let mut again = None;
        if stop != Stop::Call {
            again = interrupted(&registers);
            if again.is_some() && !registers.follows_call(thread) {
                return None;
            }
            if registers.call() < 0 {
                leave_sequence(thread, &mut registers);
            }
        }
        Some(Self { thread, stop, registers, again })
    }

    /// Its registers, from which calls are made.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Lets the thread, which has made calls or none, be as it was. It is stopped still, and to be resumed.
    pub fn go_on(self) -> Result<(), CallError> {
        let Self { thread, stop, mut registers, again } = self;
        if thread.registers()?.is_mark() {
            match (stop, again) {
                (Stop::Call, _) => registers.repeat_call(),
                (_, None) => registers.skip_call(registers.answer()),
                (_, Some(number)) => begin_again(thread, registers, number)?,
            }
            if stop == Stop::Call || again.is_none() {
                thread.set_registers(&registers)?;
            }
        }
        if matches!(stop, Stop::Group(_)) {
            // As soon as it goes on it tells whether its process is stopped still.
            thread.interrupt()?;
        }
        Ok(())
    }
}

impl Thread {
    /// The thread has stopped because its tracer has interrupted it: a call that any stop interrupts is begun again when
    /// it goes on, unless a handler of a signal runs first.
    pub fn undo_interruption(self) -> io::Result<()> {
        let mut registers = self.registers()?;
        if registers.answer() == EINTR && INTERRUPTED.contains(&registers.call()) {
            registers.0.rax = UNLESS_HANDLED as u64;
            self.set_registers(&registers)?;
        }
        Ok(())
    }
}

/// The number of the call that the stop has interrupted and that is begun again.
fn interrupted(registers: &Registers) -> Option<i64> {
    let number = registers.call();
    match registers.answer() {
        _ if number < 0 => None,
        answer if RESTART.contains(&answer) => Some(number),
        RESTART_BLOCK => Some(libc::SYS_restart_syscall),
        EINTR if INTERRUPTED.contains(&number) => Some(number),
        _ => None,
    }
}

/// Begins call `number` again: stopped where it begins, with its mask as before.
fn begin_again(thread: Thread, mut registers: Registers, number: i64) -> Result<(), CallError> {
    let mask = thread.signal_mask()?;
    thread.set_signal_mask(u64::MAX)?;
    registers.0.rax = number as u64;
    registers.0.orig_rax = u64::MAX;
    registers.0.rip -= SYSCALL_BYTES;
    thread.set_registers(&registers)?;
    let begun =
        run_to(thread, Resume::ToCallBorder, |stop, at| stop == Stop::CallBorder && at.call() == number);
    if !matches!(begun, Err(CallError::Ended)) {
        thread.set_signal_mask(mask)?;
    }
    begun.map(drop)
}

/// A thread that goes elsewhere inside a restartable sequence goes on at its abort address, as if it had lost its
/// processor there: the kernel does not know the sequence any more when it comes back.
fn leave_sequence(thread: Thread, registers: &mut Registers) {
    /// Of the area: where the address of the sequence is. Of that: start, length, address to go on at.
    const SEQUENCE_AT: u64 = 8;
    let word = |address: u64| {
        let mut bytes = [0; 8];
        (read_memory(thread.0, address, &mut bytes).ok() == Some(8)).then(|| u64::from_ne_bytes(bytes))
    };
    let Some(area) = thread.sequences().ok().filter(|area| *area != 0) else { return };
    let Some(sequence) = word(area + SEQUENCE_AT).filter(|sequence| *sequence != 0) else { return };
    let parts = (word(sequence + 8), word(sequence + 16), word(sequence + 24));
    let (Some(start), Some(length), Some(abort)) = parts else { return };
    if registers.0.rip.wrapping_sub(start) < length {
        registers.0.rip = abort;
    }
}
