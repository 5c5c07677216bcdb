//! Accesses that may fault, and what they raise.

use super::Signal;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

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

static NUMBER: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both, valid for the time of the handler, which runs with SA_SIGINFO.
    unsafe {
        CODE.store((*info).si_code, Ordering::Relaxed);
        ADDRESS.store((*info).si_addr() as u64, Ordering::Relaxed);
        let context = &mut *context.cast::<libc::ucontext_t>();
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = memobj_oracle_recover as *const () as i64;
    }
    NUMBER.store(number, Ordering::Relaxed);
}

/// Catches SIGSEGV and SIGBUS of this process, which is a child of [`run`](super::run).
pub(super) fn catch() {
    // SAFETY: the action is initialised in full, and the handler touches atomics and its arguments only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

fn caught(access: impl FnOnce() -> i64) -> Result<i64, Signal> {
    NUMBER.store(0, Ordering::Relaxed);
    let value = access();
    match NUMBER.load(Ordering::Relaxed) {
        0 => Ok(value),
        number => {
            let (code, address) = (CODE.load(Ordering::Relaxed), ADDRESS.load(Ordering::Relaxed));
            Err(Signal { number, code, address })
        }
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
