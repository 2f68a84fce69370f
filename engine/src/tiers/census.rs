//! A sample of the keys that are live: those whose hash falls into one range. The same range gives
//! the same keys again, so two samples differ by what came and went, and by nothing else.
//! Knows how to take samples; what they are compared for is the caller's.

use std::collections::{BTreeMap, HashSet};

use crate::cold::ArchiveEntry;
use crate::format::block::split_sort_key;
use crate::hash::KeyHash;
use crate::ids::{Incarnation, Location, Seq};
use crate::ledger::prefixes::SampledKey;
use crate::tiers::Tiers;

/// Keys that a sample aims at.
const SAMPLE_LEN: u64 = 4096;
/// Homes of the index that are walked for each time the append lock is taken.
const HOMES_PER_PIECE: u64 = 256;
/// Blocks of archives that one sample reads at most.
const BLOCKS_MAX: u32 = 64;

/// The keys of the log in one range of hashes.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Tags below this are sampled.
    tag_end: u64,
    hashes: HashSet<KeyHash>,
}

/// A live record of the log.
struct Counted {
    hash: KeyHash,
    incarnation: Incarnation,
    key: Vec<u8>,
    len: u64,
    lasting: bool,
}

impl Tiers {
    /// Samples the keys of the log as they are now.
    pub(crate) fn census(&self) -> Census {
        let tag_end = tag_end(self.index.count(), 1 << 32);
        let mut hashes = HashSet::new();
        self.each_in_range(tag_end, |one| {
            hashes.insert(one.hash);
        });
        Census { tag_end, hashes }
    }

    /// Samples, by incarnation, the keys that came since a census: in the log, and in archives that
    /// were made since `since_ms` of records after `since`.
    pub(crate) fn newcomers(
        &self,
        census: &Census,
        since: Seq,
        since_ms: u64,
    ) -> BTreeMap<Incarnation, Vec<SampledKey>> {
        let end = tag_end(self.index.count() / 16, census.tag_end);
        let scale = (1_u64 << 32).div_ceil(end.max(1));
        let mut came: BTreeMap<Incarnation, Vec<SampledKey>> = BTreeMap::new();
        self.each_in_range(end, |one| {
            if !census.hashes.contains(&one.hash) {
                let Counted { incarnation, key, len, lasting, .. } = one;
                let key = SampledKey { key, bytes: len * scale, keys: scale, lasting };
                came.entry(incarnation).or_default().push(key);
            }
        });
        let set = self.cold.load();
        let entries = set.entries().iter();
        let made: Vec<_> = entries.filter(|entry| entry.created_ms() >= since_ms).collect();
        let most = BLOCKS_MAX / u32::try_from(made.len().max(1)).unwrap_or(BLOCKS_MAX);
        for entry in made {
            self.sample_archive(entry, since, most.max(1), &mut came);
        }
        came
    }

    /// Every live record of the log whose tag lies below `tag_end`.
    fn each_in_range(&self, tag_end: u64, mut each: impl FnMut(Counted)) {
        let mut from = Some(0);
        while let Some(tag) = from.filter(|tag| *tag < tag_end) {
            let mut places: Vec<(u32, Location)> = Vec::new();
            let table = {
                let append = self.append.lock();
                from = self.index.walk(&append.index, tag, HOMES_PER_PIECE, |entry| {
                    if u64::from(entry.tag) < tag_end && !entry.tombstone {
                        places.push((entry.tag, entry.location));
                    }
                });
                self.segments.load_full()
            };
            for (tag, place) in places {
                let Some(segment) = table.of(place) else { continue };
                let Ok(record) = segment.record(u64::from(place.offset)) else { continue };
                let header = record.header;
                let hash = self.seed.hash(header.incarnation, record.key);
                // The place may hold another record by now.
                if hash.tag() == tag && self.is_alive(header.deadline_ms) {
                    each(Counted {
                        hash,
                        incarnation: header.incarnation,
                        key: record.key.to_vec(),
                        len: header.encoded_len(),
                        lasting: header.deadline_ms == 0,
                    });
                }
            }
        }
    }

    /// Reads some blocks of an archive, evenly spread; what cannot be read is left out.
    fn sample_archive(
        &self,
        entry: &ArchiveEntry,
        since: Seq,
        blocks_max: u32,
        came: &mut BTreeMap<Incarnation, Vec<SampledKey>>,
    ) {
        let blocks = entry.archive.footer().block_count;
        let step = blocks.div_ceil(blocks_max).max(1);
        for block in (0..blocks).step_by(step as usize) {
            let Ok(index) = entry.archive.index() else { return };
            let (Ok(row), Ok(next)) = (index.row(block), index.row(block + 1)) else { continue };
            let Ok((incarnation, key)) = split_sort_key(row.key) else { continue };
            let mut cursor = entry.archive.cursor();
            if cursor.seek(incarnation, key).is_err() {
                continue;
            }
            let count = next.first_ordinal.saturating_sub(row.first_ordinal);
            for _ in 0..count {
                let Ok(Some(found)) = cursor.next_if(|at| !entry.dead.is_dead(at)) else { break };
                let record = &found.record;
                if record.seq > since && self.is_alive(record.deadline_ms) {
                    came.entry(record.incarnation).or_default().push(SampledKey {
                        key: record.key.to_vec(),
                        bytes: record.encoded_len() * u64::from(step),
                        keys: u64::from(step),
                        lasting: record.deadline_ms == 0,
                    });
                }
            }
        }
    }
}

/// The end of the range of tags in which a sample's share of so many keys lies.
fn tag_end(count: u64, most: u64) -> u64 {
    if count <= SAMPLE_LEN {
        return most;
    }
    let share = u128::from(SAMPLE_LEN) << 32;
    u64::try_from(share / u128::from(count)).unwrap_or(most).clamp(1, most)
}
