//! `cargo xtask bench`: builds the benchmark harness optimised and hands it the arguments.
//!
//! Its databases are built for `write` only, which compares with them: SQLite takes a minute to compile. `index` needs
//! redb alone, and `network` the client of object stores. For `run` and `network` the command is built too, which they
//! run.

use std::process::ExitCode;

use crate::cargo::{cargo, exit_code, root};

/// Runs the harness; its exit status is ours.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    if wants_command(arguments) {
        let built = exit_code(&mut cargo(&["build", "--release", "--package", "memobj-cli"]));
        if built != ExitCode::SUCCESS {
            return built;
        }
    }
    let manifest = std::fs::read_to_string(root().join("bench/Cargo.toml")).unwrap_or_default();
    let mut command = cargo(&["run", "--release", "--package", "memobj-bench"]);
    for feature in wanted_features(arguments).iter().filter(|feature| has_feature(&manifest, feature)) {
        command.args(["--features", feature]);
    }
    exit_code(command.arg("--").args(arguments))
}

/// Whether the harness runs the command `memobj` of this workspace: for `run`, `network`, `machines` and `clients`, unless another one is named.
fn wants_command(arguments: &[String]) -> bool {
    let spares = |argument: &String| {
        matches!(argument.as_str(), "--memobj" | "--help" | "-h") || argument.starts_with("--memobj=")
    };
    arguments
        .first()
        .is_some_and(|command| matches!(command.as_str(), "run" | "network" | "machines" | "clients"))
        && !arguments.iter().any(spares)
}

/// The features of the harness that its command, the first argument, needs.
fn wanted_features(arguments: &[String]) -> &'static [&'static str] {
    match arguments.first().map(String::as_str) {
        Some("write") => &["ours", "databases"],
        Some("index") => &["ours", "redb"],
        Some("clients") => &["ours", "clients"],
        Some("network" | "machines") => &["ours", "network"],
        _ => &["ours"],
    }
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
    use super::{has_feature, wanted_features, wants_command};

    #[test]
    fn the_command_is_built_for_run_only() {
        let wants = |words: &str| wants_command(&words.split(' ').map(str::to_string).collect::<Vec<_>>());
        assert!(
            wants("run")
                && wants("run --reps 3")
                && wants("network")
                && wants("machines")
                && wants("clients")
        );
        for words in ["read", "run --help", "run --memobj x", "run --memobj=x", ""] {
            assert!(!wants(words), "{words}");
        }
    }

    #[test]
    fn databases_are_built_for_write_only() {
        let wanted = |command: &str| wanted_features(&[command.to_string(), "--quick".to_string()]);
        assert_eq!(wanted("write"), ["ours", "databases"]);
        assert_eq!(wanted("index"), ["ours", "redb"]);
        assert_eq!(wanted("network"), ["ours", "network"]);
        assert_eq!(wanted("machines"), ["ours", "network"]);
        assert_eq!(wanted("clients"), ["ours", "clients"]);
        assert_eq!(wanted("read"), ["ours"]);
        assert_eq!(wanted_features(&[]), ["ours"]);
    }

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
