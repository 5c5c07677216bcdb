//! System calls in the name of a stopped thread.

use std::io;
use std::os::fd::RawFd;

use super::code::{self, Entry, THAT_FILE};
use super::hand::Hands;
use super::memory::{read_memory, write_memory};
use super::thread::{Registers, Resume, Thread};
use super::wait::{self, Happened, Stop, wait_for};

/// Bytes behind the instructions for the path of a descriptor of the tracer.
const PATH_BYTES: usize = 64;
const PAGE: u64 = 4096;
/// Words of a call in a table.
const WORDS: usize = 7;
/// What r15 has until a descriptor was handed.
const NOT_OPENED: u64 = u64::MAX;

/// Why no answer came.
#[derive(Debug)]
pub enum CallError {
    /// The thread has ended, or is about to, or runs another program: the next reports tell of it.
    Ended,
    /// The tracer was refused something.
    System(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => Self::Ended,
            _ => Self::System(error),
        }
    }
}

/// One call of a list.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// An mmap(2) of the descriptor that was handed last.
    pub fn map_that_file(map: MapCall) -> Self {
        let MapCall { address, length, prot, flags, offset } = map;
        Self { number: libc::SYS_mmap, arguments: [address, length, prot, flags, THAT_FILE, offset] }
    }

    /// Closes the descriptor that was handed last.
    pub fn close_that_file() -> Self {
        Self { number: libc::SYS_close, arguments: [THAT_FILE, 0, 0, 0, 0, 0] }
    }

    /// Closes a descriptor.
    pub fn close(descriptor: RawFd) -> Self {
        Self { number: libc::SYS_close, arguments: [descriptor as u64, 0, 0, 0, 0, 0] }
    }
}

/// The arguments of an mmap(2), but for its file.
#[derive(Clone, Copy, Debug)]
pub struct MapCall {
    /// Where.
    pub address: u64,
    /// How many bytes.
    pub length: u64,
    /// What is allowed.
    pub prot: u64,
    /// How.
    pub flags: u64,
    /// From which byte of the file on.
    pub offset: u64,
}

/// How a thread comes by a descriptor of its tracer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// It opens `/proc/TRACER/fd/N`: a new open file, so that neighbouring mappings are not joined. The thread does not sleep
    /// for it. It fails for programs that may not look at their tracer.
    Path,
    /// It is handed the descriptor.
    Hand,
}

/// What became of a descriptor that was handed to be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// The answer of mmap(2).
    pub answer: i64,
    /// The number that the descriptor had in the program for a moment.
    pub number: RawFd,
}

/// Where in the address space of a program the instructions are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallSite {
    code: u64,
    /// The process whose descriptors the path names.
    tracer: u32,
}

impl CallSite {
    /// Puts the instructions into a program that has just been started, behind the end of its vDSO, which is at
    /// `vdso`. `Ok(None)`: there is no room.
    pub fn prepare(thread: Thread, vdso: u64) -> io::Result<Option<Self>> {
        let code = code::bytes();
        let mut image = [0; 2 * PAGE as usize];
        let count = read_memory(thread.0, vdso, &mut image)
            .or_else(|_| read_memory(thread.0, vdso, &mut image[..PAGE as usize]))?;
        let used = image[..count].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Zeros at the end of the last section may be meant.
        let start = (used + 64).next_multiple_of(64);
        if used < 4 || image[..4] != *b"\x7fELF" || start + code.len() + 2 * PATH_BYTES > count {
            return Ok(None);
        }
        Self::put(thread, vdso + start as u64).map(Some)
    }

    /// Puts the instructions at `address`, where there is room.
    pub(super) fn put(thread: Thread, address: u64) -> io::Result<Self> {
        let site = Self { code: address, tracer: std::process::id() };
        thread.poke(site.code, code::bytes())?;
        let mut path = format!("/proc/{}/fd/", site.tracer).into_bytes();
        path.resize(path.len().next_multiple_of(8), 0);
        thread.poke(site.path(), &path)?;
        Ok(site)
    }

