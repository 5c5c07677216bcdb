//! The SIGBUS handler: faults resolved in the faulting thread, and copies that survive a trap.
//!
//! One handler serves the process. It asks the engine's resolver first; a fault that the resolver does not
//! resolve is either inside a copy from mapped memory (`touch_at`), which then returns, or goes to whoever had SIGBUS before.
//! Sources: sigaction(2), signal-safety(7).

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};

use crate::locks::{Rank, RankedMutex};

/// What the resolver made of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The access can be tried again.
    Resolved,
    /// The address is not the engine's, or the page has failed: trap.
    Trap,
}

/// What trapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trapped {
    /// It was a store.
    pub is_write: bool,
    /// The processor found no page there; otherwise one that it may not store to.
    pub is_missing: bool,
}

/// The engine's part of the handler: address and what trapped there. Runs in signal context: it must not
/// allocate, must not take a lock that the interrupted thread could hold, and must not touch mapped objects.
pub type Resolver = fn(usize, Trapped) -> Verdict;

static RESOLVER: OnceLock<Resolver> = OnceLock::new();
static PREVIOUS: OnceLock<PreviousAction> = OnceLock::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);
static INSTALLING: RankedMutex<()> = RankedMutex::new(Rank::Handler, ());

struct PreviousAction(sigaction);
// SAFETY: a sigaction is plain data; the pointers in it are code addresses.
unsafe impl Send for PreviousAction {}
// SAFETY: as above.
unsafe impl Sync for PreviousAction {}

/// Installs the handler once; later calls only check. The resolver of the first call stays.
pub fn install(resolver: Resolver) -> io::Result<()> {
    if INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    let _one_at_a_time = INSTALLING.lock();
    if INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    let _ = RESOLVER.set(resolver);
    // SAFETY: a zeroed sigaction is a valid one (default action, empty mask).
    let mut action: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    // SA_NODEFER: the chained handler may jump away, and SIGBUS must not stay blocked then.
    // SA_ONSTACK: the faulting thread can have a stack that is too small for the machine context alone (coroutines).
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    let mut previous = MaybeUninit::zeroed();
    // SAFETY: asks only; `previous` has room for the answer.
    check(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) })?;
    // SAFETY: the call has filled it. Stored before the handler can run, which reads it.
    let _ = PREVIOUS.set(PreviousAction(unsafe { previous.assume_init() }));
    // SAFETY: `on_bus_error` keeps to signal-safety(7); its contract with the resolver is `Resolver`'s.
    check(unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) })?;
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

