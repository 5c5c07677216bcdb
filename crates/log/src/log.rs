//! The log itself: creation, reading, and what its parts share.

use super::buffer::Buffer;
use super::content::{Content, Image, Location};
use super::error::{Action, Failure, ReadError, on_data, on_log};
use super::format::{BLOCK_BYTES, CHUNK_BLOCKS, LogHeader};
use super::layout::{Cursor, FIRST_CHUNK, Layout, Segment, offset};
use super::storage::Storage;
use crate::allocated_space::AllocatedSpace;
use memobj_core::address::{ByteRange, PageIndex};

/// How a log is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What tells the object from all others; `open` compares it.
    pub identity: [u8; 16],
    /// A random number, another one for every log that is created.
    pub salt: u64,
    /// How far the two segments grow in turn, in blocks, from 4 to 65536. A record is never longer; 1024 is a
    /// good choice.
    pub chunk_blocks: u32,
}

/// What `append` writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Pages that stay uncommitted, put away for want of memory. Written, not synced.
    Spill,
    /// Pages that become committed and durable, together with all spilled since the last commit.
    Commit {
        /// The length of the object from now on, in bytes.
        length: u64,
    },
}

/// Whether the log accepts anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    Sound,
    InFlight,
    NeedsRepair,
}

/// A redo log in one storage for the object in another. The [module](super) explains states and locks.
#[derive(Debug)]
pub struct CommitLog<S: Storage> {
    pub(super) log: S,
    pub(super) data: S,
    pub(super) layout: Layout,
    /// The newest header that is known durable.
    pub(super) header: LogHeader,
    pub(super) content: Content,
    pub(super) condition: Condition,
    /// Where the next record goes, and its number.
    pub(super) cursor: Cursor,
    pub(super) sequence: u64,
    /// Where the active segment's part of the chain begins, and the number of its first record.
    pub(super) active_start: (Cursor, u64),
    /// The segment that is being copied in place.
    pub(super) frozen: Option<Segment>,
    /// A plan is in the hands of the host.
    pub(super) plan_is_out: bool,
    /// What was pending was dropped; the next record says so.
    pub(super) abandoned: bool,
    /// Counts failed syncs of the data storage that are not those of a plan.
    pub(super) data_failures: u64,
    /// Counts repairs tried, so that each has a salt of its own.
    pub(super) repairs: u64,
    pub(super) data_length: u64,
    /// The length of the data storage is perhaps not durable yet; a plan that was cancelled may have set it.
    pub(super) length_is_unsynced: bool,
    pub(super) allocated: AllocatedSpace,
    pub(super) buffer: Buffer,
}

impl<S: Storage> CommitLog<S> {
    /// Makes an empty log in `log` for the object in `data`, which is synced first. What `log` held is given up.
    /// Blocks; two syncs. If it fails or the process ends before it returns, `open` may say `NotALog`.
    ///
    /// # Panics
    ///
    /// If `chunk_blocks` is out of range.
    pub fn create(log: S, data: S, options: Options) -> Result<Self, Failure<S::Error>> {
        assert!(CHUNK_BLOCKS.contains(&options.chunk_blocks), "chunks of {} blocks", options.chunk_blocks);
        on_data(Action::Sync, data.sync())?;
        let length = on_data(Action::Length, data.length())?;
        let slots = ByteRange { start: 0, end: offset(FIRST_CHUNK) };
        on_log(Action::Reserve, log.reserve(slots))?;
        on_log(Action::SetLength, log.set_length(slots.end))?;
        let header = LogHeader {
            chunk_blocks: options.chunk_blocks,
            identity: options.identity,
            number: 1,
            salt: options.salt,
            segment: 0,
            block: 0,
            sequence: 1,
            length,
            settled: 1,
        };
        let mut buffer = Buffer::default();
        let bytes = buffer.blocks(FIRST_CHUNK as usize);
        bytes[..BLOCK_BYTES].fill(0);
        header.encode(&mut bytes[BLOCK_BYTES..]);
        on_log(Action::Write, log.write_at(0, bytes))?;
        on_log(Action::Sync, log.sync())?;
        Ok(Self::with_header(log, data, header, Content::new(length)))
    }

