//! Calls that name files: what they ask for, and how they are made on another name.

use memobj_tracer::{Call, Registers, read_memory, read_string};

use super::walk::{LastLink, Missing, resolve};

const MOST_PATH_BYTES: usize = 4096;

/// The numbers of x86-64.
mod numbers {
    pub(super) const OPEN: i64 = 2;
    pub(super) const STAT: i64 = 4;
    pub(super) const LSTAT: i64 = 6;
    pub(super) const ACCESS: i64 = 21;
    pub(super) const TRUNCATE: i64 = 76;
    pub(super) const CREAT: i64 = 85;
    pub(super) const READLINK: i64 = 89;
    pub(super) const OPENAT: i64 = 257;
    pub(super) const NEWFSTATAT: i64 = 262;
    pub(super) const READLINKAT: i64 = 267;
    pub(super) const FACCESSAT: i64 = 269;
    pub(super) const STATX: i64 = 332;
    pub(super) const OPENAT2: i64 = 437;
    pub(super) const FACCESSAT2: i64 = 439;
}

/// Flags of open(2).
pub(super) mod flags {
    pub(in super::super) const ACCESS: u64 = 3;
    pub(in super::super) const WRITE: u64 = 1;
    pub(in super::super) const READ_WRITE: u64 = 2;
    pub(in super::super) const CREATE: u64 = 0o100;
    pub(in super::super) const EXCLUSIVE: u64 = 0o200;
    pub(in super::super) const TRUNCATE: u64 = 0o1000;
    pub(in super::super) const NONBLOCK: u64 = 0o4000;
    pub(in super::super) const DIRECTORY: u64 = 0o200_000;
    pub(in super::super) const NO_FOLLOW: u64 = 0o400_000;
    pub(in super::super) const CLOSE_ON_EXEC: u64 = 0o2_000_000;
    pub(in super::super) const PATH: u64 = 0o10_000_000;
    pub(in super::super) const TEMPORARY: u64 = 0o20_000_000;
}

const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_EACCESS: u64 = 0x200;
const AT_EMPTY_PATH: u64 = 0x1000;
/// What statx(2) and newfstatat(2) know beside: no automount, and how old an answer may be.
const AT_STAT_ONLY: u64 = 0x800 | 0x6000;
const AT_FDCWD: i32 = -100;

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Open,
    /// Asks about a file, or changes it, by its name only.
    Ask,
    ReadLink,
}

/// A call that names a file.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    /// The descriptor of the folder that it is relative to; `None`: the working directory.
    pub(super) folder: Option<i32>,
    /// Of open(2).
    pub(super) flags: u64,
    mode: u64,
    pub(super) last_link: LastLink,
    pub(super) missing: Missing,
    pub(super) resolve: u64,
    /// Which argument is the path.
    path: usize,
    registers: Registers,
}

impl Naming {
    /// Reads the call that the stopped thread is about to make. `None`: it names no file, or the kernel refuses it
    /// whatever it names.
    pub(super) fn read(pid: i32, registers: &Registers) -> Option<Self> {
        let arguments = registers.arguments();
        let number = registers.call();
        let path = usize::from(takes_folder(number)?);
        let folder = (path == 1).then_some(arguments[0] as i32).filter(|folder| *folder != AT_FDCWD);
        let name = read_string(pid, arguments[path], MOST_PATH_BYTES)?;
        if name.is_empty() {
            return None;
        }
        let mut naming = Self {
            kind: Kind::Ask,
            name,
            folder,
            flags: 0,
            mode: 0,
            last_link: LastLink::Follow,
            missing: Missing::Fails,
            resolve: 0,
            path,
            registers: *registers,
        };
        naming.look(pid, number, &arguments).then_some(naming)
    }

    /// Whether the kernel looks at the name.
    fn look(&mut self, pid: i32, number: i64, arguments: &[u64; 6]) -> bool {
        let flag = |argument: usize, known: u64| arguments[argument] & 0xffff_ffff & !known == 0;
        match number {
            numbers::OPEN => return self.opens(arguments[1], arguments[2]),
            numbers::OPENAT => return self.opens(arguments[2], arguments[3]),
            numbers::CREAT => {
                return self.opens(flags::CREATE | flags::WRITE | flags::TRUNCATE, arguments[1]);
            }
            numbers::OPENAT2 => return self.opens_as(pid, arguments[2], arguments[3]),
            numbers::LSTAT => self.last_link = LastLink::Keep,
            numbers::NEWFSTATAT => {
                self.keeps_link_if(arguments[3]);
                return flag(3, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_STAT_ONLY);
            }
            numbers::STATX => {
                self.keeps_link_if(arguments[2]);
                let is_one_age = arguments[2] & 0x6000 != 0x6000;
                let is_known = arguments[3] & 0x8000_0000 == 0;
                return flag(2, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_STAT_ONLY) && is_one_age && is_known;
            }
            numbers::ACCESS => return flag(1, 7),
            numbers::FACCESSAT => return flag(2, 7),
            numbers::FACCESSAT2 => {
                self.keeps_link_if(arguments[3]);
                return flag(2, 7) && flag(3, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_EACCESS);
            }
            numbers::READLINK | numbers::READLINKAT => {
                (self.kind, self.last_link) = (Kind::ReadLink, LastLink::Keep);
                return self.link_room().1 > 0;
            }
            numbers::TRUNCATE => return arguments[1] as i64 >= 0,
            _ => {}
        }
        true
    }

