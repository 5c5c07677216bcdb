use std::path::PathBuf;

use super::artifact::binaries;
use super::one::Outcome;
use super::summary::Summary;

const ARTIFACT: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///a/core#0.1.0","manifest_path":"/a \"b\"/core/Cargo.toml","target":{"kind":["KIND"],"crate_types":["bin"],"name":"NAME","src_path":"/a/x.rs","edition":"2024","doc":false,"doctest":false,"test":true},"profile":{"opt_level":"1","debuginfo":1,"debug_assertions":true,"overflow_checks":true,"test":TEST},"features":[],"filenames":["/t/x"],"executable":"/t/deps/x-1","fresh":false}"#;

#[test]
fn test_binaries_are_found_in_what_cargo_says() {
    let line = |kind: &str, name: &str, test: &str| {
        ARTIFACT.replace("KIND", kind).replace("NAME", name).replace("TEST", test)
    };
    let messages = [
        "   Compiling something".to_owned(),
        line("test", "writes", "true"),
        line("bin", "memobj", "false"),
        r#"{"reason":"build-finished","success":true}"#.to_owned(),
    ];
    let found = binaries(&messages.join("\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].label.ends_with(" writes"), "{found:?}");
    let command = found[0].command();
    assert_eq!(command.get_program(), "/t/deps/x-1");
    assert_eq!(command.get_current_dir(), Some(PathBuf::from("/a \"b\"/core").as_path()));
}

#[test]
fn a_summary_counts_and_gives_reasons_and_seconds() {
    let mut summary = Summary::default();
    for number in 0..12 {
        let name = format!("core number_{number}");
        summary.add(Outcome { name, seconds: f64::from(number), ..Outcome::default() });
    }
    let output = "test a ... skipped: no pages\nskipped: no pages\nok\n".to_owned();
    summary.add(Outcome { name: "core a".into(), seconds: 0.5, output, problem: None });
    let problem = Some("signal: 11".to_owned());
    summary.add(Outcome { name: "core b".into(), seconds: 0.5, output: String::new(), problem });
    let text = summary.to_string();
    assert!(text.starts_with("13 passed, 1 failed; 1 of them skipped something\n"), "{text}");
    assert!(text.contains("\n  failed   core b: signal: 11\n"), "{text}");
    assert!(text.contains("\n  skipped  no pages: core a\n"), "{text}");
    assert!(text.contains("    11.0 s core number_11\n") && !text.contains("number_1\n"), "{text}");
    assert_eq!(summary.result(), Err("1 of 14 tests".to_owned()));
}
