//! The parent of `network`: starts servers, mounts, has children measure in turns, collects.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::bars;
use super::disk::PageCache;
use super::job::{Client, Frames, NetworkJob, Task};
use super::mounts::Mount;
use super::options::{NetworkOptions, Row};
use super::plan::{self, Budget, Cell, DiskCache, Group, Source};
use super::process;
use super::report::{self, Line};
use super::servers::{Kind, Server, Way};
use crate::children::{self, Children};
use crate::data;
use crate::job::{Outcome, Sample};
use crate::machine::Machine;
use crate::parent;
use crate::report::bar_table;

/// How long a measurement may take, twice: mounts and Python are slow.
const MEASURED: Duration = Duration::from_secs(60);
/// Filling the disk cache again, until it has all blocks: it skips those that come faster than it writes.
const FILLS: u32 = 20;

/// Files of a run, which are removed at its end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Mounts below it are gone; if one is not, its object must not be removed with it, and is read-only.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("memobj-bench: {}: {error}", self.0.display());
        }
    }
}

/// What all measurements of a run share. Servers end before their files are removed.
struct Run {
    options: NetworkOptions,
    children: Children,
    /// The local copy.
    file: PathBuf,
    program: Option<PathBuf>,
    digest: String,
    servers: Vec<(Kind, Result<Server, String>)>,
    folder: Folder,
}

/// `memobj-bench network`.
pub fn network(options: &NetworkOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    options.check()?;
    let directory = children::test_directory(options.output.dir.as_deref())?;
    let machine = Machine::find(&directory);
    println!("{}\n", machine.line());
    let children = Children::new()?;
    println!("{}\n", report::settings(&options));
    let run = Run::new(options, &directory, children)?;
    let lines = run.all_groups()?;
    let bars = bars::bars(&run.options, &lines);
    print!("{}", bar_table(&bars));
    run.options.output.finish(|| report::json(&machine, &lines, &bars), lines.iter().map(|line| &line.note))
}

