//! A space, two files, and the words that were said.

use memobj_linux::oracle::{Answer, Order, Process};
use memobj_sim::space::{Machine, WINDOW_START};
use memobj_vm::space::Loads;

pub const PAGE: u64 = 4096;
pub const R: u32 = 1;
pub const W: u32 = 2;
pub const RW: u32 = 3;
pub const X: u32 = 4;
pub const SHARED: u32 = 1;
pub const PRIVATE: u32 = 2;
pub const ANON: u32 = 0x20;
/// Private and anonymous.
pub const AP: u32 = ANON | PRIVATE;
pub const FIXED: u32 = 0x10;
pub const NOREPLACE: u32 = 0x10_0000;
pub const GROWSDOWN: u32 = 0x100;
/// Descriptors of the first file, by how it was opened, and of the second.
pub const FILE: i32 = 0;
pub const READ_ONLY: i32 = 1;
pub const WRITE_ONLY: i32 = 2;
pub const OTHER: i32 = 3;
pub const NONE: i32 = -1;

/// The address of a page of the window.
pub const fn at(page: u64) -> u64 {
    WINDOW_START + page * PAGE
}

pub struct GoldenFixture {
    machine: Machine,
    words: Vec<String>,
    process: Process,
}

impl GoldenFixture {
    pub fn new() -> Self {
        // Recorded on a processor without protection keys.
        Self { machine: Machine::new(900, Loads::Implied), words: Vec::new(), process: 0 }
    }

    pub fn end(self) -> String {
        self.machine.end();
        self.words.join(" ")
    }

    fn order(&mut self, order: Order) -> Answer {
        self.machine.carry_out(self.process, order)
    }

    fn say(&mut self, word: impl ToString) -> &mut Self {
        self.words.push(word.to_string());
        self
    }

    fn call(&mut self, order: Order) -> &mut Self {
        let word = match -self.order(order).value {
            1 => "EPERM",
            9 => "EBADF",
            11 => "EAGAIN",
            12 => "ENOMEM",
            13 => "EACCES",
            14 => "EFAULT",
            16 => "EBUSY",
            17 => "EEXIST",
            19 => "ENODEV",
            22 => "EINVAL",
            75 => "EOVERFLOW",
            95 => "EOPNOTSUPP",
            error if error > 0 => "?",
            _ => "OK",
        };
        self.say(word)
    }

    fn access(&mut self, order: Order) -> &mut Self {
        let word = match self.order(order).signal.map(|signal| (signal.number, signal.code)) {
            None => "ok",
            Some((11, 1)) => "SEGV_MAPERR",
            Some((11, 2)) => "SEGV_ACCERR",
            Some((7, 2)) => "BUS_ADRERR",
            Some(_) => "?",
        };
        self.say(word)
    }

    /// The first file has `length` bytes, all `byte`, and so has the second.
    pub fn file(&mut self, length: u64, byte: u8) -> &mut Self {
        for file in [FILE, OTHER] {
            self.order(Order::Truncate { file, length: 0 });
            self.order(Order::Pwrite { file, offset: 0, length, byte });
        }
        self
    }

    pub fn pwrite(&mut self, offset: u64, byte: u8) -> &mut Self {
        self.order(Order::Pwrite { file: FILE, offset, length: 1, byte });
        self
    }

    pub fn truncate(&mut self, length: u64) -> &mut Self {
        self.order(Order::Truncate { file: FILE, length });
        self
    }

    /// Says a byte of the first file.
    pub fn file_byte(&mut self, offset: u64) -> &mut Self {
        let data = self.order(Order::Pread { file: FILE, offset, length: 1 }).data;
        self.say(data.first().map_or("end".into(), |byte| byte.to_string()))
    }

    pub fn punch(&mut self, offset: u64, length: u64) -> &mut Self {
        self.call(Order::Punch { file: FILE, offset, length })
    }

    /// mmap(2), and says what came of it.
    pub fn mmap(
        &mut self,
        address: u64,
        length: u64,
        prot: u32,
        flags: u32,
        file: i32,
        offset: u64,
    ) -> &mut Self {
        self.call(Order::Mmap { address, length, prot, flags, file, offset })
    }

