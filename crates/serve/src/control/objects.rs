//! The objects that clients have open: one memory object for each name or file, whoever opens it.
//!
//! An object is opened by the first client that wants it, and closed by the last that leaves it: synced, then dropped.
//! Locks: the state of an entry, then the table. Nobody opens or closes an object with the table locked.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use memobj::pagers::Pager;
use memobj::{
    Cache, Delivery, FailurePolicy, FrameSize, FrameVisibility, Inheritance, MapOptions, Mapping,
    MemoryObject, ObjectOptions, Writing,
};

use super::exports::{Access, OpenFailure, kind_of};
use super::locked;
use super::quota::{Counter, OF_OBJECT, Share};
use super::read_only::NeverWritten;
use super::refusal::{Kind as RefusalKind, Refusal, kind_word};
use super::take_over::{LeftObject, ObjectText};
use crate::keep::{Kept, Kind};
use crate::log::Log;

/// What makes two openings ones of the same object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// The name of an export.
    Name(String),
    /// Device and number of a file.
    File(u64, u64),
}

/// An object that is open.
#[derive(Debug)]
pub(super) struct OpenObject {
    pub(super) object: MemoryObject,
    /// All of it.
    pub(super) mapping: Mapping,
    pub(super) access: Access,
    pub(super) policy: FailurePolicy,
    /// By which the keeper has it, if there is one; zero otherwise.
    pub(super) item: u64,
    /// Its mappings, of all clients.
    pub(super) guests: Counter,
    _descriptors: Share,
}

/// The objects that are open.
pub(super) struct Objects {
    cache: Cache,
    log: Log,
    descriptors: (Counter, u64),
    kept: Option<Arc<Kept>>,
    last_item: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<Key, Arc<Entry>>,
    /// Names of objects, which events tell apart.
    names: HashMap<String, u64>,
}

struct Entry {
    key: Key,
    /// Held while the object is opened or closed.
    state: Mutex<Option<Arc<OpenObject>>>,
    /// Who uses it, or wants to. Of the table.
    uses: Mutex<u64>,
}

/// One use of an open object. The object is closed with the last.
pub(super) struct Use {
    objects: Arc<Objects>,
    entry: Arc<Entry>,
    open: Option<Arc<OpenObject>>,
}

impl std::ops::Deref for Use {
    type Target = OpenObject;

    fn deref(&self) -> &OpenObject {
        match &self.open {
            Some(open) => open,
            None => unreachable!("a use is empty while it is dropped only"),
        }
    }
}

/// Opens the pager of an object.
pub(super) type MakePager<'a> = dyn Fn(&ObjectOptions) -> Result<Box<dyn Pager>, OpenFailure> + 'a;

/// How an object is to be opened.
pub(super) struct Opening<'a> {
    pub(super) key: Key,
    /// What people call it.
    pub(super) name: &'a str,
    pub(super) access: Access,
    /// What the client asked for, if it did.
    pub(super) policy: Option<FailurePolicy>,
    pub(super) default_policy: FailurePolicy,
    pub(super) pager: &'a MakePager<'a>,
    /// The file that a client has passed along, or that was opened in the folder.
    pub(super) file: Option<&'a std::fs::File>,
}

