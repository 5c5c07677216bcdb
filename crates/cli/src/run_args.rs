//! The arguments of `memobj run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::inject::{self, FaultPlan};
use crate::options::Frames;
use crate::retry::{self, Retry};
use crate::servers::{self, ServerArguments};
use crate::size;

pub(crate) const RUN_HELP: &str = "\
Examples:
  memobj run -- ls -l                                       as ls -l, over demand-paged files
  memobj run --report text -- python3 -c 'import json'      what was touched, and what it took
  memobj run --report html --report-file run.html -- make   a page with heat maps and a timeline
  memobj run --inject libc.so.6:error@0x28000+4096 -- ls    how ls reacts to a bad sector
  memobj run --inject libz.so.1:error@0+64k:times=3 --retry 5s -- git log    with retries
  memobj run --map /etc/words=./words -- grep x /etc/words  another file under a name
  memobj run --map /data/model=s3://bucket/model -- python3 infer.py   an object of a store as a file
  memobj run --map /data=s3://bucket/set/ -- python3 train.py  all objects of a prefix as a folder
  memobj run --via /run/memobj.sock -- ls                   with the frames of a server, warm from earlier runs
  memobj run --record start.rec -- node app.js              record the order of first touches
  memobj run --replay start.rec -- node app.js              read ahead in that order

The program's executable, its dynamic linker, its libraries and all other files that it maps privately
or for reading are mapped as pages of memobj: supplied when they are touched, once for all processes,
within the budget. A store makes a page the process's own, which the budget does not count. Files that
are mapped shared for writing, files in memory, and files that another process has open for writing while
they are mapped shared, are left to the kernel. Reads by read(2) and what the kernel itself reads when it
starts a program are not mappings: injected faults do not occur there.

A page that cannot be supplied kills the process that touches it, by SIGBUS, unless it catches that
signal; a line names the file and the range. The exit status is the program's; if a signal kills the
program, memobj dies by the same signal. 127: there is no such program. 126: it cannot be run. Programs with a set-user-ID bit run
without the rights it would give, as under a debugger.

Where page faults are not reported (ordinary users, containers; see memobj doctor), --map works all the
same: the kernel maps what names lead to. Objects are then files of its page cache, or, where there is no
FUSE either, copied before the program starts, within the budget.

--report and --record wait for all processes that came from the program. With them each first touch of
a page is a fault, which makes the program slower.

If the budget is too small for what runs, so that the same pages are read again and again, a line says so
once, with the budget that would be enough.";

/// `memobj run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Most memory to hold pages of files in, a hard bound; at least 4M
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse_budget)]
    pub(crate) budget: u64,
    /// Allow a budget below 4M, 64k at least: programs whose pages do not fit may take a thousand times as long
    #[arg(long)]
    pub(crate) tight: bool,
    /// Borrow the frames of files from the server at SOCKET (memobj serve SOCKET --lend): its cache is warm from earlier runs,
    /// and clean pages exist once for all runs. The budget, --retry and --inject are the server's
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["budget", "tight", "retry", "inject", "report", "report_file"])]
    pub(crate) via: Option<PathBuf>,
    /// Size of a frame; programs map files in pages of 4k, so there is nothing else to choose
    #[arg(long, value_enum, default_value_t = Frames::Auto)]
    pub(crate) frames: Frames,
    /// Try a failed page again for this long: a time such as 500ms, 10s or 2m, never, or forever
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = retry::parse)]
    pub(crate) retry: Retry,
    /// Inject faults into files whose path ends with PATH: as in `memobj hash`, PATH and a colon in front;
    /// `*` is every file. May be given several times
    #[arg(long, value_name = "PATH:SPEC", value_parser = parse_inject)]
    pub(crate) inject: Vec<(PathBuf, FaultPlan)>,
    /// Programs that name GUEST, a file or a folder, get OBJECT: a file, a folder, or the URL of an object or of a folder
    /// (s3://bucket/prefix/, 9p://host/folder/), which can be read only. May be given several times
    #[arg(long, value_name = "GUEST=OBJECT", value_parser = parse_map)]
    pub(crate) map: Vec<(PathBuf, MapObject)>,
    /// What to report at the end
    #[arg(long, value_enum, default_value_t = ReportKind::None)]
    pub(crate) report: ReportKind,
    /// Where to write the report; standard error if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) report_file: Option<PathBuf>,
    /// Write the order of first touches to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub(crate) record: Option<PathBuf>,
    /// Read ahead in the order that was recorded in FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// What a name of `--map` stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum MapObject {
    Path(PathBuf),
    Url(String),
}

