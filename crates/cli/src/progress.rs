//! A progress bar for work that lasts, on a terminal only.

use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);
const TEMPLATE: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Where a command's standard output goes, which decides whether a bar would be in its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Output {
    /// Lines, which the bar may stand below.
    Lines,
    /// Bytes, which would be mixed with the bar on a terminal.
    Bytes,
}

/// How much of one file is done.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None` where no bar may be shown.
    bar: Option<ProgressBar>,
    begin: Instant,
}

impl Progress {
    /// Begins work of `total_bytes` called `name`.
    pub(crate) fn begin(name: &str, total_bytes: u64, output: Output) -> Self {
        let wanted = stderr().is_terminal() && !(output == Output::Bytes && stdout().is_terminal());
        let style = ProgressStyle::with_template(TEMPLATE).ok().filter(|_| wanted);
        let bar = style.map(|style| {
            let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::hidden());
            bar.with_style(style).with_message(name.to_string())
        });
        Self { bar, begin: Instant::now() }
    }

    /// Counts `bytes` more as done.
    pub(crate) fn advance(&self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        if bar.is_hidden() && self.begin.elapsed() > PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.inc(bytes);
    }

    /// So many of the bytes have to be done again.
    pub(crate) fn go_back(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bar.position().saturating_sub(bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
