//! The hash of a key: SipHash-1-3 keyed by a secret of the store.
//! Computed once a call, over incarnation and key; index, hot tier and trailers use parts of it.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::ids::Incarnation;

/// Incarnation and a key that is hashed at once.
const SHORT_LEN: usize = 64;

fn in_pieces(mut hasher: SipHasher13, incarnation: Incarnation, key: &[u8]) -> u64 {
    hasher.write_u32(incarnation.0.to_le());
    hasher.write(key);
    hasher.finish()
}

/// The secret of a store, drawn when it is created and stored in its manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashSeed(pub [u8; 16]);

/// 64 unpredictable bits for one key of one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(pub u64);

impl HashSeed {
    pub(crate) fn hash(&self, incarnation: Incarnation, key: &[u8]) -> KeyHash {
        let hasher = SipHasher13::new_with_key(&self.0);
        let mut joined = [0; SHORT_LEN];
        // Over bytes that stand together it costs half of what it costs piece by piece.
        if let Some(room) = joined.get_mut(4..4 + key.len()) {
            room.copy_from_slice(key);
            joined[..4].copy_from_slice(&incarnation.0.to_le_bytes());
            return KeyHash(hasher.hash(joined.get(..4 + key.len()).unwrap_or(&[])));
        }
        KeyHash(in_pieces(hasher, incarnation, key))
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
    fn a_hash_at_once_is_the_hash_in_pieces() {
        let seed = HashSeed(*b"0123456789abcdef");
        for len in 0..200 {
            let key: Vec<u8> = (0..len).collect();
            let hasher = SipHasher13::new_with_key(&seed.0);
            let pieces = in_pieces(hasher, Incarnation(77), &key);
            assert_eq!(seed.hash(Incarnation(77), &key).0, pieces, "{len} bytes");
        }
    }

    #[test]
    fn the_hash_of_a_known_key_never_changes_since_trailers_hold_it() {
        let seed = HashSeed(*b"0123456789abcdef");
        assert_eq!(seed.hash(Incarnation(3), b"terrace").0, KNOWN_HASH);
        assert_eq!(KeyHash(0xAABB_CCDD_0000_0001).tag(), 0xAABB_CCDD);
    }
}
