//! As whoever runs the tests, and as an ordinary user.

use std::os::fd::AsFd;

use rustix::mm::Advice;

use super::*;
use crate::frame_file::FrameFile;
use crate::region::{LARGE, Purpose, Region};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Processes whose parent is this one, zombies too.
fn children() -> usize {
    let read = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("children")).ok();
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(read).map(|text| text.split_whitespace().count()).sum()
}

/// Bytes of `region` that the page tables map as huge pages of a file.
fn mapped_huge(region: &Region) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", region.start());
    let lines = maps.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let mine =
        lines.take_while(|line| line.split_whitespace().next().is_some_and(|word| word.ends_with(':')));
    mine.filter(|line| line.starts_with("ShmemPmdMapped:") || line.starts_with("FilePmdMapped:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        << 10
}

fn check_huge(folder: &HugeFolder) {
    let file = FrameFile::new_large(folder, 3 * LARGE as u64 - 5).unwrap();
    assert_eq!(file.len(), 3 * LARGE as u64, "the last frame is whole");
    if !file.frames_are_huge().unwrap() {
        return println!("skipped: the kernel gives no huge page just now");
    }
    assert_eq!(rustix::fs::fstat(file.as_fd()).unwrap().st_blocks, 0, "the probe left a frame");
    file.fill_large(LARGE as u64, &vec![0xa5; LARGE]).unwrap();
    assert!(file.has_frame(LARGE as u64) && !file.has_frame(0) && !file.has_frame(2 * LARGE as u64));
    let region = Region::new(3 * LARGE, Purpose::Reserve).unwrap();
    // SAFETY: the region is new; nobody holds references into it.
    unsafe { region.map_file(&file, crate::area::Writes::No).unwrap() };
    // Views are advised against huge entries; this asks what the frame is, not what a view shows.
    // SAFETY: changes no byte of the region's own pages.
    unsafe { rustix::mm::madvise(region.pointer(0).cast(), region.len(), Advice::LinuxHugepage).unwrap() };
    // SAFETY: the byte lies in the region, which is mapped and readable.
    assert_eq!(unsafe { region.pointer(2 * LARGE - 1).read_volatile() }, 0xa5);
    assert_eq!(mapped_huge(&region), LARGE as u64, "the 2 MiB are not one huge page");
    file.punch(LARGE as u64, LARGE as u64).unwrap();
    assert_eq!(rustix::fs::fstat(file.as_fd()).unwrap().st_blocks, 0, "the hole kept memory");
}

#[test]
fn a_filled_frame_is_one_huge_page() {
    match HugeFolder::new() {
        Ok(folder) => check_huge(&folder),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn the_helper_does_the_same_and_leaves_nothing_behind() {
    let before = descriptors();
    for round in 0..100 {
        match helper::mount() {
            Ok(root) if round == 0 => check_huge(&HugeFolder { root }),
            Ok(_) => {}
            Err(failure) => return println!("skipped: {}", io::Error::from(failure)),
        }
    }
    // Other tests run beside this one, and have descriptors and children of their own for a moment.
    assert!(descriptors() < before + 50, "descriptors are left");
    assert!(children() < 50, "children are left");
}

#[test]
fn a_helper_that_hangs_or_dies_is_ended_in_time() {
    fn hang(_: &helper::Plan) -> ! {
        loop {
            // SAFETY: takes nothing; sleeps until a signal comes.
            unsafe { libc::syscall(libc::SYS_pause) };
        }
    }
    let (ours, theirs) = helper::socket_pair().unwrap();
    let plan = helper::Plan { socket: theirs.as_raw_fd(), uid_map: [0; 32], gid_map: [0; 32] };
    let child = match helper::start(&plan, hang) {
        Ok(child) => child,
        Err(failure) => return println!("skipped: {}", io::Error::from(failure)),
    };
    drop(theirs);
    let silent = helper::receive(&ours, std::time::Duration::from_millis(20)).unwrap_err();
    assert_eq!((silent.step, silent.errno), (Step::Answer, libc::ETIMEDOUT));
    helper::end(&child);
    let dead = helper::receive(&ours, std::time::Duration::from_secs(300)).unwrap_err();
    assert_eq!((dead.step, dead.errno), (Step::Answer, libc::EPIPE));
}

#[test]
fn a_file_may_be_longer_than_memory_and_a_part_of_a_frame_is_followed_by_zeros() {
    let folder = match HugeFolder::new() {
        Ok(folder) => folder,
        Err(error) => return println!("skipped: {error}"),
    };
    let file = FrameFile::new_large(&folder, 1 << 42).unwrap();
    let last = (1 << 42) - LARGE as u64;
    file.fill_large(last, &[7; 4096]).unwrap();
    let mut bytes = vec![1; LARGE];
    rustix::io::pread(file.as_fd(), &mut bytes, last).unwrap();
    assert!(bytes[..4096].iter().all(|&byte| byte == 7) && bytes[4096..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_frame_that_cannot_be_filled_is_given_back() {
    let folder = match HugeFolder::new() {
        Ok(folder) => folder,
        Err(error) => return println!("skipped: {error}"),
    };
    let file = FrameFile::new_large(&folder, 2 * LARGE as u64).unwrap();
    // The second half of the source cannot be read: the write ends in the middle of the frame.
    let source = Region::new(2 * LARGE, Purpose::Data).unwrap();
    // SAFETY: the region's own pages, into which there are no references.
    unsafe {
        source.pointer(0).write_bytes(9, LARGE / 2);
        assert_eq!(libc::mprotect(source.pointer(LARGE / 2).cast(), LARGE, libc::PROT_NONE), 0);
    }
    // SAFETY: never read through; the kernel, which is given the address, checks what it reads.
    let bytes = unsafe { std::slice::from_raw_parts(source.pointer(0), LARGE) };
    assert!(file.fill_large(0, bytes).is_err());
    assert!(!file.has_frame(0), "half a frame is left");
}
