//! Frames in ordinary memory.

use memobj_vm::fault::{FrameNumber, Memory, Notice};
use std::sync::{Mutex, MutexGuard};

const PAGE: usize = 4096;

/// Frames that are counted, and whose bytes are spoilt when they are freed, so that whoever still uses one is found; and
/// notices that wait for the spaces.
#[derive(Debug, Default)]
pub struct SoftFrames(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    frames: Vec<(usize, Box<[u8]>)>,
    free: Vec<usize>,
    notices: Vec<Notice>,
}

impl SoftFrames {
    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().expect("nobody panics with it")
    }

    /// How many frames have owners.
    pub fn in_use(&self) -> usize {
        let all = self.lock();
        all.frames.len() - all.free.len()
    }

    /// What was told since it was last asked. To be passed to every space.
    pub fn notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.lock().notices)
    }
}

impl Frames {
    fn take(&mut self) -> usize {
        // The last that was freed first: a stale translation meets its frame's next bytes.
        let frame = self.free.pop().unwrap_or_else(|| {
            self.frames.push((0, vec![0; PAGE].into_boxed_slice()));
            self.frames.len() - 1
        });
        self.frames[frame].0 = 1;
        frame
    }
}

impl Memory for SoftFrames {
    fn zeroed(&self) -> Option<FrameNumber> {
        let mut all = self.lock();
        let frame = all.take();
        all.frames[frame].1.fill(0);
        Some(FrameNumber(frame as u64))
    }

    fn copy_of(&self, from: FrameNumber) -> Option<FrameNumber> {
        let mut all = self.lock();
        let bytes = all.frames[from.0 as usize].1.clone();
        let frame = all.take();
        all.frames[frame].1 = bytes;
        Some(FrameNumber(frame as u64))
    }

    fn share(&self, frame: FrameNumber) {
        let owners = &mut self.lock().frames[frame.0 as usize].0;
        assert!(*owners > 0, "{frame:?} is free");
        *owners += 1;
    }

    fn release(&self, frame: FrameNumber) {
        let mut all = self.lock();
        let (owners, bytes) = &mut all.frames[frame.0 as usize];
        *owners = owners.checked_sub(1).expect("a frame is released as often as it was shared");
        if *owners == 0 {
            bytes.fill(0xdd);
            all.free.push(frame.0 as usize);
        }
    }

    fn owners(&self, frame: FrameNumber) -> usize {
        self.lock().frames[frame.0 as usize].0
    }

    fn read(&self, frame: FrameNumber, at: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.lock().frames[frame.0 as usize].1[at..at + into.len()]);
    }

    fn write(&self, frame: FrameNumber, at: usize, from: &[u8]) {
        self.lock().frames[frame.0 as usize].1[at..at + from.len()].copy_from_slice(from);
    }

    fn tell(&self, notice: Notice) {
        self.lock().notices.push(notice);
    }
}
