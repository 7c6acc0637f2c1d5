//! Random numbers that are the same on every machine, in every version of every library.

/// `SplitMix64` (Steele, Lea, Flood 2014): one word of state, and any seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small, so that no remainder is noticeably preferred.
    pub(crate) fn below(&mut self, bound: u16) -> u16 {
        u16::try_from(self.next() % u64::from(bound.max(1))).unwrap_or_default()
    }

    pub(crate) fn one_in(&mut self, times: u16) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::from(self.below(u16::try_from(from.len()).unwrap_or(u16::MAX)))]
    }
}
