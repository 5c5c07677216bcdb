//! Two ways of writing that exclude each other in one object: `&mut` slices, and words that anybody may change.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Above zero: so many users of words. Below: so many pins for writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Users(Arc<AtomicI64>);

/// One user, until dropped.
#[derive(Debug)]
pub(crate) struct User {
    users: Users,
    step: i64,
}

impl Users {
    pub(crate) fn words(&self) -> Option<User> {
        self.enter(1)
    }

    pub(crate) fn pin_mut(&self) -> Option<User> {
        self.enter(-1)
    }

    fn enter(&self, step: i64) -> Option<User> {
        let next = |count: i64| (count * step >= 0).then_some(count + step);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        Some(User { users: self.clone(), step })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.users.0.fetch_sub(self.step, Ordering::AcqRel);
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
        let pin = users.pin_mut();
        assert!(pin.is_some() && users.words().is_none() && users.pin_mut().is_some());
        drop(pin);
        assert!(users.words().is_some());
    }
}
