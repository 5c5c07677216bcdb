//! From phdrs to a plan.

use crate::image::header::{Header, Loadable, ObjectType};
use crate::image::planning::Request;
use crate::image::{
    AddressRange, ImageError, ImagePlan, ImageRecord, Model, Placement, RecordKind, Step, Unsupported,
};
use alloc::vec;
use alloc::vec::Vec;
use memobj_core::address::{ObjectOffset, VirtAddr};
use memobj_core::prot::Prot;

/// The largest offset that a file can have, in C a signed number.
const OFFSET_LIMIT: u64 = i64::MAX as u64;

/// Plans the whole file as one read-only segment.
pub(super) fn whole_file(
    request: &Request,
    length_bytes: u64,
    kind: RecordKind,
) -> Result<ImagePlan, ImageError> {
    let base = request.padding_bytes;
    let room = length_bytes.checked_next_multiple_of(request.page_bytes).ok_or(ImageError::NoRoom)?;
    let end = base.checked_add(room).ok_or(ImageError::NoRoom)?;
    let record = ImageRecord {
        address: VirtAddr(base),
        memory_bytes: length_bytes,
        file_bytes: length_bytes,
        offset: 0,
        prot: Prot::READ,
        kind,
    };
    let pages = AddressRange { start: base, end };
    let steps = vec![Step::MapFile { pages, offset: ObjectOffset(0), prot: Prot::READ }];
    anywhere(request, vec![record], steps, request.page_bytes)
}

/// Plans the phdrs of an executable or a shared object.
pub(super) fn phdrs(
    request: &Request,
    header: &Header,
    mut found: Vec<Loadable>,
) -> Result<ImagePlan, ImageError> {
    let page_bytes = request.page_bytes;
    if let (ObjectType::Shared, Some(first)) = (header.object, found.first()) {
        if first.address >= page_bytes {
            return Err(Unsupported::FirstAddress { value: first.address }.into());
        }
        include_header(&mut found)?;
    }
    let end = check_order(&found, header.model, page_bytes)?;
    request.check_room(found.len())?;
    // With this nothing below overflows: no address is higher, but that of the padding behind, which is checked there.
    end.checked_add(request.padding_bytes).ok_or(ImageError::NoRoom)?;

    let shift = if header.object == ObjectType::Shared { request.padding_bytes } else { 0 };
    let header_index = found.iter().find(|phdr| phdr.file_bytes != 0).map(|phdr| phdr.index);
    let mut records = Vec::with_capacity(found.len() + 2);
    let mut steps = Vec::new();
    for phdr in &found {
        let is_header = header_index == Some(phdr.index);
        let kind = if is_header { RecordKind::ElfHeader } else { RecordKind::Plain };
        let placed = Loadable { address: phdr.address + shift, ..*phdr };
        records.push(record(&placed, kind, page_bytes));
        add_steps(&placed, page_bytes, &mut steps);
    }
    match header.object {
        ObjectType::Shared => anywhere(request, records, steps, alignment(&found, page_bytes)),
        _ => fixed(request, header.model, records, steps),
    }
}

/// Extends the first phdr that has file bytes down to byte 0 of the file.
fn include_header(found: &mut [Loadable]) -> Result<(), ImageError> {
    let Some(phdr) = found.iter_mut().find(|phdr| phdr.file_bytes != 0) else { return Ok(()) };
    let (offset, overflow) = (phdr.offset, Unsupported::Overflow { index: phdr.index });
    let place = Unsupported::HeaderPlace { address: phdr.address, offset };
    phdr.address = phdr.address.checked_sub(offset).ok_or(place)?;
    phdr.file_bytes = phdr.file_bytes.checked_add(offset).ok_or(overflow)?;
    phdr.memory_bytes = phdr.memory_bytes.checked_add(offset).ok_or(overflow)?;
    phdr.offset = 0;
    Ok(())
}

/// Checks that phdrs are there, in order, on pages of their own, and inside the address space, rounded to pages. Returns the
/// end of the last page.
fn check_order(found: &[Loadable], model: Model, page_bytes: u64) -> Result<u64, ImageError> {
    let mut free_from = 0;
    for phdr in found {
        let index = phdr.index;
        if phdr.address < free_from {
            return Err(Unsupported::Order { index }.into());
        }
        let end = phdr.address.checked_add(phdr.memory_bytes);
        let end = end.and_then(|end| end.checked_next_multiple_of(page_bytes));
        let file_end = phdr.offset.checked_add(phdr.file_bytes).filter(|&end| end <= OFFSET_LIMIT);
        let end = end.filter(|&end| end <= model.address_limit());
        let (Some(end), Some(_)) = (end, file_end) else {
            return Err(Unsupported::Overflow { index }.into());
        };
        if phdr.file_bytes > phdr.memory_bytes {
            return Err(Unsupported::FileExceedsMemory { index }.into());
        }
        free_from = end;
    }
    if found.is_empty() { Err(Unsupported::NothingToLoad.into()) } else { Ok(free_from) }
}

