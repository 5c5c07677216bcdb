//! The value of `--retry`: what happens when something fails that may pass.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, complain, failure};
use crate::interrupt::Interrupt;

/// How long to wait before something is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a wait looks for Ctrl-C.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a failed page is tried again before its error counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Retry {
    /// Not at all.
    Never,
    /// With growing pauses until this much time has passed.
    For(Duration),
    /// With growing pauses until it works.
    Forever,
}

impl Retry {
    /// Makes `attempt` until it succeeds, its error is not one that `may_pass`, or the time is over. Says once that it goes on.
    pub(crate) fn until_done<T, E: Error>(
        self,
        interrupt: &Interrupt,
        may_pass: impl Fn(&E) -> bool,
        attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, Failure> {
        self.until_over(interrupt, may_pass, attempt)?.map_err(failure)
    }

    /// The same, and the last error as it is. Fails itself on Ctrl-C.
    pub(crate) fn until_over<T, E: Error>(
        self,
        interrupt: &Interrupt,
        may_pass: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<Result<T, E>, Failure> {
        let (begin, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let error = match attempt() {
                Ok(done) => return Ok(Ok(done)),
                Err(error) => error,
            };
            let is_last = match self {
                Self::Never => true,
                Self::For(limit) => begin.elapsed() + pause >= limit,
                Self::Forever => false,
            };
            if is_last || !may_pass(&error) {
                return Ok(Err(error));
            }
            if pause == FIRST_PAUSE {
                complain(&format!("{}; still trying", failure(error)));
            }
            wait(pause, interrupt)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn wait(pause: Duration, interrupt: &Interrupt) -> Result<(), Failure> {
    let end = Instant::now() + pause;
    loop {
        interrupt.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK_AGAIN));
    }
}

/// Reads `never`, `forever`, or a time such as `500ms`, `10s`, `2m`.
pub(crate) fn parse(text: &str) -> Result<Retry, String> {
    match text {
        "never" => Ok(Retry::Never),
        "forever" => Ok(Retry::Forever),
        _ => parse_time(text)
            .map(Retry::For)
            .ok_or_else(|| format!("not a time: {text:?} (examples: 500ms, 10s, 2m, never, forever)")),
    }
}

/// Reads a time such as `500ms`, `10s`, `2m`, which is not zero.
pub(crate) fn parse_time_argument(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| format!("not a time: {text:?} (examples: 500ms, 10s, 2m)"))
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::{Retry, parse};
    use std::time::Duration;

    #[test]
    fn words_and_times() {
        assert_eq!(parse("never"), Ok(Retry::Never));
        assert_eq!(parse("forever"), Ok(Retry::Forever));
        assert_eq!(parse("500ms"), Ok(Retry::For(Duration::from_millis(500))));
        assert_eq!(parse("10s"), Ok(Retry::For(Duration::from_secs(10))));
        assert_eq!(parse("2m"), Ok(Retry::For(Duration::from_secs(120))));
    }

    #[test]
    fn a_bare_number_has_no_unit_and_is_refused() {
        for text in ["", "10", "s", "1.5s", "-1s", "10h", "99999999999999999999s", "18446744073709551615m"] {
            assert!(parse(text).expect_err(text).contains(&format!("{text:?}")));
        }
    }
}
