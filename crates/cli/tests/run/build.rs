//! The C programs of these tests, compiled when they are first asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// How a program is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Position-independent, with shared libraries.
    Dynamic,
    /// At a fixed address, with shared libraries.
    FixedAddress,
    /// At a fixed address, alone.
    Static,
    /// Position-independent, alone.
    StaticAnywhere,
    /// A shared library.
    Library,
    /// With the shared library of musl.
    Musl,
    /// With musl, alone.
    MuslStatic,
}

impl Kind {
    fn compiler(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Kind::Dynamic => ("cc", &["-pie", "-fPIE"]),
            Kind::FixedAddress => ("cc", &["-no-pie", "-fno-pie"]),
            Kind::Static => ("cc", &["-static", "-no-pie", "-fno-pie"]),
            Kind::StaticAnywhere => ("cc", &["-static-pie", "-fPIE"]),
            Kind::Library => ("cc", &["-shared", "-fPIC"]),
            Kind::Musl => ("musl-gcc", &[]),
            Kind::MuslStatic => ("musl-gcc", &["-static"]),
        }
    }
}

type Known = Mutex<HashMap<(&'static str, Kind), Option<PathBuf>>>;

/// The program of source `name`; `None`, and the reason printed, if there is no compiler for its kind.
pub fn program(name: &'static str, kind: Kind) -> Option<PathBuf> {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((name, kind)).or_insert_with(|| compile(name, kind)).clone()
}

fn compile(name: &str, kind: Kind) -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/sources");
    let source = sources.join(format!("{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    std::fs::create_dir_all(&folder).expect("a folder for programs");
    let program = folder.join(format!("{name}-{kind:?}"));
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let newest =
        [&source, &sources.join("sample.h")].map(|path| modified(path).expect("a source")).into_iter().max();
    if modified(&program).is_ok_and(|built| built > newest.unwrap_or(SystemTime::now())) {
        return Some(program);
    }
    let (compiler, flags) = kind.compiler();
    let fresh = folder.join(format!("{name}-{kind:?}-{}", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(["-O1", "-g", "-Wall", "-Werror", "-pthread", "-o"]).arg(&fresh).args(flags).arg(&source);
    let output = match command.arg("-ldl").output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: {name}, {kind:?}: {compiler}: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("cannot find -l") {
        println!("skipped: {name}, {kind:?}: no static libraries");
        return None;
    }
    assert!(output.status.success(), "{command:?}: {said}");
    std::fs::rename(&fresh, &program).expect("the program moves");
    Some(program)
}
