//! `space`: our address space with many segments, beside the kernel's with as many mappings as it allows.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use memmap2::MmapOptions;
use memobj::space;
use memobj_core::address::VirtAddr;
use memobj_core::prot::Prot;
use memobj_vm::space::{
    AddressSpace, Limits, MapRequest, ObjectId, ObjectKind, ObjectView, Place, SegmentContent, Sharing,
};

use crate::machine::Machine;
use crate::report::{self, Bar, Direction};

const PAGE: u64 = 4096;
const LOW: u64 = 1 << 30;
/// Lookups that are timed together: one takes hardly longer than to look at the clock.
const BATCH: u64 = 16;

/// Options of `space`.
#[derive(Args, Debug, Clone)]
pub struct SpaceOptions {
    /// Segments of our address space.
    #[arg(long, default_value_t = 1_000_000)]
    pub segments: u64,
    /// Mappings of the kernel's; below the limit of vm.max_map_count.
    #[arg(long, default_value_t = 60_000)]
    pub mappings: u64,
    /// Operations of each kind.
    #[arg(long, default_value_t = 1_000_000)]
    pub operations: u64,
}

/// Runs the benchmark and prints its table.
pub fn space(options: &SpaceOptions) -> Result<ExitCode, String> {
    let directory = std::env::current_dir().map_err(|error| error.to_string())?;
    println!("{}\n", Machine::find(&directory).line());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let order = shuffled(options.segments, &mut numbers);
    let before = resident_bytes()?;
    let mut space = build(options.segments, order.iter().copied())?;
    let bytes = (resident_bytes()?.saturating_sub(before)) as f64 / options.segments as f64;
    let before = resident_bytes()?;
    let ascending = build(options.segments, 0..options.segments)?;
    let bytes_in_order = (resident_bytes()?.saturating_sub(before)) as f64 / options.segments as f64;
    drop(ascending);
    let lookup = lookups(&space, options, &mut numbers);
    let there = replaced(&mut space, options, &mut numbers)?;
    let anywhere = anywhere(&mut space, options)?;
    let kernel = kernel(options, &mut numbers)?;
    let placed = placed(options, &mut numbers)?;
    let name = |what: &str| format!("{what}, {} segments", options.segments);
    println!("| what | median ns | p99 ns |\n|---|--:|--:|");
    println!("| {} | {} | {} |", name("lookup"), lookup.0, lookup.1);
    println!("| {} | {} | {} |", name("unmap + map of a random one"), there.0, there.1);
    println!("| {} | {} | {} |", name("map anywhere + unmap"), anywhere.0, anywhere.1);
    println!(
        "| kernel munmap + mmap of a random one, {} mappings | {} | {} |",
        options.mappings, kernel.0, kernel.1
    );
    println!(
        "| unmap + map of a random one in a space of this process, {} segments | {} | {} |",
        options.mappings, placed.0, placed.1
    );
    println!(
        "\nbytes per segment: {bytes:.1} mapped in random order, {bytes_in_order:.1} in ascending order\n"
    );
    let bar = |what: &str, required: f64, measured: f64| Bar {
        what: name(what),
        direction: Direction::AtMost,
        required,
        measured,
    };
    let bars = [
        bar("lookup, median ns", 1000.0, lookup.0 as f64),
        bar("unmap + map of a random one, median ns", 3000.0, there.0 as f64),
        bar("bytes per segment, the worse order", 128.0, bytes.max(bytes_in_order)),
    ];
    print!("{}", report::bar_table(&bars));
    Ok(ExitCode::SUCCESS)
}

/// Pseudo-random numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// One page of an object of its own at every second page, so that no two are one segment.
fn request(index: u64) -> MapRequest {
    let id = ObjectId(index);
    let view = ObjectView { id, opened: Prot::READ, kind: ObjectKind::Plain, largest: i64::MAX as u64 };
    MapRequest::new(PAGE, SegmentContent::Object { view, offset: 0 }, Prot::READ, Sharing::Shared)
        .at(Place::Fixed(address(index)))
}

fn address(index: u64) -> VirtAddr {
    VirtAddr(LOW + 2 * index * PAGE)
}

fn empty(segments: u64) -> AddressSpace {
    AddressSpace::new(Limits::between(VirtAddr(LOW), VirtAddr(LOW + 2 * (segments + 8) * PAGE)))
}

fn shuffled(segments: u64, numbers: &mut Numbers) -> Vec<u64> {
    let mut order: Vec<u64> = (0..segments).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, numbers.below(index as u64 + 1) as usize);
    }
    order
}

fn build(segments: u64, order: impl Iterator<Item = u64>) -> Result<AddressSpace, String> {
    let mut space = empty(segments);
    for index in order {
        space.map_quietly(&request(index)).map_err(|error| error.to_string())?;
    }
    Ok(space)
}

