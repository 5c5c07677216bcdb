//! `memobj uploads`: uploads to a store that were begun and neither ended nor removed.

use clap::Args;
use memobj_url::object_store::{LeftUpload, ObjectStoreOptions, abort_upload, left_uploads};

use crate::failure::{Failure, complain};
use crate::interrupt::Interrupt;
use crate::output;

pub(crate) const UPLOADS_HELP: &str = "\
Examples:
  memobj uploads s3://bucket/key                                    of one object, and of names that begin so
  memobj uploads s3://bucket/dir/ --begun-before 2026-11-01         older ones
  memobj uploads s3://bucket/dir/ --begun-before 2026-11-01 --abort remove them, and their parts

A writer that is killed leaves its upload in the store, where its parts cost money. No reader ever sees it. One that is listed
can be under way right now: to remove it makes its writer's sync fail, which loses nothing.

A line for each: when it was begun, what the store calls it, and the name of the object. A store lists 1000 at once.";

/// `memobj uploads`.
#[derive(Debug, Args)]
pub(crate) struct UploadsArguments {
    /// An object of S3, or what names of objects begin with
    #[arg(value_name = "URL")]
    url: String,
    /// Only those that were begun before this date, such as 2026-11-01 or 2026-11-01T12:00
    #[arg(long, value_name = "DATE", value_parser = date)]
    begun_before: Option<String>,
    /// Remove them
    #[arg(long)]
    abort: bool,
}

/// Dates of stores are of this form, in UTC: they are in order as texts are.
fn date(text: &str) -> Result<String, String> {
    let form = "0000-00-00T00:00:00";
    let is_like = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    match [10, 16, 19].contains(&text.len()) && text.bytes().zip(form.bytes()).all(is_like) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text} is no date such as 2026-11-01 or 2026-11-01T12:00")),
    }
}

/// Lists, or removes.
pub(crate) fn run(arguments: &UploadsArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let options = ObjectStoreOptions::default();
    let failed = |error: &dyn std::fmt::Display| Failure::Message(error.to_string());
    let uploads = left_uploads(&arguments.url, &options).map_err(|error| failed(&error))?;
    let is_old = |upload: &&LeftUpload| {
        arguments.begun_before.as_ref().is_none_or(|date| upload.begun.as_str() < date.as_str())
    };
    let mut has_failed = false;
    for upload in uploads.iter().filter(is_old) {
        interrupt.check()?;
        if arguments.abort
            && let Err(error) = abort_upload(&arguments.url, &options, upload)
        {
            complain(&error.to_string());
            has_failed = true;
            continue;
        }
        output::put(format!("{} {} {}\n", upload.begun, upload.id, upload.key).as_bytes())?;
    }
    if has_failed { Err(Failure::Reported) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_stores() {
        for text in ["2026-11-01", "2026-11-01T12:00", "2026-11-01T12:00:59"] {
            assert_eq!(date(text).as_deref(), Ok(text));
        }
        for text in ["", "2026", "2026-11-1", "2026-11-01 12:00", "yesterday..", "2026-11-01T12"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
