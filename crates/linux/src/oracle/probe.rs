//! Accesses that may fault, and what they raise.

use super::Signal;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

// Each is one access and a return. On a fault the handler continues at the end, as if the access had returned; the
// stack is as it was at the call in all of them.
std::arch::global_asm!(
    ".global memobj_oracle_load",
    "memobj_oracle_load:",
    "movzx eax, byte ptr [rdi]",
    "ret",
    ".global memobj_oracle_store",
    "memobj_oracle_store:",
    "mov byte ptr [rdi], sil",
    "xor eax, eax",
    "ret",
    ".global memobj_oracle_execute",
    "memobj_oracle_execute:",
    "xor eax, eax",
    "jmp rdi",
    ".global memobj_oracle_recover",
    "memobj_oracle_recover:",
    "mov rax, -1",
    "ret",
);

unsafe extern "C" {
    fn memobj_oracle_load(address: u64) -> i64;
    fn memobj_oracle_store(address: u64, byte: u8) -> i64;
    fn memobj_oracle_execute(address: u64) -> i64;
    fn memobj_oracle_recover();
}

thread_local! {
    /// Whether this thread is in one of the accesses above.
    static PROBES: Cell<bool> = const { Cell::new(false) };
    static RAISED: Cell<Option<Signal>> = const { Cell::new(None) };
}

/// Who had SIGSEGV and SIGBUS before.
static BEFORE: [OnceLock<libc::sigaction>; 2] = [const { OnceLock::new() }; 2];
/// Codes of faults that a page's protection and a protection key raised (sigaction(2)).
const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const CAUGHT: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];

extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !PROBES.get() {
        return chain(number, info, context);
    }
    // SAFETY: the kernel passes both, valid for the time of the handler, which runs with SA_SIGINFO.
    unsafe {
        let (code, address) = ((*info).si_code, (*info).si_addr() as u64);
        // Refused by a protection key is refused.
        let code = if (number, code) == (libc::SIGSEGV, SEGV_PKUERR) { SEGV_ACCERR } else { code };
        RAISED.set(Some(Signal { number, code, address }));
        let context = &mut *context.cast::<libc::ucontext_t>();
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = memobj_oracle_recover as *const () as i64;
    }
}

/// Not of an access of ours: as if we were not there.
fn chain(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = CAUGHT.iter().zip(&BEFORE).find(|(caught, _)| **caught == number);
    let action = before.and_then(|(_, before)| before.get());
    match action {
        Some(action) if action.sa_sigaction > libc::SIG_IGN && action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever was there before registered this address as a handler of three arguments.
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(action.sa_sigaction) };
            handler(number, info, context);
        }
        // SAFETY: signal(2) may be called in handlers. The fault happens again on return, and then kills.
        _ => drop(unsafe { libc::signal(number, libc::SIG_DFL) }),
    }
}

/// Catches SIGSEGV and SIGBUS of [`load`], [`store`] and [`execute`] in this process; all others go on to whoever had
/// them.
pub(super) fn catch() {
    for (number, before) in CAUGHT.iter().zip(&BEFORE) {
        let mut found = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the actions are initialised in full, and the handler touches what is its thread's own and its
        // arguments only.
        unsafe {
            libc::sigaction(*number, std::ptr::null(), found.as_mut_ptr());
            let _ = before.set(found.assume_init());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            libc::sigaction(*number, &action, std::ptr::null_mut());
        }
    }
}

fn caught(access: impl FnOnce() -> i64) -> Result<i64, Signal> {
    RAISED.set(None);
    PROBES.set(true);
    let value = access();
    PROBES.set(false);
    match RAISED.take() {
        None => Ok(value),
        Some(signal) => Err(signal),
    }
}

pub(super) fn load(address: u64) -> Result<i64, Signal> {
    // SAFETY: a load of one byte; if nothing is there the handler returns from it. The window holds no Rust object.
    caught(|| unsafe { memobj_oracle_load(address) })
}

pub(super) fn store(address: u64, byte: u8) -> Result<i64, Signal> {
    // SAFETY: a store of one byte into the window, which holds no Rust object.
    caught(|| unsafe { memobj_oracle_store(address, byte) })
}

pub(super) fn execute(address: u64) -> Result<i64, Signal> {
    // SAFETY: whoever orders it knows that it faults, or that a return instruction is there.
    caught(|| unsafe { memobj_oracle_execute(address) })
}
