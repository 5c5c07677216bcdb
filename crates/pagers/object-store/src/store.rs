//! Stores: who forms the request for an object.

use std::ops::Range;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, RANGE};
use http::{Method, Request};
use memobj::ErrorKind;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, RetryConfig};
use url::Url;

use crate::capture::{Capturing, Slot};
use crate::failure::Failure;
use crate::location::{Location, Scheme};
use crate::options::ObjectStoreOptions;
use crate::shared_files::Profile;
use crate::version::Version;

/// Who has an object, and how it is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    S3(Arc<AmazonS3>, Path),
    GoogleCloudStorage(Arc<GoogleCloudStorage>, Path),
    Azure(Arc<MicrosoftAzure>, Path),
    Web(Url, HeaderMap),
}

impl Store {
    /// Reads the settings for `location`. Asks no server.
    pub(crate) fn new(location: &Location, options: &ObjectStoreOptions) -> Result<Self, Failure> {
        let url = location.url.as_str();
        let path = || {
            Path::from_url_path(location.url.path())
                .map_err(|error| refused(format!("the name of the object: {error}"), error))
        };
        Ok(match location.scheme {
            Scheme::S3 => Self::S3(Arc::new(s3(url, options)?), path()?),
            Scheme::GoogleCloudStorage => Self::GoogleCloudStorage(Arc::new(google(url, options)?), path()?),
            Scheme::Azure => Self::Azure(Arc::new(azure(url, options)?), path()?),
            Scheme::Web => Self::Web(location.url.clone(), own_headers(options)?),
            Scheme::File => {
                return Err(Failure::new(ErrorKind::Denied, "a file is not asked for by requests"));
            }
        })
    }

    /// Whether the server is any web server, of which nothing is known.
    pub(crate) fn is_web(&self) -> bool {
        matches!(self, Self::Web(..))
    }

    /// The store and the name in it, if object_store knows it.
    pub(crate) fn known(&self) -> Option<(&dyn ObjectStore, &Path)> {
        Some(match self {
            Self::S3(store, path) => (&**store, path),
            Self::GoogleCloudStorage(store, path) => (&**store, path),
            Self::Azure(store, path) => (&**store, path),
            Self::Web(..) => return None,
        })
    }

    /// The same store, and another object of it.
    pub(crate) fn at(&self, path: Path) -> Self {
        match self {
            Self::S3(store, _) => Self::S3(Arc::clone(store), path),
            Self::GoogleCloudStorage(store, _) => Self::GoogleCloudStorage(Arc::clone(store), path),
            Self::Azure(store, _) => Self::Azure(Arc::clone(store), path),
            Self::Web(url, headers) => Self::Web(url.clone(), headers.clone()),
        }
    }

    /// A request for at most `most` names that begin with `prefix`: those of objects, and of folders in it. `token` is where
    /// an earlier answer has ended.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        token: Option<String>,
        most: usize,
    ) -> Result<reqwest::Request, Failure> {
        let store: &dyn PaginatedListStore = match self {
            Self::S3(store, _) => &**store,
            Self::GoogleCloudStorage(store, _) => &**store,
            Self::Azure(store, _) => &**store,
            Self::Web(..) => return Err(Failure::new(ErrorKind::Denied, "web servers have no lists")),
        };
        let slot = Slot::default();
        let mut options = PaginatedListOptions {
            delimiter: Some("/".into()),
            max_keys: Some(most),
            page_token: token,
            ..PaginatedListOptions::default()
        };
        options.extensions.insert(slot.clone());
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let outcome = store.list_paginated(prefix, options).await;
        sendable(&slot, outcome.err())
    }

    /// A request for the head of the object.
    pub(crate) async fn head(&self) -> Result<reqwest::Request, Failure> {
        match self {
            Self::Web(url, headers) => web(Method::HEAD, url, headers),
            _ => self.signed(GetOptions { head: true, ..GetOptions::default() }).await,
        }
    }

    /// A request for `range`, or for all of the object, on condition that it is of `version`.
    pub(crate) async fn get(
        &self,
        range: Option<Range<u64>>,
        version: &Version,
    ) -> Result<reqwest::Request, Failure> {
        let Self::Web(url, headers) = self else {
            let if_match = version.tag().map(str::to_owned);
            let range = range.map(GetRange::Bounded);
            return self.signed(GetOptions { if_match, range, ..GetOptions::default() }).await;
        };
        let mut request = web(Method::GET, url, headers)?;
        if let Some((name, value)) = version.condition() {
            request.headers_mut().insert(name, value);
        }
        if let Some(range) = range {
            let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            let value = HeaderValue::from_str(&text).map_err(|error| refused("the range".into(), error))?;
            request.headers_mut().insert(RANGE, value);
        }
        Ok(request)
    }

    async fn signed(&self, mut options: GetOptions) -> Result<reqwest::Request, Failure> {
        let Some((store, path)) = self.known() else {
            return Err(Failure::new(ErrorKind::Io, "no store that signs"));
        };
        let slot = Slot::default();
        options.extensions.insert(slot.clone());
        let outcome = store.get_opts(path, options).await;
        sendable(&slot, outcome.err())
    }
}