fn check(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Set in the page-fault error code of x86 when there was a page, which refused the access.
const ERROR_CODE_PRESENT: i64 = 1;
/// Set in the page-fault error code of x86 when the access was a store.
const ERROR_CODE_WRITE: i64 = 2;

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: errno is the calling thread's own; it is restored below.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the kernel passes a valid siginfo_t and ucontext_t to a SA_SIGINFO handler.
    let (sent_by_kernel, address, machine) = unsafe {
        ((*info).si_code > 0, (*info).si_addr() as usize, &mut (*context.cast::<ucontext_t>()).uc_mcontext)
    };
    let code = machine.gregs[libc::REG_ERR as usize];
    let trapped =
        Trapped { is_write: code & ERROR_CODE_WRITE != 0, is_missing: code & ERROR_CODE_PRESENT == 0 };
    let mut verdict = Verdict::Trap;
    if sent_by_kernel && let Some(resolve) = RESOLVER.get() {
        verdict = resolve(address, trapped);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
    if verdict == Verdict::Resolved {
        return;
    }
    let instruction = &mut machine.gregs[libc::REG_RIP as usize];
    if sent_by_kernel && let Some(end) = end_after_trap(*instruction as usize) {
        *instruction = end as i64;
        return;
    }
    chain(signal, info, context);
}

/// Where a load of this module goes on that has trapped at `instruction`.
fn end_after_trap(instruction: usize) -> Option<usize> {
    let ends: [(unsafe extern "C" fn(), unsafe extern "C" fn()); 3] = [
        (trapping_copy_load, trapping_copy_end),
        (trapping_word_load, trapping_word_end),
        (trapping_words_load, trapping_words_end),
    ];
    let found = ends.iter().find(|(load, _)| *load as *const () as usize == instruction);
    found.map(|(_, end)| *end as *const () as usize)
}

fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(PreviousAction(previous)) = PREVIOUS.get() else { return default_action(signal, info) };
    match previous.sa_sigaction {
        libc::SIG_DFL => default_action(signal, info),
        libc::SIG_IGN => {
            // A fault cannot be ignored; the kernel kills in this case too.
            // SAFETY: si_code is plain data of a valid siginfo_t.
            if unsafe { (*info).si_code } > 0 {
                default_action(signal, info);
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the previous owner registered this address as a three-argument handler.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the previous owner registered this address as a one-argument handler.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Puts the default action back. A fault happens again on return and then kills; a sent signal is sent again.
fn default_action(signal: c_int, info: *mut siginfo_t) {
    // SAFETY: signal(2) and raise(3) are async-signal-safe; si_code is plain data.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if (*info).si_code <= 0 {
            libc::raise(signal);
        }
    }
}

// rdi destination, rsi source, rdx bytes; returns the bytes that were not copied. `rep movsb` keeps its registers
// exact when a load traps, so the handler only moves the instruction pointer to the end label.
std::arch::global_asm!(
    ".global memobj_trapping_copy",
    ".global memobj_trapping_copy_load",
    ".global memobj_trapping_copy_end",
    "memobj_trapping_copy:",
    "mov rcx, rdx",
    "memobj_trapping_copy_load:",
    "rep movsb",
    "memobj_trapping_copy_end:",
    "mov rax, rcx",
    "ret",
);

// rdi address; returns the word in rax and 0 in rdx, or 1 in rdx if the load has trapped.
std::arch::global_asm!(
    ".global memobj_trapping_word",
    ".global memobj_trapping_word_load",
    ".global memobj_trapping_word_end",
    "memobj_trapping_word:",
    "mov edx, 1",
    "memobj_trapping_word_load:",
    "mov rax, [rdi]",
    "xor edx, edx",
    "memobj_trapping_word_end:",
    "ret",
);

// rdi destination, rsi source, rdx words, at least one; returns the words that were not copied. Each is loaded in one step.
std::arch::global_asm!(
    ".global memobj_trapping_words",
    ".global memobj_trapping_words_load",
    ".global memobj_trapping_words_end",
    "memobj_trapping_words:",
    "memobj_trapping_words_load:",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "dec rdx",
    "jnz memobj_trapping_words_load",
    "memobj_trapping_words_end:",
    "mov rax, rdx",
    "ret",
);

/// What a load of one word came to.
#[repr(C)]
struct TrappingWord {
    word: u64,
    has_trapped: u64,
}

unsafe extern "C" {
    #[link_name = "memobj_trapping_word"]
    fn trapping_word(source: *const u8) -> TrappingWord;
    #[link_name = "memobj_trapping_word_load"]
    fn trapping_word_load();
    #[link_name = "memobj_trapping_word_end"]
    fn trapping_word_end();
    #[link_name = "memobj_trapping_words"]
    fn trapping_words(destination: *mut u8, source: *const u8, words: usize) -> usize;
    #[link_name = "memobj_trapping_words_load"]
    fn trapping_words_load();
    #[link_name = "memobj_trapping_words_end"]
    fn trapping_words_end();
    #[link_name = "memobj_trapping_copy"]
    fn trapping_copy(destination: *mut u8, source: *const u8, len: usize) -> usize;
    #[link_name = "memobj_trapping_copy_load"]
    fn trapping_copy_load();
    #[link_name = "memobj_trapping_copy_end"]
    fn trapping_copy_end();
}

/// Copies from mapped memory by plain loads; a trap ends the copy instead of the process.
///
/// Returns how many bytes were copied. Needs [`install`] to have been called.
///
/// # Safety
///
/// `source..source + destination.len()` must be a mapped range, of which any page may trap.
#[must_use]
pub(crate) unsafe fn copy_trapping(destination: &mut [u8], source: *const u8) -> usize {
    // SAFETY: the destination is a valid slice; loads from the source happen at the one instruction at which the
    // handler ends the copy; the caller promises that the range is mapped.
    let left = unsafe { trapping_copy(destination.as_mut_ptr(), source, destination.len()) };
    destination.len() - left
}

/// Copies into mapped memory by plain stores, which fault like anybody's; a trap ends the copy instead of the process.
///
/// Returns how many bytes were copied, which the caller has to look at. Needs [`install`] to have been called: without
/// it a trap kills.
///
/// # Safety
///
/// `destination..destination + source.len()` must be a mapped, writable range, of which any page may trap, and into
/// which nobody holds references.
#[must_use]
pub(crate) unsafe fn store_trapping(destination: *mut u8, source: &[u8]) -> usize {
    // SAFETY: the source is a slice of ordinary memory; stores happen at the one instruction at which the handler ends
    // the copy; the rest is the caller's contract.
    let left = unsafe { trapping_copy(destination, source.as_ptr(), source.len()) };
    source.len() - left
}

/// Loads eight bytes of mapped memory, in one step if they are aligned; `None` if the load traps. Needs [`install`] to
/// have been called: without it a trap kills.
///
/// # Safety
///
/// `source..source + 8` must be a mapped range, of which any page may trap.
#[inline]
pub(crate) unsafe fn load_word_trapping(source: *const u8) -> Option<u64> {
    // SAFETY: the one load is at the instruction after which the handler goes on; the range is mapped, says the caller.
    let loaded = unsafe { trapping_word(source) };
    (loaded.has_trapped == 0).then_some(loaded.word)
}

/// As [`copy_trapping`], by words: those that lie at multiples of eight are loaded in one step each, also where the copy
/// begins or ends inside one. `false` if a load traps: then a part may have been copied.
///
/// # Safety
///
/// As for [`copy_trapping`]. The words at the ends are loaded whole: they lie in the same pages.
#[must_use]
#[inline]
pub(crate) unsafe fn copy_words_trapping(destination: &mut [u8], source: *const u8) -> bool {
    let into = source.addr() % 8;
    let head = if into == 0 { 0 } else { (8 - into).min(destination.len()) };
    let (first, rest) = destination.split_at_mut(head);
    let (middle, last) = rest.split_at_mut(rest.len() / 8 * 8);
    if !first.is_empty() {
        // SAFETY: the word that `source` lies in, in the same page as `source`.
        let Some(word) = (unsafe { load_word_trapping(source.wrapping_sub(into)) }) else { return false };
        first.copy_from_slice(&word.to_ne_bytes()[into..into + head]);
    }
    // SAFETY: in the range, or its end.
    let source = unsafe { source.add(head) };
    if !middle.is_empty() {
        // SAFETY: `middle` is a slice of whole words, and the range has as many; loads are at the instruction after which
        // the handler goes on.
        let left = unsafe { trapping_words(middle.as_mut_ptr(), source, middle.len() / 8) };
        if left > 0 {
            return false;
        }
    }
    if !last.is_empty() {
        // SAFETY: an aligned word that begins in the range, so it lies in the same page.
        let Some(word) = (unsafe { load_word_trapping(source.add(middle.len())) }) else { return false };
        last.copy_from_slice(&word.to_ne_bytes()[..last.len()]);
    }
    true
}
