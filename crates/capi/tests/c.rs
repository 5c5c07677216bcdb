//! The library as C programs see it.

use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(FOLDER).join(name)).expect("a file of this crate")
}

/// Runs `command`; `None`, and it says why, if that cannot be had.
fn run(command: &mut Command) -> Option<String> {
    let name = format!("{:?}", command.get_program());
    let ran = match command.output() {
        Ok(ran) => ran,
        Err(error) => {
            println!("skipped: {name}: {error}");
            return None;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}: {}\n{out}{err}", ran.status);
    Some(out.into_owned())
}

/// The library, which cargo has built beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("libmemobj_capi.a")).find(|path| path.exists());
    found.expect("libmemobj_capi.a beside this test")
}

#[test]
fn a_c_program_maps_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("mmapobj");
    let source = Path::new(FOLDER).join("tests/mmapobj.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-I"]);
    compiler.arg(Path::new(FOLDER).join("include")).arg("-o").arg(&program).arg(source).arg(library());
    compiler.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]);
    if run(&mut compiler).is_none() {
        return;
    }
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("one.c"), "int main(void) { return 0; }\n").expect("a source");
    std::fs::write(at("text"), "some text\n".repeat(20)).expect("a text");
    std::fs::write(at("empty"), "").expect("a file");
    let build = |arguments: &[&str], output: &str| {
        run(Command::new("cc").args(arguments).arg("-o").arg(at(output)).arg(at("one.c")));
    };
    // Low addresses are those of programs, also of the one that calls: this one is linked further up.
    build(&["-no-pie", "-Wl,-Ttext-segment=0x10000000"], "fixed");
    build(&["-c"], "object");
    let out = run(Command::new("timeout").arg("600").arg(&program).arg("/bin/ls").current_dir(folder.path()));
    println!("{}", out.unwrap_or_default());
}

/// The header says what the library does: it is checked in, and this is what keeps it current.
#[test]
fn the_header_has_the_numbers_of_the_library() {
    let header = read("include/memobj.h");
    let value = |name: &str| {
        let line = header.lines().find(|line| line.starts_with(&format!("#define {name} "))).expect(name);
        let text = line.split_whitespace().nth(2).expect("a value");
        let hex = text.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16));
        hex.unwrap_or_else(|| text.parse()).expect("a number")
    };
    for (name, number) in [
        ("MMOBJ_PADDING", memobj_capi::MMOBJ_PADDING),
        ("MMOBJ_INTERPRET", memobj_capi::MMOBJ_INTERPRET),
        ("MMOBJ_ALL_FLAGS", memobj_capi::MMOBJ_ALL_FLAGS),
        ("MR_PADDING", memobj_capi::MR_PADDING),
        ("MR_HDR_ELF", memobj_capi::MR_HDR_ELF),
        ("MR_HDR_AOUT", memobj_capi::MR_HDR_AOUT),
        ("MR_TYPE_MASK", memobj_capi::MR_TYPE_MASK),
    ] {
        assert_eq!(value(name), number, "{name}");
    }
    assert!(header.contains(
        "int mmapobj(int fd, unsigned flags, mmapobj_result_t *storage, unsigned *elements, void *arg);"
    ));
}

#[test]
fn pkg_config_reads_the_file() {
    let text = read("memobj.pc.in");
    assert!(text.contains(&format!("\nVersion: {}\n", env!("CARGO_PKG_VERSION"))), "another version");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("memobj.pc");
    std::fs::write(&path, text.replace("@PREFIX@", "/opt/memobj")).expect("a file");
    let out = run(Command::new("pkg-config").args(["--cflags", "--libs"]).arg(&path));
    if let Some(out) = out {
        assert_eq!(out.trim(), "-I/opt/memobj/include -L/opt/memobj/lib -lmemobj_capi");
    }
}
