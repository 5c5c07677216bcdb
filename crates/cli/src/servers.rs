//! Objects of servers, by URL, wherever a command takes the name of a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use memobj::pagers::Pager;
use memobj::{Event, Events, ObjectOptions};
use memobj_url::disk_cache::{DiskCache, DiskCacheOptions};
use memobj_url::object_store::{Conditions, Manifest};
use memobj_url::{Scheme, UrlError, UrlFolder, UrlOptions};

use crate::failure::{Failure, complain, failure};
use crate::interrupt::Interrupt;
use crate::retry::{self, Retry};
use crate::size;

/// What is said about servers. It means nothing for files of this machine.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "For URLs (s3://, gs://, az://, http(s)://, 9p://)")]
pub(crate) struct ServerArguments {
    /// How long a server may be silent before a request to it fails, such as 10s; --retry says whether it is made again
    #[arg(long, value_name = "TIME", value_parser = retry::parse_time_argument)]
    timeout: Option<Duration>,
    /// Bytes of one request, 64k to 16M; by default what suits the server
    #[arg(long, value_name = "SIZE", value_parser = block)]
    block: Option<u64>,
    /// Keep what was read in this folder, at most SIZE of it (10G if not given), for the next time
    #[arg(long, value_name = "DIR[:SIZE]", value_parser = disk_cache)]
    disk_cache: Option<(PathBuf, u64)>,
    /// Compare every block with the digests in this file, which `memobj digest` has made
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

fn block(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    match (64 << 10..=16 << 20).contains(&bytes) && bytes.is_power_of_two() {
        true => Ok(bytes),
        false => Err(format!("{text} is no power of two from 64k to 16M")),
    }
}

fn disk_cache(text: &str) -> Result<(PathBuf, u64), String> {
    let whole = || (PathBuf::from(text), DiskCacheOptions::default().budget_bytes);
    let Some((folder, size)) = text.rsplit_once(':') else { return Ok(whole()) };
    if size.contains('/') || !size.starts_with(|first: char| first.is_ascii_digit()) {
        // A colon of the name.
        return Ok(whole());
    }
    match size::parse(size)? {
        bytes if bytes < 16 << 20 => Err(format!("{size} is too small for a disk cache; the least is 16M")),
        bytes => Ok((folder.into(), bytes)),
    }
}

/// The URL that `path` is, if it is none of a local file.
pub(crate) fn url_of(path: &Path) -> Option<&str> {
    path.to_str().filter(|name| memobj_url::Scheme::of(name).is_some_and(|scheme| scheme != Scheme::File))
}

/// The path of what `path` names, if that is a file of this machine.
pub(crate) fn local(path: &Path) -> Result<PathBuf, Failure> {
    match path.to_str().filter(|name| Scheme::of(name) == Some(Scheme::File)) {
        None => Ok(path.to_owned()),
        Some(url) => memobj_url::path_of_file(url)
            .ok_or_else(|| Failure::Message(format!("open {url}: files are of this machine: file:///path"))),
    }
}

/// What becomes of an object that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Missing {
    IsAnError,
    IsMade,
}

/// What is found at a URL.
pub(crate) enum At {
    Object(Box<dyn Pager>),
    Folder(Box<UrlFolder>),
}

/// What is used to open objects of servers.
#[derive(Debug)]
pub(crate) struct Servers {
    options: UrlOptions,
    disk_cache: Option<DiskCache>,
    retry: Retry,
}

impl ServerArguments {
    /// How long a server may be silent, if that was said.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The folder of the disk cache, if there is to be one.
    pub(crate) fn disk_cache_folder(&self) -> Option<&Path> {
        self.disk_cache.as_ref().map(|(folder, _)| folder.as_path())
    }
}

impl Servers {
    /// For a look at what is there: without the disk cache, and without a second try.
    pub(crate) fn without_cache(arguments: &ServerArguments) -> Result<Self, Failure> {
        Self::new(&ServerArguments { disk_cache: None, ..arguments.clone() }, Retry::Never)
    }

    pub(crate) fn new(arguments: &ServerArguments, retry: Retry) -> Result<Self, Failure> {
        let mut options = UrlOptions::new().block_bytes(arguments.block).server_timeout(arguments.timeout);
        if let Some(path) = &arguments.manifest {
            let what = format!("read the manifest {}", path.display());
            let file = std::fs::File::open(path).map_err(|error| Failure::io(&what, &error))?;
            let manifest = Manifest::read_from(io::BufReader::new(file));
            let manifest = manifest.map_err(|error| Failure::Message(format!("{what}: {error}")))?;
            options = options.manifest(Arc::new(manifest));
        }
        let open = |(folder, bytes): &(PathBuf, u64)| {
            let cache = DiskCache::open(folder, DiskCacheOptions::new().budget_bytes(*bytes));
            cache.map_err(|error| Failure::io(&format!("open the disk cache {}", folder.display()), &error))
        };
        let disk_cache = arguments.disk_cache.as_ref().map(open).transpose()?;
        Ok(Self { options: options.disk_cache(disk_cache.clone()), disk_cache, retry })
    }

