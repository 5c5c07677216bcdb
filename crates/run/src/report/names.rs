//! Names on a terminal: any bytes, shown so that they cannot steer it.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// The name with control characters, marks that turn the direction of writing, backslashes and bytes that are not
/// UTF-8 escaped.
pub(super) fn printable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' | '\n' | '\r' | '\t' => text.extend(character.escape_default()),
                _ if may_steer(character) => text.extend(character.escape_unicode()),
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a `String` does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn may_steer(character: char) -> bool {
    let turns =
        matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A program and its arguments as one line; arguments with blanks, or without anything, in quotes.
pub(super) fn command_line<T: AsRef<OsStr>>(command: &[T]) -> String {
    let quoted = |argument: &T| {
        let text = printable(argument.as_ref());
        let is_plain =
            !text.is_empty() && !text.contains([' ', '\'', '"', '*', '?', '$', ';', '|', '&', '<', '>']);
        if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The first `columns` characters, the last of them an ellipsis if there would be more.
pub(super) fn cut_end(text: &str, columns: usize) -> String {
    match text.char_indices().nth(columns) {
        None => text.to_string(),
        Some(_) => text.chars().take(columns.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The last `columns` characters, the first of them an ellipsis if there would be more: the end of a path tells more.
pub(super) fn cut_begin(text: &str, columns: usize) -> String {
    let length = text.chars().count();
    if length <= columns {
        return text.to_string();
    }
    ['…'].into_iter().chain(text.chars().skip(length + 1 - columns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        let name = OsStr::from_bytes(b"a\x1b[2J\n\xffb\\ \xc3\xa4\xe2\x80\xaegpj");
        assert_eq!(printable(name), "a\\u{1b}[2J\\n\\xffb\\\\ ä\\u{202e}gpj");
    }

    #[test]
    fn arguments_can_be_told_apart() {
        assert_eq!(command_line(&["a", "", "b c", "d'e"]), "a '' 'b c' 'd'\\''e'");
        assert_eq!(command_line::<&str>(&[]), "");
    }

    #[test]
    fn long_texts_are_cut_by_characters() {
        assert_eq!(cut_end("äöü", 3), "äöü");
        assert_eq!(cut_end("äöüß", 3), "äö…");
        assert_eq!(cut_begin("äöü", 3), "äöü");
        assert_eq!(cut_begin("äöüß", 3), "…üß");
    }
}
