//! Servers that are killed and started again while commands and programs use their objects.

use std::process::{Command, Output, Stdio};

use memobj_servers::{Kind, Passage, Server, moments, random};
use memobj_sim::Random;

use crate::test_folder::TestFolder;

/// What is read, and what is written.
const LONG: usize = 256 << 20;
const SHORT: usize = 96 << 20;
const RESTARTS: usize = 20;

/// A server, the way to it, and a folder with the file that it serves.
struct Place {
    folder: TestFolder,
    bytes: Vec<u8>,
    server: Server,
    passage: Passage,
    random: Random,
}

impl Place {
    /// `None`: the server is not installed.
    fn new(kind: Kind, length: usize) -> Option<Self> {
        let server = Server::start(kind)?;
        let folder = TestFolder::new();
        let bytes = folder.file("local", length);
        let place = Self { passage: Passage::to(server.port()), server, folder, bytes, random: random() };
        match kind {
            Kind::S3sFs => {
                let output = place.command(&["copy", "local", &place.url("object")]).output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            _ => std::fs::write(place.server.path("object"), &place.bytes).unwrap(),
        }
        assert!(std::fs::read(place.server.path("object")).unwrap() == place.bytes);
        Some(place)
    }

    fn url(&self, name: &str) -> String {
        self.server.url_at(self.passage.port(), name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.folder.command(arguments);
        command.envs(self.server.environment_at(self.passage.port()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it, and kills the server at random moments while it moves `bytes`.
    fn run_beside_restarts(&mut self, arguments: &[&str], bytes: usize) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        let from = self.passage.bytes();
        let moments = moments(&mut self.random, RESTARTS, from..from + bytes as u64);
        let mut has_ended = || child.try_wait().unwrap().is_some();
        let restarts = self.passage.restart_at(&mut self.server, &moments, &mut has_ended);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "after {restarts} restarts: {output:?}");
        assert_eq!(restarts, RESTARTS);
        output
    }
}

const SERVERS: [Kind; 2] = [Kind::S3sFs, Kind::Diod];

#[test]
fn a_digest_is_right_after_twenty_restarts() {
    for kind in SERVERS {
        let Some(mut place) = Place::new(kind, LONG) else { continue };
        let url = place.url("object");
        let arguments = ["hash", "--budget", "32M", "--retry", "forever", &url];
        let output = place.run_beside_restarts(&arguments, LONG);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, format!("{}  {url}\n", blake3::hash(&place.bytes)));
    }
}

#[test]
fn a_copy_is_whole_after_twenty_restarts() {
    for kind in SERVERS {
        let Some(mut place) = Place::new(kind, SHORT) else { continue };
        let new = place.folder.file("new", SHORT - 12_345);
        std::fs::write(place.server.path("copy"), b"").unwrap();
        let url = place.url("copy");
        place.run_beside_restarts(&["copy", "--retry", "forever", "new", &url], SHORT / 2);
        assert!(std::fs::read(place.server.path("copy")).unwrap() == new, "{kind:?}");
    }
}

/// Python maps the object as a file.
#[test]
fn a_program_reads_on_after_twenty_restarts() {
    const PROGRAM: &str = "import hashlib, mmap\n\
                           f = open('/served/object', 'rb')\n\
                           m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n\
                           print(hashlib.sha256(m).hexdigest())";
    for kind in SERVERS {
        let Some(mut place) = Place::new(kind, LONG) else { continue };
        let why = place.folder.run(&["run", "--", "python3", "-c", "import mmap"]);
        if why.code() != 0 {
            return println!("skipped: python3 cannot be run here: {}", why.err());
        }
        let expected =
            Command::new("sha256sum").arg("local").current_dir(place.folder.path()).output().unwrap();
        let map = format!("/served/object={}", place.url("object"));
        let arguments =
            ["run", "--budget", "32M", "--retry", "forever", "--map", &map, "--", "python3", "-c", PROGRAM];
        let output = place.run_beside_restarts(&arguments, LONG);
        assert_eq!(output.stdout[..64], expected.stdout[..64], "{kind:?}");
    }
}

/// A server that stays away: the command and the program fail, and name the range.
#[test]
fn without_retries_the_range_that_failed_is_named() {
    for kind in SERVERS {
        let Some(mut place) = Place::new(kind, SHORT) else { continue };
        let url = place.url("object");
        for arguments in [
            &["hash", "--budget", "32M", "--retry", "300ms", &url][..],
            &["run", "--budget", "32M", "--retry", "300ms", "--map", &format!("/o={url}"), "--", "cat", "/o"],
        ] {
            if arguments[0] == "run" && place.folder.run(&["run", "--", "true"]).code() != 0 {
                println!("skipped: programs cannot be run here");
                continue;
            }
            let from = place.passage.bytes();
            let mut child = place.command(arguments).spawn().unwrap();
            // cat prints more than a pipe holds.
            let mut out = child.stdout.take().unwrap();
            let reader = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
            let half = from + SHORT as u64 / 2;
            memobj_sim::fixture::wait_until("half has passed", || place.passage.bytes() >= half);
            place.server.kill();
            let output = child.wait_with_output().unwrap();
            reader.join().unwrap().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            // Without the query, which is not for everybody's eyes.
            let object = url.split('?').next().unwrap();
            let names = |line: &str| line.starts_with("memobj: supply [") && line.contains(object);
            assert!(said.lines().any(names), "{said}");
            assert!(place.server.run());
        }
    }
}
