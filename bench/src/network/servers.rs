//! Real servers, which have the object, each behind its proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Process, find, free_port, listens};
use super::proxy::Proxy;

/// The name of the object.
pub const OBJECT: &str = "object";
/// The bucket that it is in.
pub const BUCKET: &str = "bucket";
/// What leads to a store of this machine, but for its port.
pub const S3_ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "x"),
    ("AWS_SECRET_ACCESS_KEY", "y"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];
/// A port can be taken in the moment before the server listens.
const TRIES: usize = 5;

/// The kinds of servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A web server: nginx.
    Web,
    /// An S3 store: s3s-fs, or else moto.
    S3,
    /// A 9P server: diod.
    NineP,
}

/// A server that runs.
pub struct Server {
    kind: Kind,
    /// What it is.
    pub name: &'static str,
    port: u16,
    proxy: Proxy,
    /// What it serves.
    pub folder: PathBuf,
    _process: Process,
}

/// The way to a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Through the proxy.
    Delayed,
    /// None between.
    Direct,
}

impl Server {
    /// Starts one below `folder`, with the test file `data` as its object, if it has it from its file system.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn start(kind: Kind, data: &Path, folder: &Path, delay: Duration) -> Result<Self, String> {
        let (name, program) = match kind {
            Kind::Web => ("nginx", find(None, "nginx")?),
            Kind::NineP => ("diod", find(None, "diod")?),
            Kind::S3 => match find(Some("MEMOBJ_S3S"), "s3s-fs") {
                Ok(program) => ("s3s-fs", program),
                Err(reason) => {
                    let moto = find(Some("MEMOBJ_MOTO"), "moto_server");
                    ("moto", moto.map_err(|other| format!("{reason}; {other}"))?)
                }
            },
        };
        let folder = folder.join(name);
        let served = if kind == Kind::S3 { folder.join(BUCKET) } else { folder.clone() };
        fs::create_dir_all(&served).map_err(|error| format!("{}: {error}", served.display()))?;
        if kind != Kind::S3 {
            // No second copy, in the page cache neither.
            fs::hard_link(data, served.join(OBJECT)).map_err(|error| format!("a link: {error}"))?;
        }
        let (process, port) = listen(name, &program, &folder)?;
        let proxy = Proxy::start(port, delay).map_err(|error| format!("the proxy: {error}"))?;
        if name == "moto" {
            make_bucket(port).map_err(|error| format!("making a bucket: {error}"))?;
        }
        Ok(Self { kind, name, port, proxy, folder, _process: process })
    }

    /// Where to connect.
    pub fn port(&self, way: Way) -> u16 {
        if way == Way::Direct { self.port } else { self.proxy.port() }
    }

    /// The URL of the object.
    pub fn url(&self, way: Way) -> String {
        let port = self.port(way);
        match self.kind {
            Kind::Web => format!("http://127.0.0.1:{port}/{OBJECT}"),
            Kind::S3 => format!("s3://{BUCKET}/{OBJECT}"),
            Kind::NineP => {
                format!("9p://127.0.0.1:{port}/{OBJECT}?uname=root&aname={}", self.folder.display())
            }
        }
    }

    /// The variables that a client needs.
    pub fn environment(&self, way: Way) -> Vec<(String, String)> {
        if self.kind != Kind::S3 {
            return Vec::new();
        }
        let endpoint = ("AWS_ENDPOINT_URL".to_string(), format!("http://127.0.0.1:{}", self.port(way)));
        let others = S3_ENVIRONMENT.map(|(name, value)| (name.to_string(), value.to_string()));
        [endpoint].into_iter().chain(others).collect()
    }
}

fn listen(name: &str, program: &Path, folder: &Path) -> Result<(Process, u16), String> {
    let mut reason = String::new();
    for _ in 0..TRIES {
        let port = free_port()?;
        let mut command = Command::new(program);
        arguments(&mut command, name, folder, port).map_err(|error| format!("{name}: {error}"))?;
        let mut process = Process::start(&mut command, folder.with_extension("log"))?;
        match process.wait_until(|| listens(port)) {
            Ok(()) => return Ok((process, port)),
            Err(why) => reason = why,
        }
    }
    Err(format!("{name} does not start: {reason}"))
}

fn arguments(command: &mut Command, name: &str, folder: &Path, port: u16) -> std::io::Result<()> {
    let address = format!("127.0.0.1:{port}");
    match name {
        "nginx" => {
            let path = folder.with_extension("conf");
            fs::write(&path, nginx_configuration(folder, port))?;
            command.arg("-p").arg(folder).arg("-c").arg(path).arg("-e").arg(folder.with_extension("errors"));
        }
        "diod" => {
            command.args(["-f", "-n", "-c", "/dev/null", "-l", &address, "-e"]).arg(folder);
        }
        "s3s-fs" => {
            let [(_, key), (_, secret), ..] = S3_ENVIRONMENT;
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--access-key", key, "--secret-key", secret]).arg(folder);
        }
        _ => {
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        }
    }
    Ok(())
}

fn nginx_configuration(folder: &Path, port: u16) -> String {
    let at = folder.with_extension("temporary");
    let at = at.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {at}-{name};"))
        .join(" ");
    format!(
        "daemon off; master_process off; worker_processes 1; pid {at}-pid; \n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 1000000; {paths}\n\
         server {{ listen 127.0.0.1:{port}; root {}; autoindex on; }} }}\n",
        folder.display()
    )
}

/// By hand: moto takes any signature.
fn make_bucket(port: u16) -> std::io::Result<()> {
    let head = format!(
        "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=x/20261201/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n"
    );
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.write_all(head.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        status => Err(std::io::Error::other(format!("status {}", status.unwrap_or("none")))),
    }
}
