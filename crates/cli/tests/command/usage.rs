//! Wrong usage, help and the doctor.

use crate::test_folder::TestFolder;

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 1);
    let cases: [(&[&str], &str); 9] = [
        (&["hash", "--budget", "12Q", "f"], "12Q"),
        (&["hash", "--budget", "0", "f"], "holds no page"),
        (&["hash", "--budget", "99999999999999999999", "f"], "not a size"),
        (&["hash", "--budget", "-5", "f"], "-5"),
        (&["hash", "--threads", "none", "f"], "none"),
        (&["hash", "--retry", "10", "f"], "not a time"),
        (&["hash", "--inject", "error@", "f"], "no +LENGTH"),
        (&["hash"], "FILE"),
        (&["read", "--length", "1.5", "f"], "1.5"),
    ];
    for (arguments, reason) in cases {
        let ran = test_folder.run(arguments);
        assert_eq!((ran.code(), ran.out()), (2, ""), "{arguments:?}");
        assert!(
            ran.err().starts_with("memobj: ") && ran.err().contains(reason),
            "{arguments:?}: {}",
            ran.err()
        );
    }
}

#[test]
fn help_teaches() {
    let test_folder = TestFolder::new();
    let ran = test_folder.run(&[]);
    assert_eq!((ran.code(), ran.out()), (2, ""));
    assert!(ran.err().contains("Usage: memobj <COMMAND>"), "{}", ran.err());
    let ran = test_folder.run(&["--help"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    for word in ["Budget", "touch", "pin", "copy", "Examples:", "memobj doctor"] {
        assert!(ran.out().contains(word), "{word}: {}", ran.out());
    }
    let ran = test_folder.run(&["hash", "--help"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    for option in
        ["--budget", "--frames", "--threads", "--access", "--delivery", "--inject", "--retry", "--stats"]
    {
        assert!(ran.out().contains(option), "{option}: {}", ran.out());
    }
}

#[test]
fn a_budget_smaller_than_a_page_is_an_error() {
    let test_folder = TestFolder::new();
    test_folder.file("f", 10_000);
    let ran = test_folder.run(&["hash", "--budget", "100", "f"]);
    assert_eq!((ran.code(), ran.out()), (1, ""));
    assert!(ran.err().starts_with("memobj: ") && ran.err().contains("budget"), "{}", ran.err());
}

#[test]
fn doctor_reports_in_both_forms() {
    let test_folder = TestFolder::new();
    assert_eq!(test_folder.run(&["doctor"]).code(), 0);
    let ran = test_folder.run(&["doctor", "--json"]);
    assert_eq!((ran.code(), ran.err()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    let facilities = report["facilities"].as_array().expect("a list");
    assert!(!facilities.is_empty());
    for facility in facilities {
        assert!(["available", "degraded", "missing"].contains(&facility["status"].as_str().unwrap_or("")));
        assert!(facility["name"].is_string() && facility["detail"].is_string(), "{facility}");
    }
}
