//! The programs that are measured.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

/// A program by its name in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProgramName {
    /// true(1).
    True,
    /// ls(1).
    Ls,
    /// A hundred processes.
    Echo,
    /// An interpreter that imports.
    Json,
    /// A compiler, with the programs that it starts.
    Compile,
}

impl ProgramName {
    /// All, in the order of their tables.
    pub const ALL: [ProgramName; 5] =
        [ProgramName::True, ProgramName::Ls, ProgramName::Echo, ProgramName::Json, ProgramName::Compile];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            ProgramName::True => "true",
            ProgramName::Ls => "ls",
            ProgramName::Echo => "echo",
            ProgramName::Json => "json",
            ProgramName::Compile => "compile",
        }
    }

    /// How often it runs in one repetition: programs that take less than a millisecond vary more.
    pub fn turns(self) -> u32 {
        match self {
            ProgramName::True | ProgramName::Ls => 5,
            _ => 1,
        }
    }

    /// The ratio to the native program that is to be reached, page cache warm.
    pub fn required_ratio(self) -> f64 {
        match self {
            ProgramName::True | ProgramName::Ls => 2.6,
            ProgramName::Echo => 2.0,
            ProgramName::Json => 1.15,
            ProgramName::Compile => 1.5,
        }
    }

    /// The same for a run that borrows the frames of a server.
    pub fn required_ratio_via(self) -> f64 {
        match self {
            ProgramName::True | ProgramName::Ls => 2.0,
            ProgramName::Echo => 1.8,
            ProgramName::Json => 1.1,
            ProgramName::Compile => 1.2,
        }
    }

    /// The program and its arguments, with what it needs in `directory`, where it will run.
    ///
    /// # Errors
    ///
    /// What is missing on this machine.
    pub fn command(self, directory: &Path) -> Result<Vec<OsString>, String> {
        let with = |program: &str, arguments: &[&str]| {
            let program = found(program)?.into_os_string();
            Ok([program].into_iter().chain(arguments.iter().map(OsString::from)).collect())
        };
        match self {
            ProgramName::True => with("true", &[]),
            ProgramName::Ls => {
                files(&directory.join("files")).map_err(|error| format!("files for ls: {error}"))?;
                with("ls", &["files"])
            }
            ProgramName::Echo => {
                let echo = Path::new("/bin/echo");
                echo.is_file().then_some(()).ok_or("no /bin/echo")?;
                with("bash", &["-c", "for i in {1..100}; do /bin/echo $i; done"])
            }
            ProgramName::Json => {
                Ok(vec![python()?, "-c".into(), "import json; print(json.dumps([1, 2]))".into()])
            }
            ProgramName::Compile => {
                fs::write(directory.join("program.c"), SOURCE)
                    .map_err(|error| format!("program.c: {error}"))?;
                with("gcc", &["-O2", "-o", "program", "program.c"])
            }
        }
    }
}

/// What is compiled: small, but with headers.
const SOURCE: &str = "\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int main(int argc, char **argv) {
    qsort(argv + 1, argc - 1, sizeof *argv, compare);
    for (int i = 1; i < argc; i++) printf(\"%s\\n\", argv[i]);
    return 0;
}
";

fn files(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    (0..20).try_for_each(|number| fs::write(directory.join(format!("file{number}")), ""))
}

/// Where the program is in the search path.
fn found(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join(program)).collect();
    places.into_iter().find(|place| place.is_file()).ok_or_else(|| format!("no {program}"))
}

/// The interpreter itself: in the search path there may be a script that chooses one, which would be measured too.
fn python() -> Result<OsString, String> {
    let asked = Command::new(found("python3")?).args(["-c", "import sys; print(sys.executable)"]).output();
    let output = asked.map_err(|error| format!("python3: {error}"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_string();
    match output.status.success() && Path::new(&path).is_file() {
        true => Ok(path.into()),
        false => Err("python3 does not say where it is".into()),
    }
}
