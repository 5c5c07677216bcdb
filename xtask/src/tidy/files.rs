//! The files the rules apply to: what git tracks, and what it would track if added.

use std::path::Path;
use std::process::Command;

/// A text file of the working tree.
#[derive(Debug)]
pub(super) struct TreeFile {
    /// From the workspace's root, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// Reads every text file under `root` that is tracked, or is neither tracked nor ignored.
///
/// The owner check of git is switched off for this one command: the tree may belong to another user.
pub(super) fn read(root: &Path) -> Result<Vec<TreeFile>, String> {
    let owner = format!("safe.directory={}", root.display());
    let output = Command::new("git")
        .args(["-c", &owner, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("run git ls-files: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let listing = String::from_utf8(output.stdout).map_err(|_| "a file name is not UTF-8".to_string())?;
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    Ok(paths.filter_map(|path| read_text(root, path)).collect())
}

/// The file at `path` if it is there (a tracked file may be deleted) and is text. Links to files of the tree are left out:
/// the rules apply to these where they are.
fn read_text(root: &Path, path: &str) -> Option<TreeFile> {
    if root.join(path).is_symlink() {
        return None;
    }
    let text = String::from_utf8(std::fs::read(root.join(path)).ok()?).ok()?;
    let is_text = !text.contains('\0');
    is_text.then(|| TreeFile { path: path.to_string(), text })
}
