//! The planner: asks for bytes until it has a plan or a reason why there is none.

use crate::image::header::{Header, Loadable, ObjectType};
use crate::image::layout;
use crate::image::{
    Execution, FileFacts, ImageError, ImageOptions, ImagePlan, Interpret, Model, RecordKind, Unsupported,
};
use alloc::vec::Vec;
use memobj_core::address::ByteRange;

/// The most bytes that are needed at once.
pub const MOST_NEEDED_BYTES: u64 = 64 << 10;

/// How far planning has come.
#[derive(Debug)]
pub enum Planning {
    /// Bytes of the file are needed to go on.
    Need(Need),
    /// All is known.
    Ready(ImagePlan),
}

/// A planner that waits for bytes.
#[derive(Debug)]
pub struct Need {
    range: ByteRange,
    request: Request,
    stage: Stage,
}

/// Why [`plan_with`] has no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanFailure<E> {
    /// The planner found a reason.
    Image(ImageError),
    /// Reading failed.
    Read(E),
}

/// What was asked for, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    source: FileFacts,
    pub(super) padding_bytes: u64,
    room_records: Option<u32>,
    pub(super) page_bytes: u64,
}

#[derive(Debug)]
enum Stage {
    Header(Model),
    Table { header: Header, found: Vec<Loadable>, first: u16, count: u16 },
}

/// Begins to plan how `source` is to be mapped.
///
/// # Errors
///
/// What is wrong with the request or the length of the file; see [`ImageError`] for the order of the checks.
pub fn plan(source: FileFacts, options: &ImageOptions) -> Result<Planning, ImageError> {
    let page_bytes = options.page_size.bytes();
    let too_large = ImageError::PaddingTooLarge { padding_bytes: options.padding_bytes };
    let padding_bytes = options.padding_bytes.checked_next_multiple_of(page_bytes).ok_or(too_large)?;
    let request = Request { source, padding_bytes, room_records: options.room_records, page_bytes };
    let Interpret::Elf(model) = options.interpret else {
        request.check_room(1)?;
        request.check_not_empty()?;
        return request.whole(RecordKind::Plain).map(Planning::Ready);
    };
    request.check_not_empty()?;
    let range = ByteRange { start: 0, end: model.header_bytes() };
    if source.length_bytes < range.end {
        return Err(Unsupported::TooShort { length_bytes: source.length_bytes }.into());
    }
    Ok(Planning::Need(Need { range, request, stage: Stage::Header(model) }))
}

/// Plans with `read` at hand, which fills the buffer from an offset on and returns how many bytes there were.
/// Allocates [`MOST_NEEDED_BYTES`] at most, besides the plan.
///
/// # Errors
///
/// Those of the planner, and those of `read` as they are.
pub fn plan_with<E>(
    source: FileFacts,
    options: &ImageOptions,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<ImagePlan, PlanFailure<E>> {
    let mut planning = plan(source, options).map_err(PlanFailure::Image)?;
    let mut buffer = Vec::new();
    loop {
        let need = match planning {
            Planning::Ready(plan) => return Ok(plan),
            Planning::Need(need) => need,
        };
        buffer.resize(need.range().len() as usize, 0);
        let count = read(need.range().start, &mut buffer).map_err(PlanFailure::Read)?;
        let got = buffer.get(..count).unwrap_or(&buffer);
        planning = need.supply(got).map_err(PlanFailure::Image)?;
    }
}

impl Need {
    /// The bytes of the file that are needed.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// Goes on with `bytes`, those of [`range`](Self::range), or fewer if the file ends there.
    ///
    /// # Errors
    ///
    /// What is wrong with the file; see [`ImageError`] for the order of the checks.
    pub fn supply(self, bytes: &[u8]) -> Result<Planning, ImageError> {
        let Self { range, request, stage } = self;
        let all = bytes.get(..range.len() as usize);
        match stage {
            Stage::Header(model) => {
                let short = Unsupported::TooShort { length_bytes: bytes.len() as u64 };
                request.with_header(Header::parse(all.ok_or(short)?, model)?)
            }
            Stage::Table { header, mut found, first, count } => {
                let piece = all.ok_or(ImageError::TableCutOff { range })?;
                found.extend((0..count).filter_map(|nth| header.loadable(piece, nth, first + nth)));
                request.with_table(header, found, first + count)
            }
        }
    }
}

impl Request {
    fn with_header(self, header: Header) -> Result<Planning, ImageError> {
        let forbidden = self.source.execution == Execution::Forbidden;
        if header.object == ObjectType::Executable && forbidden {
            return Err(ImageError::NoExec);
        }
        if header.object == ObjectType::Whole {
            self.check_room(1)?;
            return self.whole(RecordKind::ElfHeader).map(Planning::Ready);
        }
        header.table(self.source.length_bytes)?;
        self.with_table(header, Vec::new(), 0)
    }

    /// Asks for the phdrs from `first` on, or plans when there are no more.
    fn with_table(self, header: Header, found: Vec<Loadable>, first: u16) -> Result<Planning, ImageError> {
        match header.piece(first, MOST_NEEDED_BYTES) {
            Some((range, count)) => {
                let stage = Stage::Table { header, found, first, count };
                Ok(Planning::Need(Need { range, request: self, stage }))
            }
            None => {
                header.check_alignment()?;
                layout::phdrs(&self, &header, found).map(Planning::Ready)
            }
        }
    }

    fn whole(&self, kind: RecordKind) -> Result<ImagePlan, ImageError> {
        layout::whole_file(self, self.source.length_bytes, kind)
    }

    fn check_not_empty(&self) -> Result<(), ImageError> {
        if self.source.length_bytes == 0 { Err(ImageError::Empty) } else { Ok(()) }
    }

    /// Whether the caller has room for `segments` records and those of the padding.
    pub(super) fn check_room(&self, segments: usize) -> Result<(), ImageError> {
        let padding = if self.padding_bytes == 0 { 0 } else { 2 };
        // There are at most 65,534 phdrs.
        let needed = segments as u32 + padding;
        match self.room_records {
            Some(room) if needed > room => Err(ImageError::TooFewRecords { needed, room }),
            _ => Ok(()),
        }
    }
}
