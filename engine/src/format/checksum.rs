//! CRC-32 (IEEE, by crc32fast), plain or bound to a place: the file's nonce and the offset.
//! A bound checksum does not hold for the same bytes anywhere else.

use crate::canary::{Canary, planted};

/// The checksum of these bytes alone.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of `bytes` had they begun with `first` instead of the word that stands there: one
/// call for what lies apart in memory.
#[inline]
pub(crate) fn crc_behind(first: u32, bytes: &[u8]) -> u32 {
    // A CRC's state and the word that it meets next count by their XOR alone.
    let stands = bytes.first_chunk::<4>().map_or(first, |word| u32::from_le_bytes(*word));
    let mut hasher = crc32fast::Hasher::new_with_initial(first ^ stands);
    hasher.update(bytes);
    hasher.finalize()
}

/// A checksum that is begun once and finished for many: the start of what all of them cover.
/// Whoever finishes many saves the question which instructions the processor has.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    hasher: crc32fast::Hasher,
    /// What was not summed yet.
    left: [u8; 4],
}

impl Begun {
    /// Bound checksums of a file with this nonce.
    pub(crate) fn bound(nonce: u64) -> Self {
        let nonce = if planted(Canary::NoNonce) { 0 } else { nonce };
        let [a, b, c, d, left @ ..] = nonce.to_le_bytes();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[a, b, c, d]);
        Self { hasher, left }
    }

    /// What [`bound_crc`] gives for so many bytes behind nonce and offset. Half of the nonce is
    /// summed here, so that a record's header makes three whole blocks.
    #[inline]
    pub(crate) fn at<const LEN: usize, const JOINED: usize>(
        &self,
        offset: u64,
        bytes: &[u8; LEN],
    ) -> u32 {
        const { assert!(JOINED == LEN + 12, "half a nonce, an offset and the bytes") };
        let mut joined = [0; JOINED];
        joined[..4].copy_from_slice(&self.left);
        joined[4..12].copy_from_slice(&offset.to_le_bytes());
        joined[12..].copy_from_slice(bytes);
        let mut hasher = self.hasher.clone();
        hasher.update(&joined);
        hasher.finalize()
    }
}

/// Nonce, offset and the header of a record, or of a file.
const SHORT_LEN: usize = 80;

/// The checksum of nonce, offset and bytes, in that order, both numbers as 8 bytes little-endian.
pub(crate) fn bound_crc(nonce: u64, offset: u64, bytes: &[u8]) -> u32 {
    let nonce = if planted(Canary::NoNonce) { 0 } else { nonce };
    let mut place = [0; SHORT_LEN];
    place[..8].copy_from_slice(&nonce.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    // One call over bytes that stand together costs a fraction of several.
    if let Some(room) = place.get_mut(16..16 + bytes.len()) {
        room.copy_from_slice(bytes);
        return crc32fast::hash(place.get(..16 + bytes.len()).unwrap_or(&[]));
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place[..16]);
    hasher.update(bytes);
    hasher.finalize()
}

/// Bytes of a body that is copied together to be summed at once.
const JOINED_LEN: usize = 256;

impl Begun {
    /// The plain checksum of three parts, in that order, whatever was begun.
    pub(crate) fn anew_of(&self, head: [u8; 4], parts: [&[u8]; 2]) -> u32 {
        let [first, second] = parts;
        let (middle, end) = (4 + first.len(), 4 + first.len() + second.len());
        let mut joined = [0; JOINED_LEN];
        // One call over bytes that stand together costs a fraction of several.
        if let Some(all) = joined.get_mut(..end) {
            let (before, last) = all.split_at_mut(middle);
            let (start, rest) = before.split_at_mut(4);
            start.copy_from_slice(&head);
            rest.copy_from_slice(first);
            last.copy_from_slice(second);
            let mut hasher = self.hasher.clone();
            hasher.reset();
            hasher.update(all);
            return hasher.finalize();
        }
        let mut hasher = self.hasher.clone();
        hasher.reset();
        hasher.update(&head);
        hasher.update(first);
        hasher.update(second);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_parts_are_summed_as_one() {
        let (begun, all) = (Begun::bound(9), [7; 600]);
        for (first, second) in [(0, 0), (1, 3), (24, 100), (100, 152), (100, 153), (200, 300)] {
            let found = begun.anew_of([7; 4], [&all[..first], &all[..second]]);
            assert_eq!(found, crc(&all[..4 + first + second]), "{first} and {second}");
        }
    }

    #[test]
    fn a_bound_checksum_holds_in_one_place_only() {
        let here = bound_crc(1, 64, b"bytes");
        assert_eq!(here, bound_crc(1, 64, b"bytes"));
        assert_ne!(here, bound_crc(2, 64, b"bytes"));
        assert_ne!(here, bound_crc(1, 72, b"bytes"));
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn another_first_word_is_summed_in_place_of_the_one_that_stands() {
        for len in [4, 5, 19, 20, 36, 128, 600] {
            let mut bytes: Vec<u8> = (1..=250).cycle().take(len).collect();
            let found = crc_behind(0x0102_0304, &bytes);
            bytes[..4].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
            assert_eq!(found, crc(&bytes), "{len} bytes");
        }
    }

    #[test]
    fn what_was_begun_ends_as_what_is_summed_at_once() {
        let begun = Begun::bound(9);
        assert_eq!(begun.at::<5, 17>(64, b"bytes"), bound_crc(9, 64, b"bytes"));
        assert_eq!(begun.at::<36, 48>(8, &[7; 36]), bound_crc(9, 8, &[7; 36]));
        let long = Begun::bound(u64::MAX - 9);
        assert_eq!(long.at::<36, 48>(8, &[7; 36]), bound_crc(u64::MAX - 9, 8, &[7; 36]));
    }
}
