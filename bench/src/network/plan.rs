//! Which contestants meet in which table.

use super::disk::PageCache;
use super::job::{Client, Frames, Task};
use super::mounts::{Mounter, Remote};
use super::options::{NetworkOptions, Row};
use super::servers::{Kind, Way};

/// Where bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The server, by its URL.
    Url(Way),
    /// A mount of it, through the proxy.
    Mount(Mounter),
    /// A file of this machine.
    Local,
}

/// What is in the folder of the disk cache before a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskCache {
    /// There is no disk cache.
    None,
    /// Nothing.
    Empty,
    /// All blocks.
    Full,
}

/// How much memory memobj may use for frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// That of the options.
    Usual,
    /// What its read-ahead needs to have as many requests under way as the peers: a stream gets an eighth of the budget.
    Wide,
}

/// One line of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Its name.
    pub contestant: &'static str,
    /// Who asks.
    pub client: Client,
    /// For what.
    pub source: Source,
    /// With which disk cache.
    pub disk_cache: DiskCache,
    /// Within which budget.
    pub budget: Budget,
}

/// Cells that are measured in turns: one table. The first is the baseline.
#[derive(Clone, Debug)]
pub struct Group {
    /// What it is about.
    pub row: Row,
    /// What each of them does.
    pub task: Task,
    /// Whose object.
    pub server: Kind,
    /// Bytes of a request.
    pub block_bytes: u64,
    /// Requests under way at once.
    pub depth: usize,
    /// Of the local file and the disk cache.
    pub page_cache: PageCache,
    /// Who.
    pub cells: Vec<Cell>,
}

const fn cell(contestant: &'static str, client: Client, source: Source) -> Cell {
    Cell { contestant, client, source, disk_cache: DiskCache::None, budget: Budget::Usual }
}

const fn with(disk_cache: DiskCache, cell: Cell) -> Cell {
    Cell { disk_cache, ..cell }
}

const fn wide(cell: Cell) -> Cell {
    Cell { budget: Budget::Wide, ..cell }
}

const DELAYED: Source = Source::Url(Way::Delayed);
const DIRECT: Source = Source::Url(Way::Direct);

/// The tables of a run, in the order of the report.
pub fn groups(options: &NetworkOptions) -> Vec<Group> {
    let wanted = |row: &Row| options.only.is_empty() || options.only.contains(row);
    let mut groups: Vec<Group> =
        Row::ALL.into_iter().filter(wanted).flat_map(|row| groups_of(row, options)).collect();
    for group in &mut groups {
        let mut is_first = true;
        group.cells.retain(|cell| {
            let named = options.contestants.iter().any(|name| name == cell.contestant);
            std::mem::take(&mut is_first) || options.contestants.is_empty() || named
        });
    }
    groups
}

fn groups_of(row: Row, options: &NetworkOptions) -> Vec<Group> {
    let group = |task, server, cells| Group {
        row,
        task,
        server,
        block_bytes: options.block,
        depth: options.depths[0],
        page_cache: PageCache::Warm,
        cells,
    };
    let servers = [Kind::Web, Kind::S3].into_iter();
    match row {
        Row::Sequential => servers
            .flat_map(|server| options.depths.iter().map(move |depth| (server, *depth)))
            .map(|(server, depth)| {
                let cells = sequential(server, depth == options.depths[0]);
                Group { depth, ..group(Task::Sequential, server, cells) }
            })
            .collect(),
        Row::Scattered => servers
            .flat_map(|server| options.scattered_blocks.iter().map(move |block| (server, *block)))
            .map(|(server, block_bytes)| Group {
                block_bytes,
                ..group(Task::Scattered, server, scattered(server))
            })
            .collect(),
        Row::Second => second(&group),
        Row::First => vec![group(Task::Sequential, Kind::Web, first())],
        Row::Ninep => vec![group(Task::Sequential, Kind::NineP, ninep())],
    }
}

/// Of which only memobj and object_store have a depth.
fn sequential(server: Kind, with_others: bool) -> Vec<Cell> {
    let mut cells = vec![
        cell("object_store", Client::ObjectStore, DELAYED),
        cell("object_store-tasks", Client::ObjectStoreTasks, DELAYED),
        cell("ours-pin", Client::OursPin(Frames::Auto), DELAYED),
        cell("ours-read", Client::OursRead(Frames::Auto), DELAYED),
        wide(cell("ours-pin-wide", Client::OursPin(Frames::Auto), DELAYED)),
    ];
    if with_others {
        cells.push(cell("download", Client::Download, DELAYED));
        cells.extend(mounts(server));
    }
    cells
}

fn mounts(server: Kind) -> Vec<Cell> {
    let rclone = if server == Kind::S3 { Remote::S3 } else { Remote::Web };
    let mut cells = vec![cell("rclone", Client::File, Source::Mount(Mounter::Rclone(rclone)))];
    if server == Kind::S3 {
        cells.push(cell("s3fs", Client::File, Source::Mount(Mounter::S3fs)));
    }
    cells
}

fn scattered(server: Kind) -> Vec<Cell> {
    let mut cells = vec![
        cell("object_store", Client::ObjectStore, DELAYED),
        cell("object_store-pages", Client::ObjectStorePages, DELAYED),
        cell("ours-pin", Client::OursPin(Frames::Auto), DELAYED),
        wide(cell("ours-pin-wide", Client::OursPin(Frames::Auto), DELAYED)),
    ];
    cells.extend(mounts(server));
    cells
}

/// The command, and the library with each size of frames; with files in the page cache, and without.
fn second(group: &impl Fn(Task, Kind, Vec<Cell>) -> Group) -> Vec<Group> {
    use DiskCache::Full;
    let hash = || {
        vec![
            cell("hash-file", Client::Command, Source::Local),
            with(Full, cell("hash-cached", Client::Command, DIRECT)),
            with(Full, cell("hash-cached-delayed", Client::Command, DELAYED)),
        ]
    };
    let read = |names: [&'static str; 3], frames| {
        vec![
            cell(names[0], Client::OursRead(frames), Source::Local),
            with(Full, cell(names[1], Client::OursRead(frames), DIRECT)),
            with(Full, cell(names[2], Client::OursPin(frames), DIRECT)),
        ]
    };
    let tables = [
        (Task::Hash, hash()),
        (Task::Sequential, read(["file-auto", "cached-auto", "cached-auto-pin"], Frames::Auto)),
        (Task::Sequential, read(["file-4k", "cached-4k", "cached-4k-pin"], Frames::Small)),
        (Task::Sequential, read(["file-2m", "cached-2m", "cached-2m-pin"], Frames::Large)),
    ];
    let states = [PageCache::Warm, PageCache::Cold].into_iter();
    states
        .flat_map(|page_cache| tables.iter().map(move |table| (page_cache, table)))
        .map(|(page_cache, (task, cells))| Group { page_cache, ..group(*task, Kind::Web, cells.clone()) })
        .collect()
}

fn first() -> Vec<Cell> {
    vec![
        cell("ours-read", Client::OursRead(Frames::Auto), DELAYED),
        with(DiskCache::Empty, cell("ours-read-cached", Client::OursRead(Frames::Auto), DELAYED)),
    ]
}

fn ninep() -> Vec<Cell> {
    vec![
        cell("v9fs", Client::File, Source::Mount(Mounter::Kernel9p)),
        cell("ours-read", Client::OursRead(Frames::Auto), DELAYED),
        cell("ours-pin", Client::OursPin(Frames::Auto), DELAYED),
    ]
}
