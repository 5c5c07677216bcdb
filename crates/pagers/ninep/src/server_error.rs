//! Errors that a server answers with, by number or by words.

use std::fmt;

use memobj::ErrorKind;

use crate::dialect::Dialect;
use crate::wire::{Decoder, Malformed};

/// Bytes of a server's message that are kept.
const LONGEST: usize = 256;

/// What a server answered instead of doing what was asked: Rerror or Rlerror.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerError {
    message: String,
    number: Option<u32>,
}

impl ServerError {
    pub(crate) fn new(message: impl Into<String>, number: Option<u32>) -> Self {
        Self { message: message.into(), number }
    }

    /// The error number of Linux, if the dialect has it.
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// The server's words; empty in 9P2000.L, which has only numbers.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The body of Rlerror.
    pub(crate) fn decode_number(mut from: Decoder<'_>) -> Result<Self, Malformed> {
        let number = from.u32()?;
        from.end()?;
        Ok(Self::new("", Some(number)))
    }

    /// The body of Rerror: words, in 9P2000.u with a number behind them. nfs-ganesha sends Rerror with a number alone in
    /// 9P2000.L.
    pub(crate) fn decode_words(mut from: Decoder<'_>, dialect: Dialect) -> Result<Self, Malformed> {
        if dialect == Dialect::Linux && from.rest().len() == 4 {
            return Self::decode_number(from);
        }
        let words = from.string()?;
        let words = words.get(..LONGEST).unwrap_or(words);
        let number = if from.rest().is_empty() { None } else { Some(from.u32()?) };
        from.end()?;
        Ok(Self::new(String::from_utf8_lossy(words), number))
    }

    /// The kind, for errors of requests to a file that is open: that it is not there means that it changed.
    pub fn kind(&self) -> ErrorKind {
        match self.number.map(kind_of_number) {
            None | Some(ErrorKind::Io) => kind_of_words(&self.message.to_lowercase()),
            Some(kind) => kind,
        }
    }
}

/// By errno(3) of Linux.
fn kind_of_number(number: u32) -> ErrorKind {
    match number {
        // EPERM, EACCES, EROFS
        1 | 13 | 30 => ErrorKind::Denied,
        // ENOENT, ENOTDIR, ESTALE
        2 | 20 | 116 => ErrorKind::Stale,
        // EFBIG, ENOSPC, EDQUOT
        27 | 28 | 122 => ErrorKind::NoSpace,
        // ETIMEDOUT
        110 => ErrorKind::Timeout,
        _ => ErrorKind::Io,
    }
}

/// By the words that Plan 9, its ports and the libraries that follow it use.
fn kind_of_words(words: &str) -> ErrorKind {
    let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
    if says(&["permission denied", "not permitted", "read-only", "read only", "not authenticated"]) {
        ErrorKind::Denied
    } else if says(&["not found", "not exist", "no such file", "can't find", "unknown file", "stale"]) {
        ErrorKind::Stale
    } else if says(&["no space", "disk full", "file system full", "quota"]) {
        ErrorKind::NoSpace
    } else {
        ErrorKind::Io
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.is_empty(), self.number.and_then(|number| i32::try_from(number).ok())) {
            (false, _) => write!(f, "the server says: {}", self.message),
            (true, Some(number)) => {
                write!(f, "the server says: {}", std::io::Error::from_raw_os_error(number))
            }
            (true, None) => f.write_str("the server says that it failed"),
        }
    }
}

impl std::error::Error for ServerError {}
