//! Pins, and what is waited for on the way to them.

mod reads;
mod thread_list;
mod waits;

use memobj_core::address::PageRange;
use memobj_linux::area::Area;

pub(crate) use reads::Pins;
pub(crate) use thread_list::{NotedPin, ThisThread};
pub(crate) use waits::{Ask, AskDriver, Waits};

/// What tells pins of one object from those of others.
#[inline]
pub(crate) fn key(area: &Area) -> usize {
    std::ptr::from_ref(area) as usize
}

/// Notes that the calling thread pins `pages`.
pub(crate) fn note_pin(area: &Area, pages: PageRange) -> NotedPin {
    ThisThread::get().note(key(area), pages)
}
