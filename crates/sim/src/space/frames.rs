//! Frames in ordinary memory.

use memobj_core::fault::Frames;

const PAGE: usize = 4096;

/// Frames that are counted, and whose bytes are spoilt when they are freed, so that whoever still uses one is found.
#[derive(Debug, Default)]
pub struct SoftFrames {
    frames: Vec<(usize, Box<[u8]>)>,
    free: Vec<usize>,
}

impl SoftFrames {
    /// How many frames have owners.
    pub fn in_use(&self) -> usize {
        self.frames.len() - self.free.len()
    }

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

impl Frames for SoftFrames {
    type Frame = usize;

    fn zeroed(&mut self) -> Option<usize> {
        let frame = self.take();
        self.frames[frame].1.fill(0);
        Some(frame)
    }

    fn copy_of(&mut self, from: usize) -> Option<usize> {
        let bytes = self.frames[from].1.clone();
        let frame = self.take();
        self.frames[frame].1 = bytes;
        Some(frame)
    }

    fn share(&mut self, frame: usize) {
        assert!(self.frames[frame].0 > 0, "frame {frame} is free");
        self.frames[frame].0 += 1;
    }

    fn release(&mut self, frame: usize) {
        let (owners, bytes) = &mut self.frames[frame];
        *owners = owners.checked_sub(1).expect("a frame is released as often as it was shared");
        if *owners == 0 {
            bytes.fill(0xdd);
            self.free.push(frame);
        }
    }

    fn owners(&self, frame: usize) -> usize {
        self.frames[frame].0
    }

    fn read(&self, frame: usize, at: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.frames[frame].1[at..at + into.len()]);
    }

    fn write(&mut self, frame: usize, at: usize, from: &[u8]) {
        self.frames[frame].1[at..at + from.len()].copy_from_slice(from);
    }
}
