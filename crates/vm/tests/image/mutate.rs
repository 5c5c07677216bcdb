//! Files that are nearly right.

use crate::build::{ET_CORE, ET_DYN, ET_EXEC, ET_REL, File, R, RW, RX, load};

/// Numbers that break arithmetic.
const EDGES: [u64; 18] = [
    0,
    1,
    0xfff,
    0x1000,
    0x1001,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_f000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_f001,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// A sequence of numbers that is the same for the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// One of a few files that are right.
pub fn start(random: &mut Random) -> File {
    match random.below(7) {
        0 => File::fixed(),
        1 => File::new(ET_REL, &[]),
        2 => File::new(ET_CORE, &[load(RW, 0x1000, 0, 0x1000, 0x1000)]),
        3 => File::new(ET_DYN, &[load(RX, 0x123, 0x123, 0x1000, 0x1800), load(R, 3, 0x5004, 9, 9)]),
        4 => File::new(ET_EXEC, &[load(RX, 0x123, 0x40_0010, 0x1000, 0x1800)]),
        5 => {
            let mut file = File::pie();
            (file.class, file.e_phoff, file.e_phentsize) = (1, 52, 32);
            file
        }
        _ => File::pie(),
    }
}

/// The bytes of a file with a few numbers replaced, and the file's length.
pub fn mutated(random: &mut Random) -> (Vec<u8>, u64) {
    let mut file = start(random);
    for _ in 0..random.below(4) {
        change_number(&mut file, random);
    }
    let mut bytes = file.bytes();
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.below(256) as u8;
    }
    let length = match random.below(8) {
        0 => bytes.len() as u64,
        1 => random.below(300),
        2 => EDGES[random.below(EDGES.len() as u64) as usize],
        _ => 0x4000,
    };
    (bytes, length)
}

fn change_number(file: &mut File, random: &mut Random) {
    let edge = EDGES[random.below(EDGES.len() as u64) as usize];
    let near = edge.wrapping_add(random.below(5)).wrapping_sub(2);
    match random.below(10) {
        0 => file.e_phoff = near.min(1 << 20),
        1 => file.e_phentsize = near as u16,
        2 => file.e_phnum = Some(near as u16),
        3 => file.e_type = random.below(6) as u16,
        _ => {
            let count = file.phdrs.len() as u64;
            let Some(phdr) = file.phdrs.get_mut(random.below(count) as usize) else { return };
            match random.below(6) {
                0 => phdr.p_offset = near,
                1 => phdr.p_vaddr = near,
                2 => phdr.p_filesz = near,
                3 => phdr.p_memsz = near,
                4 => phdr.p_align = near,
                _ => phdr.p_type = random.below(8) as u32,
            }
        }
    }
}
