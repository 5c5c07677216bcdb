//! What happened lately, in compact codes: written all the time, printed when something is wrong.

use std::fmt;

use memobj_core::page_word::Word;

use super::program::Step;

/// Entries that are kept.
const KEPT: usize = 120;

/// Where a virtual thread lets others go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Word,
    Wait,
    WakeAll,
    CopyIn,
    CopySecondHalf,
    LoadPinned,
    StorePinned,
    DropFrames,
    DropBlock,
    ForgetWords,
    IsPresent,
    PresentRuns,
    Show,
    Open,
    Protect,
    Poison,
    LiftPoison,
    Wake,
    WakeOthers,
    Load,
    Store,
    Fault,
    SleepOnFault,
    ReadPager,
    WritePager,
    DropOutside,
    Pause,
}

#[derive(Clone, Copy, Debug)]
enum Happened {
    Nothing,
    /// A step begins.
    Begin(Step),
    /// A thread is about to do this.
    About(Call),
    /// A page word was changed.
    Became(Word),
    /// A load was answered, or a store made.
    Value(u64),
    /// A sleeper was woken, or timed out.
    Woken,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    thread: u8,
    page: u8,
    happened: Happened,
}

const NO_PAGE: u8 = u8::MAX;

/// The last entries, in a ring.
#[derive(Debug)]
pub(super) struct Trace {
    entries: [Entry; KEPT],
    count: usize,
}

impl Trace {
    pub(super) fn new() -> Self {
        let nothing = Entry { thread: 0, page: NO_PAGE, happened: Happened::Nothing };
        Self { entries: [nothing; KEPT], count: 0 }
    }

    fn add(&mut self, thread: u8, page: Option<usize>, happened: Happened) {
        let page = page.map_or(NO_PAGE, |page| page as u8);
        self.entries[self.count % KEPT] = Entry { thread, page, happened };
        self.count += 1;
    }

    pub(super) fn begin(&mut self, thread: u8, step: Step) {
        self.add(thread, None, Happened::Begin(step));
    }

    pub(super) fn about(&mut self, thread: u8, call: Call, page: Option<usize>) {
        let last = self.entries[self.count.wrapping_sub(1) % KEPT];
        let is_pause = |happened| matches!(happened, Happened::About(Call::Pause));
        if is_pause(last.happened) && call == Call::Pause && last.thread == thread {
            return;
        }
        self.add(thread, page, Happened::About(call));
    }

    pub(super) fn became(&mut self, thread: u8, page: usize, word: Word) {
        self.add(thread, Some(page), Happened::Became(word));
    }

    pub(super) fn value(&mut self, thread: u8, page: usize, value: u64) {
        self.add(thread, Some(page), Happened::Value(value));
    }

    pub(super) fn woken(&mut self, thread: u8) {
        self.add(thread, None, Happened::Woken);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for index in self.count.saturating_sub(KEPT)..self.count {
            let Entry { thread, page, happened } = self.entries[index % KEPT];
            write!(f, "  {index:5}  thread {thread}  ")?;
            if page != NO_PAGE {
                write!(f, "page {page}  ")?;
            }
            match happened {
                Happened::Nothing => writeln!(f)?,
                Happened::Begin(step) => writeln!(f, "---- {step:?}")?,
                Happened::About(call) => writeln!(f, "{call:?}")?,
                Happened::Became(word) => writeln!(f, "     => {}", brief(word))?,
                Happened::Value(value) => writeln!(f, "     value {value:x}")?,
                Happened::Woken => writeln!(f, "     woken")?,
            }
        }
        Ok(())
    }
}

/// The parts of a word that matter here.
pub(super) fn brief(word: Word) -> String {
    let mut text = format!("{:?}", word.state());
    let flags = [
        (word.is_pinned_mut(), " pinned for writing"),
        (word.is_writing(), " writing"),
        (word.is_lent(), " lent"),
        (word.is_held(), " held"),
        (word.has_waiters(), " waiters"),
    ];
    for (_, name) in flags.iter().filter(|(is_set, _)| *is_set) {
        text.push_str(name);
    }
    if word.pins() > 0 && !word.is_pinned_mut() {
        text.push_str(&format!(" pins {}", word.pins()));
    }
    format!("{text} version {}", word.version())
}
