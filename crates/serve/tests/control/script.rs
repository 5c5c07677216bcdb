//! The script of the document, run as it stands there.

use std::process::Command;

use memobj::pagers::{Inject, Injection, Operation};
use memobj_serve::control::ServerOptions;
use memobj_sim::fixture::sample_bytes;

use crate::fixture::Fixture;

const DOCUMENT: &str = include_str!("../../../../docs/serve-protocol.md");

fn has_program(name: &str) -> bool {
    Command::new(name).arg("-V").output().is_ok()
}

#[test]
fn the_script_of_the_document_runs() {
    if !has_program("socat") || !has_program("bash") {
        return println!("skipped: there is no socat(1), or no bash(1)");
    }
    let (_, script) = DOCUMENT.split_once("```bash\n").expect("a script");
    let (script, _) = script.split_once("```").expect("the end of the script");
    let fixture = Fixture::with(ServerOptions::new());
    fixture.plan(Operation::Supply, Injection::new(4096..8192, Inject::Error).times(1));
    let output =
        Command::new("bash").args(["-c", script]).env("SOCKET", fixture.path("socket")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    print!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let data: String = sample_bytes(4112)[4096..].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        "memobj 1 session=1",
        "1 ok",
        "2 ok object=1 length=1048576 version= writable=yes policy=fail",
        "3 error page range=4096+4096 kind=io tries=1 source= message=supply%20[4096,%208192)%20of%20words:",
        "* failed object=1 range=4096+4096 kind=io",
        "4 ok pages=1",
        "5 ok bytes=4096",
        &format!("6 ok data={data}"),
        "7 ok",
        "8 ok",
        "9 ok",
    ];
    for start in expected {
        assert!(text.lines().any(|line| line.starts_with(start)), "no line {start:?}");
    }
    assert_eq!(text.lines().count(), expected.len());
}
