//! Metrics over HTTP, in the text form of Prometheus: `GET /metrics`.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a connection may last; who asks again connects again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// How many may be asking at once.
const MOST_CONNECTIONS: usize = 16;
/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Tells the numbers of this moment.
pub(crate) type Numbers = Arc<dyn Fn() -> String + Send + Sync>;

/// `PORT`, on loopback, or `HOST:PORT` with an address for HOST.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let on_loopback = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let port = text.strip_prefix(':').unwrap_or(text).parse().map(on_loopback);
    port.or_else(|_| text.parse()).map_err(|_| format!("{text} is no PORT, and no address and port"))
}

/// Answers at `address` from now on, until the process ends; returns where that is.
pub(crate) fn start(address: SocketAddr, numbers: Numbers) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || runtime.block_on(accept(listener, numbers)))?;
    Ok(address)
}

async fn accept(listener: TcpListener, numbers: Numbers) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let numbers = Arc::clone(&numbers);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&numbers)));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // Who hangs up, or is too slow, has no answer.
            let _ = timeout(CONNECTION_LIMIT, connection).await;
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, numbers: Numbers) -> Result<Response<String>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, numbers()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "GET it\n".into()),
        _ => (StatusCode::NOT_FOUND, "there is /metrics\n".into()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn addresses_are_on_loopback_unless_they_say_otherwise() {
        for (text, address) in [
            ("9100", "127.0.0.1:9100"),
            (":0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), address);
        }
        for text in ["", "x", "localhost:1", "1:2:3", "70000"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
