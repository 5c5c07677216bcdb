//! Histories to report on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use memobj_core::prot::Prot;
use memobj_run::history::{
    FaultRecord, FileHistory, History, ProcessHistory, ProgramEnd, Resolution, SegmentRecord, Totals,
};

/// Pseudo-random numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

fn file(path: &str, length_bytes: u64) -> FileHistory {
    FileHistory { path: path.into(), length_bytes, modified: (1_700_000_000, 5), ..Default::default() }
}

/// What `ls` does: six files, one process, some hundred faults.
pub fn ls() -> History {
    let library = |name: &str| format!("/usr/lib/x86_64-linux-gnu/{name}");
    let mut files = vec![
        file("/usr/bin/ls", 151_344),
        file(&library("ld-linux-x86-64.so.2"), 210_968),
        file("/etc/ld.so.cache", 20_643),
        file(&library("libselinux.so.1"), 174_312),
        file(&library("libc.so.6"), 1_922_136),
        file("/usr/lib/locale/locale-archive", 3_055_776),
    ];
    let mut numbers = Numbers(1);
    let mut faults = Vec::new();
    for (index, file) in files.iter_mut().enumerate() {
        let pages = file.length_bytes.div_ceil(4096);
        touch(file, index, 0, us(300 + 400 * index as u64), &mut faults, &mut numbers);
        file.copied = vec![pages - 2, pages - 1];
        file.mappings = 4;
    }
    let segments = (0..27).map(|index| segment(index, index as usize % 7)).collect();
    let process = ProcessHistory {
        pid: 4711,
        parent: 4700,
        command: vec!["ls".into(), "-l".into()],
        started: us(120),
        ended: Some((us(3400), ProgramEnd::Exited(0))),
        segments,
    };
    History {
        command: vec!["ls".into(), "-l".into()],
        duration: us(3500),
        files,
        processes: vec![process],
        faults,
        faults_left_out: 0,
        totals: Totals {
            budget_bytes: 64 << 20,
            peak_frame_bytes: 2_220_000,
            read_bytes: 2_220_000,
            supplied_pages: 542,
            passed_through: 3,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Faults on a quarter of the pages, a few at a time one after the other.
fn touch(
    file: &mut FileHistory,
    index: usize,
    process: usize,
    begin: Duration,
    faults: &mut Vec<FaultRecord>,
    numbers: &mut Numbers,
) {
    let pages = file.length_bytes.div_ceil(4096);
    let mut at = begin;
    for _ in 0..pages.div_ceil(16) {
        let first = numbers.below(pages);
        for page in first..(first + 4).min(pages) {
            at += us(1 + numbers.below(20));
            let is_new = !file.first_touches.contains(&page);
            if is_new {
                file.first_touches.push(page);
            }
            let resolution = if is_new { Resolution::Supplied } else { Resolution::Resident };
            faults.push(FaultRecord { at, duration: us(4), process, file: index, page, resolution });
        }
    }
}

fn segment(index: u64, file: usize) -> SegmentRecord {
    let start = 0x7f00_0000_0000 + index * 0x10_0000;
    SegmentRecord {
        start,
        end: start + 0x8000,
        prot: if index.is_multiple_of(2) { Prot::READ } else { Prot::READ | Prot::EXECUTE },
        file: (file < 6).then_some((file, index * 4096)),
        name: if file < 6 { OsString::new() } else { "[heap]".into() },
        present_pages: 8,
        copied_pages: index % 2,
    }
}

/// 1,000 processes, 300 files, the first of 100 MB, and 100,000 faults.
pub fn big() -> History {
    let mut numbers = Numbers(2);
    let mut files: Vec<FileHistory> = (0..300_u64)
        .map(|index| {
            let length = if index == 0 { 100 << 20 } else { 4096 * (1 + numbers.below(400)) };
            let name =
                format!("/opt/software/lib/some/deep/folder/of/a/package/libpart{index}.so.{}", index % 7);
            FileHistory { mappings: 1000, ..file(&name, length) }
        })
        .collect();
    let mut known = vec![std::collections::HashSet::new(); files.len()];
    let mut faults = Vec::new();
    for index in 0..100_000_u64 {
        let (process, chosen) = ((index / 100) as usize, (numbers.below(300 * 300) as f64).sqrt() as usize);
        let chosen = if index.is_multiple_of(4) { 0 } else { 299 - chosen.min(299) };
        let pages = files[chosen].length_bytes.div_ceil(4096);
        let page = if chosen == 0 { (index / 8) % pages } else { numbers.below(pages) };
        let at = us(40 * index + numbers.below(40));
        let resolution = if numbers.below(5000) == 0 {
            files[chosen].failed.push((page, "input/output error".to_string()));
            Resolution::Failed
        } else if known[chosen].insert(page) {
            files[chosen].first_touches.push(page);
            Resolution::Supplied
        } else {
            Resolution::Resident
        };
        faults.push(FaultRecord {
            at,
            duration: us(5 + numbers.below(90)),
            process,
            file: chosen,
            page,
            resolution,
        });
    }
    for file in &mut files {
        file.failed.sort();
        file.failed.dedup();
        let pages = file.length_bytes.div_ceil(4096);
        file.copied = (0..pages).filter(|page| (page + 32).is_multiple_of(37)).collect();
    }
    History {
        command: vec!["make".into(), "-j2".into()],
        duration: us(4_100_000),
        files,
        processes: processes(),
        faults,
        faults_left_out: 1234,
        totals: Totals { budget_bytes: 256 << 20, peak_frame_bytes: 255 << 20, ..Default::default() },
        ..Default::default()
    }
}

/// A make that makes shells that go on with compilers.
fn processes() -> Vec<ProcessHistory> {
    let names = [
        "make",
        "sh -c",
        "gcc -O2 -c",
        "cc1 -quiet",
        "as",
        "ld",
        "ar cr",
        "python3 generate.py",
        "sed -e",
        "mv",
    ];
    let process = |index: u64| {
        let made = index as u32 / 2;
        let replaced = index.is_multiple_of(2) && index > 0;
        let (started, length) = (4000 * index, if index == 0 { 4_090_000 } else { 30_000 });
        let end = match (replaced, index % 50) {
            (true, _) => ProgramEnd::Replaced,
            (_, 7) => ProgramEnd::Killed(7),
            (_, 9) => ProgramEnd::Exited(1),
            _ => ProgramEnd::Exited(0),
        };
        let name = if index == 0 { names[0] } else { names[1 + index as usize % 9] };
        ProcessHistory {
            pid: if index == 0 { 100 } else { 101 + made },
            parent: if index < 20 { 100 } else { 101 + made / 2 },
            command: name.split(' ').map(OsString::from).chain([format!("file{index}.c").into()]).collect(),
            started: us(started),
            ended: Some((us((started + length).min(4_099_000)), end)),
            segments: (0..25).map(|at| segment(at, at as usize % 7)).collect(),
        }
    };
    (0..1000).map(process).collect()
}

/// Names that are meant to break out of wherever they are put.
pub fn hostile() -> History {
    let mut history = ls();
    let name =
        b"/tmp/</script><script>alert(1)</script><!--'\"&amp;\n\\u003c\x1b[2J\xff\xe2\x80\xa8\xe2\x80\xae";
    let os: OsString = OsString::from_vec(name.to_vec());
    let text = String::from_utf8_lossy(name).into_owned();
    history.command = vec![os.clone(), os.clone(), "".into()];
    history.files[0].path = PathBuf::from(os.clone());
    history.files[0].failed = vec![(0, text.clone()), (1, text.clone()), (3, "b".to_string())];
    history.processes[0].command = vec![os.clone(), os.clone()];
    history.processes[0].segments[6].name = os;
    history
}
