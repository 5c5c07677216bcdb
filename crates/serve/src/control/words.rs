//! Lines and words: `TAG VERB arguments`, and names that are percent-encoded.

use std::fmt::{self, Display, Write};

/// The most bytes of a line, its end included.
pub const LONGEST_LINE: usize = 4096;
/// The most bytes of a tag.
const LONGEST_TAG: usize = 16;
/// The most words of a request.
const MOST_WORDS: usize = 16;
/// The most bytes that one encoded text takes of a line.
const LONGEST_TEXT: usize = 1024;
/// The tag of an answer to a line that has none.
pub(super) const NO_TAG: &str = "?";

/// `text` as one word: spaces, `%` and control bytes are `%` and two hexadecimal digits.
pub fn encode(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for character in text.chars() {
        if character == ' ' || character == '%' || character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(word, "%{byte:02X}");
            }
        } else {
            word.push(character);
        }
    }
    word
}

/// What [`encode`] encoded; `None` if `word` is nothing that it makes.
pub fn decode(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// `text` encoded, and cut off where it is too long for a line.
pub(super) fn encode_short(text: &str) -> String {
    let mut word = String::new();
    for character in text.chars() {
        let next = encode(character.encode_utf8(&mut [0; 4]));
        if word.len() + next.len() > LONGEST_TEXT {
            break;
        }
        word.push_str(&next);
    }
    word
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request<'a> {
    pub(super) tag: &'a str,
    pub(super) verb: &'a str,
    /// What follows the verb.
    words: &'a str,
}

/// Why a line is no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadLine<'a> {
    /// Its tag, or [`NO_TAG`].
    pub(super) tag: &'a str,
    pub(super) why: &'static str,
}

impl<'a> Request<'a> {
    /// Reads a line without its end.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, BadLine<'a>> {
        let bad = |why| BadLine { tag: NO_TAG, why };
        let line = str::from_utf8(line).map_err(|_| bad("the line is not UTF-8"))?;
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !is_tag(tag) {
            return Err(bad("a tag is 1 to 16 of A-Z a-z 0-9 _ . -"));
        }
        let bad = |why| BadLine { tag, why };
        let (verb, words) = rest.split_once(' ').unwrap_or((rest, ""));
        let has_gap = rest.split(' ').any(str::is_empty);
        if verb.is_empty() || has_gap {
            return Err(bad("words are separated by single spaces"));
        }
        if rest.split(' ').count() > MOST_WORDS || rest.chars().any(char::is_control) {
            return Err(bad("too many words, or control bytes"));
        }
        Ok(Self { tag, verb, words })
    }

    /// The arguments, one after the other.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.words.split(' ').filter(|word| !word.is_empty())
    }
}

fn is_tag(tag: &str) -> bool {
    let fits = (1..=LONGEST_TAG).contains(&tag.len());
    fits && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `key=value` words of a line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Fields(String);

impl Fields {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// With one more, whose value has nothing to encode.
    pub(super) fn with(mut self, key: &str, value: impl Display) -> Self {
        let _ = write!(self.0, " {key}={value}");
        self
    }

    /// With one more, whose value is any text. Text that is too long is cut off.
    pub(super) fn with_text(self, key: &str, text: &str) -> Self {
        let word = encode_short(text);
        self.with(key, word)
    }

    /// With a range of bytes.
    pub(super) fn with_range(self, range: &std::ops::Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        self.with("range", format_args!("{}+{length}", range.start))
    }

    /// With all of `others`.
    pub(super) fn followed_by(mut self, others: &Self) -> Self {
        self.0.push_str(&others.0);
        self
    }

    /// Bytes that it takes of a line.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_as_words() {
        for text in ["", "a", "a b", "100%", "%41", "tab\there", "line\nend", "\u{e9}\u{85}\u{1f600}", "a=b"]
        {
            let word = encode(text);
            assert!(!word.contains([' ', '\n', '\t']), "{word}");
            assert_eq!(decode(&word).as_deref(), Some(text), "{word}");
        }
        assert_eq!(encode("a b%\n"), "a%20b%25%0A");
    }

    #[test]
    fn what_nobody_encoded_is_refused() {
        for word in ["%", "%4", "%4g", "%ff", "a%", "%+1"] {
            assert_eq!(decode(word), None, "{word}");
        }
    }

    #[test]
    fn requests_have_a_tag_and_a_verb() {
        let request = Request::parse(b"a-1 open disk.img ro").unwrap();
        assert_eq!((request.tag, request.verb), ("a-1", "open"));
        assert_eq!(request.arguments().collect::<Vec<_>>(), ["disk.img", "ro"]);
        assert_eq!(Request::parse(b"1 stats").unwrap().arguments().count(), 0);
    }

    #[test]
    fn bad_lines_have_the_tag_that_could_be_read() {
        let tags: [(&[u8], &str); 9] = [
            (b"", "?"),
            (b"1", "1"),
            (b"1 ", "1"),
            (b" 1 stats", "?"),
            (b"1  stats", "1"),
            (b"1 stats ", "1"),
            (b"12345678901234567 stats", "?"),
            (b"1 st\x01ats", "1"),
            (b"\xff stats", "?"),
        ];
        for (line, tag) in tags {
            assert_eq!(Request::parse(line).unwrap_err().tag, tag, "{line:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_off_between_characters() {
        let fields = Fields::new().with_text("message", &"\u{e9} ".repeat(5000));
        assert!(fields.len() <= LONGEST_TEXT + 10);
        let word = fields.to_string();
        assert!(decode(word.trim_start().strip_prefix("message=").unwrap()).is_some());
    }
}
