//! Where functions begin and end, and what their signatures take.

use super::source::Token;

/// A function with a body or without.
#[derive(Debug, PartialEq)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// Visible everywhere: `pub`, not `pub(crate)`.
    pub(super) public: bool,
    pub(super) first_line: usize,
    pub(super) last_line: usize,
    /// The names of the parameters whose type is `bool`.
    pub(super) bool_parameters: Vec<&'a str>,
}

impl Function<'_> {
    /// How many lines it takes, signature included.
    pub(super) fn lines(&self) -> usize {
        self.last_line - self.first_line + 1
    }
}

/// All functions in `tokens`, nested ones too.
pub(super) fn find<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    (0..tokens.len()).filter_map(|at| function_at(tokens, at)).collect()
}

/// The function whose `fn` stands at `at`. A function pointer type has no name and is none.
fn function_at<'a>(tokens: &[Token<'a>], at: usize) -> Option<Function<'a>> {
    let name = tokens.get(at + 1)?.text;
    if tokens[at].text != "fn" || !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return None;
    }
    let open = parameters_open(tokens, at + 2)?;
    let close = matching(tokens, open)?;
    let last = body_end(tokens, close + 1)?;
    Some(Function {
        name,
        public: is_public(&tokens[..at]),
        first_line: tokens[at].line,
        last_line: tokens[last].line,
        bool_parameters: bool_parameters(&tokens[open + 1..close]),
    })
}

/// The parenthesis that opens the parameters, past any generics, whose bounds may hold parentheses too.
fn parameters_open(tokens: &[Token<'_>], from: usize) -> Option<usize> {
    let mut angle_depth = 0;
    for at in from..tokens.len() {
        match tokens[at].text {
            "<" => angle_depth += 1,
            ">" if !matches!(tokens[at - 1].text, "-" | "=") => angle_depth -= 1,
            "(" if angle_depth == 0 => return Some(at),
            "{" | ";" if angle_depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The token that closes the bracket at `open`.
pub(super) fn matching(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The last token of a function or another item: the brace that closes its body, or the semicolon of one without.
pub(super) fn body_end(tokens: &[Token<'_>], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match tokens.get(at)?.text {
            ";" => return Some(at),
            "{" => return matching(tokens, at),
            "(" | "[" => at = matching(tokens, at)?,
            _ => {}
        }
        at += 1;
    }
}

/// Whether the words before a `fn` make it `pub`. The name of an ABI is a literal and so already gone.
fn is_public(before: &[Token<'_>]) -> bool {
    let qualifier = |token: &&Token<'_>| matches!(token.text, "const" | "unsafe" | "async" | "extern");
    before.iter().rev().find(|token| !qualifier(token)).is_some_and(|token| token.text == "pub")
}

fn bool_parameters<'a>(parameters: &[Token<'a>]) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, token) in parameters.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            ">" if at == 0 || parameters[at - 1].text != "-" => depth -= 1,
            "bool" if depth == 0 && at >= 2 && parameters[at - 1].text == ":" => {
                names.push(parameters[at - 2].text);
            }
            _ => {}
        }
    }
    names
}
