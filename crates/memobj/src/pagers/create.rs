//! New files.

use std::fs::{File, Permissions, remove_file};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use memobj_linux::file::{is_named, set_length, sync_folder, try_lock};

use crate::error::OpenError;
use crate::options::Create;

/// A file that was made to be opened. Dropped without [`keep`](Self::keep), it is removed.
pub(crate) struct Created {
    file: File,
    path: Option<PathBuf>,
}

impl Created {
    /// It is open now: it stays.
    pub(crate) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else { return };
        // Somebody can have put another file there meanwhile, or have opened this one to write to it.
        if is_named(&self.file, &path) && try_lock(&self.file).unwrap_or(false) {
            let _ = remove_file(path);
        }
    }
}

/// Makes the file at `path`, durably, if `create` says so and there is none. Whoever opens it finds it whole: it has its
/// length when it gets its name. A file that is there is left as it is.
pub(crate) fn create(path: &Path, create: Create) -> Result<Option<Created>, OpenError> {
    let refused = |source| OpenError::File { path: path.to_owned(), source };
    let (length, may_exist) = match create {
        Create::Never => return Ok(None),
        Create::IfMissing { .. } if path.exists() => return Ok(None),
        Create::IfMissing { length } => (length, true),
        Create::New { length } => (length, false),
    };
    match create_at(path, length) {
        Ok(file) => Ok(Some(Created { file, path: Some(path.to_owned()) })),
        Err(error) if may_exist && error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

fn create_at(path: &Path, length: u64) -> io::Result<File> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // As files are made: the mask of the process takes away what it says.
    let permissions = Permissions::from_mode(0o666);
    let file =
        tempfile::Builder::new().prefix(".memobj-new-").permissions(permissions).tempfile_in(folder)?;
    set_length(file.as_file(), length)?;
    file.as_file().sync_all()?;
    let file = file.persist_noclobber(path).map_err(|refused| refused.error)?;
    sync_folder(folder)?;
    Ok(file)
}
