//! A hash of short texts that is the same in every version and on every machine: FNV-1a (Fowler,
//! Noll and Vo) with a last mix. Not for strangers' keys in tables; knows bytes alone.

#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    /// Adds one part; where it ends counts.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(u64::from(*byte));
        }
        self.step(0x100);
    }

    fn step(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01B3);
    }

    /// All bits mixed into all: the finalizer of `SplitMix64`.
    pub(crate) fn finish(self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The hash of one text.
    pub(crate) fn of(text: &str) -> u64 {
        let mut hash = Self::new();
        hash.add(text.as_bytes());
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_stays_what_it_is_and_tells_parts_apart() {
        let two = |a: &str, b: &str| {
            let mut hash = Hash::new();
            hash.add(a.as_bytes());
            hash.add(b.as_bytes());
            hash.finish()
        };
        assert_ne!(two("ab", "c"), two("a", "bc"));
        assert_ne!(two("", "a"), two("a", ""));
        assert_eq!(Hash::of("terrace"), Hash::of("terrace"));
        let high = (0..1000).filter(|i| Hash::of(&i.to_string()) >> 63 == 1).count();
        assert!((400..600).contains(&high), "{high}");
    }
}
