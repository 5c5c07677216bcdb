//! A model of storage that loses what was not synced: files on a machine whose power can be cut.
//!
//! Every file has a *live* image, which reads show, and a *durable* one. A write goes to the live image and, by
//! sectors of 512 bytes, to a list of what is not durable yet. A sync empties that list into the durable image.
//! What a crash leaves is the durable image and any part of the list:
//!
//! * any subset of the sectors, in any order between two changes of the length;
//! * the first few changes of the length, in their order;
//! * each block of room that was reserved and not synced, or not.
//!
//! Operations can be made to fail: a write after any part of it was done; a sync, after which any part of the list
//! is durable and the rest is forgotten, so that a later sync succeeds without it, and reads show either the new or
//! the old bytes; a reservation or a write for want of room. A failed sync does not lose lengths or reservations:
//! file systems keep those in a journal and stop when it fails.
//!
//! Everything random is drawn from a seed.

mod file;
mod image;
mod machine;

pub use file::File;
pub use image::{Image, PAGE_BYTES};
pub use machine::{Fault, Machine, Operation, SimError};
