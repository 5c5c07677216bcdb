//! `memobj serve`, and what the kernel says about it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What is exported, and how a server is started.
pub struct Place {
    /// The command.
    pub memobj: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// What is exported as `data`, to be read, and as `words`, to be written.
    pub file: PathBuf,
    /// Its length.
    pub length: u64,
}

/// A server, which is killed when it is dropped.
pub struct Serving(Child);

/// What a server holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its share of resident memory, without frames.
    pub private_bytes: u64,
    /// Page tables.
    pub table_bytes: u64,
    /// Threads, each of which has a stack of 16 KiB in the kernel.
    pub threads: u64,
    /// Descriptors.
    pub descriptors: u64,
}

impl Place {
    /// Starts a server. `limit`: of its descriptors.
    pub fn serve(&self, limit: Option<u32>) -> Result<Serving, String> {
        // The shell gives way to the server, so that the child is the server.
        let limit = limit.map_or("hard".into(), |limit| limit.to_string());
        let script =
            if limit == "hard" { "exec \"$0\" \"$@\"" } else { "ulimit -n $LIMIT; exec \"$0\" \"$@\"" };
        let export = |name: &str, access: &str| format!("{name}={}:{access}", self.file.display());
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(&self.memobj)
            .arg("serve")
            .arg(&self.socket)
            .args(["--clients", "4000", "--budget", &format!("{}", 2 * self.length + (8 << 20))])
            .args(["--export", &export("data", "ro")])
            .args(["--export", &format!("bad={}", self.file.display()), "--inject", "bad:error@0+4k"])
            .env("LIMIT", limit)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("memobj serve: {error}"))?;
        let mut line = String::new();
        let output = child.stdout.take().map(BufReader::new);
        let began = output.is_some_and(|mut output| output.read_line(&mut line).is_ok_and(|count| count > 0));
        let mut serving = Serving(child);
        if let (true, Some(errors)) = (began, serving.0.stderr.take()) {
            // What it says about clients is read, so that it does not wait for a reader.
            std::thread::spawn(move || {
                drop(std::io::copy(&mut BufReader::new(errors), &mut std::io::sink()))
            });
            return Ok(serving);
        }
        let mut text = String::new();
        let _ = serving.0.stderr.take().map(|mut errors| errors.read_to_string(&mut text));
        Err(format!("memobj serve: {text}"))
    }
}

impl Serving {
    /// What it holds now.
    pub fn held(&self) -> Result<Held, String> {
        let place = PathBuf::from(format!("/proc/{}", self.0.id()));
        let count = |name: &str| fs::read_dir(place.join(name)).map(|entries| entries.count() as u64);
        let failed = |error: std::io::Error| format!("{}: {error}", place.display());
        let rollup = fs::read_to_string(place.join("smaps_rollup")).map_err(failed)?;
        let status = fs::read_to_string(place.join("status")).map_err(failed)?;
        Ok(Held {
            // Frames are in a file that clients map, too: they are counted by the budget.
            private_bytes: kib(&rollup, "Pss:")? - kib(&rollup, "Pss_Shmem:")?,
            table_bytes: kib(&status, "VmPTE:")?,
            threads: count("task").map_err(failed)?,
            descriptors: count("fd").map_err(failed)?,
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of KiB behind `label`, in bytes.
fn kib(text: &str, label: &str) -> Result<u64, String> {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    number.map(|number| number << 10).ok_or_else(|| format!("no {label} in what /proc says"))
}

/// The file that is exported: words that tell where they are.
pub fn data_file(folder: &Path, length: u64) -> Result<PathBuf, String> {
    let path = folder.join("data");
    fs::write(&path, crate::data::bytes(length)).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
