//! What this machine offers, what is used instead of what is missing, and what would change that.

use memobj_linux::capability::{Capabilities, probe};

/// One facility of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facility {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What is used in its place.
    pub used_instead: Option<&'static str>,
    /// The command that would provide it.
    pub fix: Option<&'static str>,
}

/// How much of a facility is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// All of it.
    Available,
    /// Part of it.
    Degraded,
    /// Nothing.
    Missing,
}

impl Status {
    /// One word: `available`, `degraded` or `missing`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// Tries every facility that the engine can use. Takes a few milliseconds and changes nothing.
pub fn report() -> Vec<Facility> {
    let found = probe();
    vec![
        faults(&found),
        kernel_faults(&found),
        programs(&found),
        simple(
            "io_uring",
            found.io_uring,
            "many reads at once by one thread",
            "reads by up to 16 threads",
            IO_URING_FIX,
        ),
        large_frames(&found),
        large_shared_frames(&found),
        simple(
            "cachestat",
            found.cachestat,
            "tells what the host has cached of files that you may write",
            "files are read around the page cache",
            KERNEL_6_5,
        ),
        simple(
            "PAGEMAP_SCAN",
            found.pagemap_scan,
            "notices frames dropped from outside",
            "frames are taken to be where they were put",
            KERNEL_6_7,
        ),
        limit(
            "mappings",
            found.max_mappings,
            65_530,
            "mapped objects at once; one in each, two where frames are shared",
            MAPPINGS_FIX,
        ),
        limit(
            "open files",
            found.max_files,
            1024,
            "open files at once, three descriptors in each",
            "ulimit -n 65536",
        ),
        Facility {
            name: "memory",
            status: Status::Available,
            detail: format!("{} MiB for this process (machine or memory cgroup)", found.memory_bytes >> 20),
            used_instead: None,
            fix: None,
        },
    ]
}

const IO_URING_FIX: &str =
    "sysctl kernel.io_uring_disabled=0, and allow io_uring_setup in the container's seccomp profile";
const WITHOUT_FAULTS: &str =
    "mappings are pinned and copied (pin, read_at, write_at), and have no address to touch";
const KERNEL_6_5: &str = "a kernel of 6.5 or later";
const KERNEL_6_7: &str = "a kernel of 6.7 or later, with /proc mounted";
const MAPPINGS_FIX: &str = "sysctl vm.max_map_count=1048576";
const FAULTS_FIX: &str = "a kernel of 6.6 or later with CONFIG_USERFAULTFD, and userfaultfd allowed in the container's seccomp profile";
const USER_NAMESPACE_FIX: &str =
    "sysctl user.max_user_namespaces=10000, and allow user namespaces in the container's seccomp profile";
const KERNEL_FAULTS_FIX: &str =
    "setfacl -m u:USER:rw /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE";

fn faults(found: &Capabilities) -> Facility {
    let name = "userfaultfd";
    match &found.userfaultfd {
        Ok(features) if features.poison => Facility {
            name,
            status: Status::Available,
            detail: "demand paging; failed pages trap".into(),
            used_instead: None,
            fix: None,
        },
        Ok(_) => {
            missing(name, "this kernel cannot poison pages (before 6.6)".into(), WITHOUT_FAULTS, FAULTS_FIX)
        }
        Err(error) => missing(name, error.to_string(), WITHOUT_FAULTS, FAULTS_FIX),
    }
}

fn kernel_faults(found: &Capabilities) -> Facility {
    let name = "faults in system calls";
    match &found.userfaultfd {
        Ok(features) if features.kernel_faults => Facility {
            name,
            status: Status::Available,
            detail: "read(2) and write(2) work on mapped memory that is not resident".into(),
            used_instead: None,
            fix: None,
        },
        Err(_) => missing(
            name,
            "no faults at all without userfaultfd".into(),
            "nothing that is not resident can be touched: pin or copy",
            FAULTS_FIX,
        ),
        Ok(_) => Facility {
            status: Status::Degraded,
            ..missing(
                name,
                "not for this user: system calls on pages that are not resident answer EFAULT".into(),
                "faults are resolved in the faulting thread; pin, copy or populate before system calls",
                KERNEL_FAULTS_FIX,
            )
        },
    }
}

fn programs(found: &Capabilities) -> Facility {
    let name = "running programs";
    let instead = "`memobj run --map`: the kernel maps what names lead to, copies of objects among it; `memobj run` without --map \
                   refuses, with status 1";
    match &found.userfaultfd {
        _ if cfg!(not(target_arch = "x86_64")) => {
            let instead = "nothing: `memobj run` refuses, with status 1";
            missing(name, "x86-64 only".into(), instead, "a machine with such processors")
        }
        Ok(features) if features.kernel_faults => Facility {
            name,
            status: Status::Available,
            detail: "`memobj run` serves what any program maps".into(),
            used_instead: None,
            fix: None,
        },
        _ => Facility {
            status: Status::Degraded,
            ..missing(
                name,
                "what programs map is not memobj's: that takes faults in system calls".into(),
                instead,
                "sysctl vm.unprivileged_userfaultfd=1, or setfacl -m u:USER:rw /dev/userfaultfd",
            )
        },
    }
}

fn large_frames(found: &Capabilities) -> Facility {
    let name = "2 MiB frames";
    match &found.large_frames {
        Ok(()) if found.huge_pages.contains("[never]") => Facility {
            status: Status::Degraded,
            ..missing(
                name,
                "frames can be moved, but the kernel gives no huge pages".into(),
                "2 MiB frames made of 4 KiB pages",
                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            )
        },
        Ok(()) => Facility {
            name,
            status: Status::Available,
            detail: "recycled and moved in one step".into(),
            used_instead: None,
            fix: None,
        },
        Err(error) => missing(name, error.to_string(), "4 KiB frames", "a kernel of 6.8 or later"),
    }
}

fn large_shared_frames(found: &Capabilities) -> Facility {
    let name = "shared 2 MiB frames";
    let told = matches!(&found.userfaultfd, Ok(features) if features.minor_faults);
    match &found.large_shared_frames {
        _ if !told => missing(
            name,
            "no minor faults of memory files (before 5.14)".into(),
            "4 KiB frames in memory files",
            FAULTS_FIX,
        ),
        Ok(true) => Facility {
            name,
            status: Status::Available,
            detail: "files of a tmpfs with huge pages, mounted out of sight".into(),
            used_instead: None,
            fix: None,
        },
        Ok(false) => Facility {
            status: Status::Degraded,
            ..missing(
                name,
                "the tmpfs can be had, but the kernel gives no huge pages".into(),
                "2 MiB frames made of 4 KiB pages",
                "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled, if it says deny",
            )
        },
        Err(error) => missing(name, error.to_string(), "4 KiB frames in memory files", USER_NAMESPACE_FIX),
    }
}

fn simple(
    name: &'static str,
    there: bool,
    detail: &str,
    instead: &'static str,
    fix: &'static str,
) -> Facility {
    if there {
        return Facility {
            name,
            status: Status::Available,
            detail: detail.into(),
            used_instead: None,
            fix: None,
        };
    }
    Facility {
        status: Status::Degraded,
        ..missing(name, "not available to this process".into(), instead, fix)
    }
}

fn limit(name: &'static str, found: Option<u64>, wanted: u64, what: &str, fix: &'static str) -> Facility {
    let detail = match found {
        Some(limit) => format!("at most {limit}: {what}"),
        None => format!("no limit: {what}"),
    };
    let enough = found.is_none_or(|limit| limit >= wanted);
    let status = if enough { Status::Available } else { Status::Degraded };
    Facility { name, status, detail, used_instead: None, fix: (!enough).then_some(fix) }
}

fn missing(name: &'static str, detail: String, instead: &'static str, fix: &'static str) -> Facility {
    Facility { name, status: Status::Missing, detail, used_instead: Some(instead), fix: Some(fix) }
}