/// Median and 99th percentile of samples in nanoseconds.
fn percentiles(mut samples: Vec<u64>) -> (u64, u64) {
    samples.sort_unstable();
    let at = |part: usize| samples.get(samples.len() * part / 100).copied().unwrap_or(0);
    (at(50), at(99))
}

fn lookups(space: &AddressSpace, options: &SpaceOptions, numbers: &mut Numbers) -> (u64, u64) {
    let sample = |_| {
        let wanted: Vec<VirtAddr> = (0..BATCH).map(|_| address(numbers.below(options.segments))).collect();
        let begin = Instant::now();
        for address in &wanted {
            black_box(space.lookup(black_box(*address)));
        }
        begin.elapsed().as_nanos() as u64 / BATCH
    };
    percentiles((0..options.operations / BATCH).map(sample).collect())
}

fn replaced(
    space: &mut AddressSpace,
    options: &SpaceOptions,
    numbers: &mut Numbers,
) -> Result<(u64, u64), String> {
    let mut samples = Vec::new();
    let mut changes = Vec::new();
    for _ in 0..options.operations {
        let index = numbers.below(options.segments);
        let request = request(index);
        changes.clear();
        let begin = Instant::now();
        let unmapped = space.unmap(address(index), PAGE, &mut changes);
        let mapped = space.map(&request, &mut changes);
        samples.push(begin.elapsed().as_nanos() as u64);
        unmapped.and(mapped).map_err(|error| error.to_string())?;
    }
    Ok(percentiles(samples))
}

fn anywhere(space: &mut AddressSpace, options: &SpaceOptions) -> Result<(u64, u64), String> {
    let mut samples = Vec::new();
    let mut changes = Vec::new();
    let request = request(u64::MAX).at(Place::Anywhere);
    for _ in 0..options.operations {
        changes.clear();
        let begin = Instant::now();
        let mapped = space.map(&request, &mut changes).map_err(|error| error.to_string())?;
        let unmapped = space.unmap(mapped.start, PAGE, &mut changes);
        samples.push(begin.elapsed().as_nanos() as u64);
        unmapped.map_err(|error| error.to_string())?;
    }
    Ok(percentiles(samples))
}

/// Anonymous pages of this process; every second one cannot be stored to, so that no two are one mapping.
fn kernel(options: &SpaceOptions, numbers: &mut Numbers) -> Result<(u64, u64), String> {
    let error = |error: std::io::Error| format!("kernel mappings: {error}");
    let map = || MmapOptions::new().len(PAGE as usize).map_anon();
    let (mut writable, mut read_only) = (Vec::new(), Vec::new());
    for _ in 0..options.mappings / 2 {
        writable.push(Some(map().map_err(error)?));
        read_only.push(map().and_then(memmap2::MmapMut::make_read_only).map_err(error)?);
    }
    let mut samples = Vec::new();
    for _ in 0..options.operations / 4 {
        let slot = &mut writable[numbers.below(options.mappings / 2) as usize];
        let begin = Instant::now();
        drop(slot.take());
        let page = map();
        samples.push(begin.elapsed().as_nanos() as u64);
        *slot = Some(page.map_err(error)?);
    }
    drop((writable, read_only));
    Ok(percentiles(samples))
}

/// The same pages as segments of one space, which tells the kernel.
fn placed(options: &SpaceOptions, numbers: &mut Numbers) -> Result<(u64, u64), String> {
    let pages = options.mappings;
    let options_of_space = space::SpaceOptions::default().window_bytes(pages * PAGE).segments(usize::MAX);
    let space = space::Space::new(options_of_space).map_err(|error| error.to_string())?;
    let start = space.window().0.0;
    let request = |index: u64| {
        space::SegmentRequest::new(
            PAGE,
            space::SegmentSource::Anonymous,
            if index.is_multiple_of(2) { Prot::READ | Prot::WRITE } else { Prot::READ },
            Sharing::Private,
        )
        .place(Place::Fixed(VirtAddr(start + index * PAGE)))
    };
    for index in 0..pages {
        space.map(&request(index)).map_err(|error| error.to_string())?;
    }
    let mut samples = Vec::new();
    for _ in 0..options.operations / 4 {
        let index = numbers.below(pages / 2) * 2;
        let begin = Instant::now();
        let unmapped = space.unmap(VirtAddr(start + index * PAGE), PAGE);
        let mapped = space.map(&request(index));
        samples.push(begin.elapsed().as_nanos() as u64);
        unmapped.and(mapped).map_err(|error| error.to_string())?;
    }
    Ok(percentiles(samples))
}

/// Resident memory of this process.
fn resident_bytes() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    pages.map(|pages| pages * PAGE).ok_or_else(|| "statm has no resident pages".to_string())
}
