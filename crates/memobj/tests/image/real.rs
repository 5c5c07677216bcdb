//! Programs and libraries of this machine, and what the kernel and the dynamic linker make of the same files.
//!
//! `MEMOBJ_IMAGE_ALL=1` takes all of them; otherwise a sample.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::build::{compile, mapped, maps};
use memobj::image::{ImageError, MapImageError, MappedImage, RecordKind, Unsupported, VirtAddr};

/// Files of the sample: one in this many.
const SAMPLE: usize = 25;
const PAGE: u64 = 4096;
const CHUNK: usize = 1 << 20;

/// Programs of fixed addresses want the same ones: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A phdr that is loaded, read byte by byte.
#[derive(Debug)]
struct Load {
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
}

fn loads(file: &File) -> Vec<Load> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).expect("a header");
    let number = |bytes: &[u8], at: usize, length: usize| {
        let mut word = [0; 8];
        word[..length].copy_from_slice(&bytes[at..at + length]);
        u64::from_le_bytes(word)
    };
    let (table, size, count) = (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    let phdr = |index: u64| {
        let mut bytes = [0; 56];
        file.read_exact_at(&mut bytes, table + index * size).expect("a phdr");
        let [offset, vaddr, filesz, memsz] = [8, 16, 32, 40].map(|at| number(&bytes, at, 8));
        (number(&bytes, 0, 4) == 1 && memsz != 0).then_some(Load { offset, vaddr, filesz, memsz })
    };
    (0..count).filter_map(phdr).collect()
}

/// Whether every loaded byte of `file` is in `image`, and zeros behind.
fn check_bytes(path: &Path, file: &File, image: &MappedImage) {
    let first = image.records()[0];
    if image.records().len() == 1 && first.memory_bytes == file.metadata().expect("attributes").len() {
        let length = first.memory_bytes;
        return check_range(path, file, image, first.address.0, 0..length);
    }
    let loads = loads(file);
    assert_eq!(loads.len(), image.records().len(), "{path:?}");
    let is_fixed = first.address.0 == loads[0].vaddr / PAGE * PAGE;
    let base = if is_fixed { 0 } else { first.address.0 };
    for load in &loads {
        let at = base + load.vaddr;
        check_range(path, file, image, at, load.offset..load.offset + load.filesz);
        let mut zeros = vec![1; (load.memsz - load.filesz) as usize];
        image.read_at(VirtAddr(at + load.filesz), &mut zeros).expect("mapped");
        assert!(zeros.iter().all(|&byte| byte == 0), "{path:?} {load:x?}");
    }
}

fn check_range(path: &Path, file: &File, image: &MappedImage, at: u64, range: std::ops::Range<u64>) {
    let (mut in_file, mut in_memory) = (vec![0; CHUNK], vec![0; CHUNK]);
    for offset in range.clone().step_by(CHUNK) {
        let length = CHUNK.min((range.end - offset) as usize);
        file.read_exact_at(&mut in_file[..length], offset).expect("bytes of the file");
        let address = VirtAddr(at + (offset - range.start));
        image.read_at(address, &mut in_memory[..length]).expect("bytes of the image");
        assert!(in_file[..length] == in_memory[..length], "{path:?}: other bytes at {offset:#x}");
    }
}

/// Every ELF file below `top`, not through symbolic links.
fn find(top: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(top) else { return };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        let mut magic = [0; 4];
        if kind.is_dir() {
            find(&path, found);
        } else if kind.is_file()
            && File::open(&path).is_ok_and(|file| file.read_exact_at(&mut magic, 0).is_ok())
            && magic == *b"\x7fELF"
        {
            found.push(path);
        }
    }
}

/// All ELF files of the machine.
fn all_files() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    ["/usr/bin", "/usr/lib"].iter().for_each(|top| find(top.as_ref(), &mut paths));
    paths.sort();
    paths
}

fn wants_all() -> bool {
    std::env::var_os("MEMOBJ_IMAGE_ALL").is_some()
}

/// About `count` of them, or all if that is asked for.
pub fn some_files(count: usize) -> Vec<PathBuf> {
    let paths = all_files();
    let step = if wants_all() { 1 } else { (paths.len() / count).max(1) };
    paths.into_iter().step_by(step).collect()
}

#[test]
fn programs_and_libraries_of_the_machine_map_with_their_bytes() {
    let _alone = alone();
    let (paths, all) = (all_files(), wants_all());
    let (mut mapped_files, mut segments, mut not_64_bit, mut bytes) = (0, 0, 0, 0);
    for path in paths.iter().step_by(if all { 1 } else { SAMPLE }) {
        let file = File::open(path).expect("was opened before");
        let image = match mapped(&file) {
            Ok(image) => image,
            Err(MapImageError::Plan(ImageError::Unsupported(Unsupported::WrongModel { .. }))) => {
                not_64_bit += 1;
                continue;
            }
            Err(error) => panic!("{path:?}: {error}"),
        };
        check_bytes(path, &file, &image);
        mapped_files += 1;
        segments += image.records().len();
        bytes += image.records().iter().map(|record| record.memory_bytes).sum::<u64>();
    }
    println!("{mapped_files} files, {segments} segments, {bytes} bytes; {not_64_bit} of 32 bits left out");
    if paths.is_empty() {
        println!("skipped: no ELF file in /usr/bin and /usr/lib");
    }
}