    /// The first address of the instructions.
    pub(super) fn address(&self) -> u64 {
        self.code
    }

    /// Whether the instructions are there still.
    pub(super) fn is_there(&self, thread: Thread) -> bool {
        let code = code::bytes();
        let mut found = vec![0; code.len()];
        read_memory(thread.0, self.code, &mut found).is_ok_and(|count| count == code.len()) && found == code
    }

    fn path(&self) -> u64 {
        self.code + code::bytes().len() as u64
    }

    /// The path of descriptor `of` of the tracer, with a zero at its end.
    pub fn path_text(&self, of: RawFd) -> Vec<u8> {
        format!("/proc/{}/fd/{of}\0", self.tracer).into_bytes()
    }

    /// The address of a path that names descriptor `of` of the tracer, until the next call of this. The thread is
    /// stopped, and no other thread of its process makes calls from here.
    pub fn path_of(&self, thread: Thread, of: RawFd) -> io::Result<u64> {
        let whole = self.path_text(of);
        // The rest is there since the site was prepared.
        let from = format!("/proc/{}/fd/", self.tracer).len() / 8 * 8;
        let mut tail = whole[from..].to_vec();
        tail.resize(tail.len().next_multiple_of(8), 0);
        thread.poke(self.path() + from as u64, &tail)?;
        Ok(self.path())
    }

    /// As [`path_of`](Self::path_of), of any file whose path has at most 55 bytes.
    pub fn any_path(&self, thread: Thread, path: &str) -> io::Result<u64> {
        let mut bytes = path.as_bytes().to_vec();
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        if bytes.len() > PATH_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Behind the path of descriptors, which stays.
        let at = self.path() + PATH_BYTES as u64;
        thread.poke(at, &bytes)?;
        Ok(at)
    }

    /// Makes one call and returns its answer: a number, or a negative error number. The thread is left stopped before
    /// a call that must not be made: its registers are to be set before it goes on.
    pub fn one(&self, thread: Thread, base: &Registers, call: Call) -> Result<i64, CallError> {
        let mut registers = self.at(base, Entry::One);
        put(&mut registers, call);
        Ok(run(thread, &registers)?.0.rbx as i64)
    }

    /// Has the thread come by descriptor `of` of the tracer, map it and close it. As [`one`](Self::one); the answer is
    /// mmap's, or `None` if it cannot be handed descriptors: it has no room for one, for example.
    pub fn map(
        &self,
        thread: Thread,
        base: &Registers,
        (of, by): (RawFd, By),
        map: MapCall,
    ) -> Result<Option<Mapped>, CallError> {
        let Some(hands) = Hands::of_this_process() else { return Ok(None) };
        let _offer = (by == By::Hand).then(|| hands.offer(thread.0, &[of]));
        let mut registers = self.at(base, Entry::Map);
        match by {
            By::Hand => put(&mut registers, Call::ask_for_descriptor()),
            By::Path => put(&mut registers, Call::open_to_read(self.path_of(thread, of)?)),
        }
        registers.0.r12 = map.address;
        registers.0.r13 = map.length;
        registers.0.r14 = map.prot;
        registers.0.rbp = map.flags;
        registers.0.rbx = map.offset;
        registers.0.r15 = NOT_OPENED;
        let registers = run(thread, &registers)?;
        let mapped = Mapped { answer: registers.0.rbx as i64, number: registers.0.r15 as RawFd };
        Ok((registers.0.r15 != NOT_OPENED).then_some(mapped))
    }