    fn keeps_link_if(&mut self, flags: u64) {
        if flags & AT_SYMLINK_NOFOLLOW != 0 {
            self.last_link = LastLink::Keep;
        }
    }

    fn opens(&mut self, flags: u64, mode: u64) -> bool {
        self.kind = Kind::Open;
        (self.flags, self.mode) = (flags & 0xffff_ffff, mode);
        if flags & flags::PATH != 0 {
            self.flags &= flags::PATH | flags::DIRECTORY | flags::NO_FOLLOW | flags::CLOSE_ON_EXEC;
        }
        let has = |all: u64| self.flags & all == all;
        if has(flags::CREATE) {
            self.missing = Missing::IsMade;
        }
        if has(flags::NO_FOLLOW) || has(flags::CREATE | flags::EXCLUSIVE) {
            self.last_link = LastLink::Keep;
        }
        let is_temporary = has(flags::TEMPORARY);
        let writes = self.flags & flags::ACCESS != 0;
        !has(flags::CREATE | flags::DIRECTORY) && !(is_temporary && !(has(flags::DIRECTORY) && writes))
    }

    /// openat2(2): flags, mode and ways to resolve are in memory.
    fn opens_as(&mut self, pid: i32, how: u64, size: u64) -> bool {
        const KNOWN_BYTES: usize = 24;
        let mut bytes = [0; KNOWN_BYTES];
        // A longer structure is of a later kernel; whether this one takes it, it says itself.
        if size != KNOWN_BYTES as u64 || !matches!(read_memory(pid, how, &mut bytes), Ok(KNOWN_BYTES)) {
            return false;
        }
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let (flags, mode, resolve) = (word(0), word(8), word(16));
        let makes = flags & flags::CREATE != 0 || flags & flags::TEMPORARY != 0;
        let with_path = flags::PATH | flags::DIRECTORY | flags::NO_FOLLOW | flags::CLOSE_ON_EXEC;
        let both = resolve::BENEATH | resolve::IN_ROOT;
        if flags & !KNOWN_FLAGS != 0
            || mode & !0o7777 != 0
            || (mode != 0 && !makes)
            || (flags & flags::PATH != 0 && flags & !with_path != 0)
            || resolve & !KNOWN_WAYS != 0
            || resolve & both == both
        {
            return false;
        }
        self.resolve = resolve;
        self.opens(flags, mode)
    }

    /// Whether it changes what it names, or may do so later.
    pub(super) fn changes(&self) -> bool {
        const CHANGES: u64 = flags::ACCESS | flags::CREATE | flags::TRUNCATE;
        match self.kind {
            Kind::Open => self.flags & flags::PATH == 0 && self.flags & CHANGES != 0,
            Kind::Ask => self.registers.call() == numbers::TRUNCATE,
            Kind::ReadLink => false,
        }
    }

    /// The call with the path at this address, which leads to the file without any link, or to the entry that is made.
    pub(super) fn on(&self, path: u64) -> Call {
        let mut arguments = self.registers.arguments();
        let number = self.registers.call();
        match number {
            numbers::OPEN | numbers::CREAT => {
                return Call { number: numbers::OPEN, arguments: [path, self.flags, self.mode, 0, 0, 0] };
            }
            numbers::OPENAT | numbers::OPENAT2 => {
                let at = AT_FDCWD as i64 as u64;
                return Call { number: numbers::OPENAT, arguments: [at, path, self.flags, self.mode, 0, 0] };
            }
            numbers::NEWFSTATAT | numbers::FACCESSAT2 => arguments[3] &= !AT_SYMLINK_NOFOLLOW,
            numbers::STATX => arguments[2] &= !AT_SYMLINK_NOFOLLOW,
            _ => {}
        }
        arguments[self.path] = path;
        Call { number: if number == numbers::LSTAT { numbers::STAT } else { number }, arguments }
    }

    /// The same, of a file that is there: nothing is made, and there is no link to follow.
    pub(super) fn of_what_is_there(mut self) -> Self {
        self.flags &= !(flags::CREATE | flags::EXCLUSIVE | flags::NO_FOLLOW);
        self
    }

    /// Where the text of a link goes, and how many bytes of it.
    pub(super) fn link_room(&self) -> (u64, i32) {
        let arguments = self.registers.arguments();
        (arguments[self.path + 1], arguments[self.path + 2] as i32)
    }
}

/// Flags that open(2) has.
const KNOWN_FLAGS: u64 = 0o37_777_703;
const KNOWN_WAYS: u64 = resolve::NO_XDEV
    | resolve::NO_MAGICLINKS
    | resolve::NO_SYMLINKS
    | resolve::BENEATH
    | resolve::IN_ROOT
    | resolve::CACHED;

/// Whether the call takes a folder in front of the name; `None`: it names no file.
fn takes_folder(number: i64) -> Option<bool> {
    match number {
        numbers::OPEN
        | numbers::STAT
        | numbers::LSTAT
        | numbers::ACCESS
        | numbers::TRUNCATE
        | numbers::CREAT
        | numbers::READLINK => Some(false),
        numbers::OPENAT
        | numbers::NEWFSTATAT
        | numbers::READLINKAT
        | numbers::FACCESSAT
        | numbers::STATX
        | numbers::OPENAT2
        | numbers::FACCESSAT2 => Some(true),
        _ => None,
    }
}
