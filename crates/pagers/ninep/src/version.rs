//! Which version of the file the bytes are of.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::attributes::Attributes;
use crate::options::VersionCheck;

/// How long ago a file was changed for the last time whose version has a name.
const SETTLED_SECONDS: u64 = 10;

/// The version that was opened, and what this client changes of it.
///
/// A change of our own moves the time of the last change, and we do not know to what. So a time can be compared only with
/// one that was asked for with no change of ours in between; the first after a change of ours is taken as it is. A change
/// by others that falls between two changes of ours is therefore not seen.
#[derive(Debug)]
pub(crate) struct Version {
    check: VersionCheck,
    opened: Attributes,
    /// Changes of ours that were sent so far, and how many of them were when `opened` was asked for.
    changes: u64,
    changes_seen: u64,
    under_way: u64,
    /// The length before ours, until ours is durable: a server that restarts may have that again.
    length_before: Option<u64>,
}

/// When attributes were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    changes: u64,
    under_way: u64,
}

/// The file is another version than that which was opened; says what of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Changed(pub(crate) String);

impl Version {
    pub(crate) fn new(check: VersionCheck, opened: Attributes) -> Self {
        Self { check, opened, changes: 0, changes_seen: 0, under_way: 0, length_before: None }
    }

    /// The length of the file.
    pub(crate) fn length(&self) -> u64 {
        self.opened.length
    }

    /// A name of the version, for those who keep its bytes: `None` if another version could have the same one. That is so
    /// where versions are not compared, and of a file that was changed so shortly before `now` that the next change could have
    /// the same time: times of servers have grains of up to two seconds, and their clocks differ.
    pub(crate) fn name(&self, now: SystemTime) -> Option<String> {
        let Attributes { qid, length, mtime_seconds, mtime_nanoseconds, data_version, .. } = self.opened;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.check == VersionCheck::None || mtime_seconds.saturating_add(SETTLED_SECONDS) > now {
            return None;
        }
        let (path, version) = (qid.path, qid.version);
        Some(format!(
            "{path:x}.{version:x}-{length:x}-{mtime_seconds}.{mtime_nanoseconds:09}-{data_version:x}"
        ))
    }

    /// A change of ours is sent.
    pub(crate) fn change_sent(&mut self) {
        self.changes += 1;
        self.under_way += 1;
    }

    /// It was answered.
    pub(crate) fn change_answered(&mut self) {
        self.changes += 1;
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The connection ended: no change of ours is under way any more, and what became of those that were is not known.
    pub(crate) fn connection_lost(&mut self) {
        if self.under_way > 0 {
            self.changes += 1;
            self.under_way = 0;
        }
    }

    /// Our change of the length was done. It is not durable yet.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.length_before.get_or_insert(self.opened.length);
        self.opened.length = length;
    }

    /// What was done is durable.
    pub(crate) fn synced(&mut self) {
        self.length_before = None;
    }

    /// Attributes are asked for now.
    pub(crate) fn asked(&self) -> Asked {
        Asked { changes: self.changes, under_way: self.under_way }
    }

    /// Compares what the server answered. `asked` is when.
    pub(crate) fn compare(&mut self, now: &Attributes, asked: Asked) -> Result<(), Changed> {
        if self.check == VersionCheck::None {
            return Ok(());
        }
        let settled = asked.under_way == 0 && asked.changes == self.changes;
        let differs = self.difference(now, settled, settled && asked.changes == self.changes_seen);
        if differs.is_ok() && settled {
            self.opened = *now;
            self.changes_seen = self.changes;
        }
        differs
    }

    /// Compares what a new connection found. `length_change` is a length of ours that the file may have got.
    pub(crate) fn compare_anew(
        &mut self,
        now: &Attributes,
        length_change: Option<u64>,
    ) -> Result<(), Changed> {
        let is_ours = [length_change, self.length_before].contains(&Some(now.length));
        if is_ours && now.length != self.opened.length {
            self.changes += 1;
            self.opened.length = now.length;
        }
        match self.check {
            VersionCheck::None if now.length == self.opened.length => Ok(()),
            VersionCheck::None => self.difference(now, true, false),
            VersionCheck::Mtime | VersionCheck::Strict => self.compare(now, self.asked()),
        }
    }

