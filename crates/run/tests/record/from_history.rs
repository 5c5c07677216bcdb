use std::time::Duration;

use memobj_run::history::{FaultRecord, FileHistory, History, Resolution};
use memobj_run::record::{PageRun, Record};

/// A history with files of 600 pages.
pub fn history(names: &[&str], touches: &[(usize, u64)]) -> History {
    let mut files: Vec<FileHistory> = names
        .iter()
        .map(|name| FileHistory {
            path: name.into(),
            length_bytes: 600 * 4096 - 5,
            modified: (7, 8),
            ..Default::default()
        })
        .collect();
    let fault = |(file, page): &(usize, u64)| FaultRecord {
        at: Duration::ZERO,
        duration: Duration::ZERO,
        process: 0,
        file: *file,
        page: *page,
        resolution: Resolution::Supplied,
    };
    let faults = touches.iter().map(fault).collect();
    for (file, page) in touches {
        if !files[*file].first_touches.contains(page) {
            files[*file].first_touches.push(*page);
        }
    }
    History { files, faults, ..Default::default() }
}

fn runs(record: &Record) -> Vec<(u32, u64, u64)> {
    record.touches().iter().map(|PageRun { file, first, pages }| (*file, *first, *pages)).collect()
}

#[test]
fn the_order_is_that_of_first_faults_over_all_files() {
    let touches = [(0, 5), (0, 6), (1, 7), (0, 7), (0, 5), (1, 8), (1, 7), (1, 9), (1, 3)];
    let record = Record::from_history(&history(&["/a", "/b"], &touches));
    assert_eq!(runs(&record), [(0, 5, 2), (1, 7, 1), (0, 7, 1), (1, 8, 2), (1, 3, 1)]);
    let [a, b] = record.files() else { panic!("two files") };
    assert_eq!((a.path.to_str(), b.path.to_str()), (Some("/a"), Some("/b")));
    assert_eq!((a.length_bytes, a.modified), (600 * 4096 - 5, (7, 8)));
}

#[test]
fn faults_that_were_left_out_come_last() {
    let mut history = history(&["/a", "/b"], &[(1, 2), (0, 4)]);
    history.files[0].first_touches = vec![9, 4, 5, 6];
    history.files[1].first_touches = vec![2, 3];
    history.faults_left_out = 4;
    assert_eq!(
        runs(&Record::from_history(&history)),
        [(1, 2, 1), (0, 4, 1), (0, 9, 1), (0, 5, 2), (1, 3, 1)]
    );
}

#[test]
fn what_failed_or_is_not_there_is_not_recorded() {
    let mut history = history(&["/a", "/none", "/b", "/c\0"], &[(0, 1), (2, 2), (2, 3), (3, 3), (0, 600)]);
    history.files[2].failed = vec![(3, "no".to_string()), (4, "no".to_string())];
    history.files[2].first_touches = vec![4];
    history.faults[2].resolution = Resolution::Failed;
    let record = Record::from_history(&history);
    assert_eq!(runs(&record), [(0, 1, 1), (1, 2, 1)]);
    let names: Vec<_> = record.files().iter().map(|file| file.path.to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["/a", "/b"]);
    // Supplied after all, by a retry.
    history.faults[2].resolution = Resolution::Supplied;
    assert_eq!(runs(&Record::from_history(&history)), [(0, 1, 1), (1, 2, 2)]);
}

#[test]
fn runs_have_at_most_two_mebibytes() {
    let touches: Vec<(usize, u64)> = (0..600).map(|page| (0, page)).collect();
    let record = Record::from_history(&history(&["/a"], &touches));
    assert_eq!(runs(&record), [(0, 0, 512), (0, 512, 88)]);
    assert_eq!(runs(&Record::from_history(&History::default())), []);
}
