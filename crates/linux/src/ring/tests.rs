//! Both mechanisms read the same bytes and report readiness.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::*;
use crate::eventfd::EventFd;
use crate::region::{ChunkPool, SMALL};

fn sample() -> ReadFile {
    let memory = rustix::fs::memfd_create(c"ring-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(memory);
    for page in 0..64u8 {
        file.write_all(&[page; SMALL]).unwrap();
    }
    ReadFile::new(file)
}

fn reads_arrive(mechanism: Mechanism) {
    let file = sample();
    let pool = ChunkPool::new(64, SMALL).unwrap();
    let mut ring: Ring<u8> = Ring::new(16, mechanism, RingUser::CallingThread).unwrap();
    assert_eq!(ring.is_uring(), mechanism == Mechanism::Auto, "io_uring is not available here");
    for page in 0..64u8 {
        let target = Target::Chunk(pool.take().unwrap());
        let offset = u64::from(page) * SMALL as u64;
        ring.start(Transfer {
            direction: Direction::Read,
            file: file.clone(),
            offset,
            target,
            len: SMALL,
            token: page,
        });
    }
    let mut seen = HashSet::new();
    let mut done = Vec::new();
    while seen.len() < 64 {
        ring.wait(None, &mut done).unwrap();
        for completion in done.drain(..) {
            let Completion::Ended { mut target, token, result } = completion else {
                panic!("nothing is watched")
            };
            assert_eq!(result.unwrap(), SMALL);
            assert!(target.as_mut_slice().iter().all(|byte| *byte == token));
            assert!(seen.insert(token));
        }
    }
    assert_eq!(ring.in_flight(), 0);
}

fn a_watched_descriptor_is_reported_each_time(mechanism: Mechanism) {
    let eventfd = Arc::new(EventFd::new().unwrap());
    let descriptor = ReadFile::new(eventfd.as_fd().try_clone_to_owned().unwrap());
    let mut ring: Ring<()> = Ring::new(8, mechanism, RingUser::OneAtATime).unwrap();
    ring.watch(descriptor, 7, Repeat::Always).unwrap();
    let mut done = Vec::new();
    for _ in 0..100 {
        eventfd.notify();
        while done.is_empty() {
            ring.wait(None, &mut done).unwrap();
        }
        assert!(done.drain(..).all(|completion| matches!(completion, Completion::Ready(7))));
        eventfd.clear();
    }
}

#[test]
fn io_uring_reads() {
    if uring::UringReads::<()>::new(8, RingUser::OneAtATime).is_err() {
        println!("skipped: io_uring is not available");
        return;
    }
    reads_arrive(Mechanism::Auto);
    a_watched_descriptor_is_reported_each_time(Mechanism::Auto);
}

#[test]
fn threads_read() {
    reads_arrive(Mechanism::Threads);
    a_watched_descriptor_is_reported_each_time(Mechanism::Threads);
}

#[test]
fn a_dropped_ring_waits_for_its_reads() {
    let file = sample();
    let pool = ChunkPool::new(32, SMALL).unwrap();
    for mechanism in [Mechanism::Auto, Mechanism::Threads] {
        let mut ring: Ring<u8> = Ring::new(16, mechanism, RingUser::CallingThread).unwrap();
        for page in 0..32u8 {
            let target = Target::Chunk(pool.take().unwrap());
            ring.start(Transfer {
                direction: Direction::Read,
                file: file.clone(),
                offset: 0,
                target,
                len: SMALL,
                token: page,
            });
        }
        ring.submit().unwrap();
        drop(ring);
        let all: Vec<_> = (0..32).map(|_| pool.take().expect("every chunk came back")).collect();
        drop(all);
    }
}
