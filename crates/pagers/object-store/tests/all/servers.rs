//! Real servers: nginx, and moto as S3.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use memobj::{EngineClock, ErrorKind, FailurePolicy};
use memobj_object_store::{ObjectStoreOptions, ObjectStorePager};
use memobj_sim::fixture::{check_sample, sample_bytes, wait_until};

use crate::help::{BLOCK, cache, kind, map, message, options};

/// A server process, killed at the end.
pub struct Server {
    child: Child,
    pub port: u16,
    /// Its files.
    pub folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts what `command` makes for a port, until it listens there: another program can be faster on a port.
fn start(folder: tempfile::TempDir, command: impl Fn(u16, &std::path::Path) -> Command) -> Server {
    for _ in 0..10 {
        let port = free_port();
        let mut child = command(port, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ended = false;
        wait_until("the server listens", || {
            ended = child.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if !ended {
            return Server { child, port, folder };
        }
    }
    panic!("the server does not start");
}

/// The first of these programs that runs with `--version` or `-v`.
fn find(what: &str, programs: &[Vec<String>]) -> Option<Vec<String>> {
    let runs = |words: &Vec<String>| {
        ["--version", "-v", "--help"].iter().any(|argument| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    };
    let found = programs.iter().find(|program| runs(program)).cloned();
    if found.is_none() {
        println!("skipped: {what} is not installed");
    }
    found
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A folder that servers may read that give up being root.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}

fn nginx() -> Option<Server> {
    static FOUND: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let programs = [words("nginx"), words("/usr/sbin/nginx")];
    let program = FOUND.get_or_init(|| find("nginx", &programs)).clone()?;
    Some(start(folder(), move |port, folder| {
        let at = folder.display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};"))
            .join(" ");
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/errors;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; root {at}/root; }} }}\n"
        );
        std::fs::create_dir_all(folder.join("root")).unwrap();
        std::fs::write(folder.join("conf"), configuration).unwrap();
        let mut command = Command::new(&program[0]);
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf")).arg("-e").arg(folder.join("errors"));
        command
    }))
}

/// moto as S3, with a bucket named `bucket`.
pub struct Moto(Server);

pub fn moto() -> Option<Moto> {
    static FOUND: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let mut programs = vec![words("moto_server"), words("python3 -m moto.server")];
    if let Some(path) = std::env::var_os("MEMOBJ_MOTO").map(PathBuf::from) {
        programs.insert(0, vec![path.display().to_string()]);
    }
    let program = FOUND.get_or_init(|| find("moto", &programs)).clone()?;
    let server = start(folder(), move |port, _| {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    });
    let moto = Moto(server);
    assert_eq!(moto.put("", b""), 200, "the bucket is made");
    Some(moto)
}

impl Moto {
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Puts an object, or makes the bucket if the key is empty; the status.
    pub fn put(&self, key: &str, bytes: &[u8]) -> u16 {
        self.request("PUT", key, bytes).0
    }

    /// The status and the text of an answer.
    pub fn request(&self, method: &str, key: &str, bytes: &[u8]) -> (u16, String) {
        self.request_with(method, key, "", bytes)
    }

    /// The same, with headers. By hand: no other client is needed.
    pub fn request_with(&self, method: &str, key: &str, headers: &str, bytes: &[u8]) -> (u16, String) {
        let path = if key.is_empty() { "/bucket".to_owned() } else { format!("/bucket/{key}") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=key/20261201/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n{headers}\r\n",
            self.0.port,
            bytes.len()
        );
        let mut connection = TcpStream::connect(("127.0.0.1", self.0.port)).unwrap();
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut connection, &mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    /// Options that lead to it.
    pub fn options(&self, options: ObjectStoreOptions) -> ObjectStoreOptions {
        options
            .setting("aws_endpoint", format!("http://127.0.0.1:{}", self.0.port))
            .setting("aws_access_key_id", "key")
            .setting("aws_secret_access_key", "secret")
            .setting("aws_region", "us-east-1")
    }

    pub fn open(&self, key: &str, options: ObjectStoreOptions) -> ObjectStorePager {
        let options = self.options(options);
        ObjectStorePager::open(&format!("s3://bucket/{key}"), options).unwrap()
    }
}

const LENGTH: u64 = 10 * BLOCK + 17;

#[test]
fn nginx_serves_an_object_until_it_is_replaced() {
    let Some(nginx) = nginx() else { return };
    let file = nginx.folder.path().join("root/object");
    std::fs::write(&file, sample_bytes(LENGTH)).unwrap();
    let (clock, url) = (EngineClock::system(), format!("http://127.0.0.1:{}/object", nginx.port));
    let open = || ObjectStorePager::open(&url, options(&clock));
    memobj_sim::conformance::run_answering(|| open().unwrap(), sample_bytes(LENGTH));
    let mapping = map(&cache(&clock), &open().unwrap(), FailurePolicy::WaitForEver);
    check_sample(0..1, &mapping.pin(0..1).unwrap(), "before");
    std::fs::write(&file, vec![0xee; LENGTH as usize + 1]).unwrap();
    let error = mapping.pin(5 * BLOCK..5 * BLOCK + 1).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
    std::fs::write(&file, b"").unwrap();
    assert_eq!(memobj::pagers::Pager::describe(&open().unwrap()).length(), 0);
    std::fs::remove_file(&file).unwrap();
    let error = open().unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Denied, Some(404)), "{error}");
}

#[test]
fn moto_serves_an_object_until_it_is_replaced() {
    let Some(moto) = moto() else { return };
    moto.put("a%20key/%2B%25/object", sample_bytes(LENGTH));
    let clock = EngineClock::system();
    let pager = moto.open("a key/+%25/object", options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
    check_sample(0..2 * BLOCK, &mapping.pin(0..2 * BLOCK).unwrap(), "before");
    moto.put("a%20key/%2B%25/object", &vec![0xee; LENGTH as usize]);
    let error = mapping.pin(5 * BLOCK..5 * BLOCK + 1).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
    let options = moto.options(ObjectStoreOptions::new());
    let error = ObjectStorePager::open("s3://bucket/missing", options).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Denied, Some(404)), "{error}");
}

#[test]
fn a_pager_of_moto_conforms() {
    let Some(moto) = moto() else { return };
    moto.put("object", sample_bytes(100_001));
    let make = || moto.open("object", options(&EngineClock::system()));
    memobj_sim::conformance::run_answering(make, sample_bytes(100_001));
}
