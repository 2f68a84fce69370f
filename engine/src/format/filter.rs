//! The filter region of an archive: partitions by hash range, each a binary fuse filter of 8 bits.
//! Knows rows, lengths and their relations; building and asking live in `cold`.
//! format-spec.md 8, "Filter".

use crate::format::cursor::{Decoded, FieldError, Fields, Put};

/// Records a partition covers on average, at most.
pub(crate) const PARTITION_RECORD_COUNT: u32 = 65_536;
/// Bytes before the first row: the number of partitions, and zeros.
pub(crate) const FILTER_HEADER_LEN: usize = 8;
/// Bytes a partition takes before the fingerprints.
pub(crate) const FILTER_ROW_LEN: usize = 24;
/// Most fingerprints of one partition: sixteen times what an average one needs.
const FINGERPRINT_COUNT_MAX: u64 = 1 << 20;
/// Longest segment that the construction chooses.
const SEGMENT_LEN_MAX: u32 = 1 << 18;

/// One partition: the parameters of the filter and its fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition<'a> {
    pub seed: u64,
    /// A power of two; 0 when the partition has no filter and lets everything through.
    pub segment_len: u32,
    /// Fingerprints that a first position may name.
    pub first_count: u32,
    /// Records of the partition.
    pub record_count: u32,
    pub fingerprints: &'a [u8],
}

/// The partition of a hash: `hash * count / 2^64`.
pub(crate) fn partition_of(hash: u64, count: u32) -> usize {
    usize::try_from((u128::from(hash) * u128::from(count)) >> 64).unwrap_or(usize::MAX)
}

/// How many partitions an archive of this many records has.
pub(crate) fn partition_count(record_count: u32) -> u32 {
    record_count.div_ceil(PARTITION_RECORD_COUNT).max(1)
}

pub(crate) fn encode_filter(partitions: &[Partition<'_>]) -> Vec<u8> {
    let bytes = partitions.iter().map(|one| one.fingerprints.len() + FILTER_ROW_LEN).sum::<usize>();
    let mut out = Vec::with_capacity(FILTER_HEADER_LEN + bytes);
    out.put_u32(u32::try_from(partitions.len()).unwrap_or(u32::MAX));
    out.put_u32(0);
    for one in partitions {
        out.put_u64(one.seed);
        out.put_u32(one.segment_len);
        out.put_u32(one.first_count);
        out.put_u32(u32::try_from(one.fingerprints.len()).unwrap_or(u32::MAX));
        out.put_u32(one.record_count);
    }
    for one in partitions {
        out.put_bytes(one.fingerprints);
    }
    out
}

/// Decodes the region. Every position that a hash can name lies inside the fingerprints.
pub(crate) fn decode_filter(bytes: &[u8], record_count: u32) -> Decoded<Vec<Partition<'_>>> {
    let mut fields = Fields::new(bytes);
    let count = fields.u32("partition count")?;
    if count != partition_count(record_count) {
        return Err(FieldError::new("partition count", count, partition_count(record_count)));
    }
    fields.expect("reserved", &[0; 4])?;
    let rows_len = (count as usize).saturating_mul(FILTER_ROW_LEN);
    let mut rows = Fields::new(fields.bytes("partition rows", rows_len)?);
    let mut partitions = Vec::with_capacity(count as usize);
    let mut records = 0_u64;
    for _ in 0..count {
        let one = decode_partition(&mut rows, &mut fields)?;
        records = records.saturating_add(u64::from(one.record_count));
        partitions.push(one);
    }
    if records != u64::from(record_count) {
        return Err(FieldError::new("records in partitions", records, record_count));
    }
    fields.finish("filter end")?;
    Ok(partitions)
}

fn decode_partition<'a>(rows: &mut Fields<'_>, rest: &mut Fields<'a>) -> Decoded<Partition<'a>> {
    let seed = rows.u64("partition seed")?;
    let segment_len = rows.u32("segment length")?;
    let first_count = rows.u32("first count")?;
    let len_bytes = rows.u32_at_most("fingerprint count", FINGERPRINT_COUNT_MAX)?;
    let record_count = rows.u32_at_most("partition records", u64::from(len_bytes))?;
    let fingerprints = rest.bytes("fingerprints", len_bytes as usize)?;
    let one = Partition { seed, segment_len, first_count, record_count, fingerprints };
    if segment_len == 0 {
        return Ok(one);
    }
    if !segment_len.is_power_of_two() || segment_len > SEGMENT_LEN_MAX {
        return Err(FieldError::new("segment length", segment_len, "a power of two"));
    }
    let needed = u64::from(first_count) + 2 * u64::from(segment_len);
    if first_count == 0 || first_count % segment_len != 0 || needed != u64::from(len_bytes) {
        return Err(FieldError::new("fingerprint count", len_bytes, needed));
    }
    Ok(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(segment_len: u32, first_count: u32, fingerprints: &[u8]) -> Vec<u8> {
        encode_filter(&[Partition {
            seed: 9,
            segment_len,
            first_count,
            record_count: 5,
            fingerprints,
        }])
    }

    #[test]
    fn a_partition_comes_back_and_unsound_parameters_are_refused() {
        let sound = one(4, 8, &[1; 16]);
        let back = decode_filter(&sound, 5).unwrap();
        assert_eq!((back[0].seed, back[0].first_count, back[0].fingerprints.len()), (9, 8, 16));
        assert!(decode_filter(&one(4, 8, &[1; 15]), 5).is_err());
        assert!(decode_filter(&one(3, 6, &[1; 12]), 5).is_err());
        assert!(decode_filter(&one(4, 6, &[1; 14]), 5).is_err());
        assert!(decode_filter(&one(4, 0, &[1; 8]), 5).is_err());
        assert!(decode_filter(&one(0, 0, &[0; 5]), 5).is_ok());
        let long = |segment_len: u32| {
            let fingerprints = vec![1; 3 * segment_len as usize];
            decode_filter(&one(segment_len, segment_len, &fingerprints), 5).is_ok()
        };
        assert!(long(SEGMENT_LEN_MAX) && !long(SEGMENT_LEN_MAX * 2));
        assert_eq!(SEGMENT_LEN_MAX, 262_144);
        assert!(decode_filter(&sound, 6).is_err());
        assert!(decode_filter(&sound, 100_000).is_err());
        for len in 0..sound.len() {
            assert!(decode_filter(&sound[..len], 5).is_err());
        }
    }

    #[test]
    fn hashes_spread_over_all_partitions_in_order() {
        assert_eq!(partition_of(0, 7), 0);
        assert_eq!(partition_of(u64::MAX, 7), 6);
        assert_eq!(
            (partition_count(0), partition_count(65_536), partition_count(65_537)),
            (1, 1, 2)
        );
    }
}
