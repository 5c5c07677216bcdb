//! Errors that clients are told: a closed list of kinds, with values.

use memobj::{AccessError, AdmitError, ErrorKind, PageError, WriteError, WriteStep};

use super::words::Fields;

/// Why a request was refused or has failed. The words are those of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The line is no request, or its arguments are not those of the verb.
    Syntax,
    /// There is no such verb.
    Verb,
    /// There is no such export, file, object or mapping.
    NotFound,
    /// The client may not do this.
    Denied,
    /// Others have the object open in another way.
    Conflict,
    /// Something is in use that was to end.
    InUse,
    /// The client, or the server, has as much as it may have.
    Quota,
    /// Too many requests are under way.
    Busy,
    /// A descriptor is missing, or of the wrong kind, or there are too many.
    Descriptor,
    /// The range ends past the object.
    Range,
    /// The object could not be opened.
    Open,
    /// A page could not be supplied.
    Page,
    /// Changes could not be written or made durable.
    Write,
    /// The other end of a mapping did not attach.
    Attach,
    /// The server was replaced before it was done, and nothing was done.
    Again,
    /// The system refused something, or the server ends.
    System,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 16] = [
        Self::Syntax,
        Self::Verb,
        Self::NotFound,
        Self::Denied,
        Self::Conflict,
        Self::InUse,
        Self::Quota,
        Self::Busy,
        Self::Descriptor,
        Self::Range,
        Self::Open,
        Self::Page,
        Self::Write,
        Self::Attach,
        Self::Again,
        Self::System,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Verb => "verb",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::InUse => "in-use",
            Self::Quota => "quota",
            Self::Busy => "busy",
            Self::Descriptor => "descriptor",
            Self::Range => "range",
            Self::Open => "open",
            Self::Page => "page",
            Self::Write => "write",
            Self::Attach => "attach",
            Self::Again => "again",
            Self::System => "system",
        }
    }
}

/// An error as a client is told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    fields: Fields,
    message: String,
}

impl Refusal {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, fields: Fields::new(), message: message.into() }
    }

    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(Kind::Syntax, message)
    }

    pub(super) fn with(mut self, fields: impl FnOnce(Fields) -> Fields) -> Self {
        self.fields = fields(self.fields);
        self
    }

    /// There is a limit, and it is reached.
    pub(super) fn quota(which: &'static str, most: u64) -> Self {
        let refusal = Self::new(Kind::Quota, format!("no more than {most} {which}"));
        refusal.with(|fields| fields.with("which", which).with("most", most))
    }

    pub(super) fn not_found(what: &'static str) -> Self {
        Self::new(Kind::NotFound, format!("no such {what}")).with(|fields| fields.with("what", what))
    }

    pub(super) fn descriptor(why: &'static str) -> Self {
        Self::new(Kind::Descriptor, why)
    }

    /// What the system refused.
    pub(super) fn system(what: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::System, format!("{what}: {error}"))
    }

    /// The answer line of `tag`.
    pub(super) fn line(&self, tag: &str) -> String {
        let fields = self.fields.clone().with_text("message", &self.message);
        format!("{tag} error {}{fields}\n", self.kind.word())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The word of a kind of the library.
pub(super) fn kind_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Io => "io",
        ErrorKind::Integrity => "integrity",
        ErrorKind::Truncated => "truncated",
        ErrorKind::Stale => "stale",
        ErrorKind::NoSpace => "no-space",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Denied => "denied",
        ErrorKind::Detached => "detached",
        _ => "other",
    }
}

/// What is behind `error`, in one line.
pub(super) fn source_of(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// Range, kind and source of a page that failed.
pub(super) fn page_fields(fields: Fields, error: &PageError) -> Fields {
    let fields = fields.with_range(&error.range()).with("kind", kind_word(error.kind()));
    fields.with("tries", error.tries()).with_text("source", &source_of(error))
}

/// Range, kind, step and source of changes that are not where they should be.
pub(super) fn write_fields(fields: Fields, error: &WriteError) -> Fields {
    let step = match error.step() {
        WriteStep::WriteBack => "write-back",
        WriteStep::Sync => "sync",
        WriteStep::Commit => "commit",
        WriteStep::SetLength => "set-length",
        WriteStep::Discard => "discard",
        _ => "other",
    };
    let lost = if error.is_lost() { "yes" } else { "no" };
    let fields = fields.with_range(&error.range()).with("kind", kind_word(error.kind()));
    fields.with("step", step).with("lost", lost).with_text("source", &source_of(error))
}

impl From<PageError> for Refusal {
    fn from(error: PageError) -> Self {
        Self::new(Kind::Page, error.to_string()).with(|fields| page_fields(fields, &error))
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::new(Kind::Write, error.to_string()).with(|fields| write_fields(fields, &error))
    }
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Page(error) => error.into(),
            AccessError::Write(error) => error.into(),
            AccessError::OutOfRange { length, .. } => {
                Self::new(Kind::Range, error.to_string()).with(|fields| fields.with("length", length))
            }
            AccessError::ReadOnly => Self::new(Kind::Denied, error.to_string()),
            other => Self::new(Kind::System, other.to_string()),
        }
    }
}

impl From<AdmitError> for Refusal {
    fn from(error: AdmitError) -> Self {
        let why = match &error {
            AdmitError::NotShared => "not-shared",
            AdmitError::InUse => "pinned",
            AdmitError::TooManyGuests => "guests",
            AdmitError::Map(_) => "map",
            AdmitError::TimedOut => "timed-out",
            AdmitError::HungUp => "hung-up",
            AdmitError::Peer { .. } => "peer",
            _ => "system",
        };
        Self::new(Kind::Attach, error.to_string()).with(|fields| fields.with("why", why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let line = Refusal::quota("objects", 64).line("7");
        assert_eq!(line, "7 error quota which=objects most=64 message=no%20more%20than%2064%20objects\n");
    }

    #[test]
    fn the_document_lists_every_kind() {
        let document = include_str!("../../../../docs/serve-protocol.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` |", kind.word());
            assert!(document.contains(&row), "docs/serve-protocol.md has no row {row}");
        }
    }
}
