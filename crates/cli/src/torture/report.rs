//! What a worker tells its parent through a pipe, in frames: kind, count, numbers; all u64, little endian.
//!
//! Each frame is one write of at most PIPE_BUF bytes, so frames of several threads do not mix. A frame that is cut
//! off when the worker dies was not told.

use std::io::{self, Read, Write};

/// Most records in one frame: two numbers each, and two in front, in 4096 bytes.
pub(super) const MOST_RECORDS: usize = 255;
/// Most bytes of a message.
const MOST_TEXT: usize = 4000;

const SYNCED: u64 = 1;
const COMMITTED: u64 = 2;
const FAILED: u64 = 3;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// These records are durable: index and sequence number.
    Synced(Vec<(u64, u64)>),
    /// This commit is.
    Committed(u64),
    /// Something did not work that should have.
    Failed(String),
}

impl Report {
    /// Writes the frame.
    pub(super) fn send(&self, pipe: &mut impl Write) -> io::Result<()> {
        let mut frame = Vec::new();
        let mut put = |number: u64| frame.extend_from_slice(&number.to_le_bytes());
        match self {
            Self::Synced(records) => {
                assert!(records.len() <= MOST_RECORDS, "{} records in a frame", records.len());
                put(SYNCED);
                put(records.len() as u64 * 16);
                records
                    .iter()
                    .for_each(|(index, sequence)| [*index, *sequence].into_iter().for_each(&mut put));
            }
            Self::Committed(commit) => [COMMITTED, 8, *commit].into_iter().for_each(put),
            Self::Failed(text) => {
                let bytes = &text.as_bytes()[..text.len().min(MOST_TEXT)];
                put(FAILED);
                put(bytes.len() as u64);
                frame.extend_from_slice(bytes);
            }
        }
        pipe.write_all(&frame)?;
        pipe.flush()
    }

    /// Reads the next frame; `None` at the end, whole or cut off.
    pub(super) fn receive(pipe: &mut impl Read) -> Option<Self> {
        let (kind, bytes) = (number(pipe)?, number(pipe)?);
        let mut body = vec![0; usize::try_from(bytes).ok().filter(|bytes| *bytes <= 4096)?];
        pipe.read_exact(&mut body).ok()?;
        let mut rest = body.as_slice();
        match kind {
            SYNCED => {
                let record = |rest: &mut &[u8]| Some((number(rest)?, number(rest)?));
                Some(Self::Synced(std::iter::from_fn(|| record(&mut rest)).collect()))
            }
            COMMITTED => Some(Self::Committed(number(&mut rest)?)),
            FAILED => Some(Self::Failed(String::from_utf8_lossy(&body).into_owned())),
            _ => None,
        }
    }
}

fn number(from: &mut impl Read) -> Option<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::{MOST_RECORDS, Report};

    #[test]
    fn frames_are_read_as_written_and_cut_ones_are_not() {
        let reports = [
            Report::Synced((0..MOST_RECORDS as u64).map(|index| (index, index + 1)).collect()),
            Report::Committed(9),
            Report::Failed("sync [0, 1) of f: no".to_string()),
        ];
        let mut pipe = Vec::new();
        for report in &reports {
            let before = pipe.len();
            report.send(&mut pipe).expect("a vector takes all");
            assert!(pipe.len() - before <= 4096);
        }
        let mut whole = pipe.as_slice();
        for report in &reports {
            assert_eq!(Report::receive(&mut whole).as_ref(), Some(report));
        }
        assert_eq!(Report::receive(&mut whole), None);
        let mut cut = &pipe[..pipe.len() - 1];
        assert_eq!(std::iter::from_fn(|| Report::receive(&mut cut)).count(), 2);
    }
}
