//! Filters in memory: which hashes an archive may hold.
//! Knows 64-bit hashes; knows nothing of keys or blocks.

use std::ops::Range;

use xorf::{BinaryFuse8, Descriptor, Filter as _};

use crate::format::cursor::Decoded;
use crate::format::filter::{
    PARTITION_RECORD_COUNT, Partition, decode_filter, encode_filter, partition_count, partition_of,
};
use crate::hash::KeyHash;

/// The filter of one archive: at most 1.25 bytes a key from 20,000 keys on.
#[derive(Debug)]
pub(crate) struct Filter {
    /// Empty when there is no filter: then everything may be there.
    partitions: Box<[Part]>,
}

#[derive(Debug)]
enum Part {
    /// No record has a hash of this range.
    Empty,
    /// Lets every hash through: no filter could be built.
    Open,
    Fuse(BinaryFuse8),
}

impl Filter {
    /// Lets everything through; stands in for a damaged one.
    pub(crate) fn open() -> Self {
        Self { partitions: Box::default() }
    }

    /// Copies the partitions of a region into memory.
    pub(crate) fn decode(region: &[u8], record_count: u32) -> Decoded<Self> {
        let partitions = decode_filter(region, record_count)?;
        Ok(Self { partitions: partitions.iter().map(Part::of).collect() })
    }

    /// `false` only when no record has this hash; wrong for one absent hash in 256.
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        let count = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        match self.partitions.get(partition_of(hash.0, count)) {
            Some(Part::Fuse(fuse)) => fuse.contains(&hash.0),
            Some(Part::Empty) => false,
            Some(Part::Open) | None => true,
        }
    }

    /// Anonymous memory that the filter takes.
    pub(crate) fn charged_len(&self) -> usize {
        let fingerprints = self.partitions.iter().map(|part| match part {
            Part::Fuse(fuse) => fuse.len(),
            Part::Empty | Part::Open => 0,
        });
        size_of_val(&*self.partitions) + fingerprints.sum::<usize>()
    }
}

impl Part {
    fn of(partition: &Partition<'_>) -> Self {
        if partition.record_count == 0 {
            return Self::Empty;
        }
        if partition.segment_len == 0 {
            return Self::Open;
        }
        Self::Fuse(BinaryFuse8 {
            descriptor: Descriptor {
                seed: partition.seed,
                segment_length: partition.segment_len,
                segment_length_mask: partition.segment_len - 1,
                segment_count_length: partition.first_count,
            },
            fingerprints: partition.fingerprints.into(),
        })
    }
}

/// Builds the region of a filter, some partitions at a time.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    partition_count: u32,
    built: Vec<(BinaryFuse8, usize)>,
}

impl FilterBuilder {
    /// For an archive of so many records.
    pub(crate) fn new(record_count: u32) -> Self {
        Self { partition_count: partition_count(record_count), built: Vec::new() }
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.partition_count
    }

    fn partition_from(&self) -> u32 {
        u32::try_from(self.built.len()).unwrap_or(u32::MAX)
    }

    /// The partitions to build next, of about so many hashes and one partition at least; `None`
    /// when all of them are built.
    pub(crate) fn next_partitions(&self, hash_count: usize) -> Option<Range<u32>> {
        let from = self.partition_from();
        let count = u32::try_from(hash_count).unwrap_or(u32::MAX) / PARTITION_RECORD_COUNT;
        let until = from.saturating_add(count.max(1)).min(self.partition_count);
        (from < until).then_some(from..until)
    }

    /// Builds the next partitions, those below `until`, of all hashes that belong to them. Sorts
    /// the hashes.
    pub(crate) fn add(&mut self, hashes: &mut [u64], until: u32) {
        hashes.sort_unstable();
        let mut rest: &[u64] = hashes;
        for partition in self.partition_from()..until {
            let count = self.partition_count;
            let mine = |hash: &u64| partition_of(*hash, count) <= partition as usize;
            let (mine, after) = rest.split_at(rest.partition_point(mine));
            rest = after;
            self.built.push((build_partition(mine), mine.len()));
        }
    }

    /// The region.
    pub(crate) fn finish(self) -> Vec<u8> {
        let partitions = self.built.iter().map(|(fuse, record_count)| Partition {
            seed: fuse.descriptor.seed,
            segment_len: fuse.descriptor.segment_length,
            first_count: fuse.descriptor.segment_count_length,
            record_count: u32::try_from(*record_count).unwrap_or(u32::MAX),
            fingerprints: &fuse.fingerprints,
        });
        encode_filter(&partitions.collect::<Vec<_>>())
    }
}

/// A filter over sorted hashes, or one that lets everything through where none can be built.
fn build_partition(hashes: &[u64]) -> BinaryFuse8 {
    let mut distinct = hashes.to_vec();
    distinct.dedup();
    if !distinct.is_empty()
        && let Ok(fuse) = BinaryFuse8::try_from(&distinct)
        && fuse.len() >= hashes.len()
    {
        return fuse;
    }
    BinaryFuse8 {
        descriptor: Descriptor {
            seed: 0,
            segment_length: 0,
            segment_length_mask: 0,
            segment_count_length: 0,
        },
        fingerprints: vec![0; hashes.len()].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u64, salt: u64) -> Vec<u64> {
        let mut state = salt;
        (0..count)
            .map(|_| {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed ^ mixed >> 27
            })
            .collect()
    }

    fn build_filter(hashes: &mut [u64]) -> Vec<u8> {
        let mut builder = FilterBuilder::new(u32::try_from(hashes.len()).unwrap());
        builder.add(hashes, builder.partition_count());
        builder.finish()
    }

    #[test]
    fn every_hash_of_an_archive_passes_and_few_others_do() {
        for count in [1, 2, 3, 7, 100, 5_000, 140_000] {
            let mut inside = hashes(count, 1);
            let region = build_filter(&mut inside);
            let filter = Filter::decode(&region, u32::try_from(count).unwrap()).unwrap();
            assert!(inside.iter().all(|&hash| filter.may_contain(KeyHash(hash))));
            let others = hashes(100_000, 1 << 60);
            let passed = others.iter().filter(|&&hash| filter.may_contain(KeyHash(hash))).count();
            assert!(passed < 600, "{passed} of 100000 pass with {count} records");
            if count > 20_000 {
                let budget = usize::try_from(count).unwrap() * 5 / 4;
                assert!(filter.charged_len() <= budget, "{} bytes", filter.charged_len());
            }
        }
    }

    #[test]
    fn equal_hashes_and_a_partition_without_any_are_no_obstacle() {
        let mut inside = vec![5; 40];
        inside.extend((0..65_600).map(|hash| hash * 3));
        let count = u32::try_from(inside.len()).unwrap();
        let filter = Filter::decode(&build_filter(&mut inside), count).unwrap();
        assert!(inside.iter().all(|&hash| filter.may_contain(KeyHash(hash))));
        assert!(!filter.may_contain(KeyHash(u64::MAX)));
        assert!(Filter::open().may_contain(KeyHash(1)));
    }
}