impl Run {
    fn new(options: NetworkOptions, directory: &Path, children: Children) -> Result<Self, String> {
        let file = data::test_file(directory, options.size).map_err(|error| format!("test file: {error}"))?;
        let folder = file.with_file_name(format!("network-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let folder = Folder(folder);
        let beside = std::env::current_exe().ok().map(|path| path.with_file_name("memobj"));
        let program = options.memobj.clone().or(beside).filter(|path| path.is_file());
        let groups = plan::groups(&options);
        let mut servers = Vec::new();
        for kind in [Kind::Web, Kind::S3, Kind::NineP] {
            if groups.iter().any(|group| group.server == kind) {
                let server = Server::start(kind, &file, &folder.0, options.delay());
                if let Err(reason) = &server {
                    println!("skipped: {reason}\n");
                }
                servers.push((kind, server));
            }
        }
        let mut run = Self { options, children, file, program, digest: String::new(), servers, folder };
        run.prepare(&groups)?;
        Ok(run)
    }

    /// Puts the object where it is to be read from.
    fn prepare(&mut self, groups: &[Group]) -> Result<(), String> {
        if let Ok(server) = self.server(Kind::S3) {
            let job = NetworkJob {
                task: Task::Upload,
                environment: server.environment(Way::Direct),
                ..self.job(Client::ObjectStore, server.url(Way::Direct))
            };
            self.must_run(&job)?;
        }
        if groups.iter().any(|group| group.row == Row::Second) {
            if let Some(program) = &self.program {
                self.digest = process::digest(program, &self.file.to_string_lossy(), None)?;
            }
            self.fill(Way::Direct)?;
            self.fill(Way::Delayed)?;
        }
        Ok(())
    }

    fn fill(&self, way: Way) -> Result<(), String> {
        let Ok(server) = self.server(Kind::Web) else { return Ok(()) };
        for _ in 0..FILLS {
            let job = NetworkJob {
                disk_cache: Some(self.full_cache()),
                ..self.job(Client::OursRead(Frames::Auto), server.url(way))
            };
            if self.must_run(&job)?.missed_pages == Some(0) {
                return Ok(());
            }
        }
        Err("the disk cache never has all blocks".into())
    }

    fn must_run(&self, job: &NetworkJob) -> Result<Sample, String> {
        match self.children.run(job, MEASURED)? {
            Outcome::Measured(sample) => Ok(sample),
            Outcome::Skipped(why) | Outcome::Failed(why) | Outcome::WrongData(why) => {
                Err(format!("{:?} of {}: {why}", job.task, job.place))
            }
        }
    }

    fn full_cache(&self) -> PathBuf {
        self.folder.0.join("full-cache")
    }

    /// A sequential read of `place`.
    fn job(&self, client: Client, place: String) -> NetworkJob {
        NetworkJob {
            task: Task::Sequential,
            client,
            place,
            length_bytes: self.options.size,
            block_bytes: self.options.block,
            depth: self.options.depths[0],
            budget_bytes: self.options.budget,
            disk_cache: None,
            file: self.file.clone(),
            program: self.program.clone(),
            digest: self.digest.clone(),
            environment: Vec::new(),
        }
    }

    fn server(&self, kind: Kind) -> Result<&Server, String> {
        let found = self.servers.iter().find(|(known, _)| *known == kind);
        let (_, server) = found.ok_or("not started")?;
        server.as_ref().map_err(Clone::clone)
    }

    fn all_groups(&self) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        for group in plan::groups(&self.options) {
            lines.extend(self.group(&group)?);
            println!("{}", report::table(&lines));
        }
        Ok(lines)
    }

    /// All cells once per repetition, each repetition starting with another one.
    fn group(&self, group: &Group) -> Result<Vec<Line>, String> {
        let server = self.server(group.server);
        let name = match &server {
            Ok(server) => server.name.to_string(),
            Err(_) => format!("{:?}", group.server),
        };
        let mut lines: Vec<Line> = group.cells.iter().map(|cell| Line::new(group, cell, &name)).collect();
        let server = match server {
            Ok(server) => server,
            Err(reason) => {
                lines.iter_mut().for_each(|line| line.note = Some(format!("skipped: {reason}")));
                return Ok(lines);
            }
        };
        let at_end = |line: &Line| line.note.is_some();
        parent::in_turns(&mut lines, self.options.reps, at_end, |index, _, line| {
            self.measure(group, &group.cells[index], server, line)
        })?;
        Ok(lines)
    }

    fn measure(&self, group: &Group, cell: &Cell, server: &Server, line: &mut Line) -> Result<(), String> {
        let name = format!("{}: {}", line.title, cell.contestant);
        let mount = match cell.source {
            Source::Mount(mounter) => {
                let port = server.port(Way::Delayed);
                match Mount::new(mounter, port, &server.folder, &self.folder.0) {
                    Ok(mount) => Some(mount),
                    Err(reason) => {
                        line.note = Some(format!("skipped: {reason}"));
                        return Ok(());
                    }
                }
            }
            _ => None,
        };
        let job = self.job_of(group, cell, server, mount.as_ref());
        self.establish(group, cell, &job).map_err(|error| format!("{name}: {error}"))?;
        children::touch_memory(job.budget_bytes.min(self.options.size) + self.options.size);
        let mut outcome = self.children.run(&job, MEASURED)?;
        if let (Outcome::Measured(sample), Some(mount)) = (&mut outcome, &mount) {
            sample.peak_rss_bytes += mount.peak_rss_bytes().unwrap_or(0);
        }
        let say = |sample: &Sample| self.options.output.say(&name, sample);
        parent::enter(outcome, &name, None, &mut line.note, &mut line.samples, say)
    }

    fn job_of(&self, group: &Group, cell: &Cell, server: &Server, mount: Option<&Mount>) -> NetworkJob {
        let local = || self.file.to_string_lossy().into_owned();
        let (place, environment) = match cell.source {
            Source::Url(way) => (server.url(way), server.environment(way)),
            Source::Mount(_) => {
                let object = mount.map_or_else(String::new, |mount| mount.object().to_string_lossy().into());
                (object, Vec::new())
            }
            Source::Local => (local(), Vec::new()),
        };
        let disk_cache = match cell.disk_cache {
            DiskCache::None => None,
            DiskCache::Empty => Some(self.folder.0.join("empty-cache")),
            DiskCache::Full => Some(self.full_cache()),
        };
        NetworkJob {
            task: group.task,
            block_bytes: group.block_bytes,
            depth: group.depth,
            budget_bytes: match cell.budget {
                Budget::Usual => self.options.budget,
                Budget::Wide => self.options.budget.max(16 * group.depth as u64 * group.block_bytes),
            },
            disk_cache,
            file: self.folder.0.join("download"),
            environment,
            ..self.job(cell.client, place)
        }
    }

    /// Brings files into the state that the measurement begins with.
    fn establish(&self, group: &Group, cell: &Cell, job: &NetworkJob) -> std::io::Result<()> {
        match cell.disk_cache {
            DiskCache::Full => group.page_cache.establish(&self.full_cache()),
            DiskCache::Empty => {
                let folder = job.disk_cache.as_deref().filter(|folder| folder.exists());
                folder.map_or(Ok(()), fs::remove_dir_all)
            }
            DiskCache::None if cell.source == Source::Local => group.page_cache.establish(&self.file),
            // What a server reads is in the page cache.
            DiskCache::None => PageCache::Warm.establish(&self.file),
        }
    }
}
