//! A traced thread that is stopped.

use std::io;

use super::Pid;

/// The registers of a stopped thread.
#[derive(Clone, Copy, Debug)]
pub struct Registers(pub(super) libc::user_regs_struct);

impl Registers {
    /// The number of the system call that the thread is in; -1 for none.
    pub fn call(&self) -> i64 {
        self.0.orig_rax as i64
    }

    /// Its arguments.
    pub fn arguments(&self) -> [u64; 6] {
        let Self(registers) = self;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9]
    }

    /// The argument `index` is `value` instead.
    pub fn set_argument(&mut self, index: usize, value: u64) {
        let Self(registers) = self;
        let places = [
            &mut registers.rdi,
            &mut registers.rsi,
            &mut registers.rdx,
            &mut registers.r10,
            &mut registers.r8,
            &mut registers.r9,
        ];
        if let Some(place) = places.into_iter().nth(index) {
            *place = value;
        }
    }

    /// What a call has returned, or a program that continues finds as such.
    pub fn answer(&self) -> i64 {
        self.0.rax as i64
    }

    /// The call that the thread is about to make is not made, and returns `answer`.
    pub fn skip_call(&mut self, answer: i64) {
        self.0.orig_rax = u64::MAX;
        self.0.rax = answer as u64;
    }

    /// The call that the thread is about to make is made again from its beginning, and so is looked at again.
    pub fn repeat_call(&mut self) {
        self.0.rax = self.0.orig_rax;
        self.0.orig_rax = u64::MAX;
        // The length of the instruction.
        self.0.rip -= 2;
    }

    /// Whether the thread is at the mark of injected calls.
    pub fn is_mark(&self) -> bool {
        self.call() == libc::SYS_close && self.arguments()[1] == super::MARK.into()
    }

    /// Whether the instruction before where the thread is makes a system call.
    pub(super) fn follows_call(&self, thread: Thread) -> bool {
        let mut instruction = [0; 2];
        let read = super::read_memory(thread.0, self.0.rip.wrapping_sub(2), &mut instruction);
        matches!(read, Ok(2)) && instruction == [0x0f, 0x05]
    }

    /// Whether the thread runs 64-bit code.
    pub fn is_64_bit(&self) -> bool {
        self.0.cs == 0x33
    }

    /// The lowest address of the stack that is in use.
    pub fn stack(&self) -> u64 {
        self.0.rsp
    }
}

/// What a stopped thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Runs.
    Run,
    /// Runs, and is sent the signal at whose delivery it has stopped.
    Signal(i32),
    /// Runs up to where its system call ends, or its next one begins.
    ToCallBorder,
    /// Stays stopped, with its whole process, until that is continued.
    StayStopped,
}

/// A traced thread, for calls of its tracer while it is stopped. ESRCH: it is not, or has been killed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Thread(pub Pid);

/// Not in the bindings: `PTRACE_GETSIGMASK` and `PTRACE_SETSIGMASK`.
const GET_SIGNAL_MASK: u32 = 0x420a;
const SET_SIGNAL_MASK: u32 = 0x420b;

