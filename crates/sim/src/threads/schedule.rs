//! Who goes on next.

use crate::random::Random;

/// How the next thread is picked.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// At random.
    Random {
        /// Where from.
        random: Random,
        /// Of so many steps, a thread that can go on is interrupted at one.
        stay: u64,
    },
    /// By a list of picks, which grows by the first of each: the depth-first search goes on from there.
    Listed {
        /// Which of the threads was picked, and of how many.
        picks: Vec<(u8, u8)>,
        /// The next to follow.
        at: usize,
        /// Threads that could go on may be interrupted so many times more.
        interruptions: u32,
    },
}

impl Schedule {
    /// The random one of `seed`: some change threads all the time, and others rarely.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let stay = [1, 1, 2, 4, 8, 16][random.below(6) as usize];
        Self::Random { random, stay }
    }

    /// Picks one of `ready`, a set of threads that is not empty. `current` ran last.
    pub(super) fn pick(&mut self, ready: u8, current: u8) -> u8 {
        let may_stay = ready & (1 << current) != 0;
        match self {
            Self::Random { random, stay } => {
                if may_stay && *stay > 1 && random.below(*stay) != 0 {
                    return current;
                }
                nth_of(ready, random.below(u64::from(ready.count_ones())) as u32)
            }
            Self::Listed { picks, at, interruptions } => {
                if may_stay && *interruptions == 0 {
                    return current;
                }
                // The first pick lets the thread go on, if it can.
                let others = ready & !(1 << current);
                let count = ready.count_ones() as u8;
                if *at == picks.len() {
                    picks.push((0, count));
                }
                let (pick, of) = picks[*at];
                assert_eq!(of, count, "the same picks led to another place");
                *at += 1;
                match (may_stay, pick) {
                    (true, 0) => current,
                    (true, pick) => {
                        *interruptions -= 1;
                        nth_of(others, u32::from(pick) - 1)
                    }
                    (false, pick) => nth_of(ready, u32::from(pick)),
                }
            }
        }
    }

    /// Whether a sleeper with a time-out is to give up, though others can go on.
    pub(super) fn times_out(&mut self) -> bool {
        match self {
            Self::Random { random, .. } => random.below(64) == 0,
            Self::Listed { .. } => false,
        }
    }
}

fn nth_of(set: u8, index: u32) -> u8 {
    let mut rest = set;
    for _ in 0..index {
        rest &= rest - 1;
    }
    rest.trailing_zeros() as u8
}
