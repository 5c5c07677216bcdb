//! A folder of files that are served, and the command in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::ends::{End, run};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Names the socket of a server in the environment: runs without options borrow its frames.
pub const VIA: &str = "MEMOBJ_TEST_VIA";

/// A folder beside the build's output: files of a temporary file system in memory are not served.
#[derive(Debug)]
pub struct TestFolder(tempfile::TempDir);

impl TestFolder {
    /// An empty one; `None`, and the reason printed, if programs cannot be run here.
    pub fn new() -> Option<Self> {
        static REFUSED: OnceLock<Option<String>> = OnceLock::new();
        let test_folder =
            Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder"));
        let refused = REFUSED.get_or_init(|| {
            let end = run(test_folder.memobj(&[], &["true"]));
            (end.err.contains("page faults inside system calls are not reported"))
                .then(|| end.err.trim_end().to_string())
        });
        match refused {
            None => Some(test_folder),
            Some(reason) => {
                println!("skipped: {reason}");
                None
            }
        }
    }

    /// The path of something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file of these bytes.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file in the temporary folder");
        path
    }

    /// Makes a file of sample pages.
    pub fn sample(&self, name: &str, pages: usize) -> PathBuf {
        self.file(name, sample(0, pages * PAGE))
    }

    /// A program, not started, in this folder and in an environment that is always the same.
    pub fn native<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.surroundings(&mut command);
        command
    }

    /// The same under `memobj run` with these options.
    pub fn memobj<S: AsRef<OsStr>>(&self, options: &[&str], words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobj"));
        command.arg("run");
        if let (Some(via), true) = (std::env::var_os(VIA), options.is_empty()) {
            command.arg("--via").arg(via);
        }
        command.args(options).arg("--").args(words);
        self.surroundings(&mut command);
        // Read by the test programs: what they map is to be lent frames.
        command.env("SERVED", "1");
        command
    }

    fn surroundings(&self, command: &mut Command) {
        command
            .current_dir(self.0.path())
            .env("LC_ALL", "C")
            .env("HOME", self.0.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command.env_remove("SERVED");
    }

    /// Runs a program natively and under `memobj run`, and panics unless both say the same and end alike.
    pub fn same<S: AsRef<OsStr>>(&self, words: &[S]) -> End {
        let name: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let native = run(self.native(words));
        let end = run(self.memobj(&[], words));
        assert!(native == end, "{}\nnative {native:#?}\nmemobj {end:#?}", name.join(" "));
        end
    }

    /// As [`same`](Self::same), of a script of bash; it must succeed.
    pub fn same_script(&self, script: &str) -> End {
        self.same(&["bash", "-c", script]).succeeded(script)
    }
}

/// Bytes `[from, from + length)` of every sample, as `sample` of sample.h has them.
pub fn sample(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|offset| sample_byte(offset as u64)).collect()
}

/// One of them.
pub fn sample_byte(offset: u64) -> u8 {
    let mut z = (offset / 8).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).to_le_bytes()[(offset % 8) as usize]
}

/// Whether there is such a program; prints the reason if there is none.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        std::env::split_paths(&path).any(|folder: PathBuf| Path::new(&folder).join(program).is_file());
    if !is_there {
        println!("skipped: there is no {program}");
    }
    is_there
}
