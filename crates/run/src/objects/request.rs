//! What the kernel asks.

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::wire::{
    BatchForgetRequest, ForgetOne, ForgetRequest, InitRequest, InterruptRequest, OpenRequest, ReadRequest,
    ReleaseRequest, RequestHeader, code,
};

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// By which the answer is known.
    pub(super) unique: u64,
    pub(super) node: u64,
    /// The thread that asks; 0: one that cannot be known, or the kernel itself.
    pub(super) thread: u32,
    pub(super) operation: Operation,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Operation {
    Init(InitRequest),
    LookUp(Vec<u8>),
    /// The node, and how many lookups of it. Has no answer.
    Forget(Vec<(u64, u64)>),
    Attributes,
    Open {
        flags: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    OpenFolder,
    ReadFolder {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Release {
        handle: u64,
    },
    Statfs,
    Interrupt {
        unique: u64,
    },
    Destroy,
    /// It is answered with this.
    Refused(Errno),
}

impl Request {
    /// `None`: these bytes are no request.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = RequestHeader::read_from_prefix(bytes).ok()?;
        let body = bytes.get(size_of::<RequestHeader>()..usize::try_from(header.length).ok()?)?;
        let operation = operation(&header, body).unwrap_or(Operation::Refused(Errno::INVAL));
        Some(Self { unique: header.unique, node: header.node, thread: header.thread, operation })
    }
}

fn operation(header: &RequestHeader, body: &[u8]) -> Option<Operation> {
    Some(match header.code {
        code::INIT => Operation::Init(start(body)?),
        code::LOOKUP => Operation::LookUp(body.split(|byte| *byte == 0).next()?.to_vec()),
        code::FORGET => {
            let forget: ForgetRequest = start(body)?;
            Operation::Forget(vec![(header.node, forget.lookups)])
        }
        code::BATCH_FORGET => Operation::Forget(batch(body)?),
        code::GETATTR => Operation::Attributes,
        code::OPEN => {
            let open: OpenRequest = start(body)?;
            Operation::Open { flags: open.flags }
        }
        code::READ => {
            let ReadRequest { handle, offset, size, .. } = start(body)?;
            Operation::Read { handle, offset, size }
        }
        code::OPENDIR => Operation::OpenFolder,
        code::READDIR => {
            let ReadRequest { handle, offset, size, .. } = start(body)?;
            Operation::ReadFolder { handle, offset, size }
        }
        code::RELEASE | code::RELEASEDIR => {
            let release: ReleaseRequest = start(body)?;
            Operation::Release { handle: release.handle }
        }
        code::STATFS => Operation::Statfs,
        code::INTERRUPT => {
            let interrupt: InterruptRequest = start(body)?;
            Operation::Interrupt { unique: interrupt.unique }
        }
        code::DESTROY => Operation::Destroy,
        other => Operation::Refused(if changes(other) { Errno::ROFS } else { Errno::NOSYS }),
    })
}

/// Whether it would change something. Others that are not known the kernel does by itself, and asks for no more.
fn changes(operation: u32) -> bool {
    [
        code::SETATTR,
        code::SYMLINK,
        code::MKNOD,
        code::MKDIR,
        code::UNLINK,
        code::RMDIR,
        code::RENAME,
        code::RENAME2,
        code::LINK,
        code::WRITE,
        code::CREATE,
        code::FALLOCATE,
        code::TMPFILE,
    ]
    .contains(&operation)
}

/// The structure that the bytes begin with.
fn start<T: FromBytes>(body: &[u8]) -> Option<T> {
    T::read_from_prefix(body).ok().map(|(value, _)| value)
}

fn batch(body: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (head, mut rest) = BatchForgetRequest::read_from_prefix(body).ok()?;
    let mut all = Vec::new();
    for _ in 0..head.count {
        let (one, left) = ForgetOne::read_from_prefix(rest).ok()?;
        all.push((one.node, one.lookups));
        rest = left;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(40 + body.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), code.to_ne_bytes()].concat();
        bytes.extend(7u64.to_ne_bytes());
        bytes.extend([0; 24]);
        bytes.extend(body);
        bytes
    }

    /// Whatever the kernel says, or what takes its place, is a request or none.
    #[test]
    fn any_bytes_are_a_request_or_none() {
        for code in 0..64 {
            let whole = bytes(code, &[0xff; 64]);
            for length in 0..whole.len() {
                assert!(Request::parse(&whole[..length]).is_none());
                let short = bytes(code, &[0xff; 64][..length.min(64)]);
                let request = Request::parse(&short).expect("a request");
                assert_eq!(request.unique, 7);
            }
        }
        let mut lies = bytes(code::READ, &[]);
        lies[..4].copy_from_slice(&8u32.to_ne_bytes());
        assert!(Request::parse(&lies).is_none());
    }

    #[test]
    fn requests_are_what_they_say() {
        let read = bytes(
            code::READ,
            &[[3u64, 5].map(u64::to_ne_bytes).concat(), vec![9, 0, 0, 0], vec![0; 20]].concat(),
        );
        let operation = Request::parse(&read).expect("a request").operation;
        assert!(matches!(operation, Operation::Read { handle: 3, offset: 5, size: 9 }), "{operation:?}");
        let look_up = Request::parse(&bytes(code::LOOKUP, b"name\0")).expect("a request").operation;
        assert!(matches!(&look_up, Operation::LookUp(name) if name == b"name"), "{look_up:?}");
        let write = Request::parse(&bytes(code::WRITE, &[0; 40])).expect("a request").operation;
        assert!(matches!(write, Operation::Refused(Errno::ROFS)), "{write:?}");
    }
}
