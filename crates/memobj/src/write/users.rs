//! Two ways of writing that exclude each other in one object: `&mut` slices, and words that anybody may change.

use std::sync::atomic::{AtomicI64, Ordering};

/// Above zero: so many users of words. Below: so many pins for writing.
#[derive(Debug, Default)]
pub(crate) struct Users(AtomicI64);

/// One user, until dropped.
#[derive(Debug)]
pub(crate) struct User<'a> {
    users: &'a Users,
    step: i64,
}

impl Users {
    pub(crate) fn words(&self) -> Option<User<'_>> {
        self.enter(1)
    }

    pub(crate) fn pin_mut(&self) -> Option<User<'_>> {
        self.enter(-1)
    }

    fn enter(&self, step: i64) -> Option<User<'_>> {
        let next = |count: i64| (count * step >= 0).then_some(count + step);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        Some(User { users: self, step })
    }

    fn leave(&self, step: i64) {
        self.0.fetch_sub(step, Ordering::AcqRel);
    }

    /// For a user that outlives the borrow: it leaves by [`end_pin_mut`](Self::end_pin_mut).
    pub(crate) fn end_pin_mut(&self) {
        self.leave(-1);
    }

    /// As above, for users of words.
    pub(crate) fn end_words(&self) {
        self.leave(1);
    }
}

impl User<'_> {
    /// Leaves the place taken, for [`Users::end_pin_mut`] or [`Users::end_words`] to give back.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.users.leave(self.step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_at_a_time() {
        let users = Users::default();
        let (first, second) = (users.words(), users.words());
        assert!(first.is_some() && second.is_some() && users.pin_mut().is_none());
        drop(first);
        assert!(users.pin_mut().is_none());
        drop(second);
        users.pin_mut().unwrap().keep();
        assert!(users.words().is_none() && users.pin_mut().is_some());
        users.end_pin_mut();
        assert!(users.words().is_some());
    }
}
