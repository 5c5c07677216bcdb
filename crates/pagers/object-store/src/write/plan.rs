//! Which parts a new version is made of.
//!
//! ```text
//!   base      |---------------------------------------------|
//!   changed          ##                       #      #
//!   parts     | copy | send | copy            | send        | copy |
//!                    >= 5 MiB                  gaps of less than 5 MiB are sent, too
//! ```
//!
//! All parts but the last have at least 5 MiB, and there are at most 10,000 (Amazon S3 User Guide, "Multipart upload
//! limits"). So a change of one byte moves 5 MiB, and changes that are scattered by more than that move 5 MiB each.

use std::ops::Range;

const MIB: u64 = 1 << 20;

/// A part of an upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The store copies it from the published version.
    Copy(Range<u64>),
    Send(Range<u64>),
}

impl Part {
    #[cfg(test)]
    fn range(&self) -> Range<u64> {
        match self {
            Self::Copy(range) | Self::Send(range) => range.clone(),
        }
    }
}

/// What a store allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Bytes of all parts but the last.
    pub(crate) least: u64,
    /// The most bytes of a part that is sent: what is sent again when it fails.
    pub(crate) most_sent: u64,
    /// The most bytes of a part that is copied.
    pub(crate) most_copied: u64,
    pub(crate) parts: usize,
}

impl Limits {
    /// Those of Amazon S3, which others have taken over. It copies up to 5 GiB; less at once are more at a time.
    pub(crate) const S3: Self =
        Self { least: 5 * MIB, most_sent: 16 * MIB, most_copied: 1024 * MIB, parts: 10_000 };
}

/// The parts of an object of `length` bytes, of which the ranges `changed` are not in the published version. They ascend
/// and do not overlap.
pub(crate) fn plan(changed: &[Range<u64>], length: u64, limits: Limits) -> Vec<Part> {
    let mut limits = limits;
    loop {
        let parts = parts(&spans(changed, length, limits.least), length, limits);
        if parts.len() <= limits.parts || limits.least > length {
            return parts;
        }
        limits.least = limits.least.saturating_mul(2);
        limits.most_sent = limits.most_sent.saturating_mul(2);
        limits.most_copied = limits.most_copied.saturating_mul(2).min(5 * 1024 * MIB);
    }
}

/// Ranges to send: at least `least` long unless they reach the end, and at least `least` apart.
fn spans(changed: &[Range<u64>], length: u64, least: u64) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for range in changed {
        let mut span = range.start..range.end.max(range.start.saturating_add(least)).min(length);
        match spans.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) < least => {
                last.end = last.end.max(range.end).min(length);
            }
            None if span.start < least => {
                span.start = 0;
                span.end = range.end.max(least).min(length);
                spans.push(span);
            }
            _ => spans.push(span),
        }
    }
    spans
}

fn parts(spans: &[Range<u64>], length: u64, limits: Limits) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for span in spans {
        parts.extend(split(at..span.start, limits.most_copied).map(Part::Copy));
        parts.extend(split(span.clone(), limits.most_sent).map(Part::Send));
        at = span.end;
    }
    parts.extend(split(at..length, limits.most_copied).map(Part::Copy));
    parts
}

/// Ranges of nearly the same length, none of more than `most`.
fn split(range: Range<u64>, most: u64) -> impl Iterator<Item = Range<u64>> {
    let length = range.end.saturating_sub(range.start);
    let count = length.div_ceil(most.max(1));
    let (each, longer) = (length.checked_div(count).unwrap_or(0), length.checked_rem(count).unwrap_or(0));
    let bound = move |index: u64| range.start + index * each + index.min(longer);
    (0..count).map(move |index| bound(index)..bound(index + 1))
}

#[cfg(test)]
mod tests {
    use memobj_sim::Random;

    use super::*;

    const SMALL: Limits = Limits { least: 5, most_sent: 16, most_copied: 40, parts: 20 };

    fn check(changed: &[Range<u64>], length: u64, limits: Limits) -> Vec<Part> {
        let parts = plan(changed, length, limits);
        assert!(parts.len() <= limits.parts, "{changed:?} of {length}: {} parts", parts.len());
        let mut at = 0;
        for (index, part) in parts.iter().enumerate() {
            let range = part.range();
            assert_eq!(range.start, at);
            assert!(!range.is_empty());
            at = range.end;
            assert!(index + 1 == parts.len() || range.end - range.start >= limits.least, "{parts:?}");
            if let Part::Copy(range) = part {
                let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
                assert!(!changed.iter().any(overlaps), "{changed:?}: {parts:?}");
            }
        }
        assert_eq!(at, length);
        parts
    }

    #[test]
    fn parts_are_the_object_and_no_change_is_copied() {
        let mut random = Random::new(7);
        for _ in 0..5000 {
            let length = 1 + random.below(500);
            let (mut changed, mut at) = (Vec::new(), 0);
            while at < length {
                let start = at + random.below(60);
                let end = (start + 1 + random.below(20)).min(length);
                if start < end {
                    changed.push(start..end);
                }
                at = end + 1;
            }
            check(&changed, length, SMALL);
        }
    }

    #[test]
    fn one_percent_moves_less_than_three() {
        let length = 256 * MIB;
        let changed = 100 * MIB..102 * MIB + MIB / 2;
        let parts = check(std::slice::from_ref(&changed), length, Limits::S3);
        let sent: u64 = parts
            .iter()
            .filter_map(|part| match part {
                Part::Send(range) => Some(range.end - range.start),
                Part::Copy(_) => None,
            })
            .sum();
        assert_eq!((sent, parts.len()), (5 * MIB, 3));
    }

    #[test]
    fn huge_objects_have_few_parts() {
        let terabyte = 1 << 40;
        let all = check(std::slice::from_ref(&(0..5 * terabyte)), 5 * terabyte, Limits::S3);
        assert!(all.len() > 5000);
        check(&[], 5 * terabyte, Limits::S3);
        let scattered: Vec<_> = (0..50_000).map(|index| index * 20 * MIB..index * 20 * MIB + 4096).collect();
        check(&scattered, terabyte, Limits::S3);
    }
}