impl Objects {
    /// At most `most` descriptors are taken of `counter`.
    pub(super) fn new(
        cache: Cache,
        log: Log,
        descriptors: (Counter, u64),
        kept: Option<Arc<Kept>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            log,
            descriptors,
            kept,
            last_item: AtomicU64::new(0),
            table: Mutex::default(),
        })
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.table().entries.len()
    }

    /// What `look` says of each object that is open; one that is just being opened or closed is left out. `look` is called with
    /// the state of the object locked, so that nobody closes it meanwhile: it does not block.
    pub(super) fn look_at_all<R>(&self, look: impl Fn(&OpenObject) -> R) -> Vec<R> {
        let entries: Vec<Arc<Entry>> = self.table().entries.values().cloned().collect();
        let look = |entry: &Arc<Entry>| Some(look(entry.state.try_lock().ok()?.as_deref()?));
        entries.iter().filter_map(look).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.table)
    }

    /// The object, which is opened if nobody has it open.
    pub(super) fn open(self: &Arc<Self>, opening: &Opening<'_>) -> Result<Use, Refusal> {
        let entry = self.enter(&opening.key);
        let mut used = Use { objects: Arc::clone(self), entry: Arc::clone(&entry), open: None };
        let mut state = locked(&entry.state);
        let open = match &*state {
            Some(open) => Arc::clone(open),
            None => {
                let open = Arc::new(self.make(opening, None)?);
                *state = Some(Arc::clone(&open));
                open
            }
        };
        drop(state);
        if opening.policy.is_some_and(|policy| policy != open.policy) {
            let policy = policy_word(open.policy);
            let refusal = Refusal::new(RefusalKind::Conflict, format!("it is open with the policy {policy}"));
            return Err(refusal.with(|fields| fields.with("policy", policy)));
        }
        used.open = Some(open);
        Ok(used)
    }

    fn enter(&self, key: &Key) -> Arc<Entry> {
        let mut table = self.table();
        let new = || Arc::new(Entry { key: key.clone(), state: Mutex::default(), uses: Mutex::default() });
        let entry = Arc::clone(table.entries.entry(key.clone()).or_insert_with(new));
        *locked(&entry.uses) += 1;
        entry
    }

    /// The object that a server before has left as the `item` of its keeper. Nobody has it open.
    pub(super) fn take_over(
        self: &Arc<Self>,
        opening: &Opening<'_>,
        left: LeftObject,
    ) -> Result<(Use, Inheritance), Refusal> {
        self.last_item.fetch_max(left.item, Ordering::Relaxed);
        let entry = self.enter(&opening.key);
        let mut used = Use { objects: Arc::clone(self), entry: Arc::clone(&entry), open: None };
        let mut inheritance = Inheritance::default();
        let open = Arc::new(self.make(opening, Some((left, &mut inheritance)))?);
        *locked(&entry.state) = Some(Arc::clone(&open));
        used.open = Some(open);
        Ok((used, inheritance))
    }

    fn make(
        &self,
        opening: &Opening<'_>,
        left: Option<(LeftObject, &mut Inheritance)>,
    ) -> Result<OpenObject, Refusal> {
        let (counter, most) = &self.descriptors;
        let descriptors = counter.take(OF_OBJECT, *most);
        let descriptors = descriptors.ok_or_else(|| Refusal::quota("descriptors", *most))?;
        let policy = opening.policy.unwrap_or(opening.default_policy);
        let name = self.unique_name(opening.name);
        let opened = self.opened(opening, policy, &name).and_then(|object| {
            let item = self.keep(opening, policy, &object, left)?;
            let mapping = object.map_all(MapOptions::new().delivery(Delivery::ReaderThread));
            Ok((mapping.map_err(|error| system(&error))?, object, item))
        });
        let (mapping, object, item) = opened.inspect_err(|_| self.forget_name(&name))?;
        let (access, guests) = (opening.access, Counter::default());
        Ok(OpenObject { object, mapping, access, policy, item, guests, _descriptors: descriptors })
    }

    /// Has the keeper keep a new object, or takes over the pages of one that it has. The number by which it has it.
    fn keep(
        &self,
        opening: &Opening<'_>,
        policy: FailurePolicy,
        object: &MemoryObject,
        left: Option<(LeftObject, &mut Inheritance)>,
    ) -> Result<u64, Refusal> {
        let Some(kept) = &self.kept else { return Ok(0) };
        if let Some((LeftObject { item, pages }, inheritance)) = left {
            *inheritance = object.inherit(pages, kept.keeper()).map_err(|error| system(&error))?;
            return Ok(item);
        }
        let pages = object.keep(kept.keeper()).map_err(|error| system(&error))?;
        let item = self.last_item.fetch_add(1, Ordering::Relaxed) + 1;
        let text = ObjectText::of(opening, policy, object, &pages).to_string();
        let file = opening.file.map_or(pages.frames.as_fd(), AsFd::as_fd);
        let descriptors = [pages.frames.as_fd(), pages.tables.as_fd(), file];
        kept.keep(Kind::Object, (item, 0), text.as_bytes(), &descriptors)
            .map_err(|error| Refusal::system("tell the keeper of an object", &error))?;
        Ok(item)
    }

    fn opened(
        &self,
        opening: &Opening<'_>,
        policy: FailurePolicy,
        name: &str,
    ) -> Result<MemoryObject, Refusal> {
        let options = ObjectOptions::new()
            .frames(FrameSize::Small)
            .visibility(FrameVisibility::Shared)
            .policy(policy)
            // No more addresses than it has bytes: its length stays.
            .max_len(0);
        let failed = |error: OpenFailure| {
            let refusal = Refusal::new(RefusalKind::Open, error.to_string());
            refusal.with(|fields| fields.with("kind", kind_word(kind_of(&error))))
        };
        let writing = match opening.access {
            Access::ReadOnly => Writing::ReadOnly,
            Access::ReadWrite => Writing::InPlace,
        };
        let pager = (opening.pager)(&options.clone().writing(writing)).map_err(failed)?;
        let pager = match opening.access {
            Access::ReadOnly => Box::new(NeverWritten(pager)),
            Access::ReadWrite => pager,
        };
        let object = self.cache.object(name, pager, options.writing(Writing::InPlace));
        object.map_err(|error| failed(error.into()))
    }

    /// `name`, or with a number behind it if another object has it.
    fn unique_name(&self, name: &str) -> String {
        let mut table = self.table();
        let mut unique = name.to_owned();
        let mut number = 1;
        while table.names.contains_key(&unique) {
            number += 1;
            unique = format!("{name}#{number}");
        }
        table.names.insert(unique.clone(), number);
        unique
    }

    fn forget_name(&self, name: &str) {
        self.table().names.remove(name);
    }

    /// One use less. The last closes the object.
    fn leave(&self, entry: &Entry) {
        let mut state = locked(&entry.state);
        if self.change_uses(entry, |uses| uses - 1) > 0 {
            return;
        }
        if let Some(open) = state.take() {
            self.close(open);
        }
        let mut table = self.table();
        // Somebody may want it again by now: he waits for the state.
        if *locked(&entry.uses) == 0 {
            table.entries.remove(&entry.key);
        }
    }

    /// Changes how many use an entry, under the lock of the table.
    fn change_uses(&self, entry: &Entry, change: impl FnOnce(u64) -> u64) -> u64 {
        let _table = self.table();
        let mut uses = locked(&entry.uses);
        *uses = change(*uses);
        *uses
    }

    /// Makes changes durable, and lets the object go.
    fn close(&self, open: Arc<OpenObject>) {
        let name = open.object.name().to_owned();
        let closed = match open.access {
            Access::ReadOnly => Ok(()),
            Access::ReadWrite => open.object.close(),
        };
        if let Err(error) = closed {
            self.log.with(|| {
                let (start, end) = (error.range().start, error.range().end);
                tracing::error!(
                    object = name,
                    start,
                    end,
                    kind = kind_word(error.kind()),
                    "{error}; the last client has left it"
                );
            });
        }
        if let Some(kept) = &self.kept {
            kept.forget(Kind::Object, open.item);
        }
        drop(open);
        self.forget_name(&name);
    }
}

fn system(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(RefusalKind::System, error.to_string())
}

impl Clone for Use {
    fn clone(&self) -> Self {
        self.objects.change_uses(&self.entry, |uses| uses + 1);
        Self { objects: Arc::clone(&self.objects), entry: Arc::clone(&self.entry), open: self.open.clone() }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.open = None;
        self.objects.leave(&self.entry);
    }
}

/// A policy as clients write it.
pub(super) fn policy_word(policy: FailurePolicy) -> String {
    match policy {
        FailurePolicy::FailAtOnce => "fail".into(),
        FailurePolicy::WaitForEver => "wait".into(),
        FailurePolicy::RetryFor(time) => format!("retry:{}", time.as_millis()),
        _ => "other".into(),
    }
}

/// The policy that a client wrote.
pub(super) fn parse_policy(word: &str) -> Option<FailurePolicy> {
    match word {
        "fail" => Some(FailurePolicy::FailAtOnce),
        "wait" => Some(FailurePolicy::WaitForEver),
        _ => {
            let ms = word.strip_prefix("retry:")?.parse::<u32>().ok()?;
            Some(FailurePolicy::RetryFor(std::time::Duration::from_millis(ms.into())))
        }
    }
}
