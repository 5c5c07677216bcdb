//! The protocol of pages under every order of steps that comes up: random schedules of virtual threads, and all schedules
//! of a few small programs.
//!
//! `MEMOBJ_SCHEDULES` runs so many random schedules, and `MEMOBJ_SEED` begins with another; together with
//! `MEMOBJ_SCENARIO` and one schedule it repeats one that has failed.
#![forbid(unsafe_code)]

use memobj_sim::threads::{Mutation, SCENARIOS, SMALL, explore, explore_all};

/// Random schedules of each scenario.
const SCHEDULES: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn random_schedules_find_nothing() {
    let seed = number("MEMOBJ_SEED").unwrap_or(1);
    let count = match number("MEMOBJ_SCHEDULES") {
        Some(total) => total.div_ceil(SCENARIOS.len() as u64),
        None if number("MEMOBJ_SEED").is_some() => 1,
        None => SCHEDULES,
    };
    let mut failed: Vec<&str> = Vec::new();
    let only = std::env::var("MEMOBJ_SCENARIO").ok();
    for scenario in SCENARIOS.iter().filter(|scenario| only.as_ref().is_none_or(|name| name == scenario.name))
    {
        let began = std::time::Instant::now();
        match explore(scenario, seed, count, None) {
            Ok(campaign) => {
                println!("{}: {campaign:?} from seed {seed}, {:?}", scenario.name, began.elapsed())
            }
            Err(failure) => {
                println!("{failure}");
                failed.push(scenario.name);
            }
        }
    }
    assert!(failed.is_empty(), "something is wrong in {failed:?}, see above");
}

/// Interruptions of a thread that could go on, in a search of all schedules.
const INTERRUPTIONS: u32 = 3;

#[test]
fn all_schedules_of_small_programs_find_nothing() {
    for (scenario, programs) in SMALL {
        for program in *programs {
            let began = std::time::Instant::now();
            match explore_all(scenario, program, INTERRUPTIONS, None) {
                Ok(campaign) => println!("{program:?}: {campaign:?}, {:?}", began.elapsed()),
                Err(failure) => panic!("{failure}"),
            }
        }
    }
}

/// Schedules of each scenario in which a mutation is looked for.
const MUTATED: u64 = 20_000;

/// A simulator that finds nothing wrong with a host that is wrong is itself wrong.
#[test]
fn every_mutation_is_found() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let found = SCENARIOS.iter().find_map(|scenario| explore(scenario, 1, MUTATED, Some(mutation)).err());
        match found {
            Some(failure) => {
                let finding = failure.finding.lines().take(2).collect::<Vec<_>>().join(" ");
                println!("{mutation:?}: \"{}\", seed {}: {finding}", failure.scenario, failure.seed);
            }
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
