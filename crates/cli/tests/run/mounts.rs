//! Mounts whose files may not be executed: as natively, the mount of the descriptor that is mapped decides.

use std::path::Path;

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::room::{Room, has};

/// Runs `rest` in a mount namespace in which `here/noexec` shows `here/files` without the right to execute.
fn inside(room: &Room, rest: &str) -> End {
    let mounts = "mount --bind files noexec && mount -o remount,bind,noexec noexec || exit 77";
    run(room.native(&["unshare", "-m", "sh", "-c", &format!("{mounts}; {rest}")]))
}

#[test]
fn files_of_a_noexec_mount_are_not_executable() {
    let (Some(room), Some(program)) = (Room::new(), program("executes", Kind::Dynamic)) else { return };
    if !has("unshare") {
        return;
    }
    for folder in ["files", "noexec"] {
        std::fs::create_dir(room.path(folder)).expect("a folder");
    }
    room.sample("files/data", 4);
    if inside(&room, "true").code() != 0 {
        println!("skipped: no mount namespace in which a mount is noexec");
        return;
    }
    let program = program.display();
    let memobj = Path::new(env!("CARGO_BIN_EXE_memobj")).display();
    // The file is known from the other mount when it is mapped through this one, and the other way round.
    let script = format!(
        "{program} at-once files/data; {program} later noexec/data; {program} at-once noexec/data; \
         {program} later files/data"
    );
    let native = inside(&room, &format!("sh -c '{script}'"));
    let end = inside(&room, &format!("{memobj} run -- sh -c '{script}'"));
    assert_eq!(native, end);
    assert!(
        native.out.starts_with("executable\nmprotect: Permission denied\nmmap: Operation not permitted\n")
    );
}
