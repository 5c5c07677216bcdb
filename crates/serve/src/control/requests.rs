//! The verbs: what each takes, does and answers.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memobj::pagers;
use memobj::{Advice, FailurePolicy};

use super::borrow;
use super::exports::{Access, check_regular};
use super::input::Input;
use super::lists;
use super::long;
use super::mappings;
use super::objects::{Key, Opening, Use, parse_policy, policy_word};
use super::record::{MOST_OBJECTS, ObjectRecord, Ticket};
use super::refusal::{Kind, Refusal};
use super::session::{Opened, Session};
use super::words::{Fields, LONGEST_LINE, Request, decode, encode};

/// Whether the session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    On,
    Quit,
}

/// What becomes of a request.
pub(super) enum Taken {
    /// It is done.
    Done(Fields),
    /// A thread works on it, and answers.
    Begun,
    /// It was the last.
    Quit,
}

type Answer = Result<Taken, Refusal>;

/// By which a request is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) tag: &'a str,
    /// Of a session that is kept.
    pub(super) ticket: Option<Ticket>,
}

impl Asked<'_> {
    /// Whether a server before has begun it.
    pub(super) fn is_again(self) -> bool {
        self.ticket.is_some_and(|ticket| ticket.is_again)
    }
}

/// Takes one request: answers it, or has it answered.
pub(super) fn take(
    session: &Arc<Session>,
    request: Request<'_>,
    ticket: Option<Ticket>,
    input: &mut Input,
) -> Flow {
    let (tag, output) = (request.tag, &session.output);
    match dispatch(session, request, Asked { tag, ticket }, input) {
        Ok(Taken::Done(fields)) => output.answer(&format!("{tag} ok{fields}\n"), ticket),
        Ok(Taken::Begun) => {}
        Ok(Taken::Quit) => {
            if let Some(record) = &session.record {
                record.set_has_quit();
            }
            output.answer(&format!("{tag} ok\n"), ticket);
            return Flow::Quit;
        }
        Err(refusal) => output.answer(&refusal.line(tag), ticket),
    }
    Flow::On
}

fn dispatch(session: &Arc<Session>, request: Request<'_>, asked: Asked<'_>, input: &mut Input) -> Answer {
    let arguments = &mut Arguments::of(request);
    match request.verb {
        "exports" => exports(session, arguments),
        "open" => open(session, asked, arguments),
        "open-descriptor" => open_descriptor(session, asked, arguments, input),
        "length" => length(session, arguments),
        "clients" => lists::clients(session, arguments),
        "objects" => lists::objects(session, arguments),
        "prefetch" => prefetch(session, arguments),
        "advise" => advise(session, arguments),
        "retry" => retry(session, arguments),
        "events" => events(session, arguments),
        "stats" => arguments.end().map(|()| Taken::Done(session.server.stats(session))),
        "quit" => arguments.end().map(|()| Taken::Quit),
        "close" => long::close(session, asked, arguments),
        "read" => long::read(session, asked, arguments),
        "populate" => long::populate(session, asked, arguments),
        "sync" => long::sync(session, asked, arguments),
        "discard" => long::discard(session, asked, arguments),
        "map" => mappings::map(session, asked, arguments, input),
        "borrow" => borrow::borrow(session, asked, arguments, input),
        "resolve" => borrow::resolve(session, asked, arguments),
        "prefetch-lent" => borrow::prefetch(session, arguments),
        "give-back" => borrow::give_back(session, arguments),
        "unmap" => mappings::unmap(session, asked, arguments),
        _ => Err(Refusal::new(Kind::Verb, "no such verb")),
    }
}

/// The arguments of a request.
pub(super) struct Arguments<'a> {
    words: std::iter::Peekable<Box<dyn Iterator<Item = &'a str> + 'a>>,
}

impl<'a> Arguments<'a> {
    fn of(request: Request<'a>) -> Self {
        let words: Box<dyn Iterator<Item = &'a str> + 'a> = Box::new(request.arguments());
        Self { words: words.peekable() }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, Refusal> {
        self.words.next().ok_or_else(|| Refusal::syntax(format!("{what} is missing")))
    }

    /// The next word, if there is one.
    pub(super) fn next_word(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, Refusal> {
        let word = self.word(what)?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| word.parse().ok()).flatten();
        number.ok_or_else(|| Refusal::syntax(format!("{what} is no number")))
    }

    /// A number that may be left out, and nothing behind.
    pub(super) fn number_or(&mut self, default: u64) -> Result<u64, Refusal> {
        let number = if self.words.peek().is_some() { self.number("the first")? } else { default };
        self.end()?;
        Ok(number)
    }

    pub(super) fn end(&mut self) -> Result<(), Refusal> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(Refusal::syntax(format!("{word} is one argument too many"))),
        }
    }

    /// The object that is named first.
    pub(super) fn object(&mut self, session: &Session) -> Result<Arc<Opened>, Refusal> {
        session.object(self.number("the object")?)
    }

    /// An object and a range of it, and nothing behind.
    pub(super) fn object_and_range(
        &mut self,
        session: &Session,
    ) -> Result<(Arc<Opened>, Range<u64>), Refusal> {
        let opened = self.object(session)?;
        let range = self.range(&opened)?;
        self.end()?;
        Ok((opened, range))
    }

    /// `OFFSET LENGTH`; all of the object if both are left out.
    pub(super) fn range(&mut self, opened: &Opened) -> Result<Range<u64>, Refusal> {
        let length = opened.used.object.len();
        if self.words.peek().is_none() {
            return Ok(0..length);
        }
        let (start, bytes) = (self.number("the offset")?, self.number("the length")?);
        match start.checked_add(bytes).filter(|end| *end <= length) {
            Some(end) => Ok(start..end),
            None => {
                let message = format!("{start}+{bytes}: the object has {length} bytes");
                Err(Refusal::new(Kind::Range, message).with(|fields| fields.with("length", length)))
            }
        }
    }
}

