//! Numbers from a seed: `SplitMix64`. The same seed gives the same run on every machine.
//! Knows 64 bits of state; knows nothing of what is drawn with them.

use std::env;
use std::ops::Range;

/// The variable that sets the seed of every randomized test.
pub const SEED_VARIABLE: &str = "TERRACE_SEED";

/// A generator. Cheap to copy a run from: two with one seed draw the same.
///
/// ```
/// use terrace_tests::random::Random;
/// let (mut a, mut b) = (Random::new(7), Random::new(7));
/// assert_eq!(a.below(1000), b.below(1000));
/// ```
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// A generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The seed of `TERRACE_SEED` where that is set, else `default`; printed, so that a failing
    /// test shows it.
    pub fn from_environment(default: u64) -> Self {
        let given = env::var(SEED_VARIABLE).ok().and_then(|text| text.trim().parse().ok());
        let seed = given.unwrap_or(default);
        println!("{SEED_VARIABLE}={seed}");
        Self::new(seed)
    }

    /// What it began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number of a range; its start when the range is empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let width = range.end.saturating_sub(range.start) as u64;
        range.start + usize::try_from(self.below(width)).unwrap_or(0)
    }

    /// True in `percent` of 100 draws.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several; `None` of none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.within(0..of.len()))
    }

    /// Random bytes, which do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A generator that draws independently of this one from here on.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        let drawn = [random.bits(), random.bits(), random.bits()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn every_number_below_a_bound_is_drawn_and_none_above() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            let drawn = random.within(0..7);
            seen.iter_mut().skip(drawn).take(1).for_each(|count| *count += 1);
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
        assert_eq!((random.below(0), random.within(5..5)), (0, 5));
        assert_eq!(random.bytes(13).len(), 13);
    }
}
