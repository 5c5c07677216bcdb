//! Ctrl-C ends the command with 130, also while a page never comes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::test_folder::TestFolder;

#[test]
fn an_interrupt_ends_a_hang() {
    let test_folder = TestFolder::new();
    test_folder.file("small", 100);
    test_folder.file("large", 3 * 4096);
    // Not under timeout(1), which would have to pass the signal on.
    let mut child = Command::new(env!("CARGO_BIN_EXE_memobj"))
        .args(["hash", "--frames", "4k", "--inject", "hang@4k+4k", "small", "large"])
        .current_dir(test_folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut line = String::new();
    let output = child.stdout.take().expect("standard output is piped");
    BufReader::new(output).read_line(&mut line).expect("the first digest");
    assert!(line.ends_with("  small\n"), "{line}");

    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill(1) runs");
    assert!(sent.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}