    /// A pager of the object at `url`, for an object with these options. A server that is away is asked again as `--retry` says.
    pub(crate) fn pager(
        &self,
        url: &str,
        object: &ObjectOptions,
        missing: Missing,
        interrupt: &Interrupt,
    ) -> Result<Box<dyn Pager>, Failure> {
        let options = self.options.clone().object(object.clone());
        let options = if missing == Missing::IsMade { options.creating() } else { options };
        self.tried(interrupt, || memobj_url::pager(url, &options))?.map_err(failure)
    }

    /// What is at `url`, to be read: a folder if the URL ends in `/`, or if there is no such object and the server has such a
    /// folder. A server that is away is asked again as `--retry` says.
    pub(crate) fn find(&self, url: &str, interrupt: &Interrupt) -> Result<At, Failure> {
        let options = &self.options;
        let found = self.tried(interrupt, || {
            let error = match memobj_url::names_folder(url) {
                true => return memobj_url::folder(url, options).map(Box::new).map(At::Folder),
                false => match memobj_url::pager(url, options) {
                    Ok(pager) => return Ok(At::Object(pager)),
                    Err(error) => error,
                },
            };
            match error.may_be_folder().then(|| memobj_url::folder(url, options)) {
                Some(Ok(folder)) => Ok(At::Folder(Box::new(folder))),
                // Of a name that is no folder either, the object is what was meant.
                Some(Err(of_folder)) if of_folder.may_retry() => Err(of_folder),
                _ => Err(error),
            }
        })?;
        found.map_err(failure)
    }

    /// Has `work` ask a server; as `--retry` says, again.
    pub(crate) fn tried<T>(
        &self,
        interrupt: &Interrupt,
        work: impl FnMut() -> Result<T, UrlError>,
    ) -> Result<Result<T, UrlError>, Failure> {
        self.retry.until_over(interrupt, UrlError::may_retry, work)
    }

    /// Which conditions the server honours; `None` of servers that have none.
    pub(crate) fn conditions(&self, url: &str) -> Result<Option<Conditions>, Failure> {
        memobj_url::conditions(url, &self.options).map_err(failure)
    }

    /// Lets what was read be written to the disk cache.
    pub(crate) fn settle(&self) {
        const LIMIT: Duration = Duration::from_secs(10);
        if let Some(cache) = &self.disk_cache {
            let _ = cache.settle(LIMIT);
        }
    }
}

/// Prints what servers do, as it happens, until the cache ends.
pub(crate) fn tell(events: Events) {
    let tell = move || {
        while !events.is_ended() {
            if let Some(event) = events.next_within(Duration::MAX) {
                tell_one(&event);
            }
        }
    };
    // Without a thread nobody is told; all else goes on.
    drop(thread::Builder::new().name("events".into()).spawn(tell));
}

fn tell_one(event: &Event) {
    if let Some(words) = words_of(event) {
        complain(&words);
    }
}

/// What people are told of a server.
pub(crate) fn words_of(event: &Event) -> Option<String> {
    Some(match event {
        Event::ServerSilent { object, server, why, .. } => {
            format!("{object}: server {server} does not answer, still trying: {why}")
        }
        Event::ServerAnswers { object, server, silence } => {
            format!("{object}: server {server} answers again, after {:.1} s", silence.as_secs_f64())
        }
        Event::CopyDamaged { object, bytes, place } => {
            let (start, end) = (bytes.start, bytes.end);
            format!("{object}: the copy of [{start}, {end}) in {place} was damaged, and is not used")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_disk_caches_stand_behind_a_colon() {
        let default = DiskCacheOptions::default().budget_bytes;
        assert_eq!(disk_cache("/a/b"), Ok(("/a/b".into(), default)));
        assert_eq!(disk_cache("/a/b:2G"), Ok(("/a/b".into(), 2 << 30)));
        assert_eq!(disk_cache("/a:b/c"), Ok(("/a:b/c".into(), default)));
        assert_eq!(disk_cache("/a:b"), Ok(("/a:b".into(), default)));
        assert!(disk_cache("/a:1k").is_err());
        assert!(disk_cache("/a:1Q").is_err());
    }

    #[test]
    fn blocks_are_powers_of_two() {
        assert_eq!(block("1M"), Ok(1 << 20));
        assert!(["1", "3M", "32M", "x"].iter().all(|text| block(text).is_err()));
    }

    #[test]
    fn only_urls_are_urls() {
        assert_eq!(url_of(Path::new("s3://b/k")), Some("s3://b/k"));
        assert_eq!(url_of(Path::new("file:///a")), None);
        assert_eq!(url_of(Path::new("s3:/b")), None);
        assert_eq!(local(Path::new("file:///a%20b")), Ok("/a b".into()));
        assert_eq!(local(Path::new("a b")), Ok("a b".into()));
        assert!(local(Path::new("file://elsewhere/a")).is_err());
    }
}
