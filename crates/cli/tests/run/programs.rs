//! Programs of the machine, and programs of every format: as in a native run.

use std::process::Command;

use crate::build::{Kind, program};
use crate::test_folder::{TestFolder, has};

#[test]
fn a_folder_is_listed() {
    let Some(test_folder) = TestFolder::new() else { return };
    for folder in ["deep/er", "b"] {
        std::fs::create_dir_all(test_folder.path(folder)).expect("a folder");
        (0..200).for_each(|at| {
            drop(std::fs::write(test_folder.path(&format!("{folder}/file {at}")), vec![b'x'; at]))
        });
    }
    let end = test_folder
        .same_script("ls -lR && ls -lR /usr/share/doc | head -2000 | cksum && ls --color=always -F /usr");
    assert!(end.out.contains("deep/er") && end.out.lines().count() > 400, "{end:?}");
    assert_eq!(test_folder.same(&["ls", "/no/such/folder"]).code(), 2);
}

#[test]
fn bash_with_pipes_subshells_and_traps() {
    let Some(test_folder) = TestFolder::new() else { return };
    let script = r#"
        trap 'echo leaving $?' EXIT
        trap 'echo told' USR1
        seq 1 2000 | grep 7 | sort -rn | head -3
        (cd / && pwd; exit 3); echo "status $?"
        diff <(seq 1 5) <(seq 2 6)
        echo "pipes ${PIPESTATUS[@]}"; false | true | false; echo "pipes ${PIPESTATUS[@]}"
        for i in $(seq 1 30); do /bin/echo -n "$i "; done; echo
        kill -USR1 $$; (kill -USR1 $$); { (kill -9 $BASHPID); } 2>/dev/null; echo "killed $?"
        sleep 0.01 & wait $!; echo "waited $?"
        cat <<< "here $(echo nested $(echo deeper))"
        set -e; true; exec 3>&1; echo three >&3
        yes | head -1
        exit 5
    "#;
    let end = test_folder.same(&["bash", "-c", script]);
    assert_eq!(end.code(), 5);
    assert!(end.out.ends_with("y\nleaving 5\n"), "{end:?}");
    assert_eq!(test_folder.same(&["bash", "-c", "kill -SEGV $$"]).signal(), Some(11));
    assert_eq!(test_folder.same(&["dash", "-c", "kill -TERM $$"]).signal(), Some(15));
}

#[test]
fn python_with_json_subprocess_and_threading() {
    if !has("python3") {
        return;
    }
    let Some(test_folder) = TestFolder::new() else { return };
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    // Not through a script that chooses a version, which is slow.
    let python = String::from_utf8(found.expect("python3 runs").stdout).expect("a path").trim().to_string();
    let script = r#"
import json, subprocess, threading, sys, zlib, hashlib, mmap, multiprocessing
total = []
def work(n):
    total.append(sum(json.loads(json.dumps(list(range(n))))))
threads = [threading.Thread(target=work, args=(n,)) for n in range(200, 220)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(total)[-1], subprocess.run(["echo", "sub"], capture_output=True).stdout)
print(hashlib.sha256(zlib.compress(b"x" * 10000)).hexdigest())
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, range(-3, 0)))
with open(sys.argv[1], "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
    print(len(m), hashlib.sha256(m).hexdigest())
sys.exit(9)
"#;
    let sample = test_folder.sample("sample", 40);
    let end = test_folder.same(&[python.as_str(), "-c", script, sample.to_str().expect("text")]);
    assert_eq!((end.code(), end.err.as_str()), (9, ""));
    let numpy = test_folder.same(&[python.as_str(), "-c", "import numpy; print(numpy.arange(10).sum())"]);
    if numpy.code() != 0 {
        println!("skipped: python3 has no numpy");
    }
}

