//! URLs of objects.

use std::sync::Arc;

use memobj::ErrorKind;
use url::Url;

use crate::error::{ObjectStoreError, Step};
use crate::failure::Failure;

/// Which protocol a URL names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    S3,
    GoogleCloudStorage,
    Azure,
    Web,
    File,
}

/// A URL that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) scheme: Scheme,
    pub(crate) url: Url,
    /// The URL for people: no user, no password, no query.
    pub(crate) shown: Arc<str>,
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self, ObjectStoreError> {
        let location = Self::parse_folder(text)?;
        let is_store = matches!(location.scheme, Scheme::S3 | Scheme::GoogleCloudStorage | Scheme::Azure);
        if is_store && location.url.path().len() < 2 {
            let failure = Failure::new(ErrorKind::Denied, "it names no object");
            return Err(ObjectStoreError::new(Step::Parse, &location.shown, failure));
        }
        Ok(location)
    }

    /// The same for one that may name a bucket as a whole.
    pub(crate) fn parse_folder(text: &str) -> Result<Self, ObjectStoreError> {
        // A URL that cannot be read may have a password anywhere: nothing of it is shown but the scheme.
        let scheme_text = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let refused = |what: String| {
            let shown = format!("{scheme_text}://...").into();
            ObjectStoreError::new(Step::Parse, &shown, Failure::new(ErrorKind::Denied, what))
        };
        let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
        let scheme = scheme_of(url.scheme())
            .ok_or_else(|| refused(format!("the scheme {:?} is not known here", url.scheme())))?;
        let shown = shown(&url).into();
        Ok(Self { scheme, url, shown })
    }

    /// The object `name` of the same bucket.
    pub(crate) fn of_object(&self, name: &str) -> Self {
        let mut url = self.url.clone();
        // What is encoded already stays as it is.
        url.set_path(&format!("/{}", crate::encoded::encoded(name)));
        let shown = shown(&url).into();
        Self { scheme: self.scheme, url, shown }
    }

    /// Host and port, for messages about a server.
    pub(crate) fn server(&self) -> String {
        let host = self.url.host_str().unwrap_or("localhost");
        match (self.scheme, self.url.port()) {
            (Scheme::Web, Some(port)) => format!("{host}:{port}"),
            (Scheme::Web, None) => host.to_owned(),
            _ => format!("{}://{host}", self.url.scheme()),
        }
    }
}

fn scheme_of(scheme: &str) -> Option<Scheme> {
    Some(match scheme {
        "s3" | "s3a" => Scheme::S3,
        "gs" => Scheme::GoogleCloudStorage,
        "az" | "azure" | "abfs" | "abfss" | "adl" => Scheme::Azure,
        "http" | "https" => Scheme::Web,
        "file" => Scheme::File,
        _ => return None,
    })
}

fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let query = if url.query().is_some() { "?..." } else { "" };
    format!("{}://{host}{port}{}{query}", url.scheme(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let signed = Location::parse("https://me:secret@host:8443/a/b?X-Amz-Signature=secret").unwrap();
        assert_eq!(&*signed.shown, "https://host:8443/a/b?...");
        assert_eq!((signed.scheme, signed.server()), (Scheme::Web, "host:8443".into()));
        let error = Location::parse("ftp://me:secret@host/").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = Location::parse("http://me:secret@:x/").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_store_needs_an_object() {
        assert!(Location::parse("s3://bucket").is_err());
        assert!(Location::parse("s3://bucket/").is_err());
        let location = Location::parse("s3://bucket/a key/b").unwrap();
        assert_eq!((location.scheme, &*location.shown), (Scheme::S3, "s3://bucket/a%20key/b"));
        assert!(Location::parse("no url").is_err());
    }
}
