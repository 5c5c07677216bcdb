//! Rust source taken apart into code and comments, so that a rule does not trip over a string.
//!
//! This is a lexer for exactly what the rules ask, not a parser: comments, literals, words and punctuation.

/// A source file as two texts of the same lines: code without comments and literals, and comments alone.
#[derive(Debug)]
pub(super) struct SourceText {
    code: String,
    comments: String,
}

/// A word (identifier, keyword or number) or one punctuation character of the code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) line: usize,
}

impl SourceText {
    /// Takes `text` apart.
    pub(super) fn parse(text: &str) -> Self {
        let mut splitter = Splitter { rest: text, code: String::new(), comments: String::new() };
        while !splitter.rest.is_empty() {
            splitter.step();
        }
        Self { code: splitter.code, comments: splitter.comments }
    }

    /// How many lines the file has.
    pub(super) fn line_count(&self) -> usize {
        self.code.lines().count()
    }

    /// The lines with only their comments left.
    pub(super) fn comment_lines(&self) -> Vec<&str> {
        self.comments.lines().collect()
    }

    /// The lines with only their code left.
    pub(super) fn code_lines(&self) -> Vec<&str> {
        self.code.lines().collect()
    }

    /// The code's words and punctuation in order.
    pub(super) fn tokens(&self) -> Vec<Token<'_>> {
        let lines = self.code.lines().enumerate();
        lines.flat_map(|(index, line)| line_tokens(line, index + 1)).collect()
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_tokens(line: &str, number: usize) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (text, after) = rest.split_at(if word > 0 { word } else { first.len_utf8() });
        tokens.push(Token { text, line: number });
        rest = after.trim_start();
    }
    tokens
}

/// The work of taking a text apart: every step moves some of `rest` to `code` or `comments`.
struct Splitter<'a> {
    rest: &'a str,
    code: String,
    comments: String,
}

impl Splitter<'_> {
    fn step(&mut self) {
        if self.rest.starts_with("//") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take_comment(end);
        } else if self.rest.starts_with("/*") {
            self.take_comment(block_comment_length(self.rest));
        } else if let Some(length) = literal_length(self.rest) {
            self.take_literal(length);
        } else {
            let word = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            let length = if word > 0 { word } else { self.rest.chars().next().map_or(0, char::len_utf8) };
            self.take_code(length);
        }
    }

    fn take(&mut self, length: usize) -> &str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn take_code(&mut self, length: usize) {
        let taken = self.take(length).to_string();
        self.comments.push_str(&blank(&taken));
        self.code.push_str(&taken);
    }

    fn take_comment(&mut self, length: usize) {
        let taken = self.take(length).to_string();
        self.code.push_str(&blank(&taken));
        self.comments.push_str(&taken);
    }

    fn take_literal(&mut self, length: usize) {
        let taken = blank(self.take(length));
        self.code.push_str(&taken);
        self.comments.push_str(&taken);
    }
}

/// The same lines with nothing on them.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string or character literal that `text` starts with, prefix included, if it does.
fn literal_length(text: &str) -> Option<usize> {
    for prefix in ["", "b", "c", "r", "br", "cr"] {
        let Some(rest) = text.strip_prefix(prefix) else { continue };
        let length = match prefix.ends_with('r') {
            true => raw_string_length(rest),
            false if rest.starts_with('"') => Some(escaped_length(rest, '"')),
            false => char_length(rest),
        };
        if let Some(length) = length {
            return Some(prefix.len() + length);
        }
    }
    None
}

fn raw_string_length(text: &str) -> Option<usize> {
    let hashes = text.find(|c| c != '#')?;
    let body = text[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(hashes + 1 + end)
}

/// The length of a literal in `quote`s, in which a backslash hides the character after it.
fn escaped_length(text: &str, quote: char) -> usize {
    let mut hidden = true;
    for (at, c) in text.char_indices() {
        if !hidden && c == quote {
            return at + c.len_utf8();
        }
        hidden = !hidden && c == '\\';
    }
    text.len()
}

/// A character literal, but not a lifetime: `'a'` and `'\n'` are, `'a` is not.
fn char_length(text: &str) -> Option<usize> {
    let mut body = text.strip_prefix('\'')?.chars();
    match body.next()? {
        '\\' => Some(escaped_length(text, '\'')),
        c => (body.next()? == '\'').then_some(2 + c.len_utf8()),
    }
}
