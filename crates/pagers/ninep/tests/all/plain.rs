//! A plain 9P2000.L client: it asks one thing after the other, and any failure of its connection is a failure.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use memobj_9p::Address;

use crate::fake::{Request, TATTACH, TFSYNC, TLOPEN, TREAD, TVERSION, TWALK, TWRITE, message};

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(crate) struct Plain {
    stream: Stream,
    pub(crate) msize: u32,
}

/// The number of an error, or why the connection failed.
pub(crate) type Failure = Result<u32, std::io::Error>;

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

impl Plain {
    /// Connects, and agrees on 9P2000.L.
    pub(crate) fn new(address: &Address) -> Self {
        Self::speaking(address, "9P2000.L")
    }

    /// Connects, and agrees on a version.
    pub(crate) fn speaking(address: &Address, version: &str) -> Self {
        let stream = match address {
            Address::Tcp { host, port } => Stream::Tcp(TcpStream::connect((host.as_str(), *port)).unwrap()),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).unwrap()),
            _ => unreachable!(),
        };
        if let Stream::Tcp(stream) = &stream {
            stream.set_nodelay(true).unwrap();
        }
        let mut plain = Self { stream, msize: 0 };
        let body = [&(1u32 << 20).to_le_bytes()[..], &string(version)].concat();
        plain.send(TVERSION, 0xffff, &body).unwrap();
        let answer = plain.receive().unwrap();
        assert_eq!((answer.kind, &answer.body[4..]), (TVERSION + 1, &string(version)[..]));
        plain.msize = answer.u32(0);
        plain
    }

    pub(crate) fn send(&mut self, kind: u8, tag: u16, body: &[u8]) -> std::io::Result<()> {
        let bytes = message(kind, tag, body);
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&bytes),
            Stream::Unix(stream) => stream.write_all(&bytes),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(bytes),
            Stream::Unix(stream) => stream.read_exact(bytes),
        }
    }

    pub(crate) fn receive(&mut self) -> std::io::Result<Request> {
        let mut size = [0; 4];
        self.read(&mut size)?;
        let mut rest = vec![0; u32::from_le_bytes(size) as usize - 4];
        self.read(&mut rest)?;
        let tag = u16::from_le_bytes([rest[1], rest[2]]);
        Ok(Request { kind: rest[0], tag, body: rest[3..].to_vec() })
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(kind, 1, body).map_err(Err)?;
        let answer = self.receive().map_err(Err)?;
        assert_eq!(answer.tag, 1);
        match answer.kind {
            7 => Err(Ok(answer.u32(0))),
            // It has words.
            107 => Err(Ok(0)),
            its if its == kind + 1 => Ok(answer.body),
            other => panic!("{other} answers {kind}"),
        }
    }

    pub(crate) fn attach(&mut self, fid: u32, tree: &str) {
        let fids = [fid.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        // The user of the test.
        use std::os::unix::fs::MetadataExt;
        let user = std::fs::metadata("/proc/self").unwrap().uid();
        let body = [&fids[..], &string(""), &string(tree), &user.to_le_bytes()].concat();
        self.ask(TATTACH, &body).unwrap();
    }

    pub(crate) fn walk(&mut self, fid: u32, to: u32, names: &[&str]) {
        let count = u16::try_from(names.len()).unwrap();
        let mut body = [&fid.to_le_bytes()[..], &to.to_le_bytes(), &count.to_le_bytes()].concat();
        names.iter().for_each(|name| body.extend(string(name)));
        let answer = self.ask(TWALK, &body).unwrap();
        assert_eq!(answer[..2], count.to_le_bytes());
    }

    pub(crate) fn open(&mut self, fid: u32, flags: u32) {
        self.ask(TLOPEN, &[fid.to_le_bytes(), flags.to_le_bytes()].concat()).unwrap();
    }

    pub(crate) fn read_at(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, Failure> {
        let body = [&fid.to_le_bytes()[..], &offset.to_le_bytes(), &count.to_le_bytes()].concat();
        self.ask(TREAD, &body).map(|mut answer| answer.split_off(4))
    }

    pub(crate) fn write_at(&mut self, fid: u32, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let count = u32::try_from(bytes.len()).unwrap();
        let body = [&fid.to_le_bytes()[..], &offset.to_le_bytes(), &count.to_le_bytes(), bytes].concat();
        let answer = self.ask(TWRITE, &body)?;
        assert_eq!(answer, count.to_le_bytes(), "all is written");
        Ok(())
    }

    pub(crate) fn sync(&mut self, fid: u32) -> Result<(), Failure> {
        self.ask(TFSYNC, &[fid.to_le_bytes(), 0u32.to_le_bytes()].concat()).map(drop)
    }
}
