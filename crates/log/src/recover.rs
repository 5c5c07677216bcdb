//! Opening: finding what was committed, and putting it in place.

use super::buffer::Buffer;
use super::checkpoint::Progress;
use super::content::Content;
use super::error::{Action, Failure, OpenError, StepError, on_data, on_log};
use super::format::{BLOCK_BYTES, HeaderProblem, LogHeader, Mark, RecordHeader, image_sum, next_salt};
use super::layout::{Cursor, FIRST_CHUNK, Layout, Segment, offset};
use super::log::CommitLog;
use super::storage::Storage;

/// What a walk along the chain found.
struct Chain {
    content: Content,
    /// The record that would be next.
    next: Link,
    /// Where the records after the last commit begin.
    group: Link,
    /// Where the records of the last commit begin, and the number after its mark.
    last_commit: Option<(Link, u64)>,
    /// The data storage has the length of the last checkpoint or of a commit since.
    length_is_known: bool,
}

/// A place in the chain: where a record is looked for, and its number.
#[derive(Clone, Copy)]
struct Link {
    cursor: Cursor,
    sequence: u64,
}

/// A record's block, its header, and where the next one is looked for.
type Found = (u64, RecordHeader, Link);

/// Reads records one after another.
struct Walker<'a, S> {
    log: &'a S,
    layout: Layout,
    salt: u64,
    log_blocks: u64,
    buffer: Buffer,
}

impl<S: Storage> CommitLog<S> {
    /// Opens the log of the object with `identity`: puts every whole commit in place, drops what was not
    /// committed, syncs, and makes the log empty. `salt` is a random number. Blocks, for as long as it takes to
    /// read the log and write its pages; takes memory for an index, not for images. A crash at any moment of it,
    /// or an error, leaves everything for the next call.
    pub fn open(log: S, data: S, identity: [u8; 16], salt: u64) -> Result<Self, OpenError<S::Error>> {
        let header = read_header(&log)?;
        if header.identity != identity {
            return Err(OpenError::OtherObject { found: header.identity });
        }
        let length = on_data(Action::Length, data.length())?;
        let mut walker = Walker::new(&log, &header)?;
        let chain = walk(&mut walker, &header, length)?;
        if let Some((start, end)) = chain.last_commit {
            if !chain.length_is_known {
                return Err(OpenError::OtherLength { found: length, expected: header.length });
            }
            walker.make_durable(start, end)?;
        }
        let sequence = chain.next.sequence;
        let mut opened = Self::with_header(log, data, header, chain.content);
        opened.content.abandon();
        opened.data_length = length;
        // Even with nothing to copy: a process that was killed may have left a length that is not durable.
        opened.length_is_unsynced = true;
        opened.all_in_place().map_err(open_error)?;
        opened.reset(sequence, salt)?;
        Ok(opened)
    }

    /// Runs a whole checkpoint of every committed image.
    pub(super) fn all_in_place(&mut self) -> Result<(), StepError<S::Error>> {
        let frozen = self.frozen.take();
        let done = self.run_plan();
        self.frozen = frozen;
        done
    }

    fn run_plan(&mut self) -> Result<(), StepError<S::Error>> {
        let mut plan = self.plan().map_err(StepError::Storage)?;
        while plan.step(&self.log, &self.data)? == Progress::More {}
        self.settle(&mut plan);
        Ok(())
    }

    /// Starts an empty chain at the beginning of segment 0.
    fn reset(&mut self, sequence: u64, salt: u64) -> Result<(), OpenError<S::Error>> {
        let header = LogHeader {
            number: self.header.number + 1,
            salt: next_salt(self.header.salt, salt),
            segment: 0,
            block: 0,
            sequence,
            length: self.data_length,
            settled: sequence,
            ..self.header
        };
        self.write_header(header)?;
        self.cursor = Cursor { segment: Segment::Zero, block: 0 };
        self.sequence = sequence;
        self.active_start = (self.cursor, sequence);
        Ok(())
    }
}

/// The newer of the valid headers.
fn read_header<S: Storage>(log: &S) -> Result<LogHeader, OpenError<S::Error>> {
    if on_log(Action::Length, log.length())? < offset(FIRST_CHUNK) {
        return Err(OpenError::NotALog);
    }
    let mut buffer = Buffer::default();
    let slots = buffer.blocks(FIRST_CHUNK as usize);
    on_log(Action::Read, log.read_at(0, slots))?;
    let mut newest: Option<LogHeader> = None;
    for slot in slots.chunks(BLOCK_BYTES) {
        match LogHeader::decode(slot) {
            Err(HeaderProblem::Version(found)) => return Err(OpenError::Version { found }),
            Err(HeaderProblem::Invalid) => {}
            Ok(header) if newest.is_some_and(|newest| newest.number > header.number) => {}
            Ok(header) => newest = Some(header),
        }
    }
    newest.ok_or(OpenError::NotALog)
}

