//! What cargo says it has built: one JSON object a line.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One binary of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// The package, and the target if it is not the library: `memobj-core`, `memobj-cli run`.
    pub(super) label: String,
    executable: PathBuf,
    /// The folder of the package, where cargo would run it.
    folder: PathBuf,
}

impl Binary {
    /// The binary, to be run as cargo runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// The binaries of tests among cargo's `messages`.
pub(super) fn binaries(messages: &str) -> Vec<Binary> {
    messages.lines().filter_map(binary).collect()
}

fn binary(line: &str) -> Option<Binary> {
    let profile = line.split_once("\"profile\":{")?.1.split_once('}')?.0;
    if !line.contains("\"reason\":\"compiler-artifact\"") || !profile.contains("\"test\":true") {
        return None;
    }
    let manifest = PathBuf::from(text(line, "manifest_path")?);
    let folder = manifest.parent()?.to_owned();
    let (name, executable) = (text(line, "name")?, PathBuf::from(text(line, "executable")?));
    let package = package(&folder);
    let is_library = line.contains("\"kind\":[\"lib\"") || name.replace('_', "-") == package;
    let label = if is_library { package } else { format!("{package} {name}") };
    Some(Binary { label, executable, folder })
}

/// The name of the package in `folder`, from its manifest.
fn package(folder: &Path) -> String {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    name.map_or_else(|| folder.display().to_string(), str::to_owned)
}

/// The first member `name` of the object in `line` whose value is a string.
fn text(line: &str, name: &str) -> Option<String> {
    let rest = line.split_once(&format!("\"{name}\":\""))?.1;
    let mut value = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}
