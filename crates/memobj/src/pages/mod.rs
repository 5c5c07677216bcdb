//! The pages of one mapped object: how they are filled, why they failed, what was lost, in which order they are used.
//!
//! Parts that own their state and are shared by [`Arc`](std::sync::Arc): the flows (batches, pins, writes, calls of
//! pagers) are made of them, and each takes those that it needs.

mod errors;
mod fill;
mod length_change;
mod lost;
mod object_core;
mod pattern;

pub(crate) use errors::Errors;
pub(crate) use fill::{AlignedPage, Arrived, CallPagers, Fill, FillReason, Keep, split};
pub(crate) use length_change::LengthChange;
pub(crate) use object_core::{AnswerTo, AtOnce, LengthError, ObjectCore, answer_channel};
pub(crate) use pattern::Pattern;

use std::ops::Range;

use memobj_core::address::PageIndex;
use memobj_linux::area::Area;

/// All bytes that `page` has room for.
pub(crate) fn bytes_of(area: &Area, page: PageIndex) -> Range<u64> {
    let shift = area.page_size().shift();
    page.0 << shift..(page.0 + 1) << shift
}
