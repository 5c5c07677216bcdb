//! What a program has mapped at its end.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use memobj_tracer::Present;

use crate::files::FramesId;
use crate::history::SegmentRecord;
use crate::supervisor::Supervisor;

const PAGE: u64 = 4096;

impl Supervisor {
    /// Notes the segment table of the stopped thread's process, and which pages it has.
    pub(crate) fn look_at_segments(&self, pid: i32) {
        let Some(thread) = self.threads.get(&pid) else { return };
        let Ok(text) = std::fs::read(format!("/proc/{pid}/maps")) else { return };
        let mut copied = Vec::new();
        let lines = text.split(|byte| *byte == b'\n');
        let segments = lines.filter_map(|line| self.segment(pid, line, &mut copied)).collect();
        self.history_builder.segments(thread.program, segments, &copied);
    }

    fn segment(&self, pid: i32, line: &[u8], copied: &mut Vec<(usize, u64)>) -> Option<SegmentRecord> {
        // A name has any bytes, and what is before it none of these.
        let mut parts = line.splitn(6, |byte| *byte == b' ');
        let mut fields = parts.by_ref().take(5).map_while(|field| std::str::from_utf8(field).ok());
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        let letters = fields.next()?;
        let offset = hex(fields.next()?)?;
        let device = fields.next()?;
        let inode = fields.next()?.trim().parse().ok()?;
        let name = OsString::from_vec(parts.next().unwrap_or_default().trim_ascii().to_vec());
        let object = self.files.of_frames(FramesId { device: device_of(device)?, inode });
        let present = object.as_ref().and_then(|_| Present::of(pid, start, end).ok()).unwrap_or_default();
        let pages =
            |runs: &mut dyn Iterator<Item = &Present>| runs.map(|run| (run.end - run.start) / PAGE).sum();
        if let Some(object) = &object {
            for run in present.iter().filter(|run| run.is_own) {
                let first = (offset + (run.start - start)) / PAGE;
                copied.extend((first..first + (run.end - run.start) / PAGE).map(|page| (object.file, page)));
            }
        }
        Some(SegmentRecord {
            start,
            end,
            prot: prot_of(letters),
            name: if object.is_some() { OsString::new() } else { name },
            file: object.map(|object| (object.file, offset)),
            present_pages: pages(&mut present.iter()),
            copied_pages: pages(&mut present.iter().filter(|run| run.is_own)),
        })
    }
}

/// As /proc/PID/maps has it: two numbers.
fn device_of(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}

fn prot_of(letters: &str) -> memobj_core::prot::Prot {
    use memobj_core::prot::Prot;
    let allowed = |letter: char, prot: Prot| if letters.contains(letter) { prot } else { Prot::NONE };
    allowed('r', Prot::READ) | allowed('w', Prot::WRITE) | allowed('x', Prot::EXECUTE)
}