/// The request that was kept, none of which has a body; or why there is none.
fn sendable(slot: &Slot, error: Option<object_store::Error>) -> Result<reqwest::Request, Failure> {
    let request = slot.take().ok_or_else(|| no_credentials(error))?;
    let (parts, _) = request.into_parts();
    reqwest::Request::try_from(Request::from_parts(parts, reqwest::Body::default()))
        .map_err(|error| refused("a request that is none".into(), error.without_url()))
}

fn refused(what: String, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::because(ErrorKind::Denied, what, error)
}

/// No request came out: credentials could not be had.
pub(crate) fn no_credentials(error: Option<object_store::Error>) -> Failure {
    use object_store::Error;
    let kind = match error {
        Some(Error::Unauthenticated { .. } | Error::PermissionDenied { .. }) => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    match error {
        Some(error) => Failure::because(kind, format!("no credentials: {error}"), error),
        None => Failure::new(kind, "no credentials"),
    }
}

/// object_store's own retries are off: the engine has them.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn settings<K: std::str::FromStr>(options: &ObjectStoreOptions) -> impl Iterator<Item = (K, &String)> {
    options.settings.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

fn s3(url: &str, options: &ObjectStoreOptions) -> Result<AmazonS3, Failure> {
    let mut builder = AmazonS3Builder::from_env();
    for (key, value) in settings::<AmazonS3ConfigKey>(options) {
        builder = builder.with_config(key, value);
    }
    builder = with_profile(builder, &Profile::of_environment())?;
    let builder = builder.with_url(url).with_retry(no_retries()).with_http_connector(Capturing);
    builder.build().map_err(configuration)
}

/// Adds what the environment does not say.
fn with_profile(mut builder: AmazonS3Builder, profile: &Profile) -> Result<AmazonS3Builder, Failure> {
    use AmazonS3ConfigKey as Key;
    let has = |builder: &AmazonS3Builder, key: &Key| builder.get_config_value(key).is_some();
    let others =
        [Key::WebIdentityTokenFile, Key::ContainerCredentialsRelativeUri, Key::ContainerCredentialsFullUri];
    let skips = builder.get_config_value(&Key::SkipSignature).is_some_and(|value| value == "true");
    let has_credentials =
        has(&builder, &Key::AccessKeyId) || skips || others.iter().any(|key| has(&builder, key));
    if !has_credentials {
        if let Some(source) = profile.unsupported() {
            let what = format!("the AWS profile has {source}, which is not supported here");
            return Err(Failure::new(ErrorKind::Denied, what));
        }
        let keys = [
            (Key::AccessKeyId, "aws_access_key_id"),
            (Key::SecretAccessKey, "aws_secret_access_key"),
            (Key::Token, "aws_session_token"),
        ];
        builder = fill(builder, profile, &keys);
    }
    let mut missing = Vec::new();
    if !has(&builder, &Key::Region) && !has(&builder, &Key::DefaultRegion) {
        missing.push((Key::Region, "region"));
    }
    if !has(&builder, &Key::Endpoint) {
        missing.push((Key::Endpoint, "endpoint_url"));
    }
    Ok(fill(builder, profile, &missing))
}

fn fill(builder: AmazonS3Builder, profile: &Profile, keys: &[(AmazonS3ConfigKey, &str)]) -> AmazonS3Builder {
    keys.iter().fold(builder, |builder, (key, name)| match profile.get(name) {
        Some(value) => builder.with_config(*key, value),
        None => builder,
    })
}

fn google(url: &str, options: &ObjectStoreOptions) -> Result<GoogleCloudStorage, Failure> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (key, value) in settings::<GoogleConfigKey>(options) {
        builder = builder.with_config(key, value);
    }
    let builder = builder.with_url(url).with_retry(no_retries()).with_http_connector(Capturing);
    builder.build().map_err(configuration)
}

fn azure(url: &str, options: &ObjectStoreOptions) -> Result<MicrosoftAzure, Failure> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (key, value) in settings::<AzureConfigKey>(options) {
        builder = builder.with_config(key, value);
    }
    let builder = builder.with_url(url).with_retry(no_retries()).with_http_connector(Capturing);
    builder.build().map_err(configuration)
}

fn configuration(error: object_store::Error) -> Failure {
    refused(error.to_string(), error)
}

fn own_headers(options: &ObjectStoreOptions) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    // Compressed bytes are not the object's.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in &options.headers {
        let name = HeaderName::try_from(name).map_err(|error| refused(format!("header {name:?}"), error))?;
        let mut value =
            HeaderValue::try_from(value).map_err(|error| refused(format!("the value of {name}"), error))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// A request to a web server. A user and password in the URL are sent as a header.
fn web(method: Method, url: &Url, headers: &HeaderMap) -> Result<reqwest::Request, Failure> {
    let client = crate::client::client_for(url)?;
    client
        .request(method, url.clone())
        .headers(headers.clone())
        .build()
        .map_err(|error| refused("a URL that cannot be asked for".into(), error.without_url()))
}
