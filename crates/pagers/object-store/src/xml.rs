//! The few elements of answers of stores that are needed.

use quick_xml::escape::unescape;

/// The text of the first element `name`, without escapes.
pub(crate) fn text(xml: &str, name: &str) -> Option<String> {
    let inner = inner(xml, name)?.0;
    unescape(inner).ok().map(|text| text.trim().to_owned())
}

/// The text of the first element `name`, without escapes and with all of its spaces: the name of an object.
pub(crate) fn exact(xml: &str, name: &str) -> Option<String> {
    unescape(inner(xml, name)?.0).ok().map(|text| text.into_owned())
}

/// What is inside of each element `name`, as it stands.
pub(crate) fn all<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (mut all, mut rest) = (Vec::new(), xml);
    while let Some((inside, behind)) = inner(rest, name) {
        all.push(inside);
        rest = behind;
    }
    all
}

/// What is inside of the first element `name`, and what follows it.
fn inner<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>"))
}

/// `text` with what XML gives a meaning escaped.
pub(crate) fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_unescaped() {
        let xml = "<L><U><Key>a&amp;b</Key></U><U><Key>&quot;c&quot;</Key></U></L>";
        assert_eq!(all(xml, "U").len(), 2);
        assert_eq!(
            all(xml, "U").iter().filter_map(|one| text(one, "Key")).collect::<Vec<_>>(),
            ["a&b", "\"c\""]
        );
        assert_eq!(text(xml, "None"), None);
        assert_eq!(escaped("\"<"), "&quot;&lt;");
    }
}
