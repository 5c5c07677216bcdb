//! What `memobj serve` says on standard error: events of the crate `tracing`, a line each.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use memobj::Events;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::failure::Failure;
use crate::servers;

/// What lines look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogForm {
    /// For people: `memobj: ` and a sentence
    Text,
    /// One JSON object: time, level, target, message, and what it is about
    Json,
}

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    /// What is lost, or goes on no more
    Error,
    /// And who is refused, dropped or ended
    Warn,
    /// And machines that come and go
    Info,
    /// And clients that come and go, and what they are told of pages
    Debug,
}

/// What is said about the log.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ServeLogArguments {
    /// What the lines on standard error look like
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) log: LogForm,
    /// How much they tell
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// Writes events of this project to standard error.
#[derive(Debug)]
struct ToStandardError {
    form: LogForm,
    level: Level,
    /// Nothing is said about clients and machines but what is wrong on this side.
    quiet: bool,
}

/// Has all events of this process written to standard error from now on.
pub(crate) fn install(arguments: ServeLogArguments, quiet: bool) -> Result<(), Failure> {
    let level = match arguments.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let subscriber = ToStandardError { form: arguments.log, level, quiet };
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Failure::Message(format!("install the log: {error}")))
}

/// Says what ended the command, in the form of all lines before it.
pub(crate) fn report(failure: Failure) -> Failure {
    if let Failure::Message(message) = &failure {
        tracing::error!("{message}");
        return failure.reported();
    }
    failure
}

/// Says what servers do, as it happens, until the cache ends.
pub(crate) fn tell_of_servers(events: Events) {
    let tell = move || {
        while !events.is_ended() {
            let event = events.next_within(Duration::MAX);
            if let Some((words, event)) = event.and_then(|event| Some((servers::words_of(&event)?, event))) {
                tell_of_server(&event, &words);
            }
        }
    };
    // Without a thread nobody is told; all else goes on.
    drop(std::thread::Builder::new().name("events".into()).spawn(tell));
}

fn tell_of_server(event: &memobj::Event, words: &str) {
    match event {
        memobj::Event::ServerSilent { object, server, why, .. } => {
            tracing::warn!(object = &**object, server = &**server, why = &**why, "{words}");
        }
        memobj::Event::ServerAnswers { object, server, .. } => {
            tracing::info!(object = &**object, server = &**server, "{words}");
        }
        memobj::Event::CopyDamaged { object, bytes, place } => {
            tracing::warn!(
                object = &**object,
                start = bytes.start,
                end = bytes.end,
                place = &**place,
                "{words}"
            );
        }
        _ => {}
    }
}

impl ToStandardError {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // Other crates of the process have spans and events, too.
        if !target.starts_with("memobj") || metadata.is_span() || *metadata.level() > self.level {
            return false;
        }
        let most = match target.starts_with("memobj_serve::control") {
            true => Level::ERROR,
            false => Level::WARN,
        };
        !self.quiet || !target.starts_with("memobj_serve") || *metadata.level() <= most
    }
}

impl Subscriber for ToStandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = match self.form {
            LogForm::Text => text(event),
            LogForm::Json => json(event, SystemTime::now()),
        };
        // One write, so that lines of two processes do not mix. If it fails there is nobody left to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message; all that it is about is in it.
fn text(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                // A string takes all that is written to it.
                let _ = write!(self.0, "{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    format!("memobj: {}\n", message.0)
}

fn json(event: &Event<'_>, now: SystemTime) -> String {
    struct Fields(Map<String, Value>);
    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name().into(), format!("{value:?}").into());
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name().into(), value.into());
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            self.0.insert(field.name().into(), value.into());
        }

        fn record_i64(&mut self, field: &Field, value: i64) {
            self.0.insert(field.name().into(), value.into());
        }

        fn record_f64(&mut self, field: &Field, value: f64) {
            self.0.insert(field.name().into(), value.into());
        }

        fn record_bool(&mut self, field: &Field, value: bool) {
            self.0.insert(field.name().into(), value.into());
        }
    }
    let mut fields = Fields(Map::new());
    event.record(&mut fields);
    let (metadata, mut line) = (event.metadata(), fields.0);
    line.insert("time".into(), timestamp(now).into());
    line.insert("level".into(), metadata.level().as_str().to_ascii_lowercase().into());
    line.insert("target".into(), metadata.target().into());
    format!("{}\n", Value::Object(line))
}

/// As RFC 3339 has it, in UTC, with milliseconds.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day, so many days after 1970-01-01. Years begin in March here, so that the day that leap years have more
/// is the last.
fn date(days: u64) -> (u64, u64, u64) {
    // Since 0000-03-01; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_796_083_199, "2026-11-30T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)), text);
        }
    }

    #[test]
    fn quiet_says_what_is_wrong_on_this_side_only() {
        let loud = ToStandardError { form: LogForm::Text, level: Level::INFO, quiet: false };
        let quiet = ToStandardError { quiet: true, ..loud };
        struct Kept(ToStandardError, std::sync::Arc<std::sync::Mutex<Vec<String>>>);
        impl Subscriber for Kept {
            fn enabled(&self, metadata: &Metadata<'_>) -> bool {
                self.0.wants(metadata)
            }
            fn new_span(&self, _: &Attributes<'_>) -> Id {
                Id::from_u64(1)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn event(&self, event: &Event<'_>) {
                self.1.lock().unwrap().push(text(event));
            }
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
        }
        let said = |subscriber| {
            let lines = std::sync::Arc::default();
            let kept = Kept(subscriber, std::sync::Arc::clone(&lines));
            tracing::subscriber::with_default(kept, || {
                tracing::warn!(target: "memobj_serve::control::server", client = 1, "dropped");
                tracing::error!(target: "memobj_serve::control::objects", "lost");
                tracing::info!(target: "memobj_serve::vm::event", "admitted");
                tracing::warn!(target: "memobj_serve::vm::event", "refused");
                tracing::debug!(target: "memobj_serve::control::server", "connected");
                tracing::error!(target: "hyper", "elsewhere");
                tracing::info!(target: "memobj::serve_machines", "summary");
            });
            let lines: Vec<String> = std::mem::take(&mut *lines.lock().unwrap());
            lines.concat().replace("memobj: ", "").replace('\n', " ")
        };
        assert_eq!(said(loud), "dropped lost admitted refused summary ");
        assert_eq!(said(quiet), "lost refused summary ");
    }
}
