//! Where we differ from the kernel on purpose, or because it does not say what it does.

use memobj_linux::oracle::{Answer, Order, Process};

/// One declared difference.
#[derive(Debug)]
pub struct Difference {
    /// A short name.
    pub name: &'static str,
    /// Why it is.
    pub reason: &'static str,
    /// Whether it is what differs: the orders so far, our answer to the last, and the kernel's. Differences that do not
    /// show at once are noticed by the machine when an order brings them about.
    pub applies: fn(&[(Process, Order)], &Answer, &Answer) -> bool,
}

const EAGAIN: i64 = -11;
const ENOMEM: i64 = -12;
const EFAULT: i64 = -14;

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "remap-across-kept-apart",
        reason: "The kernel does not join neighbours whose anonymous pages were touched apart, nor a stack to what it \
                 grows down to, and then refuses to make a range longer, or to move it, that spans both; here they \
                 are one segment.",
        applies: |orders, ours, kernel| {
            // Errors that are looked for after the one that the kernel has.
            let goes_on = ours.value >= 0 || [EAGAIN, ENOMEM].contains(&ours.value);
            matches!(orders.last(), Some((_, Order::Mremap { .. }))) && goes_on && kernel.value == EFAULT
        },
    },
    Difference {
        name: "keep-unlocks-more",
        reason: "When a part of a locked mapping is moved and kept (MREMAP_DONTUNMAP), the kernel unlocks the whole \
                 mapping that the part lies in, and goes on to count its pages as locked; here the part is unlocked.",
        applies: |_, _, _| false,
    },
    Difference {
        name: "holes-are-reserved",
        reason: "In a space of this process, holes are addresses that are kept free by a mapping that nobody may \
                 access, so that nothing else of the process is placed there: an access is SIGSEGV with SEGV_ACCERR \
                 instead of SEGV_MAPERR. The third side takes the one for the other where its table has a hole.",
        applies: |_, _, _| false,
    },
];
