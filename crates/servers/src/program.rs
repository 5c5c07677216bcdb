//! The servers, and how their programs are found and called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::listen::Listen;

/// The bucket that each store has.
pub const BUCKET: &str = "bucket";
/// Who asks.
pub const ACCESS_KEY: &str = "key";
/// With what.
pub const SECRET_KEY: &str = "secret";
/// Where.
pub const REGION: &str = "us-east-1";

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A web server of files.
    Nginx,
    /// S3, of Python, in memory: what it had is gone when it is killed. It checks no signatures.
    Moto,
    /// S3 over a folder, of Rust. It checks signatures, and keeps its objects when it is killed.
    S3sFs,
    /// 9P2000.L, of C.
    Diod,
    /// 9P2000.L, of Rust.
    Unpfs,
    /// 9P2000, of Python.
    Py9p,
    /// 9P2000.u, of Python.
    Py9pUnix,
}

impl Kind {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Moto => "moto_server",
            Self::S3sFs => "s3s-fs",
            Self::Diod => "diod",
            Self::Unpfs => "unpfs",
            Self::Py9p | Self::Py9pUnix => "py9p",
        }
    }

    /// How it is started for the files of `folder`. `None`: it is not installed.
    pub(crate) fn command(self, listen: &Listen, folder: &Path) -> Option<Command> {
        match self {
            Self::Nginx => nginx(listen.port(), folder),
            Self::Moto => {
                let mut command = Command::new(find(self.name())?);
                command.args(["-H", "127.0.0.1", "-p", &listen.port().to_string()]);
                Some(command)
            }
            Self::S3sFs => {
                let mut command = Command::new(find(self.name())?);
                command.args(["--host", "127.0.0.1", "--port", &listen.port().to_string()]);
                command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).arg(folder);
                Some(command)
            }
            Self::Diod => {
                let mut command = Command::new(find(self.name())?);
                let listen = match listen {
                    Listen::Port(port) => format!("127.0.0.1:{port}"),
                    Listen::Socket(path) => path.display().to_string(),
                };
                command.args(["-f", "-n", "-c", "/dev/null", "-l", &listen, "-e"]).arg(folder);
                Some(command)
            }
            Self::Unpfs => {
                let mut command = Command::new(find(self.name())?);
                command.arg(format!("tcp!127.0.0.1!{}", listen.port())).arg(folder);
                Some(command)
            }
            Self::Py9p | Self::Py9pUnix => {
                let mut command = Command::new(python_of_py9p()?);
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server_of_python.py");
                let dialect = if self == Self::Py9p { "9P2000" } else { "9P2000.u" };
                command.arg(script).arg(listen.port().to_string()).arg(folder).arg(dialect);
                Some(command)
            }
        }
    }

    /// Makes what the server expects to find in its folder.
    pub(crate) fn prepare(self, folder: &Path) {
        if self == Self::S3sFs {
            std::fs::create_dir_all(folder.join(BUCKET)).unwrap();
        }
    }
}

/// Where programs are.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("MEMOBJ_SERVERS").map(PathBuf::from);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/bin");
    let mut folders: Vec<PathBuf> = named.into_iter().chain([installed]).collect();
    folders.extend(std::env::split_paths(&path));
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
}

/// The first program of this name that runs. One that stands for another which is missing ends with 126 or 127, as in a shell.
fn find(name: &str) -> Option<PathBuf> {
    let runs = |program: &PathBuf| {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| !matches!(status.code(), Some(126 | 127)))
    };
    folders().into_iter().map(|folder| folder.join(name)).filter(|program| program.is_file()).find(runs)
}

/// A Python that has py9p, which is of Python 2: `python-of-py9p`, or the first that has it.
fn python_of_py9p() -> Option<PathBuf> {
    let has = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", "from py9p import py9p"]).stdin(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let names = ["python-of-py9p", "python2", "python"];
    let programs = names.iter().flat_map(|name| folders().into_iter().map(move |folder| folder.join(name)));
    programs.filter(|program| program.is_file()).find(has)
}

fn nginx(port: u16, folder: &Path) -> Option<Command> {
    let at = folder.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {at}/{name};"))
        .join(" ");
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/errors;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; root {at}/root; }} }}\n"
    );
    let program = find("nginx")?;
    std::fs::create_dir_all(folder.join("root")).unwrap();
    std::fs::write(folder.join("conf"), configuration).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf")).arg("-e").arg(folder.join("errors"));
    Some(command)
}