    /// Maps pages at a page, without a word.
    pub fn map(&mut self, page: u64, pages: u64, prot: u32, flags: u32, file: i32) -> &mut Self {
        self.map_from(page, pages, prot, flags, file, 0)
    }

    pub fn map_from(
        &mut self,
        page: u64,
        pages: u64,
        prot: u32,
        flags: u32,
        file: i32,
        first: u64,
    ) -> &mut Self {
        let (length, flags, offset) = (pages * PAGE, flags | FIXED, first * PAGE);
        let answer = self.order(Order::Mmap { address: at(page), length, prot, flags, file, offset });
        assert_eq!(answer.value as u64, at(page), "a probe maps what can be mapped");
        self
    }

    pub fn munmap(&mut self, address: u64, length: u64) -> &mut Self {
        self.call(Order::Munmap { address, length })
    }

    /// Unmaps pages without a word.
    pub fn free(&mut self, page: u64, pages: u64) -> &mut Self {
        self.order(Order::Munmap { address: at(page), length: pages * PAGE });
        self
    }

    pub fn mprotect(&mut self, address: u64, length: u64, prot: u32) -> &mut Self {
        self.call(Order::Mprotect { address, length, prot })
    }

    /// Changes a protection without a word.
    pub fn protect_quietly(&mut self, address: u64, length: u64, prot: u32) -> &mut Self {
        self.order(Order::Mprotect { address, length, prot });
        self
    }

    pub fn mremap(&mut self, address: u64, old: u64, new: u64, flags: u32, to: u64) -> &mut Self {
        self.call(Order::Mremap { address, old, new, flags, to })
    }

    pub fn madvise(&mut self, address: u64, length: u64, advice: i32) -> &mut Self {
        self.call(Order::Madvise { address, length, advice })
    }

    pub fn msync(&mut self, address: u64, length: u64, flags: i32) -> &mut Self {
        self.call(Order::Msync { address, length, flags })
    }

    pub fn mlock(&mut self, address: u64, length: u64) -> &mut Self {
        self.call(Order::Mlock { address, length, flags: 0 })
    }

    pub fn mlock2(&mut self, address: u64, length: u64, flags: u32) -> &mut Self {
        self.call(Order::Mlock { address, length, flags })
    }

    pub fn munlock(&mut self, address: u64, length: u64) -> &mut Self {
        self.call(Order::Munlock { address, length })
    }

    pub fn load(&mut self, address: u64) -> &mut Self {
        self.access(Order::Load { address })
    }

    pub fn store(&mut self, address: u64, byte: u8) -> &mut Self {
        self.access(Order::Store { address, byte })
    }

    /// Stores without a word.
    pub fn put(&mut self, address: u64, byte: u8) -> &mut Self {
        assert_eq!(self.order(Order::Store { address, byte }).signal, None, "a probe stores where it can");
        self
    }

    pub fn execute(&mut self, address: u64) -> &mut Self {
        self.access(Order::Execute { address })
    }

    /// Says a byte of memory.
    pub fn byte(&mut self, address: u64) -> &mut Self {
        let answer = self.order(Order::Load { address });
        self.say(if answer.signal.is_some() { "signal".into() } else { answer.value.to_string() })
    }

    /// write(2) from memory: says the count.
    pub fn copy_out(&mut self, address: u64, length: u64) -> &mut Self {
        let count = self.order(Order::CopyOut { address, length }).value;
        self.say(if count == -14 { "EFAULT".into() } else { count.to_string() })
    }

    /// read(2) into memory: says the count.
    pub fn copy_in(&mut self, address: u64, length: u64) -> &mut Self {
        let count = self.order(Order::CopyIn { address, length, byte: 0 }).value;
        self.say(if count == -14 { "EFAULT".into() } else { count.to_string() })
    }

    pub fn fork(&mut self) -> &mut Self {
        self.order(Order::Fork);
        self
    }

    /// What follows happens in the forked child, or in its parent.
    pub fn child(&mut self) -> &mut Self {
        self.process = 1;
        self
    }

    pub fn parent(&mut self) -> &mut Self {
        self.process = 0;
        self
    }
}
