//! A server with a few exports, whose pagers fail when they are told to.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memobj::pagers::{Faulty, File, Inject, Injection, Operation, Pager};
use memobj::{Cache, CacheOptions};
use memobj_serve::control::{Access, Client, Exports, Server, ServerHandle, ServerOptions};
use memobj_sim::fixture::{MIB, sample_bytes};

/// How long tests wait for what has to happen.
pub(crate) const PATIENCE: Duration = memobj_sim::fixture::GUARD;
/// Bytes of the files that are exported.
pub(crate) const LENGTH: u64 = MIB;

type Plan = Arc<Mutex<Vec<(Operation, Injection)>>>;
/// They go with their objects.
type Pagers = Arc<Mutex<Vec<Weak<Faulty<File>>>>>;

/// See the module.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cache: Cache,
    pub(crate) handle: ServerHandle,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pagers: Pagers,
    plan: Plan,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Fixture {
    /// `sample`, which is read, `words`, which is written, and the folder `folder`.
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::new())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        Self::with_exports(options, |_| {})
    }

    pub(crate) fn with_exports(options: ServerOptions, more: impl FnOnce(&mut Exports)) -> Self {
        let folder = tempfile::tempdir_in(memobj_sim::fixture::folder()).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        for name in ["sample", "words", "folder/file"] {
            std::fs::write(path(name), sample_bytes(LENGTH)).unwrap();
        }
        let pagers = Pagers::default();
        let plan = Plan::default();
        let mut exports = Exports::new();
        export(&mut exports, (&pagers, &plan), "sample", path("sample"), Access::ReadOnly);
        export(&mut exports, (&pagers, &plan), "words", path("words"), Access::ReadWrite);
        exports.folder(path("folder")).unwrap();
        more(&mut exports);
        let cache = Cache::new(CacheOptions::new().budget_bytes(4 * MIB)).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        let bind = || Server::bind(path("socket"), cache.clone(), exports, options).unwrap();
        let server = tracing::subscriber::with_default(Messages(kept), bind);
        let handle = server.handle();
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { folder, cache, handle, log, pagers, plan, thread }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.path("socket")).unwrap()
    }

    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(&self.path("socket"))
    }

    /// The pager of the object that was opened last.
    pub(crate) fn pager(&self) -> Arc<Faulty<File>> {
        self.pagers.lock().unwrap().last().unwrap().upgrade().unwrap()
    }

    /// Plans a failure of all objects that are opened from now on.
    pub(crate) fn plan(&self, operation: Operation, injection: Injection) {
        self.plan.lock().unwrap().push((operation, injection));
    }

    /// Makes `operation` of the object that was opened last fail at `range`.
    pub(crate) fn inject(&self, operation: Operation, range: std::ops::Range<u64>, times: Option<u32>) {
        self.pager().inject(operation, Injection::new(range, Inject::Error).times(times));
    }

    /// Waits until the log has a line with `words`.
    pub(crate) fn wait_for_log(&self, words: &str) {
        wait_until(&format!("a line of the log with {words:?}"), || {
            self.log.lock().unwrap().iter().any(|line| line.contains(words))
        });
    }

    pub(crate) fn stop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keeps the messages of events that are not for those only who look for bugs.
struct Messages(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Messages {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The message, and behind it the fields.
struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => self.0.push_str(&format!(" {name}={value:?}")),
        }
    }
}

fn export(
    exports: &mut Exports,
    (pagers, plan): (&Pagers, &Plan),
    name: &str,
    path: PathBuf,
    access: Access,
) {
    let (pagers, plan) = (Arc::clone(pagers), Arc::clone(plan));
    exports.object(name, access, move |_| {
        let file = match access {
            Access::ReadOnly => File::open(&path)?,
            Access::ReadWrite => File::open_writable(&path, Duration::ZERO)?,
        };
        let pager = Arc::new(Faulty::new(file, Vec::new(), 1));
        for (operation, injection) in plan.lock().unwrap().iter() {
            pager.inject(*operation, injection.clone());
        }
        pagers.lock().unwrap().push(Arc::downgrade(&pager));
        Ok(Box::new(pager) as Box<dyn Pager>)
    });
}

/// A connection of which the test sees every byte.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// The next line, without its end; empty at the end of the connection.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while matches!(self.0.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Sends a line, and gives the next.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\n"));
        self.line()
    }

    /// All that comes until the server hangs up.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A connection that the server has shut with bytes unread is reset.
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Waits until `happened` says so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "still no {what}");
        // waits: polls for what has no event.
        std::thread::sleep(Duration::from_millis(2));
    }
}
