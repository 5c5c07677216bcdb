//! Runs virtual threads, one at a time, each until it lets others go on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use generator::{Generator, Gn};
use memobj_core::address::PageSize;
use memobj_core::budget::Budget;
use memobj_core::pages::{Blocks, Pages, PagesOptions, Tables, Writes};
use memobj_core::pin_budget::PinBudget;

use super::host::{PAGE_BYTES, SimulatedHost};
use super::mutation::Mutation;
use super::program::{MOST_THREADS, Program};
use super::scenario::Scenario;
use super::schedule::Schedule;
use super::world::{MOST_RUNNING, Sleep, World};
use super::{check, door, steps};

/// Steps after which a run is taken for one that never ends.
const MOST_STEPS: u64 = 20_000;
/// Words of the stack of a virtual thread.
const STACK_WORDS: usize = 16 << 10;
/// The virtual thread that reads faults.
const READER: u8 = MOST_THREADS as u8;

thread_local! {
    /// What virtual threads find when they begin to run.
    static RUN: RefCell<Option<(Rc<World>, Rc<Program>)>> = const { RefCell::new(None) };
}

/// The virtual threads. They stay from run to run, as their stacks are dear; after a finding they are left as they are.
pub(super) struct VirtualThreads {
    threads: Vec<Generator<'static, (), ()>>,
    is_broken: bool,
}

impl VirtualThreads {
    pub(super) fn new() -> Self {
        let spawn = |index: usize| {
            let mut thread = Gn::<()>::new_opt(STACK_WORDS, move || live(index as u8));
            // Who has some is a coroutine in the terms of the library, and may give way from anywhere.
            thread.set_local_data(std::ptr::NonNull::dangling().as_ptr());
            thread.resume();
            thread
        };
        Self { threads: (0..MOST_RUNNING).map(spawn).collect(), is_broken: false }
    }
}

impl Drop for VirtualThreads {
    fn drop(&mut self) {
        RUN.set(None);
        for mut thread in self.threads.drain(..) {
            if !self.is_broken {
                thread.resume();
            }
            if !thread.is_done() {
                // In the middle of something: its stack is never looked at again.
                std::mem::forget(thread);
            }
        }
    }
}

/// The life of a virtual thread: a part in each run.
fn live(thread: u8) {
    loop {
        generator::co_yield_with(());
        let Some((world, program)) = RUN.with_borrow(Clone::clone) else { return };
        if thread == READER {
            door::read_faults(&world, || others_have_ended(&world));
        } else {
            for step in &program.threads[thread as usize] {
                world.trace.borrow_mut().begin(thread, *step);
                steps::take(&world, *step);
            }
        }
        world.set_sleep(thread, Sleep::Done);
    }
}

fn others_have_ended(world: &World) -> bool {
    (0..READER).all(|thread| world.sleep_of(thread) == Sleep::Done)
}

/// One run. Says how many steps it took, or what is wrong.
pub(super) fn run(
    virtual_threads: &mut VirtualThreads,
    scenario: &Scenario,
    program: &Rc<Program>,
    schedule: &mut Schedule,
    mutation: Option<Mutation>,
) -> Result<u64, String> {
    let world = Rc::new(World::new(scenario, mutation));
    world.set_pages(Some(pages_of(scenario, &world)));
    RUN.set(Some((Rc::clone(&world), Rc::clone(program))));
    for thread in 0..program.threads.len() {
        world.set_sleep(thread as u8, Sleep::Awake);
    }
    if scenario.is_queued {
        world.set_sleep(READER, Sleep::Awake);
    }
    let steps = run_threads(virtual_threads, &world, schedule);
    if world.finding.borrow().is_none() {
        world.is_over.set(true);
        check::at_end(&world);
    }
    if let Some(finding) = world.finding.borrow().as_ref() {
        virtual_threads.is_broken = true;
        return Err(format!("{finding}\n{}", world.trace.borrow()));
    }
    drop(world.set_pages(None));
    Ok(steps)
}

