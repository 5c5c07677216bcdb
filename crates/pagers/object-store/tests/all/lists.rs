//! A server of as many names as a test wants, which answers lists and heads of S3, or what it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How it answers.
#[derive(Clone)]
enum Way {
    /// As S3 does.
    Right,
    /// With this status and body.
    Always(u16, String),
    /// Not at all.
    Never,
    /// A byte of a list every now and then.
    Drip,
}

/// The names are `p/0000000` and so on; all objects have five bytes.
pub struct ListServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    way: Arc<Mutex<Way>>,
    /// The first line of the last request.
    last: Arc<Mutex<String>>,
}

impl ListServer {
    pub fn of_names(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            asked: Arc::default(),
            way: Arc::new(Mutex::new(Way::Right)),
            last: Arc::default(),
        };
        let (asked, way, last) =
            (Arc::clone(&server.asked), Arc::clone(&server.way), Arc::clone(&server.last));
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, asked) = (stream.unwrap(), Arc::clone(&asked));
                let (way, last) = (Arc::clone(&way), Arc::clone(&last));
                // A client that goes away ends its thread.
                std::thread::spawn(move || drop(serve(&stream, count, &asked, (&way, &last))));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The first line of the last request.
    pub fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }

    pub fn answer_always(&self, status: u16, body: &str) {
        *self.way.lock().unwrap() = Way::Always(status, body.to_owned());
    }

    pub fn answer_never(&self) {
        *self.way.lock().unwrap() = Way::Never;
    }

    pub fn drip(&self) {
        *self.way.lock().unwrap() = Way::Drip;
    }
}

fn serve(
    mut stream: &TcpStream,
    count: usize,
    asked: &AtomicUsize,
    (way, last): (&Mutex<Way>, &Mutex<String>),
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next().transpose()? {
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        asked.fetch_add(1, Ordering::SeqCst);
        last.lock().unwrap().clone_from(&first);
        let way = way.lock().unwrap().clone();
        let (status, body, length) = match way {
            Way::Right => right(&first, count),
            Way::Always(status, body) => (status, body.clone(), body.len()),
            Way::Never => continue,
            Way::Drip => (200, String::new(), 1 << 20),
        };
        let head = format!("HTTP/1.1 {status} x\r\nETag: \"e\"\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        if !first.starts_with("HEAD ") {
            stream.write_all(body.as_bytes())?;
        }
        while !first.starts_with("HEAD ") && body.len() < length {
            stream.write_all(b"<")?;
            // waits: what is tested is that bytes come, and slowly.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Status, body and length of the right answer.
fn right(first: &str, count: usize) -> (u16, String, usize) {
    let target = first.split(' ').nth(1).unwrap_or("");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(&format!("{name}=")));
    if first.starts_with("HEAD ") {
        let number = path.strip_prefix("/bucket/p/").filter(|number| number.len() == 7);
        let is_there =
            number.and_then(|number| number.parse().ok()).is_some_and(|number: usize| number < count);
        return if is_there { (200, String::new(), 5) } else { (404, String::new(), 0) };
    }
    let start = parameter("continuation-token").map_or(0, |token| token.parse().unwrap());
    let most = parameter("max-keys").map_or(1000, |most| most.parse().unwrap());
    let end = if parameter("prefix") == Some("p%2F") { count.min(start + most) } else { start };
    let mut body = "<ListBucketResult>".to_owned();
    for number in start..end {
        body += &format!(
            "<Contents><Key>p/{number:07}</Key><LastModified>2026-12-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;e&quot;</ETag><Size>5</Size></Contents>"
        );
    }
    if end > start && end < count {
        body +=
            &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>");
    }
    body += "</ListBucketResult>";
    let length = body.len();
    (200, body, length)
}
