//! What the tests share.

use memobj::space::{
    Prot, Segment, SegmentRequest, SegmentSource, Sharing, Space, SpaceOptions, VerbError, VirtAddr,
};
use memobj::{
    Advice, Cache, FrameSize, FrameVisibility, MapOptions, MemoryObject, ObjectOptions, pagers::Pager,
};
use memobj_linux::oracle::{Order, Signal, access};

pub const PAGE: u64 = 4096;
pub const R: Prot = Prot::READ;
pub const RW: Prot = Prot::READ.union(Prot::WRITE);
pub const SIGSEGV: i32 = 11;
pub const SIGBUS: i32 = 7;

pub fn lendable() -> ObjectOptions {
    ObjectOptions::new().visibility(FrameVisibility::Shared).frames(FrameSize::Small)
}

pub fn object(cache: &Cache, pager: impl Pager + 'static) -> MemoryObject {
    cache.object("sample", pager, lendable()).unwrap()
}

pub fn space() -> Space {
    Space::new(SpaceOptions::default()).unwrap()
}

pub fn request(object: &MemoryObject, offset: u64, length: u64, sharing: Sharing) -> SegmentRequest<'_> {
    let prot = if sharing == Sharing::Shared { R } else { RW };
    let source = SegmentSource::Object { object, offset };
    SegmentRequest::new(length, source, prot, sharing)
}

pub fn anonymous(length: u64) -> SegmentRequest<'static> {
    let (source, sharing) = (SegmentSource::Anonymous, Sharing::Private);
    SegmentRequest::new(length, source, RW, sharing)
}

pub fn map(space: &Space, object: &MemoryObject, offset: u64, length: u64, sharing: Sharing) -> Segment {
    space.map(&request(object, offset, length, sharing)).unwrap()
}

/// A plain load.
pub fn load(address: u64) -> Result<u8, Signal> {
    access(Order::Load { address }).map(|byte| byte as u8)
}

/// A plain store.
pub fn store(address: u64, byte: u8) -> Result<(), Signal> {
    access(Order::Store { address, byte }).map(drop)
}

pub fn signal_of<T: std::fmt::Debug>(access: Result<T, Signal>) -> i32 {
    access.unwrap_err().number
}

pub fn read(space: &Space, start: VirtAddr, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    space.read_at(start, &mut bytes).unwrap();
    bytes
}

/// Evicts all of `object`.
pub fn evict(object: &MemoryObject) {
    let mapping = object.map(0..object.len(), MapOptions::default()).unwrap();
    mapping.advise(0..object.len(), Advice::DontNeed).unwrap();
}

pub fn space_error<T: std::fmt::Debug>(result: Result<T, VerbError>) -> memobj::space::SpaceError {
    match result.unwrap_err() {
        VerbError::Space(error) => error,
        other => panic!("{other:?}"),
    }
}
