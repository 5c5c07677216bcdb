//! Tags: which answer belongs to which request.

/// Tags that are used, in turn. More than are under way at once, so that an answer that comes twice is not taken for that
/// to a later request.
const TAGS: usize = 1024;

/// A value for each tag that is in use. Bounded.
#[derive(Debug)]
pub(crate) struct Tags<T> {
    entries: Vec<Option<T>>,
    used: usize,
    next: usize,
}

impl<T> Tags<T> {
    pub(crate) fn new() -> Self {
        Self { entries: (0..TAGS).map(|_| None).collect(), used: 0, next: 0 }
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// A tag for `value`; the value again if all are in use.
    pub(crate) fn insert(&mut self, value: T) -> Result<u16, T> {
        let found = (self.next..TAGS).chain(0..self.next).find_map(|at| {
            let is_free = self.entries.get(at).is_some_and(Option::is_none);
            u16::try_from(at).ok().filter(|_| is_free)
        });
        let Some(tag) = found else { return Err(value) };
        if let Some(entry) = self.entries.get_mut(usize::from(tag)) {
            *entry = Some(value);
        }
        self.used += 1;
        self.next = (usize::from(tag) + 1) % TAGS;
        Ok(tag)
    }

    pub(crate) fn get_mut(&mut self, tag: u16) -> Option<&mut T> {
        self.entries.get_mut(usize::from(tag))?.as_mut()
    }

    pub(crate) fn remove(&mut self, tag: u16) -> Option<T> {
        let value = self.entries.get_mut(usize::from(tag))?.take();
        self.used -= usize::from(value.is_some());
        value
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut T)> {
        let tagged = self.entries.iter_mut().enumerate();
        tagged.filter_map(|(tag, entry)| Some((u16::try_from(tag).ok()?, entry.as_mut()?)))
    }

    /// Frees all tags, and returns their values.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.used = 0;
        self.entries.iter_mut().filter_map(Option::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_tag_is_not_used_again_soon_and_their_number_is_bounded() {
        let mut tags = Tags::new();
        let first = tags.insert(0).unwrap();
        assert_eq!(tags.remove(first), Some(0));
        assert_eq!(tags.remove(first), None);
        assert!((1..TAGS).all(|value| tags.insert(value).unwrap() != first));
        assert_eq!(tags.insert(TAGS), Ok(first));
        assert_eq!((tags.insert(7), tags.used()), (Err(7), TAGS));
        assert_eq!(tags.take_all().len(), TAGS);
        assert_eq!(tags.used(), 0);
    }
}