    fn difference(&self, now: &Attributes, with_length: bool, with_time: bool) -> Result<(), Changed> {
        let was = &self.opened;
        let time = |at: &Attributes| (at.mtime_seconds, at.mtime_nanoseconds);
        let what = if self.check != VersionCheck::None && was.qid.path != now.qid.path {
            format!("its qid was {:#x} and is {:#x}", was.qid.path, now.qid.path)
        } else if with_length && was.length != now.length {
            format!("it had {} bytes and has {}", was.length, now.length)
        } else if with_time && time(was) != time(now) {
            let ((was, was_ns), (now, now_ns)) = (time(was), time(now));
            format!("it was last changed at {was}.{was_ns:09} and is at {now}.{now_ns:09}")
        } else if with_time && (was.qid.version, was.data_version) != (now.qid.version, now.data_version) {
            "its server counts another version".into()
        } else {
            return Ok(());
        };
        Err(Changed(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Qid;

    fn at(mtime_seconds: u64, length: u64) -> Attributes {
        Attributes { qid: Qid::default(), length, mtime_seconds, ..Attributes::default() }
    }

    #[test]
    fn a_time_is_compared_unless_we_changed_the_file() {
        let mut version = Version::new(VersionCheck::Mtime, at(1, 10));
        let asked = version.asked();
        assert!(version.compare(&at(1, 10), asked).is_ok());
        assert!(version.compare(&at(2, 10), asked).is_err());
        assert!(version.compare(&at(1, 11), asked).is_err());
        // Ours.
        version.change_sent();
        let within = version.asked();
        assert!(version.compare(&at(2, 11), within).is_ok());
        version.change_answered();
        assert!(version.compare(&at(2, 11), within).is_ok(), "asked for before it was answered");
        let after = version.asked();
        assert!(version.compare(&at(3, 11), after).is_err(), "the length");
        assert!(version.compare(&at(3, 10), after).is_ok(), "taken");
        assert!(version.compare(&at(4, 10), version.asked()).is_err());
    }

    #[test]
    fn a_version_has_a_name_once_its_time_is_over() {
        let now = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let version = Version::new(VersionCheck::Strict, at(1000, 10));
        for (seconds, has_name) in [(0, false), (999, false), (1000, false), (1009, false), (1010, true)] {
            assert_eq!(version.name(now(seconds)).is_some(), has_name, "{seconds}");
        }
        assert_eq!(Version::new(VersionCheck::None, at(1000, 10)).name(now(2000)), None);
        let other = Version::new(VersionCheck::Strict, at(1000, 11));
        assert_ne!(version.name(now(2000)), other.name(now(2000)));
    }

    #[test]
    fn none_compares_the_length_of_a_new_connection_only() {
        let mut version = Version::new(VersionCheck::None, at(1, 10));
        assert!(version.compare(&at(2, 11), version.asked()).is_ok());
        assert!(version.compare_anew(&at(2, 10), None).is_ok());
        assert!(version.compare_anew(&at(2, 11), None).is_err());
        assert!(version.compare_anew(&at(2, 11), Some(11)).is_ok());
        assert_eq!(version.length(), 11);
        version.set_length(12);
        assert!(version.compare_anew(&at(2, 11), None).is_ok(), "not durable");
        version.set_length(12);
        version.synced();
        assert!(version.compare_anew(&at(2, 11), None).is_err(), "durable");
    }

    #[test]
    fn a_qid_of_another_file_is_always_a_change() {
        let mut version = Version::new(VersionCheck::Strict, at(1, 10));
        version.change_sent();
        let mut other = at(1, 10);
        other.qid.path = 7;
        assert!(version.compare(&other, version.asked()).is_err());
    }
}