/// Refuses what changes an object that was opened to be read.
pub(super) fn check_writable(opened: &Opened) -> Result<(), Refusal> {
    match opened.may_write {
        true => Ok(()),
        false => Err(Refusal::new(Kind::Denied, "the object was not opened for writing")),
    }
}

fn access_word(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    }
}

fn exports(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    /// What is left for the words behind the names.
    const RESERVED: usize = 100;
    let exports = &session.server.exports;
    let from = match arguments.words.peek() {
        None => 0,
        Some(_) => usize::try_from(arguments.number("the first")?).unwrap_or(usize::MAX),
    };
    arguments.end()?;
    let folder = if exports.has_folder() { "yes" } else { "no" };
    let mut fields = Fields::new().with("count", exports.len()).with("folder", folder);
    for (listed, (name, access)) in exports.listed(from).enumerate() {
        let word = format_args!("{}:{}", access_word(access), encode(name)).to_string();
        if fields.len() + word.len() + RESERVED > LONGEST_LINE && listed > 0 {
            return Ok(Taken::Done(fields.with("next", from + listed)));
        }
        fields = fields.with("export", word);
    }
    Ok(Taken::Done(fields))
}

/// How a client wants an object opened.
#[derive(Default)]
struct Wanted {
    access: Access,
    policy: Option<FailurePolicy>,
}

fn wanted(arguments: &mut Arguments<'_>) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted::default();
    for word in arguments.words.by_ref() {
        match (word, word.strip_prefix("policy=")) {
            ("ro", _) => wanted.access = Access::ReadOnly,
            ("rw", _) => wanted.access = Access::ReadWrite,
            (_, Some(policy)) => {
                let policy = parse_policy(policy);
                let bad = || Refusal::syntax("a policy is fail, wait or retry:MS");
                wanted.policy = Some(policy.ok_or_else(bad)?);
            }
            _ => return Err(Refusal::syntax("behind the name come ro or rw, and policy=")),
        }
    }
    Ok(wanted)
}

fn check_open_quota(session: &Session) -> Result<(), Refusal> {
    let most = session.server.options.quota.objects;
    match (session.state().objects.len() as u64) < most {
        true => Ok(()),
        false => Err(Refusal::quota("objects", most)),
    }
}

/// What the request has opened already, if a server before has taken it.
fn opened_before(session: &Session, asked: Asked<'_>) -> Option<Taken> {
    let (record, ticket) = session.record.as_ref().zip(asked.ticket.filter(|ticket| ticket.is_again))?;
    let object = record.objects().find(|object| object.request == ticket.number)?;
    let opened = session.object(object.number).ok()?;
    Some(Taken::Done(opened_fields(&opened)))
}

/// A descriptor came along, and went with the server that had it.
pub(super) fn refuse_again(asked: Asked<'_>) -> Result<(), Refusal> {
    match asked.is_again() {
        true => {
            Err(Refusal::new(Kind::Again, "the server was replaced before it was done: nothing was done"))
        }
        false => Ok(()),
    }
}

fn open(session: &Session, asked: Asked<'_>, arguments: &mut Arguments<'_>) -> Answer {
    if let Some(opened) = opened_before(session, asked) {
        return Ok(opened);
    }
    let word = arguments.word("the name")?;
    let name = decode(word).ok_or_else(|| Refusal::syntax("the name is not encoded well"))?;
    let wanted = wanted(arguments)?;
    check_open_quota(session)?;
    let server = &session.server;
    let Some(export) = server.exports.get(&name) else {
        let file = server.exports.open_beneath(&name).map_err(|error| not_opened(&error))?;
        return open_to_read(session, asked, &name, file, &wanted);
    };
    if wanted.access == Access::ReadWrite && export.access == Access::ReadOnly {
        return Err(Refusal::new(Kind::Denied, "it is exported to be read only"));
    }
    let used = server.objects.open(&Opening {
        key: Key::Name(name.clone()),
        name: &name,
        access: export.access,
        policy: wanted.policy,
        default_policy: server.options.policy,
        pager: &*export.opener,
        file: None,
    })?;
    keep(session, asked, used, wanted.access)
}

