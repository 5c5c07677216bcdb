//! Clean pages exist once, however many processes map them.

use crate::build::{Kind, program};
use crate::ends::{LIMIT, Running};
use crate::test_folder::{PAGE, TestFolder};

const COPIES: usize = 20;
const SAMPLE_PAGES: usize = 256;

/// Fields of /proc/PID/smaps_rollup, in bytes.
fn memory(process: &str, field: &str) -> usize {
    let rollup =
        std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("a process that lives");
    let line = rollup.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).expect("a number") * 1024
}

#[test]
fn clean_pages_of_20_processes_exist_once() {
    let Some(test_folder) = TestFolder::new() else { return };
    let Some(program) = program("failures", Kind::Dynamic) else { return };
    test_folder.sample("sample", SAMPLE_PAGES);
    let script = format!("for i in $(seq {COPIES}); do {} copies sample & done; wait", program.display());
    let options = ["--report", "json", "--report-file", "report.json"];
    let mut running = Running::start(test_folder.memobj(&options, &["bash", "-c", &script]));
    let since = std::time::Instant::now();
    while running.said().0.matches("ready").count() < COPIES {
        assert!(since.elapsed() < LIMIT, "{:?}", running.said());
        // waits: polls what all of them say.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let said = running.said().0;
    let processes: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ready ")).collect();
    let sum = |field| processes.iter().map(|process| memory(process, field)).sum::<usize>();
    let (resident, shares) = (sum("Rss:"), sum("Pss:"));
    std::fs::write(test_folder.path("sample.go"), "").expect("a file");
    running.end().succeeded("copies");
    // Each has the sample and its libraries; together they have them once, and their own stacks and heaps.
    assert!(resident > COPIES * SAMPLE_PAGES * PAGE, "resident {resident}");
    assert!(shares < resident / 4, "resident {resident}, proportionally {shares}");
    let report = std::fs::read(test_folder.path("report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("a JSON object");
    let frames = report["totals"]["peak_frame_bytes"].as_u64().expect("a number") as usize;
    // The sample, and what of bash, its tools and their libraries was touched.
    let most = SAMPLE_PAGES * PAGE + (12 << 20);
    assert!((SAMPLE_PAGES * PAGE..most).contains(&frames), "{frames} bytes of frames");
    println!("{COPIES} processes: resident {resident}, proportionally {shares}, frames {frames}");
}
