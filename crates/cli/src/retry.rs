//! The value of `--retry`: what happens when a page cannot be supplied.

use std::time::Duration;

/// How long a failed page is tried again before its error counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Retry {
    /// Not at all.
    Never,
    /// With growing pauses until this much time has passed.
    For(Duration),
    /// With growing pauses until it works.
    Forever,
}

/// Reads `never`, `forever`, or a time such as `500ms`, `10s`, `2m`.
pub(crate) fn parse(text: &str) -> Result<Retry, String> {
    match text {
        "never" => Ok(Retry::Never),
        "forever" => Ok(Retry::Forever),
        _ => parse_time(text)
            .map(Retry::For)
            .ok_or_else(|| format!("not a time: {text:?} (examples: 500ms, 10s, 2m, never, forever)")),
    }
}

/// Reads a time such as `500ms`, `10s`, `2m`, which is not zero.
pub(crate) fn parse_time_argument(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| format!("not a time: {text:?} (examples: 500ms, 10s, 2m)"))
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::{Retry, parse};
    use std::time::Duration;

    #[test]
    fn words_and_times() {
        assert_eq!(parse("never"), Ok(Retry::Never));
        assert_eq!(parse("forever"), Ok(Retry::Forever));
        assert_eq!(parse("500ms"), Ok(Retry::For(Duration::from_millis(500))));
        assert_eq!(parse("10s"), Ok(Retry::For(Duration::from_secs(10))));
        assert_eq!(parse("2m"), Ok(Retry::For(Duration::from_secs(120))));
    }

    #[test]
    fn a_bare_number_has_no_unit_and_is_refused() {
        for text in ["", "10", "s", "1.5s", "-1s", "10h", "99999999999999999999s", "18446744073709551615m"] {
            assert!(parse(text).expect_err(text).contains(&format!("{text:?}")));
        }
    }
}