impl MapObject {
    /// Refuses folders of servers that have no lists. The URL can have a password, which the message has not.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Self::Url(url) = self else { return Ok(()) };
        let scheme = url.split("://").next().unwrap_or_default().to_ascii_lowercase();
        match memobj_url::names_folder(url) && (scheme == "http" || scheme == "https") {
            true => Err(Failure::Usage(format!(
                "run: {}: web servers have no lists of what is in a folder; give each object a --map of its own",
                memobj_url::shown(url)
            ))),
            false => Ok(()),
        }
    }
}

/// The kind of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportKind {
    /// A screen of text
    Text,
    /// One JSON object
    Json,
    /// A page with the heat map of each file and the timeline of faults
    Html,
    /// Nothing
    None,
}

pub(crate) fn parse_inject(text: &str) -> Result<(PathBuf, FaultPlan), String> {
    // The rest of the list may have colons, too: the path ends where a list begins.
    let ends = text.match_indices(':').map(|(at, _)| at);
    let mut problem = format!("{text:?}: no PATH: in front");
    for at in ends {
        match inject::parse(&text[at + 1..]) {
            Ok(plan) if at > 0 => return Ok((text[..at].into(), plan)),
            Ok(_) => {}
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn parse_map(text: &str) -> Result<(PathBuf, MapObject), String> {
    let (guest, object) = text.split_once('=').ok_or_else(|| format!("{text:?}: no GUEST=OBJECT"))?;
    let (guest, object) = (PathBuf::from(guest), PathBuf::from(object));
    if !guest.is_absolute() {
        return Err(format!("{text:?}: GUEST is not an absolute path"));
    }
    if let Some(url) = servers::url_of(&object) {
        return Ok((guest, MapObject::Url(url.to_owned())));
    }
    let object = servers::local(&object).map_err(|_| format!("{text:?}: files are of this machine"))?;
    let object = std::path::absolute(&object).map_err(|error| format!("{text:?}: {error}"))?;
    match object.exists() {
        true => Ok((guest, MapObject::Path(object))),
        false => Err(format!("{text:?}: there is no {}", object.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::{MapObject, parse_inject, parse_map};

    #[test]
    fn a_path_stands_in_front_of_the_faults() {
        let (path, plan) =
            parse_inject("lib:odd/libc.so.6:error@0x28000+4096:times=2,seed=3").expect("is right");
        assert_eq!(path.to_str(), Some("lib:odd/libc.so.6"));
        assert_eq!(
            (plan.faults[0].range.clone(), plan.faults[0].times, plan.seed),
            (0x28000..0x29000, Some(2), 3)
        );
        for wrong in ["error@0+1", ":error@0+1", "libc.so.6", "libc.so.6:", "libc.so.6:explode@0+1"] {
            assert!(parse_inject(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_absolute_and_stand_for_something() {
        assert!(parse_map("/etc/x=/").is_ok());
        for wrong in ["/etc/x", "etc/x=/", "/etc/x=/no/such/file"] {
            assert!(parse_map(wrong).is_err(), "{wrong}");
        }
        let check = |url: &str| MapObject::Url(url.into()).check();
        assert!(check("http://host/folder/").is_err() && check("HTTPS://host/?x=1").is_err());
        assert!(check("http://host/object").is_ok() && check("s3://bucket/folder/").is_ok());
        for right in [
            "/x=s3://bucket/folder/",
            "/x=http://host/object",
            "/x=9p://host/folder/?aname=/y",
            "/x=file:///",
        ] {
            assert!(parse_map(right).is_ok(), "{right}");
        }
    }
}
