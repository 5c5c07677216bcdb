//! Who a client is, and who may be one.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use memobj_linux::credentials::groups_of_peer;

use rustix::net::sockopt::socket_peercred;

/// The process at the other end, as the kernel saw it when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) process: i32,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

impl Peer {
    pub(crate) fn of(socket: &UnixStream) -> std::io::Result<Self> {
        let credentials = socket_peercred(socket)?;
        Ok(Self {
            process: credentials.pid.as_raw_nonzero().get(),
            user: credentials.uid.as_raw(),
            group: credentials.gid.as_raw(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of user {} and group {}", self.process, self.user, self.group)
    }
}

/// Who may connect: the user of the server, root, and these.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allowed {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Allowed {
    /// The user of the server, and root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// And these users, by their numbers.
    #[must_use]
    pub fn users(mut self, users: impl IntoIterator<Item = u32>) -> Self {
        self.users.extend(users);
        self
    }

    /// And processes that are in one of these groups.
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.groups.extend(groups);
        self
    }

    /// Whether others than the user of the server and root may connect.
    pub fn has_others(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// Whether the process of `user` and `group` may be served that has connected to `socket`.
    pub(crate) fn allows(&self, user: u32, group: u32, socket: impl AsFd) -> bool {
        let own = rustix::process::geteuid().as_raw();
        let is_user = user == 0 || user == own || self.users.contains(&user);
        is_user || self.groups.contains(&group) || self.has_group_of(socket)
    }

    /// Whether the peer is in one of the groups by one that is not its own. What the system does not tell is none.
    fn has_group_of(&self, socket: impl AsFd) -> bool {
        let is_asked = !self.groups.is_empty();
        let further = is_asked.then(|| groups_of_peer(socket).ok()).flatten();
        further.is_some_and(|further| further.iter().any(|group| self.groups.contains(group)))
    }
}
