//! No type of an inner crate in the interface of the library: users would depend on a crate that they do not know of.

use std::collections::BTreeSet;

use super::Finding;
use super::functions::matching;
use super::rules::{Context, is_test_path};
use super::source::Token;

/// Where the interface is.
const LIBRARY: &str = "crates/memobj/src/";
/// What is behind it.
const INNER: [&str; 3] = ["memobj_core", "memobj_linux", "memobj_log"];
/// Plain values that the model of address spaces is made of, as which the library exports them.
const VALUES: [&str; 3] = ["Access", "Prot", "VirtAddr"];

/// Looks at what is exported, and at public items for names that are imported from an inner crate. `pub` of an item that
/// nobody can reach counts too.
pub(super) fn public_types(context: &Context<'_>, findings: &mut Vec<Finding>) {
    if !context.path.starts_with(LIBRARY) || is_test_path(context.path) {
        return;
    }
    let tokens = context.tokens;
    let imported: BTreeSet<&str> = (0..tokens.len()).flat_map(|at| inner_names(tokens, at)).collect();
    for at in (0..tokens.len()).filter(|&at| is_public(tokens, at)) {
        let names = match tokens[at + 1].text {
            "use" => inner_names(tokens, at + 1),
            _ => named(item(tokens, at), &imported),
        };
        for name in names {
            let message = format!("{name} of an inner crate is in the interface; wrap it");
            findings.push(context.finding("public-types", tokens[at].line, name, message));
        }
    }
}

/// Whether the token at `at` makes something public for everybody.
fn is_public(tokens: &[Token<'_>], at: usize) -> bool {
    tokens[at].text == "pub" && tokens.get(at + 1).is_some_and(|next| next.text != "(")
}

/// The names that the `use` at `at` takes from an inner crate.
fn inner_names<'a>(tokens: &[Token<'a>], at: usize) -> Vec<&'a str> {
    let tree = match &tokens[at..] {
        [word, origin, rest @ ..] if word.text == "use" && INNER.contains(&origin.text) => rest,
        _ => return Vec::new(),
    };
    let end = tree.iter().position(|token| token.text == ";").unwrap_or(tree.len());
    let is_last = |&index: &usize| matches!(tree.get(index + 1).map(|next| next.text), Some("," | "}" | ";"));
    let leaves = (0..end).filter(is_last).map(|index| match tree[index].text {
        // `area::{self, Area}`.
        "self" if index >= 4 => tree[index - 4].text,
        name => name,
    });
    leaves.filter(|name| *name != "}" && !VALUES.contains(name)).collect()
}

/// The tokens of the public item whose `pub` is at `at`, as far as others see it.
fn item<'t, 'a>(tokens: &'t [Token<'a>], at: usize) -> &'t [Token<'a>] {
    let is_enum = tokens[at + 1].text == "enum";
    let is_struct = tokens[at + 1].text == "struct";
    let mut depth = 0_i32;
    for index in at + 1..tokens.len() {
        match tokens[index].text {
            "{" if is_enum => return &tokens[at..=matching(tokens, index).unwrap_or(index)],
            "{" | ";" => return &tokens[at..index],
            // Its public fields are items themselves.
            "(" if is_struct => return &tokens[at..index],
            // The end of a field.
            "," | "}" if depth == 0 => return &tokens[at..index],
            "(" | "[" | "<" => depth += 1,
            ">" if matches!(tokens[index - 1].text, "-" | "=") => {}
            ")" if depth == 0 => return &tokens[at..index],
            ")" | "]" | ">" => depth -= 1,
            _ => {}
        }
    }
    &tokens[at..]
}

/// The types of `item` that are `imported`. A name in lower case is a module if a path goes on from it.
fn named<'a>(item: &[Token<'a>], imported: &BTreeSet<&str>) -> Vec<&'a str> {
    let is_path = |index: usize| {
        let after = item.get(index + 1..index + 3).unwrap_or_default();
        after.len() == 2 && after.iter().all(|token| token.text == ":")
    };
    let is_type = |name: &str| name.starts_with(char::is_uppercase);
    let indices = 0..item.len();
    let found = indices.filter(|&index| {
        let name = item[index].text;
        INNER.contains(&name) || imported.contains(name) && (is_type(name) || is_path(index))
    });
    found.map(|index| item[index].text).collect()
}
