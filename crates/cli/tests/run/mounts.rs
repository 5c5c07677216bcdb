//! Mounts whose files may not be executed: as natively, the mount of the descriptor that is mapped decides.

use std::path::Path;

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::test_folder::{TestFolder, has};

/// Runs `rest` in a mount namespace in which `here/noexec` shows `here/files` without the right to execute.
fn inside(test_folder: &TestFolder, rest: &str) -> End {
    let mounts = "mount --bind files noexec && mount -o remount,bind,noexec noexec || exit 77";
    run(test_folder.native(&["unshare", "-m", "sh", "-c", &format!("{mounts}; {rest}")]))
}

#[test]
fn files_of_a_noexec_mount_are_not_executable() {
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("executes", Kind::Dynamic)) else {
        return;
    };
    if !has("unshare") {
        return;
    }
    for folder in ["files", "noexec"] {
        std::fs::create_dir(test_folder.path(folder)).expect("a folder");
    }
    test_folder.sample("files/data", 4);
    if inside(&test_folder, "true").code() != 0 {
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
    let native = inside(&test_folder, &format!("sh -c '{script}'"));
    let end = inside(&test_folder, &format!("{memobj} run -- sh -c '{script}'"));
    assert_eq!(native, end);
    assert!(
        native.out.starts_with("executable\nmprotect: Permission denied\nmmap: Operation not permitted\n")
    );
}
