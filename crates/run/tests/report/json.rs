use std::time::Duration;

use memobj_run::history::History;
use memobj_run::report::json;
use serde_json::{Value, json as value};

use crate::sample::{big, hostile, ls};

fn parsed(history: &History) -> Value {
    let text = json(history);
    assert_eq!(text.lines().count(), 1, "one line");
    serde_json::from_str(&text).expect("JSON")
}

/// The members of an object in their order.
fn members(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The schema, as the sections of `docs/run-report.md` name it. A member that goes or is renamed is a new version.
#[test]
fn every_member_is_documented_and_there() {
    let document = include_str!("../../../../docs/run-report.md");
    let report = parsed(&hostile());
    assert_eq!((&report["format"], &report["version"]), (&value!("memobj-run-report"), &value!(1)));
    let places = [
        ("## The report", &report),
        ("## Totals", &report["totals"]),
        ("## Files", &report["files"][0]),
        ("## Processes", &report["processes"][0]),
        ("## Segments", &report["processes"][0]["segments"][6]),
        ("## Failed", &report["files"][0]["failed"][0]),
    ];
    for (title, object) in places {
        let section = document.split(title).nth(1).expect(title).split("\n## ").next().expect("text");
        let mut documented: Vec<&str> =
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        documented.sort_unstable();
        let mut there = members(object);
        there.sort_unstable();
        assert_eq!(there, documented, "{title}");
    }
}

#[test]
fn numbers_come_out_as_they_went_in() {
    let history = ls();
    let report = parsed(&history);
    assert_eq!(report["command"], value!(["ls", "-l"]));
    assert_eq!(report["end"], value!({ "exited": 0 }));
    assert_eq!(report["duration_ns"], value!(3_500_000));
    assert_eq!(report["totals"]["budget_bytes"], value!(64 << 20));
    assert_eq!(report["totals"]["processes"], value!(1));
    let file = &report["files"][4];
    assert_eq!(file["pages"], value!(470));
    assert_eq!(file["copied"], value!([[468, 2]]));
    let runs = file["first_touches"].as_array().expect("runs");
    let pages = runs.iter().flat_map(|run| {
        let number = |at: usize| run[at].as_u64().expect("a number");
        number(0)..number(0) + number(1)
    });
    assert_eq!(pages.collect::<Vec<u64>>(), history.files[4].first_touches);
    let faults = report["faults"].as_array().expect("faults");
    assert_eq!(faults.len(), history.faults.len());
    let (first, told) = (&history.faults[0], &faults[0]);
    let at = first.at.as_nanos() as u64;
    assert_eq!(told, &value!([at, 4000, first.process, first.file, first.page, "major"]));
    assert_eq!(members_of_columns(&report), told.as_array().map_or(0, Vec::len));
    let segment = &report["processes"][0]["segments"][1];
    assert_eq!(segment["protection"], value!("r-x"));
    assert_eq!((&segment["file"], &segment["offset"]), (&value!(1), &value!(4096)));
}

fn members_of_columns(report: &Value) -> usize {
    report["fault_columns"].as_array().map_or(0, Vec::len)
}

#[test]
fn names_that_are_not_utf_8_are_there_as_bytes() {
    let history = hostile();
    let report = parsed(&history);
    let hex = report["files"][0]["path_hex"].as_str().expect("hexadecimal digits");
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits"))
        .collect();
    assert_eq!(bytes, history.files[0].path.as_os_str().as_encoded_bytes());
    assert_eq!(report["files"][1]["path_hex"], Value::Null);
    assert_eq!(report["command_hex"], value!([hex, hex, ""]));
    let process = &report["processes"][0];
    assert_eq!(process["command_hex"], value!([hex, hex]));
    assert_eq!(process["segments"][6]["name_hex"], value!(hex));
    assert_eq!(process["segments"][0]["name_hex"], Value::Null);
    assert_eq!(report["files"][0]["failed"][0]["pages"], value!(2));
}

#[test]
fn extremes_are_json_too() {
    assert_eq!(parsed(&History::default())["end"], Value::Null);
    let mut history = big();
    history.duration = Duration::MAX;
    assert_eq!(parsed(&history)["duration_ns"], value!(u64::MAX));
}
