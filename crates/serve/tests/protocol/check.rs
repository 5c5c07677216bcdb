//! Any bytes as what a client sends: the server answers in lines, each request once at most, and goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use memobj::pagers::{Blocking, Zero};
use memobj::{Cache, CacheOptions};
use memobj_serve::control::{Access, Client, Exports, LONGEST_LINE, Server, ServerOptions};

/// Longer than any answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of the objects.
const LENGTH: u64 = 1 << 20;

/// The socket of a server that lives as long as the process.
fn socket() -> &'static PathBuf {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::write(folder.join("words"), vec![7; LENGTH as usize]).unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        std::fs::write(folder.join("folder/file"), b"file").unwrap();
        let mut exports = Exports::new();
        exports.file("words", folder.join("words"), Access::ReadWrite);
        exports.object("zeros", Access::ReadOnly, |_| Ok(Box::new(Blocking(Zero::new(LENGTH)))));
        exports.folder(folder.join("folder")).unwrap();
        let cache = Cache::new(CacheOptions::new().budget_bytes(256 << 10)).unwrap();
        let path = folder.join("socket");
        let server = Server::bind(&path, cache, exports, ServerOptions::new()).unwrap();
        std::thread::spawn(move || server.run());
        path
    })
}

/// The tag of a line, or of an answer to one that has none.
fn tag_of(line: &[u8]) -> String {
    let tag = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_tag = (1..=16).contains(&tag.len())
        && tag.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
        && std::str::from_utf8(line).is_ok();
    if is_tag { String::from_utf8_lossy(tag).into_owned() } else { "?".into() }
}

/// Sends `data`, and checks what comes back.
pub fn check_input(data: &[u8]) {
    let mut stream = UnixStream::connect(socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A connection that is dropped with unread bytes is reset: what came before counts.
        let ended = answers.read_to_end(&mut bytes);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock));
        bytes
    });
    // A server that has dropped the connection takes no more.
    let _ = stream.write_all(data).and_then(|()| stream.shutdown(Shutdown::Write));
    let bytes = reader.join().unwrap();
    let text = String::from_utf8(bytes).expect("answers are UTF-8");
    let mut lines = text.split_inclusive('\n');
    let greeting = lines.next().expect("a greeting");
    assert!(greeting.starts_with("memobj 1 session="), "{greeting:?}");
    let mut asked: Vec<String> = data.split(|byte| *byte == b'\n').map(tag_of).collect();
    // A line that is too long has no tag, whatever it begins with.
    if data.split(|byte| *byte == b'\n').any(|line| line.len() >= LONGEST_LINE) {
        asked.push("?".into());
    }
    for line in lines {
        assert!(line.ends_with('\n') && line.len() <= LONGEST_LINE, "{line:?}");
        let (tag, rest) = line.trim_end().split_once(' ').expect("a tag");
        if tag == "*" {
            continue;
        }
        assert!(rest == "ok" || rest.starts_with("ok ") || rest.starts_with("error "), "{line:?}");
        let known = asked.iter().position(|asked| asked == tag);
        let known = known.unwrap_or_else(|| panic!("{line:?} answers nothing that was asked"));
        asked.swap_remove(known);
    }
    let mut good = Client::connect(socket()).unwrap();
    good.request("open zeros").unwrap();
    assert_eq!(good.request("read 1 4096 4").unwrap().get("data").as_deref(), Some("00000000"));
}
