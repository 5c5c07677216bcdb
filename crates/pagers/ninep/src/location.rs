//! URLs of files of 9P servers.

use std::path::PathBuf;

use crate::address::{Address, AddressError};
use crate::dialect::Dialect;
use crate::options::{MSIZE_BYTES, NineOptions, VersionCheck};

/// The longest name, in bytes; servers take less.
const LONGEST: usize = 4096;

/// What a URL says, put over what options say.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) address: Address,
    /// The names of the path.
    pub(crate) names: Vec<Vec<u8>>,
    pub(crate) options: NineOptions,
}

impl Location {
    /// `9p://host:port/path?query` or `9p+unix:///path/of/socket?path=/path/of/file&query`.
    pub(crate) fn parse(url: &str, options: &NineOptions) -> Result<Self, AddressError> {
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let mut location = match (before.strip_prefix("9p://"), before.strip_prefix("9p+unix://")) {
            (Some(rest), _) => Self::tcp(rest)?,
            (_, Some(path)) => Self::unix(path)?,
            _ => return Err(wrong("neither 9p:// nor 9p+unix:// in front of", url)),
        };
        location.options = options.clone();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong("no = in", part))?;
            location.set(key, &decode(value)?)?;
        }
        let longest = location.names.iter().map(Vec::len).max().unwrap_or(0);
        let strings = location.options.user.as_ref().map_or(0, String::len).max(location.options.tree.len());
        if longest.max(strings) > LONGEST {
            return Err(AddressError(format!("a name is longer than {LONGEST} bytes")));
        }
        Ok(location)
    }

    fn tcp(rest: &str) -> Result<Self, AddressError> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = Address::parse_authority(authority)?;
        // Slashes are found before percent signs are decoded: %2F is no slash.
        let names = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { address, names: names_of(names)?, options: NineOptions::new() })
    }

    fn unix(path: &str) -> Result<Self, AddressError> {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(std::ffi::OsString::from_vec(decode(path)?));
        if !path.is_absolute() {
            return Err(wrong("the path of a socket does not begin with /:", &path.to_string_lossy()));
        }
        Ok(Self { address: Address::Unix(path), names: Vec::new(), options: NineOptions::new() })
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), AddressError> {
        let text = std::str::from_utf8(value).map_err(|_| wrong("no UTF-8 in the value of", key))?;
        let options = &mut self.options;
        match (key, text) {
            ("path", _) if matches!(self.address, Address::Unix(_)) => {
                self.names = names_of(value.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect())?;
            }
            ("aname", _) => options.tree = text.into(),
            ("uname", _) => options.user = Some(text.into()),
            ("version", "strict") => options.version = VersionCheck::Strict,
            ("version", "mtime") => options.version = VersionCheck::Mtime,
            ("version", "none") => options.version = VersionCheck::None,
            ("dialect", "2000") => options.dialect = Some(Dialect::Plan9),
            ("dialect", "u") => options.dialect = Some(Dialect::Unix),
            ("dialect", "L") => options.dialect = Some(Dialect::Linux),
            ("msize", _) => {
                let bytes = text.parse().ok().filter(|bytes| MSIZE_BYTES.contains(bytes));
                options.msize_bytes = bytes.ok_or_else(|| wrong("msize is 8192 to 1048600, not", text))?;
            }
            _ => return Err(AddressError(format!("no option {key}={text}"))),
        }
        Ok(())
    }

    /// The path, for messages.
    pub(crate) fn path(&self) -> String {
        self.names.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect()
    }
}

/// The names without empty ones and dots.
fn names_of(names: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, AddressError> {
    let names: Vec<_> = names.into_iter().filter(|name| !matches!(&name[..], b"" | b".")).collect();
    match names.iter().find(|name| &name[..] == b".." || name.contains(&b'/') || name.contains(&0)) {
        Some(name) => Err(wrong("a path may not have the name", &String::from_utf8_lossy(name))),
        None => Ok(names),
    }
}

fn wrong(what: &str, text: &str) -> AddressError {
    AddressError(format!("{what} \"{text}\""))
}

/// Percent-decoding: RFC 3986, section 2.1.
fn decode(text: &str) -> Result<Vec<u8>, AddressError> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.ok_or_else(|| wrong("no two hexadecimal digits behind % in", text))?);
        decoded.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Location, AddressError> {
        Location::parse(url, &NineOptions::new())
    }

    #[test]
    fn urls_say_where_and_how() {
        let location =
            parse("9p://[::1]:1/a%20b//./c%2fd?aname=/x&uname=u&version=strict&msize=9000&dialect=u");
        assert!(location.is_err(), "a slash in a name");
        let location =
            parse("9p://[::1]:1/a%20b//./c?aname=/x%26y&uname=u&version=strict&msize=9000&dialect=u");
        let location = location.unwrap();
        assert_eq!(location.address, Address::Tcp { host: "::1".into(), port: 1 });
        assert_eq!(location.names, [b"a b".to_vec(), b"c".to_vec()]);
        let options = location.options;
        assert_eq!((options.tree.as_str(), options.user.as_deref()), ("/x&y", Some("u")));
        assert_eq!((options.version, options.msize_bytes), (VersionCheck::Strict, 9000));
        assert_eq!(options.dialect, Some(Dialect::Unix));
        let location = parse("9p+unix:///run/a%3Fb?path=/x/y&version=none").unwrap();
        assert_eq!(location.address, Address::Unix("/run/a?b".into()));
        assert_eq!(location.path(), "/x/y");
        assert_eq!(parse("9p://host/f").unwrap().address.to_string(), "9p://host:564");
    }

    #[test]
    fn wrong_urls_are_refused_with_what_is_wrong() {
        for (url, what) in [
            ("http://a", "neither"),
            ("9p:///f", "no host"),
            ("9p://h:99999/f", "port"),
            ("9p://h/../f", ".."),
            ("9p://h/%f", "hexadecimal"),
            ("9p://h/f?version=maybe", "version=maybe"),
            ("9p://h/f?msize=1", "msize"),
            ("9p://h/f?path=/x", "path"),
            ("9p+unix://run/s?path=/x", "begin with /"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(what), "{url}: {error}");
        }
        assert!(parse(&format!("9p://h/{}", "x".repeat(5000))).is_err());
    }
}
