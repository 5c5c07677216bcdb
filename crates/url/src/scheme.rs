//! Which servers a URL names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// By what protocol an object is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Scheme {
    /// A file of this machine: `file:///path`.
    File,
    /// An object store or a web server: `s3://bucket/key`, `gs://`, `az://`, `http://`, `https://`.
    ObjectStore,
    /// A 9P server: `9p://host:port/path`, `9p+unix:///socket?path=/path`.
    NineP,
}

const SCHEMES: [(&str, Scheme); 13] = [
    ("file", Scheme::File),
    ("s3", Scheme::ObjectStore),
    ("s3a", Scheme::ObjectStore),
    ("gs", Scheme::ObjectStore),
    ("az", Scheme::ObjectStore),
    ("azure", Scheme::ObjectStore),
    ("abfs", Scheme::ObjectStore),
    ("abfss", Scheme::ObjectStore),
    ("adl", Scheme::ObjectStore),
    ("http", Scheme::ObjectStore),
    ("https", Scheme::ObjectStore),
    ("9p", Scheme::NineP),
    ("9p+unix", Scheme::NineP),
];

impl Scheme {
    /// The scheme of `name`, if it is a URL of one that is known: `None` for names of files.
    ///
    /// ```
    /// use memobj_url::Scheme;
    /// assert_eq!(Scheme::of("s3://bucket/key"), Some(Scheme::ObjectStore));
    /// assert_eq!(Scheme::of("9p://host/file"), Some(Scheme::NineP));
    /// assert_eq!(Scheme::of("folder/s3:/file"), None);
    /// ```
    pub fn of(name: &str) -> Option<Self> {
        let (scheme, _) = name.split_once("://")?;
        SCHEMES.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known)).map(|(_, scheme)| *scheme)
    }

    /// Whether an object that is written changes page by page. Object stores have a new version at each sync instead.
    pub fn is_written_in_place(self) -> bool {
        match self {
            Self::File | Self::NineP => true,
            Self::ObjectStore => false,
        }
    }
}

/// Whether `name` is a URL that [`Open`](crate::Open) knows, and not the name of a file.
pub fn is_url(name: &str) -> bool {
    Scheme::of(name).is_some()
}

/// Whether a URL says that it is of a [folder](crate::folder): its path ends in `/`.
///
/// ```
/// use memobj_url::names_folder;
/// assert!(names_folder("s3://bucket/prefix/") && names_folder("9p://host/folder/?aname=/x"));
/// assert!(names_folder("9p+unix:///socket?aname=/x&path=/folder/"));
/// assert!(!names_folder("s3://bucket/key?x=/"));
/// ```
pub fn names_folder(url: &str) -> bool {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let is_socket = before.starts_with("9p+unix:");
    let path = query.split('&').filter(|_| is_socket).find_map(|part| part.strip_prefix("path="));
    path.unwrap_or(before).ends_with('/')
}

/// The path of a `file://` URL, with percent signs decoded. `None`: it names another host, or no path from the root.
pub fn path_of_file(url: &str) -> Option<PathBuf> {
    let (_, rest) = url.split_once("://")?;
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    path.starts_with('/').then(|| PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn paths_of_file_urls_are_decoded() {
        assert_eq!(path_of_file("file:///a%20b/c").as_deref(), Some(Path::new("/a b/c")));
        assert_eq!(path_of_file("file://localhost/a").as_deref(), Some(Path::new("/a")));
        assert_eq!(path_of_file("file://elsewhere/a"), None);
    }

    #[test]
    fn names_with_colons_are_files() {
        for name in ["a:b", "c:/x", "unknown://x", "://", "s3:/b/k"] {
            assert!(!is_url(name), "{name}");
        }
        assert!(is_url("HTTPS://host/x"));
    }
}