impl Thread {
    /// # Safety
    ///
    /// `address` and `data` are what `request` says, and memory of this process that it writes is `data`'s.
    unsafe fn request(self, request: u32, address: usize, data: usize) -> io::Result<i64> {
        // SAFETY: as the caller promises; of the other process's memory nothing here depends.
        let answer = unsafe { libc::ptrace(request, self.0, address, data) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
    }

    /// Makes the calling thread its tracer: it is told of new processes, programs and threads, and all of them die
    /// with it.
    pub fn seize(self, at_exit: super::Traced) -> io::Result<()> {
        let mut options = libc::PTRACE_O_TRACESECCOMP
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_EXITKILL;
        if at_exit == super::Traced::Yes {
            options |= libc::PTRACE_O_TRACEEXIT;
        }
        // SAFETY: takes numbers.
        unsafe { self.request(libc::PTRACE_SEIZE, 0, options as usize) }.map(drop)
    }

    /// Its registers.
    pub fn registers(self) -> io::Result<Registers> {
        // SAFETY: all bytes zero are registers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes the structure, which lives across the call.
        unsafe { self.request(libc::PTRACE_GETREGS, 0, &raw mut registers as usize)? };
        Ok(Registers(registers))
    }

    /// Sets them.
    pub fn set_registers(self, registers: &Registers) -> io::Result<()> {
        // SAFETY: the kernel reads the structure, which lives across the call.
        unsafe { self.request(libc::PTRACE_SETREGS, 0, &raw const registers.0 as usize) }.map(drop)
    }

    /// The signals that it blocks, as a bit for each.
    pub fn signal_mask(self) -> io::Result<u64> {
        let mut mask = 0_u64;
        // SAFETY: the kernel writes the eight bytes that the address announces.
        unsafe { self.request(GET_SIGNAL_MASK, size_of::<u64>(), &raw mut mask as usize)? };
        Ok(mask)
    }

    /// Sets them.
    pub fn set_signal_mask(self, mask: u64) -> io::Result<()> {
        // SAFETY: the kernel reads the eight bytes that the address announces.
        unsafe { self.request(SET_SIGNAL_MASK, size_of::<u64>(), &raw const mask as usize) }.map(drop)
    }

    /// What its event came with: a new thread's number, for example.
    pub fn event_message(self) -> io::Result<u64> {
        let mut message: libc::c_ulong = 0;
        // SAFETY: the kernel writes one word.
        unsafe { self.request(libc::PTRACE_GETEVENTMSG, 0, &raw mut message as usize)? };
        Ok(message)
    }

    /// Writes the words of `bytes`, whose length is a multiple of eight, to its memory at `address`, whatever the
    /// protection there: as a debugger sets breakpoints. Private pages become its own copies.
    pub fn poke(self, address: u64, bytes: &[u8]) -> io::Result<()> {
        for (at, word) in (address..).step_by(8).zip(bytes.chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            // SAFETY: takes numbers; what is written is memory of the other process.
            unsafe { self.request(libc::PTRACE_POKEDATA, at as usize, word as usize)? };
        }
        Ok(())
    }

    /// Has it stop again as soon as it has gone on: with its process, if that is stopped.
    pub fn interrupt(self) -> io::Result<()> {
        // SAFETY: takes numbers.
        unsafe { self.request(libc::PTRACE_INTERRUPT, 0, 0) }.map(drop)
    }

    /// Lets it go on.
    pub fn resume(self, how: Resume) -> io::Result<()> {
        match how {
            Resume::Run => self.go_on(libc::PTRACE_CONT, 0),
            Resume::Signal(signal) => self.go_on(libc::PTRACE_CONT, signal),
            Resume::ToCallBorder => self.go_on(libc::PTRACE_SYSCALL, 0),
            Resume::StayStopped => self.go_on(libc::PTRACE_LISTEN, 0),
        }
    }

    /// As [`resume`](Self::resume), with a signal.
    pub(super) fn resume_with(self, how: Resume, signal: i32) -> io::Result<()> {
        match how {
            Resume::ToCallBorder => self.go_on(libc::PTRACE_SYSCALL, signal),
            _ => self.go_on(libc::PTRACE_CONT, signal),
        }
    }

    fn go_on(self, request: u32, signal: i32) -> io::Result<()> {
        // SAFETY: takes numbers.
        unsafe { self.request(request, 0, signal as usize) }.map(drop)
    }

    /// The address of the restartable sequences area that it has registered; 0 for none.
    pub(super) fn sequences(self) -> io::Result<u64> {
        /// Not in the bindings: `PTRACE_GET_RSEQ_CONFIGURATION` and its structure.
        const GET_CONFIGURATION: u32 = 0x420f;
        let mut configuration = [0_u64; 3];
        // SAFETY: the kernel writes at most as many bytes as the address announces.
        unsafe {
            let size = size_of_val(&configuration);
            self.request(GET_CONFIGURATION, size, configuration.as_mut_ptr() as usize)?
        };
        Ok(configuration[0])
    }
}
