//! A compressed value as bytes. Pure, but for the dictionaries that it is given.
//!
//! | bytes | what, little-endian |
//! |---|---|
//! | 1 | 0 as it is, 1 zstd |
//! | 4 | the dictionary, 0 for none |
//! | 4 | length before compression |
//! | 4 | CRC-32 of the bytes before compression |
//! | rest | the payload |

use crate::error::{Error, Result};

pub(crate) const HEADER_LEN: usize = 13;
/// The largest value before compression: 64 MiB.
pub(crate) const RAW_LEN_MAX: u64 = 64 << 20;
/// Less than this share of savings, in percent, is not worth the work of decompression.
const SAVING_PERCENT_MIN: usize = 12;

/// What stands in front of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub compressed: bool,
    pub dictionary: u32,
    pub raw_len: u32,
    pub checksum: u32,
}

impl Head {
    pub(crate) fn decode(stored: &[u8]) -> Result<(Self, &[u8])> {
        let short = || Error::corrupt("compressed value", format!("{} bytes", stored.len()));
        let (head, payload) = stored.split_first_chunk::<HEADER_LEN>().ok_or_else(short)?;
        let [kind, d0, d1, d2, d3, r0, r1, r2, r3, c0, c1, c2, c3] = *head;
        if kind > 1 {
            return Err(Error::corrupt("compressed value", format!("kind {kind}")));
        }
        let head = Self {
            compressed: kind == 1,
            dictionary: u32::from_le_bytes([d0, d1, d2, d3]),
            raw_len: u32::from_le_bytes([r0, r1, r2, r3]),
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
        };
        if u64::from(head.raw_len) > RAW_LEN_MAX {
            return Err(Error::corrupt("compressed value", format!("{} bytes raw", head.raw_len)));
        }
        Ok((head, payload))
    }

    fn encode(self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
        out.push(u8::from(self.compressed));
        out.extend_from_slice(&self.dictionary.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
        out.extend_from_slice(payload);
        out
    }
}

/// Compresses, or not when that saves less than 12 %.
pub(crate) fn encode(raw: &[u8], level: i32, dictionary: Option<(u32, &[u8])>) -> Result<Vec<u8>> {
    Error::check_limit("value before compression", raw.len(), RAW_LEN_MAX)?;
    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    let head = Head { compressed: false, dictionary: 0, raw_len, checksum: crc32fast::hash(raw) };
    let (id, bytes) = dictionary.unwrap_or((0, &[]));
    let mut compressor = zstd::bulk::Compressor::with_dictionary(level, bytes)?;
    compressor.include_contentsize(false)?;
    let payload = compressor.compress(raw)?;
    let worth = payload.len() * 100 <= raw.len() * (100 - SAVING_PERCENT_MIN);
    Ok(if worth {
        Head { compressed: true, dictionary: id, ..head }.encode(&payload)
    } else {
        head.encode(raw)
    })
}

/// The bytes before compression, checked. Allocates no more than the head declares, which is
/// capped.
pub(crate) fn decode(head: Head, payload: &[u8], dictionary: &[u8]) -> Result<Vec<u8>> {
    let raw_len = usize::try_from(head.raw_len).unwrap_or(usize::MAX);
    let raw = if head.compressed {
        let mut decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary)?;
        decompressor
            .decompress(payload, raw_len)
            .map_err(|error| Error::corrupt("compressed value", error.to_string()))?
    } else {
        payload.to_vec()
    };
    if raw.len() != raw_len || crc32fast::hash(&raw) != head.checksum {
        return Err(Error::corrupt("compressed value", "the checksum does not hold"));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            bytes in proptest::collection::vec(0_u8..4, 0..2000),
            dictionary in proptest::collection::vec(0_u8..4, 0..100),
        ) {
            let with = (dictionary.len() > 50).then_some((7, dictionary.as_slice()));
            let stored = encode(&bytes, 3, with).unwrap();
            let (head, payload) = Head::decode(&stored).unwrap();
            let dictionary = if head.dictionary == 7 { &dictionary[..] } else { &[] };
            prop_assert_eq!(decode(head, payload, dictionary).unwrap(), bytes);
        }

        #[test]
        fn any_stored_bytes_never_panic(mut bytes in proptest::collection::vec(0_u8.., 0..60)) {
            if let Some(kind) = bytes.first_mut() {
                *kind &= 1;
            }
            if let Ok((head, payload)) = Head::decode(&bytes) {
                let _ = decode(head, payload, &[]);
            }
        }
    }

    #[test]
    fn damage_is_found_and_noise_is_kept_as_it_is() {
        let text = "the same again and again, ".repeat(50);
        let mut stored = encode(text.as_bytes(), 3, None).unwrap();
        assert!(stored.len() < 200);
        let last = stored.len() - 1;
        stored[last] ^= 1;
        let (head, payload) = Head::decode(&stored).unwrap();
        assert!(matches!(decode(head, payload, &[]), Err(Error::Corrupt { .. })));
        let noise: Vec<u8> = (0..255).collect();
        let stored = encode(&noise, 19, None).unwrap();
        assert_eq!(stored.len(), HEADER_LEN + noise.len());
        let large = vec![0; (64 << 20) + 1];
        assert!(matches!(encode(&large, 1, None), Err(Error::Limit { .. })));
    }
}
