//! Where objects cannot be read on demand, they are copied first.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::command::{binary, run};

const SCRIPT: &str = "stat -c '%s %A' /data/m; cksum < /data/m; (echo x > /data/m) 2>&1; cksum < /dd/sub/b; \
    (echo x > /dd/new) 2>&1; truncate -s 1 /data/m 2>&1; find /dd | sort";

#[test]
fn copies_have_the_same_bytes_and_cannot_be_changed() {
    let maps = ["--map", "/data/m=3000003,seed=5", "--map", "/dd=dir:a=100000,seed=1;sub/b=50000,seed=2"];
    let Some(demand) = run(&maps, &["bash", "-c", SCRIPT]) else { return };
    let with = [&["--copies", "--progress"], &maps[..]].concat();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = crate::command::command(&with, &["bash", "-c", SCRIPT]).expect("it was there");
    let copied = crate::command::wait(command.env("TMPDIR", folder.path()).spawn().expect("it starts"));
    assert_eq!((demand.code, &demand.out), (copied.code, &copied.out), "{demand:#?} {copied:#?}");
    assert_eq!(demand.out.matches("Read-only file system").count(), 3, "{demand:#?}");
    assert!(copied.err.contains("synthetic:3000003,seed=5: 3000003 of 3000003\n"), "{copied:#?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "copies are left");
}

#[test]
fn what_has_no_room_is_refused() {
    let Some(end) = run(&["--copies", "--map", "/m=3000000003"], &["true"]) else { return };
    assert_eq!((end.code, end.out.is_empty()), (Some(1), true), "{end:#?}");
    for part in ["synthetic:3000000003 has 3000000003 bytes", "budget of 268435456 bytes"] {
        assert!(end.err.contains(part), "{end:#?}");
    }
}

/// A user without privileges, who may be told of faults all the same.
#[test]
fn an_ordinary_user_gets_copies() {
    let is_root = rustix::process::geteuid().is_root();
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("map_objects");
    std::fs::copy(binary(), &copy).expect("a copy");
    for path in [folder.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let script = format!(
        "n=$(stat -c '%Hr %Lr' /dev/userfaultfd) && mknod {0}/device c $n && chmod 666 {0}/device && \
         mount --bind {0}/device /dev/userfaultfd || exit 77; \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all -- \
         {0}/map_objects --map /data/m=3000003,seed=5 -- cksum /data/m",
        folder.path().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).env("TMPDIR", "/tmp").output();
    let Some(output) = output.ok().filter(|output| is_root && output.status.code() != Some(77)) else {
        println!("skipped: only root can arrange for such a user, with unshare(1) and setpriv(1)");
        return;
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let Some(expected) = run(&["--map", "/data/m=3000003,seed=5"], &["cksum", "/data/m"]) else { return };
    assert_eq!((output.status.code(), &*out), (Some(0), &expected.out[..]), "{err}");
    let is_told = err.lines().count() == 1 && err.contains("objects are copied before the program starts: ");
    assert!(is_told, "{err}");
}