    /// Makes `calls` one after the other and returns their answers; all are made, whatever they answer. Those that ask for
    /// descriptors are handed `descriptors` of the tracer in this order. The table is at `table`, in memory that nobody
    /// needs. As [`one`](Self::one).
    pub fn list(
        &self,
        thread: Thread,
        base: &Registers,
        calls: &[Call],
        descriptors: &[RawFd],
        table: u64,
    ) -> Result<Vec<i64>, CallError> {
        let _offer = Hands::of_this_process().map(|hands| hands.offer(thread.0, descriptors));
        let mut bytes: Vec<u8> = Vec::with_capacity(calls.len() * WORDS * 8);
        for call in calls {
            bytes.extend(call.number.to_ne_bytes());
            call.arguments.iter().for_each(|argument| bytes.extend(argument.to_ne_bytes()));
        }
        write_memory(thread.0, table, &bytes)?;
        let mut registers = self.at(base, Entry::List);
        registers.0.r12 = table;
        registers.0.r13 = calls.len() as u64;
        run(thread, &registers)?;
        if read_memory(thread.0, table, &mut bytes)? != bytes.len() {
            return Err(CallError::System(io::ErrorKind::UnexpectedEof.into()));
        }
        let answers = bytes.chunks_exact(WORDS * 8);
        let answers = answers.map(|call| i64::from_ne_bytes(call[..8].try_into().unwrap_or_default()));
        let answers = answers.collect();
        // The program finds its stack as the kernel has made it.
        write_memory(thread.0, table, &vec![0; bytes.len()])?;
        Ok(answers)
    }

    fn at(&self, base: &Registers, entry: Entry) -> Registers {
        let mut registers = *base;
        registers.0.rip = self.code + entry.offset();
        registers.0.orig_rax = u64::MAX;
        // No direction, no trap flag.
        registers.0.eflags &= !0x500;
        registers
    }
}

/// An address far below where the kernel looks for room first, another one each time.
pub fn far_away() -> u64 {
    let mut bytes = [0; 4];
    // Without randomness it is the same one, which is taken more often.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    0x1000_0000_0000 + (u64::from(u32::from_ne_bytes(bytes)) << 12)
}

impl Call {
    /// Asks for the next descriptor that the thread is offered.
    pub fn ask_for_descriptor() -> Self {
        Self { number: libc::SYS_pidfd_getfd, arguments: [super::MARK.into(), 0, 0, 0, 0, 0] }
    }

    /// Opens the path at this address of the process for reading.
    fn open_to_read(path: u64) -> Self {
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
        Self { number: libc::SYS_openat, arguments: [libc::AT_FDCWD as i64 as u64, path, flags, 0, 0, 0] }
    }

    /// Opens the path at this address of the process for reading and writing.
    pub fn open_to_write(path: u64) -> Self {
        let flags = (libc::O_RDWR | libc::O_CLOEXEC) as u64;
        Self { number: libc::SYS_openat, arguments: [libc::AT_FDCWD as i64 as u64, path, flags, 0, 0, 0] }
    }

    /// Opens a userfaultfd that does not block.
    pub fn userfaultfd() -> Self {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
        Self { number: libc::SYS_userfaultfd, arguments: [flags, 0, 0, 0, 0, 0] }
    }

    /// Opens a userfaultfd by the file that was opened last, /dev/userfaultfd.
    pub fn userfaultfd_of(device: RawFd) -> Self {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
        let number = memobj_linux::uffd::NEW_OF_DEVICE;
        Self { number: libc::SYS_ioctl, arguments: [device as u64, number, flags, 0, 0, 0] }
    }

    /// Makes `prot` of a range.
    pub fn protect(address: u64, length: u64, prot: u64) -> Self {
        Self { number: libc::SYS_mprotect, arguments: [address, length, prot, 0, 0, 0] }
    }

    /// Maps `length` bytes that nobody may access, at a place where nobody else maps anything.
    pub fn map_nothing(length: u64) -> Self {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
        Self { number: libc::SYS_mmap, arguments: [far_away(), length, 0, flags, u64::MAX, 0] }
    }

    /// Maps a page of code anywhere.
    pub(super) fn map_page() -> Self {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        Self { number: libc::SYS_mmap, arguments: [0, PAGE, prot as u64, flags as u64, u64::MAX, 0] }
    }