/// What each page of `[start, end)` is: protection, and the offset in the file where it is the file's own.
fn pages(lines: &[String], start: u64, end: u64) -> BTreeMap<u64, (String, Option<u64>)> {
    let mut pages = BTreeMap::new();
    for line in lines {
        let mut fields = line.split_whitespace();
        let (range, prot) = (fields.next().expect("a range"), fields.next().expect("a protection"));
        let offset = u64::from_str_radix(fields.next().expect("an offset"), 16).expect("a number");
        let (_device, inode) = (fields.next(), fields.next());
        let ends = range.split('-').map(|hex| u64::from_str_radix(hex, 16).expect("a number"));
        let ends: Vec<u64> = ends.collect();
        for page in (ends[0].max(start)..ends[1].min(end)).step_by(PAGE as usize) {
            let own = (inode != Some("0")).then_some(offset + (page - ends[0]));
            pages.insert(page - start, (prot.to_string(), own));
        }
    }
    pages
}

/// Every page of `theirs` is in `ours` with the same protection, or was made read-only after relocation; where both
/// are the file's, at the same offset. `extra`: what is only in `theirs` must be inaccessible filler.
fn compare(
    ours: &BTreeMap<u64, (String, Option<u64>)>,
    theirs: &BTreeMap<u64, (String, Option<u64>)>,
) -> usize {
    for (page, (prot, offset)) in theirs {
        let Some((our_prot, our_offset)) = ours.get(page) else {
            assert_eq!(prot, "---p", "page {page:#x} is only in theirs");
            continue;
        };
        let relocated = our_prot == "rw-p" && prot == "r--p";
        assert!(our_prot == prot || relocated, "page {page:#x}: {our_prot} and {prot}");
        if let (Some(ours), Some(theirs)) = (our_offset, offset) {
            assert_eq!(ours, theirs, "page {page:#x}");
        }
    }
    assert!(ours.keys().all(|page| theirs.contains_key(page)), "{ours:x?} {theirs:x?}");
    ours.len()
}

fn ends(image: &MappedImage) -> (u64, u64) {
    let (first, last) = (image.records()[0], image.records()[image.records().len() - 1]);
    (first.address.0, last.pages(PAGE).end)
}

/// The C library as the dynamic linker mapped it for this very process.
#[test]
fn the_dynamic_linker_maps_the_same() {
    let lines = maps();
    let Some(line) = lines.iter().find(|line| line.contains("/libc.so") || line.contains("/libc-")) else {
        println!("skipped: this process has no C library of its own file");
        return;
    };
    let path = line.split_whitespace().last().expect("a path").to_string();
    let start = u64::from_str_radix(line.split('-').next().expect("an address"), 16).expect("a number");
    let file = File::open(&path).expect("the library");
    let image = mapped(&file).expect("an image");
    let (first, end) = ends(&image);
    let ours = pages(&maps(), first, end);
    let theirs = pages(&lines, start, start + (end - first));
    println!("{} pages of {path}", compare(&ours, &theirs));
    // What nobody may write is the same to the byte; what is read-only otherwise was relocated.
    let mut compared = 0;
    for record in image.records().iter().filter(|record| !record.prot.contains(memobj::image::Prot::WRITE)) {
        let (mut mine, mut linked) =
            (vec![0; record.memory_bytes as usize], vec![1; record.memory_bytes as usize]);
        image.read_at(record.address, &mut mine).expect("ours");
        image.read_at(VirtAddr(record.address.0 - first + start), &mut linked).expect("theirs");
        assert!(mine == linked, "{record:x?}");
        compared += mine.len();
    }
    assert!(compared > 1 << 20, "{compared} bytes");
}

const PROGRAM: &str = r#"
#include <stdio.h>
static char zeros[100000];
static int data[5000] = {1, 2, 3};
int main(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    int letter;
    while (maps && (letter = getc(maps)) != EOF) putchar(letter);
    return zeros[5] + data[4000];
}
"#;

/// A program of fixed addresses as the kernel mapped it for a process of its own.
#[test]
fn the_kernel_maps_a_program_of_fixed_addresses_the_same() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["-no-pie"][..], &["-no-pie", "-static"][..]] {
        let path = folder.path().join("program");
        if !compile(PROGRAM, arguments, &path) {
            continue;
        }
        let ran = Command::new(&path).output().expect("the program runs");
        assert!(ran.status.success());
        let theirs: Vec<String> =
            String::from_utf8(ran.stdout).expect("text").lines().map(String::from).collect();
        let file = File::open(&path).expect("the program");
        let image = mapped(&file).expect("an image");
        check_bytes(&path, &file, &image);
        assert!(image.records().iter().any(|record| record.kind == RecordKind::ElfHeader));
        let (first, end) = ends(&image);
        let count = compare(&pages(&maps(), first, end), &pages(&theirs, first, end));
        println!("{count} pages at {first:#x} of a program built with {arguments:?}");
        assert!(matches!(mapped(&file), Err(MapImageError::InUse { .. })));
    }
}
