//! `memobj uploads`.

use memobj_servers::{Kind, Server};

use crate::test_folder::{Ran, TestFolder};

#[test]
fn uploads_that_are_left_are_listed_and_removed() {
    let Some(moto) = Server::start(Kind::Moto) else { return };
    let test_folder = TestFolder::new();
    let run = |arguments: &[&str]| {
        let mut command = test_folder.command(arguments);
        command.envs(moto.environment());
        Ran(command.output().expect("the command runs"))
    };
    for key in ["left/one", "left/two words", "other"] {
        let path = format!("{}?uploads", key.replace(' ', "%20"));
        assert_eq!(moto.request("POST", &path, b"").0, 200);
    }
    let url = format!("s3://{}/left/", memobj_servers::BUCKET);
    let listed = run(&["uploads", &url]);
    let keys = |ran: &Ran| {
        let text = String::from_utf8_lossy(&ran.0.stdout).into_owned();
        let key = |line: &str| line.splitn(3, ' ').nth(2).map(str::to_owned);
        text.lines().filter_map(key).collect::<Vec<_>>()
    };
    assert_eq!((listed.code(), keys(&listed)), (0, vec!["left/one".into(), "left/two words".into()]));
    let old = run(&["uploads", &url, "--begun-before", "2000-01-01", "--abort"]);
    assert_eq!((old.code(), keys(&old)), (0, vec![]));
    let removed = run(&["uploads", &url, "--abort"]);
    assert_eq!((removed.code(), keys(&removed).len()), (0, 2));
    assert_eq!(keys(&run(&["uploads", &url])), [""; 0]);
    let other = format!("s3://{}/other", memobj_servers::BUCKET);
    assert_eq!(keys(&run(&["uploads", &other])), ["other"]);
    let refused = run(&["uploads", "http://127.0.0.1:1/x"]);
    assert!(refused.code() == 1 && refused.err().contains("only S3"), "{}", refused.err());
}
