//! Folders of objects.

use crate::command::{python, run};

const FOLDER: &str =
    "/d=dir:a=100000,seed=1;sub/b=5000,seed=2;sub/deep/c=0;refused=100,kind=refused;other=3,seed=9";

#[test]
fn folders_are_listed_and_looked_up() {
    let script = "cd / && find /d -printf '%p %s %y\\n' | sort; wc -c < /d/sub/deep/c; cksum < /d/../d/./sub/b; \
        cat /d/nothing /d/a/x 2>&1; cat /d/refused 2>/dev/null || echo no; ls /d/sub";
    let Some(end) = run(&["--map", FOLDER], &["bash", "-c", script]) else { return };
    let found = "/d 0 d\n/d/a 100000 f\n/d/other 3 f\n/d/refused 100 f\n/d/sub 0 d\n/d/sub/b 5000 f\n/d/sub/deep 0 d\n\
        /d/sub/deep/c 0 f\n0\n";
    assert!(end.code == Some(0) && end.out.starts_with(found), "{end:#?}");
    for part in
        ["cat: /d/nothing: No such file or directory", "cat: /d/a/x: Not a directory", "no\n", "b\ndeep\n"]
    {
        assert!(end.out.contains(part), "{part}: {end:#?}");
    }
    assert!(end.err.contains("synthetic:/refused: permission denied"), "{end:#?}");
}

/// By a descriptor of a folder, names are the kernel's own business.
#[test]
fn names_relative_to_an_open_folder() {
    let Some(end) = python(
        &["--map", FOLDER],
        r"
folder = os.open('/d/sub', os.O_RDONLY | os.O_DIRECTORY)
assert os.readlink('/proc/self/fd/%d' % folder) == '/d/sub'
fd = os.open('b', os.O_RDONLY, dir_fd=folder)
assert os.read(fd, 9999) == data(0, 5000, 2)
assert sorted(os.listdir(folder)) == ['b', 'deep']
up = os.open('../a', os.O_RDONLY, dir_fd=folder)
assert os.pread(up, 50, 99990) == data(99990, 100000, 1)
assert os.stat('/d/a').st_ino == os.fstat(up).st_ino
print('right')
",
    ) else {
        return;
    };
    end.says("right\n");
}

#[test]
fn a_folder_of_many_names() {
    let names: Vec<_> = (0..3000).map(|number| format!("object-number-{number}={number}")).collect();
    let map = format!("/d=dir:{}", names.join(";"));
    let Some(end) = run(&["--map", &map], &["sh", "-c", "ls /d | wc -l; stat -c %s /d/object-number-2999"])
    else {
        return;
    };
    end.says("3000\n2999\n");
}

/// The longest mapped name decides, as among local ones.
#[test]
fn a_name_in_a_mapped_folder_can_be_mapped() {
    let maps = ["--map", FOLDER, "--map", "/d/sub/b=7,seed=4", "--map", "/d/x/y/z=8"];
    let Some(end) = run(&maps, &["stat", "-c", "%n %s", "/d/sub/b", "/d/x/y/z", "/d/a"]) else { return };
    end.says("/d/sub/b 7\n/d/x/y/z 8\n/d/a 100000\n");
}