    /// Moves a range to `to`, in place of what is there.
    pub fn move_to(address: u64, length: u64, to: u64) -> Self {
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        Self { number: libc::SYS_mremap, arguments: [address, length, length, flags, to, 0] }
    }

    /// Unmaps a range.
    pub fn unmap(address: u64, length: u64) -> Self {
        Self { number: libc::SYS_munmap, arguments: [address, length, 0, 0, 0, 0] }
    }
}

fn put(registers: &mut Registers, call: Call) {
    registers.0.rax = call.number as u64;
    call.arguments.iter().enumerate().for_each(|(index, value)| registers.set_argument(index, *value));
}

/// Runs the thread from `registers` to the mark, without signals, and returns the registers that it has then.
fn run(thread: Thread, registers: &Registers) -> Result<Registers, CallError> {
    let mask = thread.signal_mask()?;
    thread.set_signal_mask(u64::MAX)?;
    thread.set_registers(registers)?;
    let answer = run_to(thread, Resume::Run, |stop, registers| stop == Stop::Call && registers.is_mark());
    if !matches!(answer, Err(CallError::Ended)) {
        thread.set_signal_mask(mask)?;
    }
    answer
}

/// Lets the stopped thread go on to the stop that `is_it` knows, and returns the registers that it has there. All signals
/// that can be are blocked.
///
/// Its end, a new program and the like are kept for whoever waits next, since they are no news for the caller alone.
pub(super) fn run_to(
    thread: Thread,
    how: Resume,
    is_it: impl Fn(Stop, &Registers) -> bool,
) -> Result<Registers, CallError> {
    thread.resume(how)?;
    let mut is_stopped = false;
    loop {
        match wait_for(thread.0)? {
            Happened::Stopped(stop @ (Stop::Call | Stop::CallBorder)) => {
                let registers = thread.registers()?;
                if is_it(stop, &registers) {
                    if is_stopped {
                        // As soon as it goes on it tells whether its process is stopped still.
                        thread.interrupt()?;
                    }
                    return Ok(registers);
                }
                // A call of the list that the filter stops: it is ours.
                thread.resume(how)?;
            }
            // SIGSTOP, which cannot be blocked. It is delivered now, since a SIGCONT may be on its way; what its
            // process has to do for us is done first all the same.
            Happened::Stopped(Stop::Signal(signal)) => thread.resume_with(how, signal)?,
            Happened::Stopped(stop @ (Stop::Group(_) | Stop::Trap | Stop::Child)) => {
                is_stopped |= matches!(stop, Stop::Group(_));
                thread.resume(how)?;
            }
            news => {
                wait::keep(thread.0, news);
                return Err(CallError::Ended);
            }
        }
    }
}

impl Thread {
    /// Makes a call by the instruction right before where `base` is, and returns its answer. The thread is left where the
    /// call ends: its registers are to be set before it goes on.
    pub(super) fn call_again(self, base: &Registers, call: Call) -> Result<i64, CallError> {
        /// What is found as the answer where a call begins.
        const ENOSYS: i64 = -38;
        let mask = self.signal_mask()?;
        self.set_signal_mask(u64::MAX)?;
        let mut registers = *base;
        put(&mut registers, call);
        registers.0.orig_rax = u64::MAX;
        registers.0.rip -= 2;
        self.set_registers(&registers)?;
        let end = run_to(self, Resume::ToCallBorder, |stop, at| {
            stop == Stop::CallBorder && at.call() == call.number && at.answer() != ENOSYS
        });
        if !matches!(end, Err(CallError::Ended)) {
            self.set_signal_mask(mask)?;
        }
        Ok(end?.answer())
    }

    /// Lets the stopped thread go on to the end of the system call that it is in.
    pub fn run_to_end_of_call(self) -> Result<Registers, CallError> {
        run_to(self, Resume::ToCallBorder, |stop, _| stop == Stop::CallBorder)
    }
}
