//! The page in a browser, where there is one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use memobj_run::history::History;
use memobj_run::report::html;

use crate::sample::{big, hostile, ls};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const LIMIT: Duration = Duration::from_secs(600);

fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    places.find(|place| place.is_file())
}

/// The page as it is when its script has run.
fn shown(browser: &PathBuf, history: &History) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    std::fs::write(&page, html(history)).expect("a page");
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,900",
        "--dump-dom",
    ];
    let mut command = Command::new(browser);
    command.args(flags).arg(format!("--user-data-dir={}", folder.path().join("user").display()));
    command.arg(format!("file://{}", page.display())).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the browser starts");
    let mut output = child.stdout.take().expect("standard output is piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let result = std::io::Read::read_to_string(&mut output, &mut text);
        sender.send(result.map(|_| text))
    });
    let text = receiver.recv_timeout(LIMIT);
    // It has ended, or is not to go on.
    let _ = child.kill();
    let _ = child.wait();
    text.expect("the browser ends in time").expect("UTF-8")
}

#[test]
fn the_script_runs_to_its_end() {
    let Some(browser) = chromium() else {
        println!("skipped: no chromium");
        return;
    };
    for history in [History::default(), ls(), hostile(), big()] {
        let (files, processes) = (history.files.len(), history.processes.len());
        // Maps of other files are drawn when they are opened.
        let (maps, dots) = (files.min(12), history.faults.len());
        let expected = format!("{files} files, {maps} maps, {processes} processes, {dots} dots");
        let dom = shown(&browser, &history);
        let root = dom.split("<html").nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
        assert!(!root.contains("data-error"), "{root}");
        assert!(root.contains(&format!("data-shown=\"{expected}\"")), "{root}");
        assert!(!dom.contains("<script>alert"), "a name became a script");
    }
}
