//! What another process has mapped where, asked of the kernel address by address.
//!
//! Source: PROCMAP_QUERY in Documentation/filesystems/proc.rst (Linux 6.11); before that the text of /proc/PID/maps.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::fd::AsRawFd;

use super::Pid;

/// A range that maps a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MappedFile {
    /// The first address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// As `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
    pub prot: u64,
    /// Whether stores are everybody's.
    pub is_shared: bool,
    /// The offset of `start` in the file, in bytes.
    pub offset: u64,
    /// The device of the file, major and minor.
    pub device: (u32, u32),
    /// Its number there.
    pub inode: u64,
}

/// The mappings of a process as they are now, and stay when it runs as another user.
///
/// Costs a descriptor while there are many left; later ones are opened for each question. Who asks like that of a process
/// that runs as another user since is refused.
#[derive(Debug)]
pub struct Maps {
    file: Option<File>,
    process: Pid,
}

/// Descriptors from this part of the limit on are not kept for answers.
const KEPT_PART: u64 = 4;

#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

const QUERY: std::ffi::c_ulong =
    (3 << 30) | ((size_of::<Query>() as std::ffi::c_ulong) << 16) | ((b'f' as std::ffi::c_ulong) << 8) | 17;
const SHARED: u64 = 8;
const OR_NEXT: u64 = 0x10;
const OF_A_FILE: u64 = 0x20;

impl Maps {
    /// Of this process, which is stopped or has stopped since it was started.
    pub fn open(process: Pid) -> io::Result<Self> {
        let file = open(process)?;
        let is_low = (file.as_raw_fd() as u64) < super::most_descriptors() / KEPT_PART;
        Ok(Self { file: is_low.then_some(file), process })
    }

    /// Whether what is mapped at `address` can be executed.
    pub(super) fn is_code(&self, address: u64) -> io::Result<bool> {
        Ok(self.query(address, 0)?.is_some_and(|found| found.prot & libc::PROT_EXEC as u64 != 0))
    }

    /// The file that is mapped at `address`.
    pub fn at(&self, address: u64) -> io::Result<Option<MappedFile>> {
        self.query(address, OF_A_FILE)
    }

    /// The first mapped file that ends behind `address`.
    pub fn from(&self, address: u64) -> io::Result<Option<MappedFile>> {
        self.query(address, OF_A_FILE | OR_NEXT)
    }

    /// All mapped files, in order.
    pub fn files(&self) -> io::Result<Vec<MappedFile>> {
        let mut files = Vec::new();
        let mut next = 0;
        while let Some(file) = self.from(next)? {
            next = file.end;
            files.push(file);
        }
        Ok(files)
    }

    fn query(&self, address: u64, flags: u64) -> io::Result<Option<MappedFile>> {
        match &self.file {
            Some(file) => self.query_of(file, address, flags),
            None => self.query_of(&open(self.process)?, address, flags),
        }
    }

    fn query_of(&self, file: &File, address: u64, flags: u64) -> io::Result<Option<MappedFile>> {
        let mut query = Query { size: size_of::<Query>() as u64, flags, address, ..Default::default() };
        // SAFETY: the kernel reads and writes the structure, which lives across the call and asks for no name.
        if unsafe { libc::ioctl(file.as_raw_fd(), QUERY, &raw mut query) } >= 0 {
            return Ok(Some(MappedFile {
                start: query.start,
                end: query.end,
                prot: query.vma_flags & 7,
                is_shared: query.vma_flags & SHARED != 0,
                offset: query.offset,
                device: (query.major, query.minor),
                inode: query.inode,
            }));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            Some(libc::ENOTTY) => search(file, address, flags),
            _ => Err(error),
        }
    }

    /// What the kernel calls the file at `address`: a path, followed by ` (deleted)` if it has none any more.
    pub fn name_at(&self, address: u64) -> io::Result<Option<String>> {
        let text = std::fs::read(format!("/proc/{}/maps", self.process))?;
        let text = String::from_utf8_lossy(&text);
        let line = text
            .lines()
            .find(|line| parse(line).is_some_and(|found| (found.start..found.end).contains(&address)));
        Ok(line.and_then(|line| line.find('/').map(|at| line[at..].to_string())))
    }
}

fn open(process: Pid) -> io::Result<File> {
    File::open(format!("/proc/{process}/maps"))
}

/// Before Linux 6.11.
fn search(mut file: &File, address: u64, flags: u64) -> io::Result<Option<MappedFile>> {
    file.rewind()?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let of_a_file = flags & OF_A_FILE != 0;
        let found = parse(&String::from_utf8_lossy(&line))
            .filter(|found| (found.inode != 0 || !of_a_file) && address < found.end);
        if let Some(found) = found {
            let wanted = found.start <= address || flags & OR_NEXT != 0;
            return Ok(wanted.then_some(found));
        }
    }
    Ok(None)
}

/// A line of /proc/PID/maps.
fn parse(line: &str) -> Option<MappedFile> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let letters = fields.next()?.as_bytes();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let allowed =
        |index: usize, letter: u8, bit: u64| if letters.get(index) == Some(&letter) { bit } else { 0 };
    Some(MappedFile {
        start: hex(start)?,
        end: hex(end)?,
        prot: allowed(0, b'r', 1) | allowed(1, b'w', 2) | allowed(2, b'x', 4),
        is_shared: letters.get(3) == Some(&b's'),
        offset,
        device: (hex(major)? as u32, hex(minor)? as u32),
        inode: fields.next()?.parse().ok()?,
    })
}
