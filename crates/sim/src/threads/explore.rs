//! Many runs: random ones, or all of a small size.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Once;

use super::mutation::Mutation;
use super::program::{Program, Step};
use super::scenario::Scenario;
use super::schedule::Schedule;
use super::scheduler::{VirtualThreads, run};
use crate::random::Random;

/// What was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Campaign {
    /// Schedules.
    pub schedules: u64,
    /// Steps of all of them.
    pub steps: u64,
}

/// A run in which something is wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In which scenario.
    pub scenario: &'static str,
    /// Which runs it again. Of a search of all schedules, how many were right before.
    pub seed: u64,
    /// What the threads were to do.
    pub program: Program,
    /// What is wrong, and the steps before.
    pub finding: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario \"{}\", MEMOBJ_SEED={}", self.scenario, self.seed)?;
        for (thread, steps) in self.program.threads.iter().enumerate() {
            writeln!(f, "  thread {thread} is to do {steps:?}")?;
        }
        write!(f, "{}", self.finding)
    }
}

thread_local! {
    /// What the protocol said when it panicked. Outside of runs nobody asks.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_RUNNING: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps panics of the protocol in runs for the report.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_RUNNING.with_borrow(|is| *is) {
                PANIC.with_borrow_mut(|kept| kept.get_or_insert_with(|| info.to_string()).len());
            } else {
                before(info);
            }
        }));
    });
}

/// Runs `act` on a thread of its own: a virtual thread that panicked is left as it is, and this thread with it.
fn aside<T: Send>(act: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    keep_panics();
    let body = || {
        IS_RUNNING.set(true);
        let result = act();
        IS_RUNNING.set(false);
        result.map_err(|mut failure| {
            if let Some(panic) = PANIC.take() {
                failure.finding = format!("{panic}\n{}", failure.finding);
            }
            failure
        })
    };
    std::thread::scope(|scope| scope.spawn(body).join().expect("findings are no panics"))
}

/// Runs `count` random schedules of `scenario`, whose seeds count from `seed` on, up to the first in which something is
/// wrong.
pub fn explore(
    scenario: &Scenario,
    seed: u64,
    count: u64,
    mutation: Option<Mutation>,
) -> Result<Campaign, Failure> {
    aside(|| {
        let mut virtual_threads = VirtualThreads::new();
        let mut campaign = Campaign::default();
        let mut program = Rc::new(Program::default());
        for seed in seed..seed.saturating_add(count) {
            let mut random = Random::new(seed);
            // Virtual threads of the run before may keep the last program still.
            Rc::make_mut(&mut program).draw(scenario, &mut random);
            let mut schedule = Schedule::random(random.draw());
            let steps = run(&mut virtual_threads, scenario, &program, &mut schedule, mutation).map_err(
                |finding| Failure { scenario: scenario.name, seed, program: (*program).clone(), finding },
            )?;
            campaign.schedules += 1;
            campaign.steps += steps;
        }
        Ok(campaign)
    })
}

/// Runs every schedule of `threads` in which threads that could go on are interrupted at most `interruptions` times.
pub fn explore_all(
    scenario: &Scenario,
    threads: &[&[Step]],
    interruptions: u32,
    mutation: Option<Mutation>,
) -> Result<Campaign, Failure> {
    let program = Program { threads: threads.iter().map(|steps| steps.to_vec()).collect() };
    aside(move || {
        let mut virtual_threads = VirtualThreads::new();
        let mut campaign = Campaign::default();
        let mut picks = Vec::new();
        let program = Rc::new(program);
        loop {
            let mut schedule = Schedule::Listed { picks: std::mem::take(&mut picks), at: 0, interruptions };
            let steps = run(&mut virtual_threads, scenario, &program, &mut schedule, mutation).map_err(
                |finding| Failure {
                    scenario: scenario.name,
                    seed: campaign.schedules,
                    program: (*program).clone(),
                    finding,
                },
            )?;
            campaign.schedules += 1;
            campaign.steps += steps;
            let Schedule::Listed { picks: followed, .. } = schedule else { unreachable!("it was listed") };
            picks = followed;
            if !next_picks(&mut picks) {
                return Ok(campaign);
            }
        }
    })
}

/// The picks of the next schedule, depth first. `false`: that was the last.
fn next_picks(picks: &mut Vec<(u8, u8)>) -> bool {
    while let Some((pick, of)) = picks.pop() {
        if pick + 1 < of {
            picks.push((pick + 1, of));
            return true;
        }
    }
    false
}
