//! Hand-made ELF files: headers without anything behind them.

/// One phdr, in the words of the specification.
#[derive(Clone, Copy, Debug)]
pub struct Phdr {
    pub p_type: u32,
    pub p_flags: u32,
    pub p_offset: u64,
    pub p_vaddr: u64,
    pub p_filesz: u64,
    pub p_memsz: u64,
    pub p_align: u64,
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    pub class: u8,
    pub e_type: u16,
    pub e_phoff: u64,
    pub e_phentsize: u16,
    /// `None`: as many as there are.
    pub e_phnum: Option<u16>,
    pub phdrs: Vec<Phdr>,
}

pub const PT_LOAD: u32 = 1;
pub const PT_SUNWBSS: u32 = 0x6fff_fffa;
pub const ET_REL: u16 = 1;
pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const ET_CORE: u16 = 4;
pub const R: u32 = 4;
pub const RX: u32 = 5;
pub const RW: u32 = 6;

/// A phdr that is loaded, `p_offset` and `p_filesz` given, aligned to 4 KiB.
pub fn load(p_flags: u32, p_offset: u64, p_vaddr: u64, p_filesz: u64, p_memsz: u64) -> Phdr {
    Phdr { p_type: PT_LOAD, p_flags, p_offset, p_vaddr, p_filesz, p_memsz, p_align: 4096 }
}

impl File {
    /// A 64-bit file of this type with these phdrs.
    pub fn new(e_type: u16, phdrs: &[Phdr]) -> Self {
        let phdrs = phdrs.to_vec();
        Self { class: 2, e_type, e_phoff: 64, e_phentsize: 56, e_phnum: None, phdrs }
    }

    /// A position-independent program as linkers make it today: four phdrs, 0x3e10 + 0x258 bytes of file.
    pub fn pie() -> Self {
        Self::new(
            ET_DYN,
            &[
                load(R, 0, 0, 0x628, 0x628),
                load(RX, 0x1000, 0x1000, 0x175, 0x175),
                load(R, 0x2000, 0x2000, 0xf4, 0xf4),
                load(RW, 0x2de8, 0x3de8, 0x248, 0x2250),
            ],
        )
    }

    /// The same as a program of fixed addresses.
    pub fn fixed() -> Self {
        let mut file = Self::pie();
        file.e_type = ET_EXEC;
        file.phdrs.iter_mut().for_each(|phdr| phdr.p_vaddr += 0x40_0000);
        file
    }

    /// The headers; where the table lies further on, zeros between.
    pub fn bytes(&self) -> Vec<u8> {
        let wide = self.class == 2;
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1];
        bytes.resize(16, 0);
        let word = |bytes: &mut Vec<u8>, value: u64| {
            let length = if wide { 8 } else { 4 };
            bytes.extend(&value.to_le_bytes()[..length]);
        };
        bytes.extend(self.e_type.to_le_bytes());
        bytes.extend(62_u16.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        word(&mut bytes, 0);
        word(&mut bytes, self.e_phoff);
        word(&mut bytes, 0);
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((if wide { 64_u16 } else { 52 }).to_le_bytes());
        bytes.extend(self.e_phentsize.to_le_bytes());
        bytes.extend(self.e_phnum.unwrap_or(self.phdrs.len() as u16).to_le_bytes());
        bytes.resize(if wide { 64 } else { 52 }, 0);
        bytes.resize(bytes.len().max((self.e_phoff as usize).min(1 << 20)), 0);
        for phdr in &self.phdrs {
            let begin = bytes.len();
            bytes.extend(phdr.p_type.to_le_bytes());
            if wide {
                bytes.extend(phdr.p_flags.to_le_bytes());
            }
            let words = [phdr.p_offset, phdr.p_vaddr, 0, phdr.p_filesz, phdr.p_memsz];
            words.iter().for_each(|&value| word(&mut bytes, value));
            if !wide {
                bytes.extend(phdr.p_flags.to_le_bytes());
            }
            word(&mut bytes, phdr.p_align);
            bytes.resize(bytes.len().max(begin + usize::from(self.e_phentsize)), 0);
        }
        bytes
    }
}
