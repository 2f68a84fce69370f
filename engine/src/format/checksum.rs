//! CRC-32 (IEEE, by crc32fast), plain or bound to a place: the file's nonce and the offset.
//! A bound checksum does not hold for the same bytes anywhere else.

use crate::canary::{Canary, planted};

/// The checksum of these bytes alone.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_checksum_holds_in_one_place_only() {
        let here = bound_crc(1, 64, b"bytes");
        assert_eq!(here, bound_crc(1, 64, b"bytes"));
        assert_ne!(here, bound_crc(2, 64, b"bytes"));
        assert_ne!(here, bound_crc(1, 72, b"bytes"));
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }
}
