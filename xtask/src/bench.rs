//! `cargo xtask bench`: builds the benchmark harness optimised and hands it the arguments.

use std::process::ExitCode;

use crate::cargo::{cargo, exit_code, root};

/// Runs the harness; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let manifest = std::fs::read_to_string(root().join("bench/Cargo.toml")).unwrap_or_default();
    let mut command = cargo(&["run", "--release", "--package", "memobj-bench"]);
    if has_feature(&manifest, "ours") {
        command.args(["--features", "ours"]);
    }
    exit_code(command.arg("--").args(arguments))
}

/// Whether the manifest's `[features]` table has a key `feature`.
fn has_feature(manifest: &str, feature: &str) -> bool {
    let table = manifest.lines().map(str::trim).skip_while(|line| *line != "[features]").skip(1);
    table
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .any(|(key, _)| key.trim().trim_matches('"') == feature)
}

#[cfg(test)]
mod tests {
    use super::has_feature;

    #[test]
    fn a_feature_is_a_key_of_its_table() {
        let manifest = "[package]\nours = 1\n[features]\n# ours = []\ntheirs = [\"ours\"]\n";
        assert!(!has_feature(manifest, "ours"));
        assert!(has_feature(manifest, "theirs"));
        assert!(has_feature("[features]\nours = [\"dep:memobj\"]\n[dependencies]\n", "ours"));
        assert!(!has_feature("[features]\n[dependencies]\nours = \"1\"\n", "ours"));
        assert!(!has_feature("", "ours"));
    }
}
