//! Small files made here.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use memobj::image::{ImageMapOptions, MapImageError, MappedImage, map_image};

pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const R: u32 = 4;
pub const RX: u32 = 5;
pub const RW: u32 = 6;

/// `p_flags`, `p_offset`, `p_vaddr`, `p_filesz`, `p_memsz`.
pub type Phdr = (u32, u64, u64, u64, u64);

/// An ELF file of `length` bytes, of which byte `i` behind the headers is `i % 251 + 1`: never zero.
pub fn elf(e_type: u16, align: u64, phdrs: &[Phdr], length: usize) -> File {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i % 251 + 1) as u8).collect();
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend([e_type, 62, 1, 0].iter().flat_map(|half| half.to_le_bytes()));
    header.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    header.extend([0_u16, 0, 64, 56, phdrs.len() as u16, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for (flags, offset, address, file_bytes, memory_bytes) in phdrs {
        header.extend([1, *flags].iter().flat_map(|half| half.to_le_bytes()));
        let words = [*offset, *address, 0, *file_bytes, *memory_bytes, align];
        header.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes[..header.len()].copy_from_slice(&header);
    file(&bytes)
}

/// A file without a name.
pub fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room");
    file
}

/// Maps with 64-bit ELF and no padding.
pub fn mapped(file: &File) -> Result<MappedImage, MapImageError> {
    map_image(file, &ImageMapOptions::default())
}

/// Compiles `source`; `false`, and it says why, where there is no compiler that can.
pub fn compile(source: &str, arguments: &[&str], output: &Path) -> bool {
    let input = output.with_extension("c");
    std::fs::write(&input, source).expect("a source file");
    let ran = Command::new("cc").args(arguments).arg("-o").arg(output).arg(&input).output();
    match ran {
        Ok(ran) if ran.status.success() => true,
        Ok(ran) => {
            println!("skipped: cc {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
            false
        }
        Err(error) => {
            println!("skipped: cc: {error}");
            false
        }
    }
}

/// The lines of `/proc/self/maps`.
pub fn maps() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    text.lines().map(String::from).collect()
}
