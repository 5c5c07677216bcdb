//! Which bytes of a page a transaction has changed.
//!
//! Only these are stored. When the page is opened for that, a plain store that has waited for the transaction can come at
//! any moment. It stores other bytes, which the copy has as they were before; stored, they would undo it.

/// Bytes that are compared at once.
const STEP: usize = 64;

/// The runs of bytes that differ in `new` and `old`, which are equally long, by their place; as they are in `new`.
pub(super) fn of<'a>(new: &'a [u8], old: &[u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
    assert_eq!(new.len(), old.len());
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < new.len() && new[at] == old[at] {
            let end = (at + STEP).min(new.len());
            at = if new[at..end] == old[at..end] { end } else { at + 1 };
        }
        let start = at;
        while at < new.len() && new[at] != old[at] {
            at += 1;
        }
        (start < at).then(|| (start, &new[start..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_and_nothing_else() {
        let old = [7; 300];
        assert_eq!(of(&old, &old).count(), 0);
        let mut new = old;
        for at in [0, 63, 64, 200, 201, 299] {
            new[at] = 8;
        }
        let found: Vec<(usize, usize)> = of(&new, &old).map(|(at, bytes)| (at, bytes.len())).collect();
        assert_eq!(found, [(0, 1), (63, 2), (200, 2), (299, 1)]);
        assert!(of(&new, &old).all(|(_, bytes)| bytes.iter().all(|byte| *byte == 8)));
        assert_eq!(of(&[1; 5], &[2; 5]).collect::<Vec<_>>(), [(0, &[1u8; 5][..])]);
    }
}
