//! The threads of this crate: one runtime for the process, made at first use and never dropped.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::channel;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that run tasks. Requests wait for the network, not for a processor.
const WORKERS: usize = 2;
/// Threads for calls that block: names of hosts, the spool.
const BLOCKING: usize = 16;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime.
///
/// # Errors
///
/// If the system has no thread or descriptor for it.
pub(crate) fn handle() -> io::Result<Handle> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let made = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_name("memobj-net")
        .enable_all()
        .build()?;
    // If another thread was faster, its runtime is used and this one ends in the background.
    if let Err(second) = RUNTIME.set(made) {
        second.shutdown_background();
    }
    let runtime = RUNTIME.get().ok_or_else(|| io::Error::other("no runtime"))?;
    Ok(runtime.handle().clone())
}

/// Runs `work` on the runtime and waits for it. Can be called from anywhere, other runtimes included; blocks.
///
/// # Errors
///
/// If there is no runtime, or `work` panics.
pub(crate) fn wait_for<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (sender, result) = channel();
    handle()?.spawn(async move {
        // Who waits may have ended by a panic.
        let _ = sender.send(work.await);
    });
    result.recv().map_err(|_| io::Error::other("a task ended by a panic"))
}

/// Runs `work`, which blocks, on a thread for such work.
///
/// # Errors
///
/// What `work` says; or that it ended by a panic.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error).into()),
    }
}