/// Applies the records of the chain, in order, up to the first that is not valid.
fn walk<S: Storage>(
    walker: &mut Walker<'_, S>,
    header: &LogHeader,
    data_length: u64,
) -> Result<Chain, Failure<S::Error>> {
    let cursor = Cursor { segment: Segment::of_number(header.segment), block: header.block };
    let start = Link { cursor, sequence: header.sequence };
    let mut chain = Chain {
        content: Content::new(data_length),
        next: start,
        group: start,
        last_commit: None,
        length_is_known: data_length == header.length,
    };
    while let Some((block, record, next)) = walker.find(chain.next)? {
        let data_end = chain.content.data_end;
        chain.content.apply(&record, block);
        if record.sequence < header.settled {
            chain.content.data_end = data_end;
        }
        chain.next = next;
        if let Mark::Commit { length } = record.mark {
            chain.last_commit = Some((chain.group, next.sequence));
            chain.group = next;
            chain.length_is_known |= length == data_length;
        }
    }
    Ok(chain)
}

impl<'a, S: Storage> Walker<'a, S> {
    fn new(log: &'a S, header: &LogHeader) -> Result<Self, Failure<S::Error>> {
        let log_blocks = on_log(Action::Length, log.length())? / BLOCK_BYTES as u64;
        let layout = Layout::new(header.chunk_blocks);
        let log_blocks = log_blocks.min(u64::from(u32::MAX));
        Ok(Self { log, layout, salt: header.salt, log_blocks, buffer: Buffer::default() })
    }

    /// The record at `link`: its block, its header, and the link after it. The buffer holds it.
    fn find(&mut self, link: Link) -> Result<Option<Found>, Failure<S::Error>> {
        let other = Cursor { segment: link.cursor.segment.other(), block: 0 };
        for at in [link.cursor, self.layout.next_chunk(link.cursor), other] {
            if let Some(record) = self.read_record(at, link.sequence)? {
                let cursor = Cursor { block: at.block + 1 + record.entries.len() as u64, ..at };
                let next = Link { cursor, sequence: link.sequence + 1 };
                return Ok(Some((self.layout.block(at), record, next)));
            }
        }
        Ok(None)
    }

    /// The record at `at`, if it is the one with this number and whole.
    fn read_record(&mut self, at: Cursor, sequence: u64) -> Result<Option<RecordHeader>, Failure<S::Error>> {
        let block = self.layout.block(at);
        let room = self.log_blocks.saturating_sub(block);
        if room == 0 {
            return Ok(None);
        }
        let head = self.buffer.blocks(1);
        on_log(Action::Read, self.log.read_at(offset(block), head))?;
        let Some(record) = RecordHeader::decode(head, self.salt, sequence) else { return Ok(None) };
        let count = record.entries.len();
        if count as u64 >= room || self.layout.fit(at, count as u64 + 1) != at {
            return Ok(None);
        }
        let whole = self.buffer.blocks(count + 1);
        on_log(Action::Read, self.log.read_at(offset(block), whole))?;
        let images = whole[BLOCK_BYTES..].chunks(BLOCK_BYTES);
        let is_whole = record.entries.iter().zip(images).all(|(entry, image)| entry.sum == image_sum(image));
        Ok(is_whole.then_some(record))
    }

    /// Writes the records of the last commit over themselves, and syncs.
    ///
    /// They were read, but perhaps from the memory of a machine that never lost its power: the process may have
    /// been killed before the sync, or the sync may have failed, and then another sync alone would not help. Only
    /// the last commit can be in doubt, since a log accepts nothing after a failed one. Before any of it goes in
    /// place it must be durable as a whole.
    fn make_durable(&mut self, mut link: Link, end: u64) -> Result<(), Failure<S::Error>> {
        while link.sequence < end {
            let Some((block, record, next)) = self.find(link)? else { break };
            let bytes = self.buffer.filled(record.entries.len() + 1);
            on_log(Action::Write, self.log.write_at(offset(block), bytes))?;
            link = next;
        }
        on_log(Action::Sync, self.log.sync())
    }
}

fn open_error<E>(error: StepError<E>) -> OpenError<E> {
    match error {
        StepError::Storage(failure) => OpenError::Storage(failure),
        // The image was whole a moment ago.
        StepError::Lost { .. } => OpenError::NotALog,
    }
}

impl<E> From<Failure<E>> for OpenError<E> {
    fn from(failure: Failure<E>) -> Self {
        OpenError::Storage(failure)
    }
}
