//! What virtual threads do.

use super::scenario::Scenario;
use crate::random::Random;

/// The most virtual threads.
pub(super) const MOST_THREADS: usize = 5;

/// One step of a virtual thread. `page` counts from the start of the object, `word` from the start of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the text of each step names its fields")]
pub enum Step {
    /// Loads through a view, as a program does.
    Load { page: u8, view: u8 },
    /// Stores through a view, as a program does.
    Store { page: u8, view: u8, word: u8 },
    /// Pins pages, reads them twice, unpins them.
    Pin { page: u8, count: u8 },
    /// Pins a page as a borrow of one page does, and the same.
    PinOne { page: u8 },
    /// Pins a page for writing, stores, and looks that nobody else does.
    PinMut { page: u8 },
    /// The same, with new bytes if it is absent; or the pin is given up once they are in place.
    PinNew { page: u8, is_kept: bool },
    /// Stores to both words of a page (`write_at`).
    WriteAt { page: u8 },
    /// Reads both words without a pin, and looks whether they belong together.
    ReadAt { page: u8 },
    /// Supplies a page with new bytes, which the pager does not have.
    Supply { page: u8 },
    /// Fills several pages in advance.
    Ahead { page: u8, count: u8 },
    /// Evicts what can be evicted.
    Evict { chosen: bool },
    /// Writes Dirty pages back; every fourth write fails.
    WriteBack { most: u8, fails: bool },
    /// Locks all Dirty pages at one moment, copies them, and writes them.
    Commit,
    /// Drops the frames of locked pages.
    Abandon { page: u8 },
    /// Drops a page and its changes.
    Discard { page: u8 },
    /// Drops the frame of a page, without a word to anybody.
    DropOutside { page: u8 },
    /// Opens several pages to stores, and stores to them.
    OpenRun { page: u8, count: u8 },
    /// Claims a page and lets it go.
    GiveUp { page: u8 },
    /// Fails a page.
    Fail { page: u8 },
    /// Has a failed page asked for again.
    Retry { page: u8 },
    /// Makes a Clean page Dirty.
    MakeDirty { page: u8 },
    /// Cuts half of the last page off, and extends the object again.
    ChangeLength,
    /// Cuts off the last page, and extends the object again.
    CutPage,
    /// Shows Clean pages wherever they are not.
    ShowClean,
    /// Protects all pages, so that stores fault again.
    Protect,
    /// Gives the words of all pages back, if nobody uses one.
    GiveBackTables,
}

/// The steps of each thread.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// By thread.
    pub threads: Vec<Vec<Step>>,
}

impl Program {
    /// Draws a program of `scenario` into `self`.
    pub(super) fn draw(&mut self, scenario: &Scenario, random: &mut Random) {
        let threads = 2 + random.below(scenario.threads as u64 - 1) as usize;
        self.threads.resize(threads, Vec::new());
        let total: u64 = scenario.steps.iter().map(|(_, weight)| weight).sum();
        for steps in &mut self.threads {
            steps.clear();
            for _ in 0..=random.below(scenario.most_steps) {
                let mut at = random.below(total);
                let kind = scenario.steps.iter().find(|(_, weight)| {
                    let is_it = at < *weight;
                    at = at.wrapping_sub(*weight);
                    is_it
                });
                if let Some((kind, _)) = kind {
                    steps.push(with_places(*kind, scenario, random));
                }
            }
        }
    }
}

/// `kind` with places drawn at random.
fn with_places(kind: Step, scenario: &Scenario, random: &mut Random) -> Step {
    let page = random.below(scenario.pages as u64) as u8;
    let view = random.below(scenario.views as u64) as u8;
    let word = random.below(2) as u8;
    let count = 1 + random.below(u64::from(scenario.pages as u8 - page)) as u8;
    let coin = random.below(4) == 0;
    match kind {
        Step::Load { .. } => Step::Load { page, view },
        Step::Store { .. } => Step::Store { page, view, word },
        Step::Pin { .. } => Step::Pin { page, count },
        Step::PinOne { .. } => Step::PinOne { page },
        Step::PinMut { .. } => Step::PinMut { page },
        Step::PinNew { .. } => Step::PinNew { page, is_kept: !coin },
        Step::WriteAt { .. } => Step::WriteAt { page },
        Step::ReadAt { .. } => Step::ReadAt { page },
        Step::Supply { .. } => Step::Supply { page },
        Step::Ahead { .. } => Step::Ahead { page, count },
        Step::Evict { .. } => Step::Evict { chosen: coin },
        Step::WriteBack { .. } => Step::WriteBack { most: count, fails: coin },
        Step::Abandon { .. } => Step::Abandon { page },
        Step::Discard { .. } => Step::Discard { page },
        Step::DropOutside { .. } => Step::DropOutside { page },
        Step::OpenRun { .. } => Step::OpenRun { page, count },
        Step::GiveUp { .. } => Step::GiveUp { page },
        Step::Fail { .. } => Step::Fail { page },
        Step::Retry { .. } => Step::Retry { page },
        Step::MakeDirty { .. } => Step::MakeDirty { page },
        Step::Commit
        | Step::ChangeLength
        | Step::CutPage
        | Step::ShowClean
        | Step::Protect
        | Step::GiveBackTables => kind,
    }
}
