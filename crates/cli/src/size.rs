//! Sizes as people write them: `64M`, `4k`, `1.5G`, `4096`.

/// Reads a number of bytes. Units are powers of 1024 however they are spelled: `k`, `K`, `kB` and `KiB`
/// are all 1024. After `0x` come hexadecimal digits and no unit. A fraction is allowed with a unit and rounded down to whole bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_exact(text).ok_or_else(|| format!("not a size: {text:?} (examples: 4096, 4k, 64M, 1.5G)"))
}

/// Reads the size of a budget, which must hold something.
pub(crate) fn parse_budget(text: &str) -> Result<u64, String> {
    match parse(text)? {
        0 => Err("a budget of 0 bytes holds no page".to_string()),
        bytes => Ok(bytes),
    }
}

fn parse_exact(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        // A sign is no digit.
        return digits
            .chars()
            .all(|c| c.is_ascii_hexdigit())
            .then(|| u64::from_str_radix(digits, 16).ok())?;
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_bytes = unit_bytes(unit)?;
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let bytes = whole.parse::<u64>().ok()?.checked_mul(unit_bytes)?;
    match fraction {
        None => Some(bytes),
        Some(_) if unit_bytes == 1 => None,
        Some(fraction) => bytes.checked_add(fraction_bytes(fraction, unit_bytes)?),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let mut letters = unit.chars();
    let shift = match letters.next().map(|letter| letter.to_ascii_uppercase()) {
        None => return Some(1),
        Some('B') => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some(_) => return None,
    };
    let spelled =
        if shift == 0 { letters.as_str().is_empty() } else { ["", "B", "iB"].contains(&letters.as_str()) };
    spelled.then_some(1 << shift)
}

/// `0.fraction * unit_bytes`, rounded down. Eighteen digits are more than any unit can tell apart.
fn fraction_bytes(fraction: &str, unit_bytes: u64) -> Option<u64> {
    if fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let digits: u128 = fraction.parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from(digits * u128::from(unit_bytes) / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_budget};

    #[test]
    fn every_spelling_is_a_power_of_1024() {
        for text in ["4k", "4K", "4kB", "4KB", "4KiB", "4kiB", "4096", "4096B", "4.0k", "004k"] {
            assert_eq!(parse(text), Ok(4096), "{text}");
        }
        assert_eq!(parse("64M"), Ok(64 << 20));
        assert_eq!(parse("1.5G"), Ok(3 << 29));
        assert_eq!(parse("2T"), Ok(2 << 40));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("0x28000"), Ok(0x28000));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn fractions_round_down() {
        assert_eq!(parse("0.3k"), Ok(307));
        assert_eq!(parse("1.999999999999999999k"), Ok(2047));
    }

    #[test]
    fn anything_else_is_refused_with_its_text() {
        let bad = [
            "",
            "k",
            "0x",
            "0x+1",
            "4x",
            "4kk",
            "4kib ",
            " 4k",
            "-1",
            "+1",
            "1.5",
            "1.5B",
            "1.k",
            ".5k",
            "1.2.3k",
            "4 k",
            "1e3",
            "18446744073709551616",
            "16777216T",
            "0x1k",
            "4Ki",
            "4Bi",
            "4BB",
            "４k",
            "1.9999999999999999999k",
        ];
        for text in bad {
            let error = parse(text).expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_budget_holds_something() {
        assert_eq!(parse_budget("1"), Ok(1));
        assert!(parse_budget("0").is_err());
        assert!(parse_budget("0.0001k").is_err());
    }
}
