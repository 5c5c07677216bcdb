//! Bytes that JSON cannot say as text.

/// The bytes in hexadecimal digits, if they are not UTF-8: a second member beside the text, which has U+FFFD in their
/// place.
pub(crate) fn hex_unless_utf8(bytes: &[u8]) -> Option<String> {
    let is_text = std::str::from_utf8(bytes).is_ok();
    (!is_text).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::hex_unless_utf8;

    #[test]
    fn only_what_is_no_text_has_digits() {
        assert_eq!(hex_unless_utf8("ä".as_bytes()), None);
        assert_eq!(hex_unless_utf8(b"a\xff\x00").as_deref(), Some("61ff00"));
    }
}