    /// The log that `header` describes, with no record in its chain.
    pub(super) fn with_header(log: S, data: S, header: LogHeader, content: Content) -> Self {
        let cursor = Cursor { segment: Segment::of_number(header.segment), block: header.block };
        Self {
            log,
            data,
            layout: Layout::new(header.chunk_blocks),
            header,
            data_length: content.data_end,
            content,
            length_is_unsynced: false,
            condition: Condition::Sound,
            cursor,
            sequence: header.sequence,
            active_start: (cursor, header.sequence),
            frozen: None,
            plan_is_out: false,
            abandoned: false,
            data_failures: 0,
            repairs: 0,
            allocated: AllocatedSpace::default(),
            buffer: Buffer::default(),
        }
    }

    /// Writes a header to the slot that the durable one is not in, and syncs. On Ok, and only then, it counts.
    pub(super) fn write_header(&mut self, header: LogHeader) -> Result<(), Failure<S::Error>> {
        let block = self.buffer.blocks(1);
        header.encode(block);
        on_log(Action::Write, self.log.write_at(offset(header.number % 2), block))?;
        on_log(Action::Sync, self.log.sync())?;
        self.header = header;
        Ok(())
    }

    /// Where the newest bytes of `page` are, spilled ones included.
    ///
    /// The answer holds while the host's lock is held. A host that reads with the lock released checks an image
    /// with [`Image::matches`], and asks again if it does not match. An answer `Data` stays right until the same
    /// page is appended, truncated or abandoned.
    pub fn locate(&self, page: PageIndex) -> Location {
        self.content.locate(page.0)
    }

    /// Reads the newest bytes of `page`, from the log or in place, zeros beyond the end. Blocks. Images from the
    /// log are verified, whatever state the log is in.
    ///
    /// # Panics
    ///
    /// If `into` is not one page long.
    pub fn read_page(&self, page: PageIndex, into: &mut [u8]) -> Result<(), ReadError<S::Error>> {
        assert_eq!(into.len(), BLOCK_BYTES, "a page is one block");
        match self.locate(page) {
            Location::Log(image) => read_image(&self.log, page.0, image, into),
            Location::Data { length_bytes } => {
                let (inside, beyond) = into.split_at_mut(length_bytes);
                beyond.fill(0);
                if inside.is_empty() {
                    return Ok(());
                }
                let read = self.data.read_at(offset(page.0), inside);
                on_data(Action::Read, read).map_err(ReadError::Storage)
            }
        }
    }

    /// Drops all spilled images and uncommitted truncations, as if they had not been made. No input or output;
    /// works in every state but with a commit in flight, when it does nothing and says so by `false`.
    pub fn abandon(&mut self) -> bool {
        if self.condition == Condition::InFlight {
            return false;
        }
        self.abandoned |= self.content.abandon();
        true
    }

    /// The length of the object at the last commit, in bytes.
    pub fn committed_length(&self) -> u64 {
        self.content.committed_length
    }

    /// Pages with a committed image that is not in place, and pages with an uncommitted image.
    pub fn logged_pages(&self) -> (usize, usize) {
        (self.content.committed.len(), self.content.pending.len())
    }

    /// The number of the next record: all that was appended has smaller ones.
    pub fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a durable header leaves out every record with a number below `sequence`: what these have committed is
    /// in place and synced, and nothing reads them any more.
    pub fn has_settled(&self, sequence: u64) -> bool {
        self.header.sequence >= sequence
    }

    /// Bytes that the active segment's records take; a host begins a checkpoint when they are many.
    pub fn active_bytes(&self) -> u64 {
        offset(self.cursor.block - self.active_start.0.block)
    }

    /// Whether [`repair`](Self::repair) or opening anew must come before anything but reading.
    pub fn needs_repair(&self) -> bool {
        self.condition == Condition::NeedsRepair
    }

    /// The two storages, log and data, for steps and in-flight commits.
    pub fn storages(&self) -> (&S, &S) {
        (&self.log, &self.data)
    }
}

/// Reads and verifies one image.
pub(super) fn read_image<S: Storage>(
    log: &S,
    page: u64,
    image: Image,
    into: &mut [u8],
) -> Result<(), ReadError<S::Error>> {
    on_log(Action::Read, log.read_at(image.offset(), into)).map_err(ReadError::Storage)?;
    if image.matches(into) { Ok(()) } else { Err(ReadError::Lost { page: PageIndex(page) }) }
}