/// A file that could not be opened for a client: it is told no more than that.
fn not_opened(error: &std::io::Error) -> Refusal {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Refusal::not_found("export"),
        _ => Refusal::new(Kind::Denied, error.to_string()),
    }
}

fn open_to_read(session: &Session, asked: Asked<'_>, name: &str, file: File, wanted: &Wanted) -> Answer {
    if wanted.access == Access::ReadWrite {
        return Err(Refusal::new(Kind::Denied, "it can be read only"));
    }
    let metadata = file.metadata().map_err(|error| Refusal::system("look at a file", &error))?;
    let used = session.server.objects.open(&Opening {
        key: Key::File(metadata.dev(), metadata.ino()),
        name,
        access: Access::ReadOnly,
        policy: wanted.policy,
        default_policy: session.server.options.policy,
        pager: &|_| Ok(Box::new(pagers::File::open_descriptor(&file)?)),
        file: Some(&file),
    })?;
    keep(session, asked, used, Access::ReadOnly)
}

/// Refuses what is no regular file that is open for reading: the server may open more than the client, so a descriptor has
/// to be the right to read.
pub(super) fn check_readable(descriptor: &std::os::fd::OwnedFd) -> Result<(), Refusal> {
    check_regular(descriptor).map_err(|_| Refusal::descriptor("it is no regular file"))?;
    let flags = rustix::fs::fcntl_getfl(descriptor)
        .map_err(|error| Refusal::system("look at a descriptor", &error.into()))?;
    let is_path = flags.contains(rustix::fs::OFlags::PATH);
    if is_path || flags & rustix::fs::OFlags::RWMODE == rustix::fs::OFlags::WRONLY {
        return Err(Refusal::descriptor("it is not open for reading"));
    }
    Ok(())
}

fn open_descriptor(
    session: &Session,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
    input: &mut Input,
) -> Answer {
    if let Some(opened) = opened_before(session, asked) {
        return Ok(opened);
    }
    refuse_again(asked)?;
    let descriptor = input.take_descriptor()?;
    let wanted = wanted(arguments)?;
    check_open_quota(session)?;
    check_readable(&descriptor)?;
    open_to_read(session, asked, "descriptor", File::from(descriptor), &wanted)
}

fn keep(session: &Session, asked: Asked<'_>, used: Use, access: Access) -> Answer {
    let mut state = session.state();
    let number = state.new_object();
    let may_write = access == Access::ReadWrite;
    if let Some(record) = &session.record {
        let request = asked.ticket.map_or(0, |ticket| ticket.number);
        let object = ObjectRecord { number, item: used.item, may_write, request };
        if !record.add_object(object) {
            drop(state);
            return Err(Refusal::quota("objects", MOST_OBJECTS as u64));
        }
    }
    let opened = Arc::new(Opened { number, used, may_write });
    let fields = opened_fields(&opened);
    state.objects.insert(number, opened);
    Ok(Taken::Done(fields))
}

fn opened_fields(opened: &Opened) -> Fields {
    told(Fields::new().with("object", opened.number), opened).with("policy", policy_word(opened.used.policy))
}

fn told(fields: Fields, opened: &Opened) -> Fields {
    let object = &opened.used.object;
    let writable = if opened.may_write { "yes" } else { "no" };
    let fields = fields.with("length", object.len());
    fields.with_text("version", object.version().unwrap_or("")).with("writable", writable)
}

fn length(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    let opened = arguments.object(session)?;
    arguments.end()?;
    Ok(Taken::Done(told(Fields::new(), &opened)))
}

fn prefetch(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    let (opened, range) = arguments.object_and_range(session)?;
    opened.used.mapping.prefetch(&[range])?;
    Ok(Taken::Done(Fields::new()))
}

fn advise(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    let opened = arguments.object(session)?;
    let range = arguments.range(&opened)?;
    let advice = match arguments.word("the advice")? {
        "normal" => Advice::Normal,
        "random" => Advice::Random,
        "sequential" => Advice::Sequential,
        "willneed" => Advice::WillNeed,
        "dontneed" => Advice::DontNeed,
        _ => return Err(Refusal::syntax("advice is normal, random, sequential, willneed or dontneed")),
    };
    arguments.end()?;
    opened.used.mapping.advise(range, advice)?;
    Ok(Taken::Done(Fields::new()))
}

fn retry(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    let (opened, range) = arguments.object_and_range(session)?;
    let pages = opened.used.mapping.retry(range)?;
    Ok(Taken::Done(Fields::new().with("pages", pages)))
}

fn events(session: &Session, arguments: &mut Arguments<'_>) -> Answer {
    let wants = match arguments.word("on or off")? {
        "on" => true,
        "off" => false,
        _ => return Err(Refusal::syntax("events are on or off")),
    };
    arguments.end()?;
    session.wants_events.store(wants, Ordering::Release);
    if let Some(record) = &session.record {
        record.set_wants_events(wants);
    }
    Ok(Taken::Done(Fields::new()))
}