fn record(phdr: &Loadable, kind: RecordKind, page_bytes: u64) -> ImageRecord {
    let offset = phdr.address % page_bytes;
    ImageRecord {
        address: VirtAddr(phdr.address - offset),
        memory_bytes: phdr.memory_bytes + offset,
        file_bytes: phdr.file_bytes,
        offset,
        prot: phdr.prot,
        kind,
    }
}

/// What maps one phdr, at the address that it has by now.
fn add_steps(phdr: &Loadable, page_bytes: u64, steps: &mut Vec<Step>) {
    let round_up = |address: u64| address.next_multiple_of(page_bytes);
    let (prot, start) = (phdr.prot, phdr.address - phdr.address % page_bytes);
    let file_end = phdr.address + phdr.file_bytes;
    let end = round_up(phdr.address + phdr.memory_bytes);
    let map_zero = |start, prot, steps: &mut Vec<Step>| {
        if start < end {
            steps.push(Step::MapZero { pages: AddressRange { start, end }, prot });
        }
    };
    if phdr.file_bytes == 0 {
        return map_zero(start, prot, steps);
    }
    if phdr.address % page_bytes != phdr.offset % page_bytes {
        let bytes = AddressRange { start: phdr.address, end: file_end };
        map_zero(start, Prot::READ | Prot::WRITE, steps);
        steps.push(Step::ReadFile { bytes, offset: ObjectOffset(phdr.offset) });
        steps.push(Step::Protect { pages: AddressRange { start, end }, prot });
        return;
    }
    let pages = AddressRange { start, end: round_up(file_end) };
    let offset = ObjectOffset(phdr.offset - phdr.offset % page_bytes);
    steps.push(Step::MapFile { pages, offset, prot });
    if phdr.memory_bytes > phdr.file_bytes {
        if file_end < pages.end {
            let page = file_end - file_end % page_bytes;
            let offset = ObjectOffset(offset.0 + (page - start));
            let bytes = AddressRange { start: file_end, end: pages.end };
            steps.push(Step::ZeroTail { bytes, offset, prot });
        }
        map_zero(pages.end, prot, steps);
    }
}

/// The largest alignment that a phdr asks for: a power of two, at least a page.
fn alignment(found: &[Loadable], page_bytes: u64) -> u64 {
    let most = found.iter().map(|phdr| phdr.align_bytes).fold(page_bytes, u64::max);
    most.checked_next_power_of_two().unwrap_or(1 << 63)
}

/// Adds padding, one reservation and the holes. Addresses of `records` and `steps` begin behind the padding.
fn anywhere(
    request: &Request,
    records: Vec<ImageRecord>,
    steps: Vec<Step>,
    align_bytes: u64,
) -> Result<ImagePlan, ImageError> {
    let records = padded(request, records, u64::MAX)?;
    let (page_bytes, base_bytes) = (request.page_bytes, request.padding_bytes);
    let length_bytes = records.last().map_or(0, |last| last.pages(page_bytes).end);
    let holes = records.windows(2).filter_map(|pair| {
        let (start, end) = (pair[0].pages(page_bytes).end, pair[1].address.0);
        (start < end).then_some(Step::Release { pages: AddressRange { start, end } })
    });
    let mut all = vec![Step::Reserve { pages: AddressRange { start: 0, end: length_bytes } }];
    all.extend(steps);
    all.extend(holes);
    let placement = Placement::Anywhere { length_bytes, base_bytes, align_bytes };
    Ok(ImagePlan { placement, records, steps: all })
}

/// Adds padding, and a reservation for each record.
fn fixed(
    request: &Request,
    model: Model,
    records: Vec<ImageRecord>,
    steps: Vec<Step>,
) -> Result<ImagePlan, ImageError> {
    let records = padded(request, records, model.address_limit())?;
    let reserve = |record: &ImageRecord| Step::Reserve { pages: record.pages(request.page_bytes) };
    let steps = records.iter().map(reserve).chain(steps).collect();
    Ok(ImagePlan { placement: Placement::Fixed, records, steps })
}

/// `records` with those of the padding around them, all below `limit`.
fn padded(
    request: &Request,
    mut records: Vec<ImageRecord>,
    limit: u64,
) -> Result<Vec<ImageRecord>, ImageError> {
    let padding = request.padding_bytes;
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(records) };
    if padding == 0 {
        return Ok(records);
    }
    let at = |address: u64| ImageRecord {
        address: VirtAddr(address),
        memory_bytes: padding,
        file_bytes: 0,
        offset: 0,
        prot: Prot::NONE,
        kind: RecordKind::Padding,
    };
    let front = at(first.address.0.checked_sub(padding).ok_or(ImageError::NoRoom)?);
    let end = last.pages(request.page_bytes).end;
    end.checked_add(padding).filter(|&end| end <= limit).ok_or(ImageError::NoRoom)?;
    records.insert(0, front);
    records.push(at(end));
    Ok(records)
}
