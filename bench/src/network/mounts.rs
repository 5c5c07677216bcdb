//! Mounts of the same servers: s3fs, rclone, the kernel's 9P. Each is undone when its guard is dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{Process, find};
use super::servers::{BUCKET, OBJECT, S3_ENVIRONMENT};

/// What mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mounter {
    /// s3fs, of S3.
    S3fs,
    /// rclone, of S3 or a web server.
    Rclone(Remote),
    /// The kernel's client of 9P, of diod.
    Kernel9p,
}

/// What rclone mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remote {
    /// A bucket.
    S3,
    /// A web server.
    Web,
}

/// A mounted folder.
pub struct Mount {
    folder: PathBuf,
    /// What serves it, if that is a process.
    process: Option<Process>,
}

impl Mount {
    /// Mounts what the server at `port` has, below `folder`; `tree` is what a 9P server exports.
    ///
    /// # Errors
    ///
    /// Why it cannot be mounted here.
    pub fn new(mounter: Mounter, port: u16, tree: &Path, folder: &Path) -> Result<Self, String> {
        let place = folder.join("mount");
        std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let mut mount = Self { folder: place, process: None };
        let mut command = match mounter {
            Mounter::S3fs => s3fs(port, &mount.folder)?,
            Mounter::Rclone(remote) => rclone(remote, port, &mount.folder)?,
            Mounter::Kernel9p => {
                run(&mut kernel_9p(port, tree, &mount.folder))?;
                return Ok(mount);
            }
        };
        let place = mount.folder.clone();
        let process = Process::start(&mut command, folder.join("mount.log"))?;
        mount.process.insert(process).wait_until(|| is_mounted(&place))?;
        Ok(mount)
    }

    /// The object.
    pub fn object(&self) -> PathBuf {
        self.folder.join(OBJECT)
    }

    /// The most memory of the process that serves it.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        self.process.as_ref()?.peak_rss_bytes()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A process that is killed first leaves a mount whose calls fail; umount takes it away in any case. Lazily: nothing
        // may be left because a child that hangs has a file of it open.
        if is_mounted(&self.folder) && run(Command::new("umount").arg("-l").arg(&self.folder)).is_err() {
            let _ = run(Command::new("fusermount").args(["-u", "-z"]).arg(&self.folder));
        }
        self.process = None;
        if is_mounted(&self.folder) {
            eprintln!("memobj-bench: {} stays mounted", self.folder.display());
        }
    }
}

/// Whether something is mounted at `folder`.
fn is_mounted(folder: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &str| line.split_ascii_whitespace().nth(4).map(str::to_string);
    mounts.lines().filter_map(point).any(|point| OsStr::new(&point) == folder.as_os_str())
}

/// Runs a command that ends; the last line that it complains with.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(complaint.lines().next().unwrap_or("it says nothing").trim().to_string()),
    }
}

fn kernel_9p(port: u16, tree: &Path, place: &Path) -> Command {
    let mut command = Command::new("mount");
    let options = format!("trans=tcp,port={port},version=9p2000.L,uname=root,aname={}", tree.display());
    command.args(["-t", "9p", "-o", &options, "127.0.0.1"]).arg(place);
    command
}

fn s3fs(port: u16, place: &Path) -> Result<Command, String> {
    let mut command = Command::new(find(None, "s3fs")?);
    command.arg(BUCKET).arg(place).arg("-f");
    command.args(["-o", &format!("url=http://127.0.0.1:{port}")]);
    command.args(["-o", "use_path_request_style", "-o", "endpoint=us-east-1"]);
    let of = |name| S3_ENVIRONMENT.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    command.env("AWSACCESSKEYID", of("AWS_ACCESS_KEY_ID"));
    command.env("AWSSECRETACCESSKEY", of("AWS_SECRET_ACCESS_KEY"));
    Ok(command)
}

fn rclone(remote: Remote, port: u16, place: &Path) -> Result<Command, String> {
    let mut command = Command::new(find(None, "rclone")?);
    command.args(["mount", "--config", "", "--read-only"]);
    let url = format!("http://127.0.0.1:{port}");
    match remote {
        Remote::Web => command.args(["--http-url", &url, ":http:"]),
        Remote::S3 => command
            .args(["--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", &url])
            .arg(format!(":s3:{BUCKET}")),
    };
    // With this variable its client of S3 refuses the transport of rclone (1.60).
    command.arg(place).envs(S3_ENVIRONMENT).env_remove("AWS_CA_BUNDLE");
    Ok(command)
}
