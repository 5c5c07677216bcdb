//! Stores: how clients come to them, and requests by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::program::{ACCESS_KEY, BUCKET, Kind, REGION, SECRET_KEY};
use crate::server::Server;

impl Server {
    /// What a client is told so that it comes to this store, as the clients of AWS take it from the environment. It asks no
    /// service of a cloud for credentials.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        environment(self.port())
    }

    /// The same, on a way to it that begins at this port.
    pub fn environment_at(&self, port: u16) -> Vec<(&'static str, String)> {
        environment(port)
    }

    pub(crate) fn make_bucket(&self) {
        if self.kind() == Kind::Moto {
            assert_eq!(self.put("", b""), 200, "the bucket is made");
        }
    }

    /// Puts an object into moto, or makes the bucket if the key is empty; the status.
    pub fn put(&self, key: &str, bytes: &[u8]) -> u16 {
        self.request("PUT", key, bytes).0
    }

    /// The status and the text of moto's answer.
    pub fn request(&self, method: &str, key: &str, bytes: &[u8]) -> (u16, String) {
        self.request_with(method, key, "", bytes)
    }

    /// The same, with headers, each of which ends with CR LF.
    ///
    /// # Panics
    ///
    /// If the store does not answer.
    pub fn request_with(&self, method: &str, key: &str, headers: &str, bytes: &[u8]) -> (u16, String) {
        let path = if key.is_empty() { format!("/{BUCKET}") } else { format!("/{BUCKET}/{key}") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=key/20261201/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n{headers}\r\n",
            self.port(),
            bytes.len()
        );
        let mut connection = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }
}

fn environment(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}
