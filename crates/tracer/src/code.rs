//! The instructions with which a stopped thread makes calls that its tracer chose.
//!
//! ```text
//!   one    syscall                            registers as for that call
//!   map    asks for a descriptor, mmap, close registers as for the question; of mmap: r12 address, r13 length, r14
//!                                             protection, rbp flags, rbx offset
//!   list   calls of a table                   r12 the table, r13 how many; each is a number and six arguments, and
//!                                             gets its answer where the number was. An argument that is THAT_FILE is
//!                                             the descriptor that was handed last
//!   all    end with a close that the filter stops: the answer (of mmap, or of the question if that failed) is in rbx
//! ```
//!
//! Descriptors that they map have the mark in their upper half, which the kernel does not look at and the filter does.
//! They use no stack and write nothing but the table, since the stack of a stopped thread may be anybody's memory.

/// An argument of a call in a table: the descriptor that was handed last.
pub(super) const THAT_FILE: u64 = -0x6d65_6d6f_i64 as u64;

std::arch::global_asm!(
    ".pushsection .rodata.memobj_calls, \"a\"",
    ".globl memobj_calls_start, memobj_calls_one, memobj_calls_map, memobj_calls_list, memobj_calls_end",
    ".hidden memobj_calls_start, memobj_calls_one, memobj_calls_map, memobj_calls_list, memobj_calls_end",
    ".balign 8",
    "memobj_calls_start:",
    "memobj_calls_one:",
    "syscall",
    "mov rbx, rax",
    "jmp 9f",
    "memobj_calls_map:",
    "syscall",
    "test rax, rax",
    "js 3f",
    "mov r15, rax",
    "movabs r8, {ours}",
    "or r8, rax",
    "mov rdi, r12",
    "mov rsi, r13",
    "mov rdx, r14",
    "mov r10, rbp",
    "mov r9, rbx",
    "mov eax, 9",
    "syscall",
    "mov rbx, rax",
    "mov rdi, r15",
    "mov eax, 3",
    "xor esi, esi",
    "syscall",
    "jmp 9f",
    "3:",
    "mov rbx, rax",
    "jmp 9f",
    "memobj_calls_list:",
    "movabs rbx, {ours}",
    "4:",
    "test r13, r13",
    "jz 9f",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "cmp rdi, {that_file}",
    "cmove rdi, r15",
    "mov rcx, r15",
    "or rcx, rbx",
    "cmp r8, {that_file}",
    "cmove r8, rcx",
    "syscall",
    "cmp qword ptr [r12], {ask}",
    "cmove r15, rax",
    "mov [r12], rax",
    "add r12, 56",
    "dec r13",
    "jmp 4b",
    "9:",
    "mov edi, -1",
    "mov esi, {mark}",
    "mov eax, 3",
    "syscall",
    "jmp 9b",
    ".balign 8",
    "memobj_calls_end:",
    ".popsection",
    that_file = const -0x6d65_6d6f_i64,
    ask = const libc::SYS_pidfd_getfd,
    mark = const super::filter::MARK,
    ours = const (super::filter::MARK as u64) << 32,
);

unsafe extern "C" {
    static memobj_calls_start: u8;
    static memobj_calls_one: u8;
    static memobj_calls_map: u8;
    static memobj_calls_list: u8;
    static memobj_calls_end: u8;
}

/// Where in the instructions each entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    One,
    Map,
    List,
}

/// The instructions.
pub(super) fn bytes() -> &'static [u8] {
    let (start, end) = (&raw const memobj_calls_start, &raw const memobj_calls_end);
    // SAFETY: both symbols delimit the section above, which is read only and lives as long as the program.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

impl Entry {
    /// Bytes from the first instruction to this entry.
    pub(super) fn offset(self) -> u64 {
        let entry = match self {
            Entry::One => &raw const memobj_calls_one,
            Entry::Map => &raw const memobj_calls_map,
            Entry::List => &raw const memobj_calls_list,
        };
        entry as u64 - (&raw const memobj_calls_start) as u64
    }
}
