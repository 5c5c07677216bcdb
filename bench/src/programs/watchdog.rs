//! Ends programs that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// A thread that kills a process group if it is watched for too long. Waiting for the process itself is then a plain
/// wait, which ends when the process does.
pub struct Watchdog {
    messages: Sender<Message>,
    has_killed: Arc<AtomicBool>,
}

enum Message {
    Watch(u32),
    Done,
}

impl Watchdog {
    /// One that lets a process live for `limit`.
    pub fn new(limit: Duration) -> Self {
        let (messages, inbox) = channel();
        let has_killed = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&has_killed);
        // It ends with the last sender.
        thread::spawn(move || watch(&inbox, limit, &mark));
        Self { messages, has_killed }
    }

    /// Watches the process `leader`, which leads a group, until [`done`](Self::done).
    pub fn watch(&self, leader: u32) {
        // The thread is there as long as this is.
        let _ = self.messages.send(Message::Watch(leader));
    }

    /// The process has ended; whether it was killed for that.
    pub fn done(&self) -> bool {
        let _ = self.messages.send(Message::Done);
        self.has_killed.swap(false, Ordering::Relaxed)
    }
}

fn watch(inbox: &Receiver<Message>, limit: Duration, has_killed: &AtomicBool) {
    while let Ok(message) = inbox.recv() {
        let Message::Watch(leader) = message else { continue };
        if !matches!(inbox.recv_timeout(limit), Err(RecvTimeoutError::Timeout)) {
            continue;
        }
        has_killed.store(true, Ordering::Relaxed);
        if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
