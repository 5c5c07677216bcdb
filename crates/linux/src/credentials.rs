//! Who is at the other end of a Unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, pidfd_open};

/// `SO_PEERPIDFD` of Linux 6.5.
const PEER_PROCESS: libc::c_int = 77;
/// `SO_PEERGROUPS` of Linux 4.13.
const PEER_GROUPS: libc::c_int = 59;
/// The most groups of a process (NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

/// The process that has connected.
#[derive(Debug)]
pub struct Peer {
    /// As the kernel counts processes.
    pub pid: i32,
    /// Its user when it connected.
    pub user: u32,
    /// Its group when it connected.
    pub group: u32,
    /// A descriptor of it, which is never of another process with the same number.
    pub process: OwnedFd,
}

/// Who has connected to `socket`. ESRCH: it has ended.
pub fn peer_of(socket: impl AsFd) -> io::Result<Peer> {
    let socket = socket.as_fd();
    let found = socket_peercred(socket)?;
    let process = match process_of_peer(socket.as_raw_fd()) {
        // Before Linux 6.5 the number can have been given to another process by now.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            pidfd_open(found.pid, PidfdFlags::empty())?
        }
        answer => answer?,
    };
    Ok(Peer {
        pid: found.pid.as_raw_nonzero().get(),
        user: found.uid.as_raw(),
        group: found.gid.as_raw(),
        process,
    })
}

fn process_of_peer(socket: i32) -> io::Result<OwnedFd> {
    let mut descriptor: libc::c_int = -1;
    let mut length = size_of_val(&descriptor) as libc::socklen_t;
    // SAFETY: the kernel writes an integer, whose size it is told.
    let answer = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            PEER_PROCESS,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just installed this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Groups that the process at the other end of `socket` had besides its own one when it connected.
pub fn groups_of_peer(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let socket = socket.as_fd();
    // Most have few.
    let mut groups = vec![0u32; 64];
    loop {
        let mut length = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the kernel writes at most as many bytes as it is told that the groups have.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                PEER_GROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer == 0 {
            groups.truncate(length as usize / size_of::<u32>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= MOST_GROUPS {
            return Err(error);
        }
        groups.resize(MOST_GROUPS, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::{groups_of_peer, peer_of};

    #[test]
    fn groups_of_the_other_end_are_those_of_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut found = groups_of_peer(&one).unwrap();
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_ascii_whitespace().map(|group| group.parse().unwrap()).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }

    #[test]
    fn the_other_end_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_of(&one).unwrap();
        assert_eq!(peer.pid as u32, std::process::id());
        assert!(crate::uffd::is_process(&peer.process).unwrap());
    }
}