#[expect(clippy::arc_with_non_send_sync, reason = "the protocol wants an Arc, and all threads are virtual")]
fn pages_of(scenario: &Scenario, world: &Rc<World>) -> Arc<Pages<SimulatedHost>> {
    let counts = || -> (Box<[AtomicU32]>, Box<[AtomicU32]>) {
        (Box::from([AtomicU32::new(0)]), Box::from([AtomicU32::new(0)]))
    };
    let blocks = || {
        let (blocks, groups) = counts();
        Blocks::new(blocks, groups)
    };
    let length = (scenario.pages * PAGE_BYTES) as u64;
    let pages = Pages::new(PagesOptions {
        host: SimulatedHost(Rc::clone(world)),
        words: Rc::clone(&world.words),
        resident: blocks(),
        occupied: counts(),
        unclean: blocks(),
        length,
        capacity: length,
        page_size: PageSize::SMALL,
        writes: if scenario.is_written { Writes::Yes } else { Writes::No },
        budget: Arc::new(Budget::new(scenario.budget * PAGE_BYTES as u64)),
        pin_budget: Arc::new(PinBudget::new(length)),
        unwritten: Arc::new(AtomicU64::new(0)),
        tables: Arc::new(Tables::new(0)),
    });
    Arc::new(pages.expect("there is memory"))
}

fn run_threads(virtual_threads: &mut VirtualThreads, world: &World, schedule: &mut Schedule) -> u64 {
    for step in 0..MOST_STEPS {
        let ready = ready(world, schedule);
        if ready == 0 {
            if let Some(thread) = who_is_stuck(world) {
                world.note(format!("thread {thread} sleeps for ever, {:?}", world.sleep_of(thread)));
            }
            return step;
        }
        let thread = schedule.pick(ready, world.current.get());
        world.current.set(thread);
        wake_paused(world, thread);
        virtual_threads.threads[thread as usize].resume();
        // Who has found something holds on to what he looked at.
        if world.finding.borrow().is_none() {
            check::after_step(world, thread);
        }
        if world.finding.borrow().is_some() {
            return step;
        }
    }
    world.note(format!("it has not ended after {MOST_STEPS} steps"));
    MOST_STEPS
}

fn threads() -> impl Iterator<Item = u8> {
    0..MOST_RUNNING as u8
}

/// Those that wait for any step go on after this one.
fn wake_paused(world: &World, thread: u8) {
    for other in threads() {
        if world.sleep_of(other) == Sleep::Paused {
            world.set_sleep(other, Sleep::Awake);
        }
    }
    debug_assert!(world.sleep_of(thread) == Sleep::Awake);
}

/// The set of threads that can go on. Sleepers with a time-out can at times, or when nobody else can.
fn ready(world: &World, schedule: &mut Schedule) -> u8 {
    let set = |is_it: &dyn Fn(Sleep) -> bool| {
        threads().filter(|thread| is_it(world.sleep_of(*thread))).fold(0, |set, thread| set | (1 << thread))
    };
    let awake: u8 = set(&|sleep| sleep == Sleep::Awake);
    let timed: u8 = set(&|sleep| matches!(sleep, Sleep::OnWord { times_out: true, .. }));
    if timed != 0 && (awake == 0 || schedule.times_out()) {
        for thread in threads().filter(|thread| timed & (1 << thread) != 0) {
            world.set_sleep(thread, Sleep::Awake);
        }
        return awake | timed;
    }
    if awake == 0 {
        let paused = set(&|sleep| sleep == Sleep::Paused);
        if paused == 0 && world.sleep_of(READER) == Sleep::ForFaults && others_have_ended(world) {
            world.set_sleep(READER, Sleep::Awake);
            return 1 << READER;
        }
        return paused;
    }
    awake
}

fn who_is_stuck(world: &World) -> Option<u8> {
    threads().find(|thread| !matches!(world.sleep_of(*thread), Sleep::Done | Sleep::ForFaults))
}