#[test]
fn a_compiler_and_make() {
    if !has("gcc") || !has("make") {
        return;
    }
    let Some(test_folder) = TestFolder::new() else { return };
    for name in ["one", "two", "three"] {
        test_folder.file(
            &format!("{name}.c"),
            format!("#include <stdio.h>\nint {name}(void) {{ return puts(\"{name}\"); }}\n"),
        );
    }
    test_folder.file(
        "main.c",
        "int one(void), two(void), three(void);\nint main(void) { one(); two(); three(); return 0; }\n",
    );
    test_folder.file(
        "Makefile",
        "all: main.o one.o two.o three.o\n\tgcc -o all $^\n%.o: %.c\n\tgcc -g -O1 -c -o $@ $<\n",
    );
    let end = test_folder.same_script("make -s -B -j2 all && ./all && cksum all *.o");
    assert!(end.out.starts_with("one\ntwo\nthree\n"), "{end:?}");
    test_folder.file("wrong.c", "int main(void) { return nothing; }\n");
    assert_eq!(test_folder.same(&["gcc", "-c", "wrong.c"]).code(), 1);
}

#[test]
fn git_perl_sqlite_and_node() {
    let Some(test_folder) = TestFolder::new() else { return };
    if has("git") {
        let made = "git init -q repository && cd repository && seq 1 100 | split -l 1 - part && git add . && \
            git -c user.name=a -c user.email=a@b commit -q -m first && echo changed > partaa && rm partab && echo > new";
        test_folder.native(&["sh", "-c", made]).status().expect("git runs");
        let end = test_folder.same_script("cd repository && git status --short && git diff --stat && git log --format=%s && git gc -q && git fsck --full --no-progress && git grep -c 42");
        assert!(end.out.contains(" M partaa"), "{end:?}");
    }
    if has("perl") {
        test_folder.same(&[
            "perl",
            "-MPOSIX",
            "-MData::Dumper",
            "-e",
            "print Dumper([map { $_ * 2 } 1..5]); print floor(2.5), qx(echo sub); exit 4",
        ]);
    }
    if has("sqlite3") {
        let script = "rm -f test.db; sqlite3 test.db 'create table t(a, b); with recursive n(i) as (select 1 union all \
            select i + 1 from n where i < 20000) insert into t select i, i * i from n; create index x on t(b)'; \
            sqlite3 test.db 'pragma mmap_size=100000000; select count(*), sum(a), max(b) from t where b > 1000; \
            update t set b = 1 where a < 100; select sum(b) from t; pragma integrity_check'; cksum test.db";
        assert!(test_folder.same_script(script).out.contains("\nok\n"));
    }
    if has("node") {
        let script = "const c = require('child_process'); setTimeout(() => console.log(JSON.stringify({a: [1, 2], \
            sub: c.execSync('echo sub').toString(), hash: require('crypto').createHash('sha256').update('x').digest('hex')})), 5)";
        test_folder.same(&["node", "-e", script]).succeeded("node");
    }
}

#[test]
fn programs_of_every_format() {
    let Some(test_folder) = TestFolder::new() else { return };
    let kinds =
        [Kind::Dynamic, Kind::FixedAddress, Kind::Static, Kind::StaticAnywhere, Kind::Musl, Kind::MuslStatic];
    for kind in kinds {
        let Some(hello) = program("hello", kind) else { continue };
        let hello = hello.to_str().expect("text");
        let end = test_folder.same(&[hello, "a", "b c"]);
        assert_eq!((end.code(), end.err.as_str()), (3, ""), "{kind:?}");
        assert!(
            end.out.starts_with("a\nb c\n") && end.out.ends_with(&format!(" {hello}\n")),
            "{kind:?}: {end:?}"
        );
    }
}

#[test]
fn a_library_is_loaded_by_64_threads() {
    let Some(test_folder) = TestFolder::new() else { return };
    let (Some(plugin), Some(loader)) = (program("plugin", Kind::Library), program("dlopens", Kind::Dynamic))
    else {
        return;
    };
    for at in 0..16 {
        std::fs::copy(&plugin, test_folder.path(&format!("plugin{at}.so"))).expect("a copy");
    }
    let end = test_folder.same(&[loader.as_path(), test_folder.path("").as_path()]).succeeded("dlopen");
    assert_eq!(end.out, format!("{}\n", 64 * 3 * 142));
}
