//! `network`: objects of servers beside other clients of the same servers, behind a proxy that delays requests.
//!
//! ```text
//!   child of one measurement                    parent
//!   ----------------------------                -------------------------------------------------
//!   memobj, object_store, preads of a mount     nginx, s3s-fs or moto, diod; s3fs, rclone (mounts)
//!        |                                          ^
//!        '------- TCP -------> proxy, D ms ---------'
//! ```
//!
//! What a server or a mount needs and this machine lacks is `skipped`, with the reason.

mod bars;
mod disk;
mod expected;
mod files;
pub mod job;
mod mounts;
pub mod options;
mod ours;
mod peers;
mod plan;
mod process;
mod proxy;
mod report;
pub mod run;
pub mod servers;
