//! The HTTP client: connections that are kept, TLS, redirects. Shared by all pagers of the process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memobj::ErrorKind;
use reqwest::redirect::{Attempt, Policy};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A redirect can lead to another mirror and from there to a file. More are a loop.
const MOST_REDIRECTS: usize = 5;

/// One client for servers that no proxy is asked for, and one for all others.
static CLIENTS: [OnceLock<reqwest::Client>; 2] = [const { OnceLock::new() }; 2];

/// The client for requests to `url`.
pub(crate) fn client_for(url: &Url) -> Result<reqwest::Client, Failure> {
    let is_local = is_local(url);
    let [local, distant] = &CLIENTS;
    let place = if is_local { local } else { distant };
    if let Some(client) = place.get() {
        return Ok(client.clone());
    }
    let client = build(is_local)?;
    Ok(place.get_or_init(|| client).clone())
}

/// Whether a server is on this machine or its link. Services for credentials are on the link (169.254.169.254), and what they
/// say is for no proxy.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn build(is_local: bool) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls()?)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::custom(redirect))
        .referer(false)
        .user_agent(concat!("memobj/", env!("CARGO_PKG_VERSION")));
    let builder = if is_local { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| Failure::because(ErrorKind::Io, format!("HTTP client: {error}"), error))
}

/// TLS by ring, with the certificates that the system trusts. Without any, connections fail and say so.
fn tls() -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::because(ErrorKind::Io, format!("TLS: {error}"), error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_secret = attempt.previous().iter().any(|url| url.scheme() == "https");
    if was_secret && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to http");
    }
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error("redirected too often");
    }
    attempt.follow()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_this_machine_are_known() {
        let local = |text| is_local(&Url::parse(text).unwrap());
        assert!(local("http://127.0.0.9:1/") && local("http://[::1]/") && local("http://localhost/a"));
        assert!(local("http://169.254.169.254/latest/meta-data/"));
        assert!(!local("http://128.0.0.1/") && !local("https://localhost.example/"));
    }
}
