use memobj_run::history::History;
use memobj_run::report::html;
use serde_json::Value;

use crate::sample::{big, hostile, ls};

/// What the script of the page reads.
fn data(page: &str) -> Value {
    let begin = "<script type=\"application/json\" id=\"data\">";
    let inside = page.split(begin).nth(1).expect("data").split("</script>").next().expect("an end");
    serde_json::from_str(inside).expect("JSON")
}

fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

#[test]
fn a_page_has_one_of_everything() {
    for history in [History::default(), ls(), hostile(), big()] {
        let page = html(&history);
        for (what, times) in [
            ("<!doctype html>", 1),
            ("<script", 2),
            ("</script", 2),
            ("<style", 1),
            ("</style>", 1),
            ("<title>", 1),
            ("</title>", 1),
            ("<noscript>", 1),
            ("</noscript>", 1),
            ("</body>", 1),
            ("</html>", 1),
            ("<!--", 0),
        ] {
            assert_eq!(count(&page, what), times, "{what}");
        }
        let data = data(&page);
        assert_eq!(data["files"].as_array().map(Vec::len), Some(history.files.len()));
        assert_eq!(data["processes"].as_array().map(Vec::len), Some(history.processes.len()));
        for column in ["at", "duration", "file", "page", "process"] {
            assert_eq!(
                data["faults"][column].as_array().map(Vec::len),
                Some(history.faults.len()),
                "{column}"
            );
        }
        assert_eq!(data["faults"]["resolution"].as_str().map(str::len), Some(history.faults.len()));
    }
}

#[test]
fn a_page_needs_nothing_else() {
    let page = html(&ls());
    assert!(
        page.contains(
            "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\""
        )
    );
    for outside in
        ["http:", "https:", "//cdn", " src=", "href=", "url(", "@import", "import(", "fetch(", "eval("]
    {
        assert!(!page.contains(outside), "{outside}");
    }
    // All text comes in as text.
    for way in ["innerHTML", "outerHTML", "insertAdjacent", "document.write"] {
        assert!(!page.contains(way), "{way}");
    }
}

#[test]
fn names_stay_where_they_are_put() {
    let page = html(&hostile());
    assert!(!page.contains("<script>alert"), "a tag");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "in the title and without scripts");
    assert!(page.contains("\\u003c/script\\u003e"), "in the data");
    let steers = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(page.chars().find(steers), None);
    assert_eq!(page.chars().find(|character| matches!(character, '\u{2028}' | '\u{202e}')), None);
    let data = data(&page);
    let name = data["files"][0]["name"].as_str().expect("a name");
    assert!(name.starts_with("/tmp/</script><script>alert(1)</script><!--'\"&amp;\\n"), "{name}");
}

#[test]
fn times_are_told_as_distances() {
    let history = ls();
    let data = data(&html(&history));
    let mut at = 0;
    for (fault, distance) in history.faults.iter().zip(data["faults"]["at"].as_array().expect("distances")) {
        at += distance.as_i64().expect("a number");
        assert_eq!(u128::try_from(at), Ok(fault.at.as_micros()));
    }
}

#[test]
fn a_page_is_not_much_larger_than_what_it_tells() {
    let page = html(&big());
    println!("{} bytes", page.len());
    assert!(page.len() < 6 << 20, "{}", page.len());
}

/// `MEMOBJ_WRITE_REPORTS=folder` writes the pages there, to be looked at.
#[test]
fn pages_can_be_looked_at() {
    let Some(folder) = std::env::var_os("MEMOBJ_WRITE_REPORTS").map(std::path::PathBuf::from) else {
        println!("skipped: MEMOBJ_WRITE_REPORTS names no folder");
        return;
    };
    for (name, history) in [("ls", ls()), ("big", big()), ("hostile", hostile())] {
        std::fs::write(folder.join(name).with_extension("html"), html(&history)).expect("a page");
    }
}
