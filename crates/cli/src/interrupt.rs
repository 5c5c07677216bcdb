//! Ctrl-C: stop between two pieces, release everything, exit 130.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGINT;

use crate::failure::{Failure, complain};

/// How long the command may take to stop by itself. A pager that hangs never lets it.
const GRACE: Duration = Duration::from_secs(2);
/// The same, where what was written so far is made durable first.
const LONG_GRACE: Duration = Duration::from_secs(20);
/// 128 plus the number of SIGINT, as a shell reports it.
const EXIT_STATUS: i32 = 130;

/// Whether the user asked to stop.
#[derive(Debug)]
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Catches SIGINT from now on. The first sets the flag; the second, or the end of the grace, exits at
    /// once and leaves it to the kernel to release everything.
    pub(crate) fn install() -> Result<Self, Failure> {
        Self::install_with(GRACE)
    }

    /// As [`install`](Self::install), for commands that have something to make durable before they stop.
    pub(crate) fn install_patiently() -> Result<Self, Failure> {
        Self::install_with(LONG_GRACE)
    }

    fn install_with(grace: Duration) -> Result<Self, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let install = || {
            // Order matters: the conditional exit looks at the flag before this signal sets it.
            signal_hook::flag::register_conditional_shutdown(SIGINT, EXIT_STATUS, Arc::clone(&requested))?;
            signal_hook::flag::register(SIGINT, Arc::clone(&requested))?;
            let (receiver, sender) = UnixStream::pair()?;
            signal_hook::low_level::pipe::register(SIGINT, sender)?;
            thread::Builder::new().name("interrupt".to_string()).spawn(move || exit_after(grace, receiver))
        };
        install().map_err(|error| Failure::io("install the interrupt handler", &error))?;
        Ok(Self { requested })
    }

    /// Fails if the user asked to stop.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.requested.load(Ordering::Relaxed) {
            true => Err(Failure::Interrupted),
            false => Ok(()),
        }
    }

    /// One that nobody asks.
    pub(crate) fn never() -> Self {
        Self { requested: Arc::new(AtomicBool::new(false)) }
    }

    /// One that was asked, for tests.
    #[cfg(test)]
    pub(crate) fn already() -> Self {
        Self { requested: Arc::new(AtomicBool::new(true)) }
    }
}

/// Blocks until the signal comes, then ends the process if it has not ended by itself in time.
fn exit_after(grace: Duration, mut signal: UnixStream) {
    if signal.read_exact(&mut [0]).is_ok() {
        thread::sleep(grace);
        complain(&format!("interrupted, and not stopped after {} s", grace.as_secs()));
        process::exit(EXIT_STATUS);
    }
}
