//! Why a command ended early, and the exit status of each reason.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command ended early.
#[derive(Debug, PartialEq)]
pub(crate) enum Failure {
    /// Something failed, and this says what.
    Message(String),
    /// Something failed that was printed when it happened.
    Reported,
    /// The arguments make no sense together, or with what they name.
    Usage(String),
    /// The user asked to stop.
    Interrupted,
    /// The user asked to stop, and was told where that leaves things.
    InterruptReported,
    /// Nobody reads standard output any more.
    ClosedPipe,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(message) | Self::Usage(message) => f.write_str(message),
            Self::Interrupted | Self::InterruptReported => f.write_str("interrupted"),
            Self::Reported | Self::ClosedPipe => Ok(()),
        }
    }
}

impl Failure {
    /// A failure to do `what`, with the system's words for the reason.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::Message(format!("{what}: {}", reason(error)))
    }

    /// A failure to write to standard output.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::io("write standard output", error),
        }
    }

    /// Prints the failure if that is still to be done.
    pub(crate) fn print(&self) {
        match self {
            Self::Message(message) | Self::Usage(message) => complain(message),
            Self::Interrupted => complain("interrupted"),
            Self::Reported | Self::InterruptReported | Self::ClosedPipe => {}
        }
    }

    /// The same after it was printed.
    pub(crate) fn reported(&self) -> Self {
        match self {
            Self::Interrupted | Self::InterruptReported => Self::InterruptReported,
            _ => Self::Reported,
        }
    }

    /// Prints the failure if that is still to be done, and gives its exit status.
    pub(crate) fn report(&self) -> ExitCode {
        self.print();
        ExitCode::from(match self {
            Self::Message(_) | Self::Reported => 1,
            Self::Usage(_) => 2,
            Self::Interrupted | Self::InterruptReported => 130,
            Self::ClosedPipe => 141,
        })
    }
}

/// Prints a message on standard error. If that is closed there is nobody left to tell.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "memobj: {message}");
}

/// The system's words for an error, in lower case and without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What the library said, and why: each cause that the text has not told already.
pub(crate) fn failure(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        let words = words.split_once(" (os error").map_or(words.as_str(), |(words, _)| words);
        // What was to be done stands in front already.
        let done = text.split_once(": ").map_or("", |(done, _)| done);
        let words = words.strip_prefix(done).map_or(words, |rest| rest.trim_start_matches(": "));
        if !words.is_empty() && !text.to_lowercase().contains(&words.to_lowercase()) {
            text.push_str(": ");
            text.push_str(words);
        }
        source = cause.source();
    }
    Failure::Message(text)
}

#[cfg(test)]
mod tests {
    use super::{Failure, reason};
    use std::io;

    #[test]
    fn reasons_are_words_in_lower_case() {
        assert_eq!(reason(&io::Error::from_raw_os_error(5)), "input/output error");
        assert_eq!(reason(&io::Error::other("Odd")), "odd");
        assert_eq!(reason(&io::Error::other("")), "");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_message() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::stdout(&closed), Failure::ClosedPipe);
        let full = io::Error::from_raw_os_error(28);
        let message = "write standard output: no space left on device".to_string();
        assert_eq!(Failure::stdout(&full), Failure::Message(message));
    }
}
