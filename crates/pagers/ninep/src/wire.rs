//! The bytes of 9P messages: numbers of little endian, strings with a length of two bytes (intro(5), "Messages").

/// A message that breaks the format of 9P; says what is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Reads fields off the front of a message. Never allocates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("a message ends early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: u32) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed("a count is too large"))?;
        let (first, rest) = self.0.split_at_checked(count).ok_or(Malformed("a count exceeds its message"))?;
        self.0 = rest;
        Ok(first)
    }

    /// A string: 9P says UTF-8, names of files may be anything.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u16()?;
        self.bytes(u32::from(count))
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Refuses what comes behind the last field.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a message is longer than its fields")) }
    }
}

/// Appends messages to a buffer.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Encoder<'a> {
    /// Begins a message of this type.
    pub(crate) fn new(out: &'a mut Vec<u8>, kind: u8, tag: u16) -> Self {
        let start = out.len();
        out.extend([0; 4]);
        out.push(kind);
        out.extend(tag.to_le_bytes());
        Self { out, start }
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.out.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// A string; what is behind 65,535 bytes is left out. Callers refuse such names before.
    pub(crate) fn string(self, string: &[u8]) -> Self {
        let count = u16::try_from(string.len()).unwrap_or(u16::MAX);
        let bytes = string.get(..usize::from(count)).unwrap_or(string);
        self.u16(count).bytes(bytes)
    }

    /// Ends the message: puts its size in front.
    pub(crate) fn end(self) {
        let size = u32::try_from(self.out.len() - self.start).unwrap_or(u32::MAX);
        if let Some(field) = self.out.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&size.to_le_bytes());
        }
    }
}
