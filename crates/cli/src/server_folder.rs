//! Folders of servers, as programs of `memobj run` see them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memobj::pagers::{Awaited, Faulty, Pager};
use memobj_run::{Entry, EntryKind, LookUp, ObjectFolder, OpenedObject};
use memobj_url::{UrlEntryKind, UrlError, UrlFolder};

use crate::engine::injections;
use crate::inject::FaultPlan;
use crate::interrupt::Interrupt;
use crate::servers::Servers;

/// Faults that are injected into files whose paths end so.
pub(crate) type Faults = [(PathBuf, FaultPlan)];

/// A folder of a server. What fails is tried again as `--retry` says, while the program waits.
pub(crate) struct ServerFolder {
    folder: UrlFolder,
    servers: Arc<Servers>,
    /// What programs call it.
    guest: PathBuf,
    faults: Arc<Faults>,
}

impl ServerFolder {
    pub(crate) fn new(folder: UrlFolder, servers: &Arc<Servers>, guest: &Path, faults: &Arc<Faults>) -> Self {
        Self { folder, servers: Arc::clone(servers), guest: guest.to_owned(), faults: Arc::clone(faults) }
    }

    /// Has `work` ask the server, again and again if it is to be.
    fn ask<T>(&self, work: impl FnMut() -> Result<T, UrlError>) -> io::Result<T> {
        match self.servers.tried(&Interrupt::never(), work) {
            Ok(answer) => answer.map_err(without_name),
            Err(interrupted) => Err(io::Error::other(interrupted.to_string())),
        }
    }
}

/// The error without the name of the object, which who tells of it says.
fn without_name(error: UrlError) -> io::Error {
    let text = error.to_string();
    let reason = text.split_once(": ").map_or(&*text, |(_, reason)| reason).to_owned();
    io::Error::new(io::Error::from(error).kind(), reason)
}

/// `pager`, with the faults that are injected into `guest`.
pub(crate) fn with_faults(pager: Box<dyn Pager>, guest: &Path, faults: &Faults) -> Arc<dyn Pager> {
    let is_meant = |path: &Path| path == Path::new("*") || guest.ends_with(path);
    match faults.iter().find(|(path, _)| is_meant(path)) {
        None => Arc::from(pager),
        Some((_, plan)) => Arc::new(Faulty::new(Awaited::new(pager), injections(plan), plan.seed)),
    }
}

fn kind_of(kind: UrlEntryKind) -> EntryKind {
    match kind {
        UrlEntryKind::Folder => EntryKind::Folder,
        UrlEntryKind::Object { length, modified, version } => EntryKind::Object { length, modified, version },
        _ => EntryKind::NameOnly,
    }
}

impl ObjectFolder for ServerFolder {
    fn name(&self) -> String {
        self.folder.url().to_owned()
    }

    fn entries(&self, path: &str) -> io::Result<Vec<Entry>> {
        let list = self.ask(|| self.folder.entries(path))?.ok_or(io::ErrorKind::NotFound)?;
        Ok(list.into_iter().map(|entry| Entry::new(entry.name, kind_of(entry.kind))).collect())
    }

    fn look_up(&self, path: &str) -> io::Result<LookUp> {
        let kind = self.ask(|| self.folder.entry(path))?.ok_or(io::ErrorKind::NotFound)?;
        Ok(LookUp::Found(kind_of(kind)))
    }

    fn open(&self, path: &str) -> io::Result<OpenedObject> {
        let pager = self.ask(|| self.folder.pager(path))?;
        let pager = with_faults(pager, &self.guest.join(path), &self.faults);
        Ok(OpenedObject::new(self.folder.name_of(path), pager))
    }
}
