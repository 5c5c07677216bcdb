//! The probes.

use super::Probe;
use super::fixture::*;

macro_rules! probes {
    ($($about:literal, $words:literal: |$fixture:ident| $run:expr;)*) => {
        &[$(Probe { about: $about, words: $words, run: |$fixture| { $run; } }),*]
    };
}

const WRAPS: u64 = 0_u64.wrapping_sub(PAGE);
const PAST: u64 = 0x7fff_ffff_f000;
const CHAR_A: u8 = b'a';

#[rustfmt::skip]
pub const PROBES: &[Probe] = probes! {
    // mmap: errors and their order
    "length 0", "EINVAL": |r| r.mmap(0, 0, RW, AP, NONE, 0);
    "length that rounds to 0", "ENOMEM": |r| r.mmap(0, u64::MAX, RW, AP, NONE, 0);
    "length 2^47", "ENOMEM": |r| r.mmap(0, 1 << 47, RW, AP, NONE, 0);
    "no type", "EINVAL EINVAL": |r| r.mmap(0, PAGE, RW, ANON, NONE, 0).mmap(0, PAGE, RW, 0, FILE, 0);
    "type 3 with a file, and without", "OK EINVAL": |r| r.mmap(0, PAGE, RW, 3, FILE, 0).mmap(0, PAGE, RW, 3 | ANON, NONE, 0);
    "types 4 to 15 with a file", "EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL":
        |r| for kind in 4..16 { r.mmap(0, PAGE, RW, kind, FILE, 0); };
    "no file", "EBADF": |r| r.mmap(0, PAGE, RW, PRIVATE, NONE, 0);
    "no file before length 0", "EBADF": |r| r.mmap(0, 0, RW, PRIVATE, NONE, 0);
    "unaligned offset before no file", "EINVAL": |r| r.mmap(0, PAGE, RW, PRIVATE, NONE, 1);
    "unaligned offset", "EINVAL": |r| r.mmap(0, PAGE, RW, PRIVATE, FILE, 100);
    "anonymous with any file and offset", "OK": |r| r.mmap(0, PAGE, RW, AP, 99, 3 * PAGE);
    "anonymous with an unaligned offset", "EINVAL": |r| r.mmap(0, PAGE, RW, AP, NONE, 1);
    "negative offset", "EOVERFLOW": |r| r.mmap(0, PAGE, R, PRIVATE, FILE, WRAPS);
    "offset + length past 2^63", "EOVERFLOW": |r| r.mmap(0, 2 * PAGE, R, PRIVATE, FILE, 0x7fff_ffff_ffff_f000);
    "offset 2^62, and beyond the end", "OK OK": |r| r.mmap(0, PAGE, R, PRIVATE, FILE, 1 << 62).mmap(0, PAGE, R, PRIVATE, FILE, 1 << 40);
    "opened for writing only", "EACCES EACCES EACCES":
        |r| r.mmap(0, PAGE, R, PRIVATE, WRITE_ONLY, 0).mmap(0, PAGE, W, SHARED, WRITE_ONLY, 0).mmap(0, PAGE, 0, SHARED, WRITE_ONLY, 0);
    "opened for reading only", "EACCES OK OK":
        |r| r.mmap(0, PAGE, RW, SHARED, READ_ONLY, 0).mmap(0, PAGE, R, SHARED, READ_ONLY, 0).mmap(0, PAGE, RW, PRIVATE, READ_ONLY, 0);
    "fixed, unaligned", "EINVAL": |r| r.mmap(at(0) + 1, PAGE, RW, AP | FIXED, NONE, 0);
    "fixed, past the end; wrapping", "ENOMEM ENOMEM":
        |r| r.mmap(PAST, PAGE, RW, AP | FIXED, NONE, 0).mmap(WRAPS, 2 * PAGE, RW, AP | FIXED, NONE, 0);
    "fixed where free; taken; unaligned", "OK EEXIST EINVAL":
        |r| r.mmap(at(0), PAGE, RW, AP | NOREPLACE, NONE, 0).mmap(at(0), PAGE, RW, AP | NOREPLACE, NONE, 0).mmap(at(0) + 1, PAGE, RW, AP | NOREPLACE, NONE, 0);
    "flags of another day, shared, validated, private", "OK OK OK":
        |r| for kind in [1, 3, 2] { r.mmap(0, PAGE, RW, kind | 0x800_0000, FILE, 0); };
    "validated flags that are known, and NOREPLACE, which is not", "OK OK OK OK OK OK OK EOPNOTSUPP OK":
        |r| for flag in [0x800, 0x1000, 0x2000, 0x4000, 0x8000, 0x1_0000, 0x2_0000, NOREPLACE, 0x400_0000] { r.mmap(at(600), PAGE, RW, 3 | flag, FILE, 0).free(600, 1); };
    "growing: private, shared, a file", "OK EINVAL EINVAL":
        |r| r.mmap(0, PAGE, RW, AP | GROWSDOWN, NONE, 0).mmap(0, PAGE, RW, SHARED | ANON | GROWSDOWN, NONE, 0).mmap(0, PAGE, RW, PRIVATE | GROWSDOWN, FILE, 0);
    "no huge pages: 2 MiB, a file, a size that is none", "ENOMEM EINVAL EINVAL":
        |r| r.mmap(0, 2 << 20, RW, AP | 0x4_0000, NONE, 0).mmap(0, PAGE, RW, PRIVATE | 0x4_0000, FILE, 0).mmap(0, 2 << 20, RW, AP | 0x4_0000 | 13 << 26, NONE, 0);
    "bits that are no protection: mmap, mprotect, PROT_SEM", "OK EINVAL OK":
        |r| r.mmap(at(0), PAGE, RW | 0x80, AP | FIXED, NONE, 0).mprotect(at(0), PAGE, RW | 0x80).mprotect(at(0), PAGE, 8 | R);
    "a refused fixed mapping leaves the old one", "EACCES ok 107":
        |r| r.map(0, 1, RW, AP, NONE).put(at(0), b'k').mmap(at(0), PAGE, RW, SHARED | FIXED, READ_ONLY, 0).load(at(0)).byte(at(0));
    "more locked than allowed", "EAGAIN OK": |r| r.mmap(0, 64 * PAGE, RW, AP | 0x2000, NONE, 0).mmap(0, 4 * PAGE, RW, AP | 0x2000, NONE, 0);
    "populate past the end, and without access", "OK OK": |r| r.file(100, 1).mmap(0, 4 * PAGE, R, PRIVATE | 0x8000, FILE, 0).mmap(0, PAGE, 0, AP | 0x8000, NONE, 0);
    "droppable, uninitialised", "OK OK": |r| r.mmap(0, PAGE, RW, 8 | ANON, NONE, 0).mmap(0, PAGE, RW, AP | 0x400_0000, NONE, 0);
    "a bad type before the access", "EINVAL": |r| r.mmap(0, PAGE, RW, 0, WRITE_ONLY, 0);
    "a taken place before the access", "EEXIST": |r| r.map(0, 1, RW, AP, NONE).mmap(at(0), PAGE, RW, PRIVATE | NOREPLACE, WRITE_ONLY, 0);
    "an unaligned place before the access, and before the offset", "EINVAL EINVAL":
        |r| r.mmap(at(0) + 1, PAGE, RW, PRIVATE | FIXED, WRITE_ONLY, 0).mmap(at(0) + 1, 2 * PAGE, RW, PRIVATE | FIXED, WRITE_ONLY, WRAPS);
    "a known flag of another day and the access", "EACCES": |r| r.mmap(0, PAGE, RW, 3 | 0x800_0000, READ_ONLY, 0);
    "an unknown flag before the access", "EOPNOTSUPP": |r| r.mmap(0, PAGE, RW, 3 | 0x20_0000, READ_ONLY, 0);
    "the offset before an unknown flag", "EOVERFLOW": |r| r.mmap(0, PAGE, RW, 3 | 0x20_0000, FILE, WRAPS);
    "the length before the access", "ENOMEM": |r| r.mmap(0, 1 << 47, RW, PRIVATE, WRITE_ONLY, 0);
    "what may be locked before the access", "EAGAIN": |r| r.mmap(0, 64 * PAGE, RW, PRIVATE | 0x2000, WRITE_ONLY, 0);
    "validated flags that are not known", "OK EOPNOTSUPP EOPNOTSUPP EOPNOTSUPP":
        |r| for flag in [0x80, 0x20_0000, 0x40_0000, 0x200_0000] { r.mmap(0, PAGE, RW, 3 | flag, FILE, 0); };
    "the same, not validated", "OK OK OK OK": |r| for kind in [1, 2] { r.mmap(0, PAGE, RW, kind | 0x80, FILE, 0).mmap(0, PAGE, RW, kind | 0x20_0000, FILE, 0); };
    "validated: growing, huge, fixed", "EINVAL EINVAL OK":
        |r| r.mmap(0, PAGE, RW, 3 | GROWSDOWN, FILE, 0).mmap(0, PAGE, RW, 3 | 0x4_0000, FILE, 0).mmap(at(0), PAGE, RW, 3 | FIXED, FILE, 0);
    "fixed below what an ordinary user may choose", "EPERM": |r| r.mmap(0, PAGE, RW, AP | FIXED, NONE, 0);
    // accesses
    "no protection; reading only; anything but executing", "SEGV_ACCERR SEGV_ACCERR SEGV_ACCERR":
        |r| r.map(0, 1, 0, AP, NONE).load(at(0)).map(1, 1, R, AP, NONE).store(at(1), 1).map(2, 1, RW, AP, NONE).execute(at(2));
    "writing only, executing only", "ok ok ok": |r| r.map(0, 1, W, AP, NONE).load(at(0)).store(at(0), 1).map(1, 1, X, AP, NONE).load(at(1));
    "nothing mapped", "SEGV_MAPERR SEGV_MAPERR": |r| r.load(at(0)).store(at(0), 1);
    "an empty file", "BUS_ADRERR BUS_ADRERR": |r| r.file(0, 0).map(0, 1, RW, SHARED, FILE).load(at(0)).store(at(0), 1);
    "past the end, shared", "ok ok BUS_ADRERR BUS_ADRERR BUS_ADRERR":
        |r| r.file(100, CHAR_A).map(0, 3, RW, SHARED, FILE).load(at(0) + 100).store(at(0) + 4095, 1).load(at(1)).store(at(1), 1).load(at(2));
    "past the end, private", "ok BUS_ADRERR BUS_ADRERR": |r| r.file(100, CHAR_A).map(0, 3, RW, PRIVATE, FILE).store(at(0) + 4095, 1).load(at(1)).store(at(1), 1);
    "past the end and not allowed", "SEGV_ACCERR SEGV_ACCERR":
        |r| r.file(100, CHAR_A).map(0, 2, 0, SHARED, FILE).load(at(1)).map(4, 2, R, SHARED, FILE).store(at(5), 1);
    "system calls: not allowed, past the end, in part, no access", "EFAULT EFAULT 50 EFAULT":
        |r| r.file(100, CHAR_A).map(0, 2, R, SHARED, FILE).copy_in(at(0), 10).copy_out(at(1), 10).copy_out(at(1) - 50, 100).map(4, 1, 0, AP, NONE).copy_out(at(4), 1);
    "the tail is zero", "0 0": |r| r.file(100, CHAR_A).map(0, 1, R, SHARED, FILE).byte(at(0) + 100).byte(at(0) + 4095);
    "a page less, and a call that goes on to the end", "4096": |r| r.file(2 * PAGE, CHAR_A).map(0, 2, RW, SHARED, FILE).truncate(PAGE).copy_in(at(0), 2 * PAGE);
    // truncation, extension, coherence
    "shared: shortened to nothing and back", "BUS_ADRERR BUS_ADRERR ok 0 0":
        |r| r.file(2 * PAGE, CHAR_A).map(0, 2, RW, SHARED, FILE).put(at(1), 98).truncate(0).load(at(0)).store(at(1), 1).truncate(2 * PAGE).load(at(0)).byte(at(0)).byte(at(1));
    "private: copies go with what they are copies of", "BUS_ADRERR BUS_ADRERR ok 0":
        |r| r.file(2 * PAGE, CHAR_A).map(0, 2, RW, PRIVATE, FILE).put(at(1), 98).truncate(0).load(at(0)).load(at(1)).truncate(2 * PAGE).load(at(1)).byte(at(1));
    "private: a copy of the page that was cut stays", "ok 98 97 BUS_ADRERR":
        |r| r.file(2 * PAGE, CHAR_A).map(0, 2, RW, PRIVATE, FILE).put(at(0) + 3000, 98).truncate(100).load(at(0) + 3000).byte(at(0) + 3000).byte(at(0) + 200).load(at(1));
    "shared: what is cut off reads as zeros", "ok 97 0": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, SHARED, FILE).load(at(0)).truncate(100).byte(at(0) + 99).byte(at(0) + 100);
    "stores past the end are gone when it is extended", "end 0 0":
        |r| r.file(100, CHAR_A).map(0, 1, RW, SHARED, FILE).put(at(0) + 200, 88).file_byte(200).truncate(PAGE).file_byte(200).byte(at(0) + 200);
    "stores past the end are seen, and gone when it is synced", "88 OK 0":
        |r| r.file(100, CHAR_A).map(0, 1, RW, SHARED, FILE).map(2, 1, R, SHARED, FILE).put(at(0) + 200, 88).byte(at(2) + 200).msync(at(0), PAGE, 4).byte(at(0) + 200);
    "stores past the end are gone when somebody writes behind them", "0 0":
        |r| r.file(100, CHAR_A).map(0, 1, RW, SHARED, FILE).put(at(0) + 200, 88).pwrite(4000, 1).file_byte(200).byte(at(0) + 200);
    "a longer file fills the mapping, shared and private", "BUS_ADRERR BUS_ADRERR 90 90":
        |r| r.file(100, CHAR_A).map(0, 2, RW, SHARED, FILE).map(4, 2, RW, PRIVATE, FILE).load(at(1)).load(at(5)).pwrite(PAGE + 5, 90).byte(at(1) + 5).byte(at(5) + 5);
    "a punched hole: zeros, but for copies", "ok OK 0 80 97":
        |r| r.file(2 * PAGE, CHAR_A).map(0, 2, RW, SHARED, FILE).map(4, 2, RW, PRIVATE, FILE).put(at(4), 80).load(at(0)).punch(0, PAGE).byte(at(0)).byte(at(4)).byte(at(4) + 1);
    "write is seen by shared, a shared store by read", "49 50":
        |r| r.file(PAGE, CHAR_A).map(0, 1, RW, SHARED, FILE).pwrite(0, 49).byte(at(0)).put(at(0) + 1, 50).file_byte(1);
    "write is seen by private until the page is stored to", "ok 78 78 97":
        |r| { r.file(3 * PAGE, CHAR_A).map(0, 3, RW, PRIVATE, FILE).load(at(1)).put(at(2) + 1, 99); for page in 0..3 { r.pwrite(page * PAGE, 78); } r.byte(at(0)).byte(at(1)).byte(at(2)) };
    "a private store is nobody else's", "97 97": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).map(2, 1, R, SHARED, FILE).put(at(0), 112).file_byte(0).byte(at(2));
    "one store freezes the page", "122 97 97": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).put(at(0), 122).pwrite(1, 81).pwrite(5, 81).byte(at(0)).byte(at(0) + 1).byte(at(0) + 5);
    "two private mappings", "97": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).map(2, 1, RW, PRIVATE, FILE).put(at(0), 49).byte(at(2));
    // munmap and mprotect
    "munmap: unaligned, 0, 1, hole, whole hole, wrap, past the end", "EINVAL EINVAL OK SEGV_MAPERR OK OK EINVAL EINVAL":
        |r| r.map(0, 3, RW, AP, NONE).munmap(at(0) + 1, PAGE).munmap(at(0), 0).munmap(at(0), 1).load(at(0) + 100).munmap(at(0), 3 * PAGE).munmap(at(0), 3 * PAGE).munmap(PAGE, WRAPS).munmap(PAST, PAGE);
    "a page out of the middle", "ok SEGV_MAPERR ok": |r| r.map(0, 3, RW, AP, NONE).free(1, 1).load(at(0)).load(at(1)).load(at(2));
    "the rest keeps its offset", "51": |r| r.file(3 * PAGE, CHAR_A).pwrite(2 * PAGE, 51).map(0, 3, RW, SHARED, FILE).free(1, 1).byte(at(2));
    "mprotect: unaligned, 0, wrap, both directions, hole above", "EINVAL OK ENOMEM EINVAL ENOMEM SEGV_ACCERR":
        |r| r.map(0, 1, RW, AP, NONE).mprotect(at(0) + 1, PAGE, R).mprotect(at(0), 0, R).mprotect(at(0), u64::MAX, R).mprotect(at(0), PAGE, 0x300_0001).mprotect(at(0), 2 * PAGE, R).store(at(0), 1);
    "mprotect: hole below", "ENOMEM ok": |r| r.map(1, 2, RW, AP, NONE).mprotect(at(0), 3 * PAGE, R).store(at(1), 1);
    "mprotect to what the file was not opened for", "EACCES OK": |r| r.map(0, 1, R, SHARED, READ_ONLY).mprotect(at(0), PAGE, RW).map(2, 1, R, PRIVATE, READ_ONLY).mprotect(at(2), PAGE, RW);
    "mprotect: the second mapping refuses", "EACCES ok": |r| r.map(0, 1, 0, AP, NONE).map(1, 1, R, SHARED, READ_ONLY).mprotect(at(0), 2 * PAGE, RW).store(at(0), 1);
    "mprotect: alignment, bits, holes, in this order", "EINVAL EINVAL OK": |r| r.mprotect(at(0) + 1, PAGE, 0x80).mprotect(at(0), PAGE, 0x80).mprotect(at(0), 0, 0x80);
    "mprotect there and back keeps the contents", "SEGV_ACCERR 107 OK 0":
        |r| { r.map(0, 1, RW, AP, NONE).put(at(0), 107); quiet_protect(r, 0); r.load(at(0)); quiet_protect(r, RW); r.byte(at(0)); quiet_protect(r, 0); r.madvise(at(0), PAGE, 4); quiet_protect(r, RW); r.byte(at(0)) };
    "a fixed mapping over the middle", "97 0 99": |r| r.map(0, 3, RW, AP, NONE).put(at(0), 97).put(at(1), 98).put(at(2), 99).map(1, 1, RW, AP, NONE).byte(at(0)).byte(at(1)).byte(at(2));
    "growing protection of what does not grow", "EINVAL": |r| r.map(0, 2, RW, AP, NONE).mprotect(at(0), PAGE, 0x100_0001);
    // msync
    "msync: bad flag, both, none, unaligned, 0 on a hole, holes", "EINVAL EINVAL OK EINVAL OK ENOMEM ENOMEM ENOMEM":
        |r| r.map(0, 2, RW, AP, NONE).msync(at(0), PAGE, 8).msync(at(0), PAGE, 5).msync(at(0), PAGE, 0).msync(at(0) + 1, PAGE, 4).free(0, 1).msync(at(0), 0, 4).msync(at(0), PAGE, 4).msync(at(0), PAGE, 1).msync(at(0), 2 * PAGE, 4);
    "msync: invalidate what is locked, and is not; a length that rounds to 0", "OK EBUSY OK OK OK":
        |r| r.map(0, 1, RW, AP, NONE).mlock(at(0), PAGE).msync(at(0), PAGE, 6).munlock(at(0), PAGE).msync(at(0), PAGE, 6).msync(at(0), u64::MAX, 4);
    "msync: invalidate keeps private stores", "OK 112": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).put(at(0), 112).msync(at(0), PAGE, 6).byte(at(0));
    "wraps: msync, mprotect, madvise, munmap", "ENOMEM ENOMEM EINVAL EINVAL": |r| r.map(0, 1, RW, AP, NONE).msync(at(0), WRAPS, 4).mprotect(at(0), WRAPS, RW).madvise(at(0), WRAPS, 0).munmap(at(0), WRAPS);
    // madvise
    "madvise: no advice, unaligned, 0 on a hole, wrap, holes", "EINVAL EINVAL EINVAL OK EINVAL ENOMEM ENOMEM 0 0":
        |r| r.map(0, 3, RW, AP, NONE).madvise(at(0), PAGE, 99).madvise(at(0) + 1, PAGE, 99).madvise(at(0) + 1, PAGE, 0).free(1, 1).madvise(at(1), 0, 0).madvise(at(0), u64::MAX, 0).madvise(at(1), PAGE, 3).put(at(0), 97).put(at(2), 98).madvise(at(0), 3 * PAGE, 4).byte(at(0)).byte(at(2));
    "what is not needed: anonymous, private, shared memory, shared file", "OK 0 OK 97 OK 51 OK 52":
        |r| r.file(PAGE, CHAR_A).map(0, 1, RW, AP, NONE).map(1, 1, RW, PRIVATE, FILE).map(2, 1, RW, SHARED | ANON, NONE).map(3, 1, RW, SHARED, FILE).put(at(0), 49).put(at(1), 50).put(at(2), 51).put(at(3) + 1, 52)
            .madvise(at(0), PAGE, 4).byte(at(0)).madvise(at(1), PAGE, 4).byte(at(1)).madvise(at(2), PAGE, 4).byte(at(2)).madvise(at(3), PAGE, 4).byte(at(3) + 1);
    "what is not needed, but locked", "OK EINVAL OK 0": |r| r.map(0, 1, RW, AP, NONE).put(at(0), 1).mlock(at(0), PAGE).madvise(at(0), PAGE, 4).madvise(at(0), PAGE, 24).byte(at(0));
    "free: a file, shared memory, private memory", "EINVAL EINVAL OK":
        |r| r.map(0, 1, RW, PRIVATE, FILE).madvise(at(0), PAGE, 8).map(1, 1, RW, SHARED | ANON, NONE).madvise(at(1), PAGE, 8).map(2, 1, RW, AP, NONE).madvise(at(2), PAGE, 8);
    "remove: private, shared to read, shared, shared memory", "EACCES OK OK 0 OK 0":
        |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).madvise(at(0), PAGE, 9).map(1, 1, R, SHARED, FILE).madvise(at(1), PAGE, 9).map(2, 1, RW, SHARED, FILE).madvise(at(2), PAGE, 9).byte(at(2)).map(3, 1, RW, SHARED | ANON, NONE).put(at(3), 1).madvise(at(3), PAGE, 9).byte(at(3));
    "populate: past the end, no access, a hole, a store where none may be", "EFAULT EINVAL ENOMEM EINVAL":
        |r| r.file(PAGE, CHAR_A).map(0, 2, RW, SHARED, FILE).madvise(at(0), 2 * PAGE, 22).map(4, 1, 0, AP, NONE).madvise(at(4), PAGE, 22).madvise(at(5), PAGE, 22).map(6, 1, R, AP, NONE).madvise(at(6), PAGE, 23);
    "wipe on fork: shared memory, a file, private memory", "EINVAL EINVAL OK": |r| r.map(0, 1, RW, SHARED | ANON, NONE).madvise(at(0), PAGE, 18).map(1, 1, RW, PRIVATE, FILE).madvise(at(1), PAGE, 18).map(2, 1, RW, AP, NONE).madvise(at(2), PAGE, 18);
    "guards: access, and when they are gone", "OK SEGV_MAPERR OK ok 0": |r| r.map(0, 2, RW, AP, NONE).put(at(0), 1).madvise(at(0), PAGE, 102).load(at(0)).madvise(at(0), PAGE, 103).load(at(0)).byte(at(0));
    "hints", "OK OK OK OK OK OK OK EINVAL": |r| { r.map(0, 1, RW, AP, NONE); for advice in [16, 17, 12, 14, 15, 1, 2, 101] { r.madvise(at(0), PAGE, advice); } };
    "madvise on a hole", "EINVAL ENOMEM EINVAL": |r| r.madvise(at(0), PAGE, 99).madvise(at(0), PAGE, 4).madvise(at(0), 0, 99);
    // mlock
    "mlock: unaligned, hole, 0, rounds to 0, no access, past the end; munlock: hole, not locked", "OK ENOMEM OK OK ENOMEM ENOMEM ENOMEM OK":
        |r| r.file(100, 1).map(0, 3, RW, AP, NONE).mlock(at(0) + 1, PAGE).free(1, 1).mlock(at(0), 3 * PAGE).mlock(at(1), 0).mlock(at(0), u64::MAX).map(4, 1, 0, AP, NONE).mlock(at(4), PAGE).map(6, 2, R, SHARED, FILE).mlock(at(6), 2 * PAGE).munlock(at(0), 3 * PAGE).munlock(at(0), PAGE);
    "mlock: more than allowed", "ENOMEM OK": |r| r.map(0, 64, RW, AP, NONE).mlock(at(0), 64 * PAGE).mlock(at(0), 4 * PAGE);
    "mlock2 flags", "OK EINVAL": |r| r.map(0, 1, RW, AP, NONE).mlock2(at(0), PAGE, 1).mlock2(at(0), PAGE, 2);
    "munlock over a hole, and wraps", "ENOMEM EINVAL EINVAL": |r| r.map(0, 1, RW, AP, NONE).map(2, 1, RW, AP, NONE).munlock(at(0), 3 * PAGE).munlock(at(0), WRAPS).munlock(at(0), WRAPS);
    "mlock stops at a hole, and what is below is locked", "ENOMEM EBUSY": |r| r.map(0, 1, RW, AP, NONE).mlock(at(0), 2 * PAGE).msync(at(0), PAGE, 2);
    // mremap
    "mremap: unaligned, to 0, flags, fixed that may not move, kept that may not move, nothing there", "EINVAL EINVAL EINVAL EINVAL EINVAL EFAULT":
        |r| r.map(0, 2, RW, AP, NONE).mremap(at(0) + 1, PAGE, 2 * PAGE, 1, 0).mremap(at(0), PAGE, 0, 1, 0).mremap(at(0), PAGE, PAGE, 8, 0).mremap(at(0), PAGE, PAGE, 2, at(1)).mremap(at(0), PAGE, PAGE, 4, at(0)).free(0, 1).mremap(at(0), PAGE, 2 * PAGE, 1, 0);
    "no room; shorter; the same", "ENOMEM OK SEGV_MAPERR OK": |r| r.map(0, 4, RW, AP, NONE).mremap(at(0), 2 * PAGE, 3 * PAGE, 0, 0).mremap(at(0), 4 * PAGE, 2 * PAGE, 0, 0).load(at(2)).mremap(at(0), 2 * PAGE, 2 * PAGE, 0, 0);
    "to a place: overlapping, unaligned, taken", "EINVAL EINVAL OK 109 SEGV_MAPERR":
        |r| r.map(0, 8, RW, AP, NONE).put(at(0), 109).mremap(at(0), 2 * PAGE, 2 * PAGE, 3, at(1)).mremap(at(0), 2 * PAGE, 2 * PAGE, 3, at(4) + 1).mremap(at(0), 2 * PAGE, 2 * PAGE, 3, at(4)).byte(at(4)).load(at(0));
    "from nothing: shared twice, private not", "OK 68 EINVAL":
        |r| r.file(PAGE, CHAR_A).map(0, 1, RW, SHARED, FILE).mremap(at(0), 0, PAGE, 1, 0).put(at(899), 68).byte(at(0)).map(4, 1, RW, AP, NONE).mremap(at(4), 0, PAGE, 1, 0);
    "across two: longer, the same, to a place", "EFAULT OK OK":
        |r| { r.map(0, 1, RW, AP, NONE).map(1, 1, R, AP, NONE).map(20, 4, RW, AP, NONE).mremap(at(0), 2 * PAGE, 3 * PAGE, 1, 0).mremap(at(0), 2 * PAGE, 2 * PAGE, 1, 0).mremap(at(0), 2 * PAGE, 2 * PAGE, 3, at(20)) };
    "kept: private memory, a shared file, resized", "OK 0 111 OK ok EINVAL":
        |r| r.file(PAGE, CHAR_A).map(0, 1, RW, AP, NONE).put(at(0), 111).mremap(at(0), PAGE, PAGE, 5, 0).byte(at(0)).byte(at(899)).map(4, 1, RW, SHARED, FILE).mremap(at(4), PAGE, PAGE, 5, 0).load(at(4)).mremap(at(4), PAGE, 2 * PAGE, 5, 0);
    "a file longer than it is", "OK BUS_ADRERR": |r| r.file(PAGE, 1).map(0, 1, RW, SHARED, FILE).mremap(at(0), PAGE, 2 * PAGE, 0, 0).load(at(1));
    "too long; not whole pages", "EINVAL EINVAL OK": |r| r.map(0, 1, RW, AP, NONE).mremap(at(0), PAGE, u64::MAX, 1, 0).mremap(at(0), PAGE, 1 << 47, 1, 0).mremap(at(0), 1, PAGE + 1, 1, 0);
    "in place", "OK ok": |r| r.map(0, 1, RW, AP, NONE).mremap(at(0), PAGE, 3 * PAGE, 0, 0).store(at(2), 1);
    "a longer private file shows what follows", "OK 97 67 51": |r| r.file(3 * PAGE, CHAR_A).pwrite(2 * PAGE, 51).map(0, 1, RW, PRIVATE, FILE).put(at(0) + 1, 67).mremap(at(0), PAGE, 3 * PAGE, 1, 0).byte(at(0)).byte(at(0) + 1).byte(at(2));
    // fork, stacks
    "fork: shared memory is one, private memory is two", "83 120 0":
        |r| r.map(0, 1, RW, SHARED | ANON, NONE).map(2, 1, RW, AP, NONE).put(at(2), 120).fork().child().put(at(0), 83).put(at(2), 67).parent().put(at(2) + 1, 80).byte(at(0)).byte(at(2)).child().byte(at(2) + 1);
    "fork: wiped, and not had", "OK OK 0 SEGV_MAPERR": |r| r.map(0, 1, RW, AP, NONE).map(2, 1, RW, AP, NONE).put(at(0), 7).madvise(at(0), PAGE, 18).madvise(at(2), PAGE, 10).fork().child().byte(at(0)).load(at(2));
    "fork: what nobody stored to follows the file in both", "78 78": |r| r.file(PAGE, CHAR_A).map(0, 1, RW, PRIVATE, FILE).fork().pwrite(0, 78).byte(at(0)).child().byte(at(0));
    "fork: locks are not inherited", "OK OK EBUSY": |r| r.map(0, 1, RW, AP, NONE).mlock(at(0), PAGE).fork().child().msync(at(0), PAGE, 6).parent().msync(at(0), PAGE, 6);
    "a stack: just below, further, past a gap", "ok ok SEGV_MAPERR SEGV_MAPERR":
        |r| r.map(500, 1, RW, AP | GROWSDOWN, NONE).store(at(499), 1).store(at(480), 1).map(100, 1, RW, AP, NONE).store(at(300), 1).store(at(102), 1);
    "a stack 400 pages above another mapping", "ok SEGV_MAPERR": |r| r.map(0, 1, RW, AP, NONE).map(400, 1, RW, AP | GROWSDOWN, NONE).store(at(300), 1).store(at(250), 1);
};

fn quiet_protect(fixture: &mut GoldenFixture, prot: u32) {
    fixture.protect_quietly(at(0), PAGE, prot);
}
