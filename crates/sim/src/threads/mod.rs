//! The engine's threads, simulated: a seeded scheduler runs virtual threads through the protocol of pages, the same code
//! that the engine runs, one step at a time.
//!
//! ```text
//!   Scenario --draws--> Program: steps for each virtual thread
//!                          |
//!   Schedule --picks--> virtual threads ---> memobj_core::pages::Pages<SimulatedHost>
//!   (random, or all     (coroutines on one      |  frames, views, poison, sleepers: a few words each
//!    of a small size)    thread of the system)  v
//!                                            checks: after every step, at every call, at every load
//! ```
//!
//! Virtual threads take turns where the protocol looks at a page word or changes one, and at each call of the host. What
//! lies between two turns is one step for all others. So a run is one order of steps, as on a machine whose memory is
//! sequentially consistent: orderings weaker than that are loom's business, which checks the page word alone.
//!
//! [`explore`] runs schedules and says what was found. `docs/simulator.md` says what is checked.

mod check;
mod door;
mod explore;
mod host;
mod mutation;
mod pins;
mod program;
mod scenario;
mod schedule;
mod scheduler;
mod steps;
mod trace;
mod world;

pub use explore::{Campaign, Failure, explore, explore_all};
pub use mutation::Mutation;
pub use program::{Program, Step};
pub use scenario::{Pair, SCENARIOS, SMALL, Scenario, Weighted};
pub use schedule::Schedule;
