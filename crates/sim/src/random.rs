//! Seeded randomness: the same seed, the same run.

/// A small generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

/// The known byte at `offset` of an object of stress and conformance runs; `salt` tells objects apart.
pub fn known_byte(salt: u64, offset: u64) -> u8 {
    Random::new(salt ^ (offset / 8).wrapping_mul(0xd6e8_feb8_6659_fd93)).draw().to_le_bytes()
        [(offset % 8) as usize]
}
