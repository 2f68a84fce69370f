//! The hash of a key: SipHash-1-3 keyed by a secret of the store.
//! Computed once a call, over incarnation and key; index, hot tier and trailers use parts of it.

use crate::ids::Incarnation;

/// The state of SipHash (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012), with one
/// round a word and three at the end.
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline]
    fn new(secret: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(secret);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let (k0, k1) = (whole as u64, (whole >> 64) as u64);
        Self {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// Up to seven bytes as the lower ones of a word.
#[inline]
fn tail_word(bytes: &[u8]) -> u64 {
    let fold = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    match bytes.split_first_chunk::<4>() {
        Some((low, high)) => u64::from(u32::from_le_bytes(*low)) | fold(high) << 32,
        None => fold(bytes),
    }
}

/// The secret of a store, drawn when it is created and stored in its manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashSeed(pub [u8; 16]);

/// 64 unpredictable bits for one key of one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(pub u64);

impl HashSeed {
    /// The hash of four bytes of incarnation and the key behind them.
    #[inline]
    pub(crate) fn hash(&self, incarnation: Incarnation, key: &[u8]) -> KeyHash {
        let mut sip = Sip::new(self.0);
        // The length in the last word counts modulo 256.
        let len = (key.len() as u64 + 4) << 56;
        let first = u64::from(incarnation.0);
        let Some((low, rest)) = key.split_first_chunk::<4>() else {
            sip.word(first | tail_word(key) << 32 | len);
            return KeyHash(sip.finish());
        };
        sip.word(first | u64::from(u32::from_le_bytes(*low)) << 32);
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            sip.word(u64::from_le_bytes(*word));
        }
        sip.word(tail_word(tail) | len);
        KeyHash(sip.finish())
    }
}

impl KeyHash {
    /// The upper half: what the index and the trailers keep, and what orders them.
    pub(crate) fn tag(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }
}

impl std::fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSeed(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use siphasher::sip::SipHasher13;

    use super::*;

    /// SipHash-1-3 of 03 00 00 00 "terrace" under that key.
    const KNOWN_HASH: u64 = 0x1992_69BE_5F08_DD53;

    #[test]
    fn the_hash_depends_on_the_seed_the_incarnation_and_the_key_and_is_stable() {
        let seed = HashSeed([7; 16]);
        let base = seed.hash(Incarnation(1), b"key");
        assert_eq!(base, HashSeed([7; 16]).hash(Incarnation(1), b"key"));
        assert_ne!(base, HashSeed([8; 16]).hash(Incarnation(1), b"key"));
        assert_ne!(base, seed.hash(Incarnation(2), b"key"));
        assert_ne!(base, seed.hash(Incarnation(1), b"kez"));
    }

    #[test]
    fn keys_of_all_lengths_hash_as_siphash_says() {
        let seed = HashSeed(*b"0123456789abcdef");
        for len in 0..600 {
            let key: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0] ^ 0xA5).collect();
            let mut hasher = SipHasher13::new_with_key(&seed.0);
            hasher.write_u32(0x89AB_CDEF_u32.to_le());
            hasher.write(&key);
            let found = seed.hash(Incarnation(0x89AB_CDEF), &key);
            assert_eq!(found.0, hasher.finish(), "{len} bytes");
        }
    }

    #[test]
    fn the_hash_of_a_known_key_never_changes_since_trailers_hold_it() {
        let seed = HashSeed(*b"0123456789abcdef");
        assert_eq!(seed.hash(Incarnation(3), b"terrace").0, KNOWN_HASH);
        assert_eq!(KeyHash(0xAABB_CCDD_0000_0001).tag(), 0xAABB_CCDD);
    }
}
