//! Keys in order over all tiers, a bounded piece at a time.
//! Knows which keys may be there; whether one is, and its value, is the read path's answer.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::error::Result;
use crate::ids::Incarnation;
use crate::key::Key;
use crate::tiers::Tiers;

/// Homes of the index that are walked for each time the append lock is taken.
const HOMES_PER_PIECE: u64 = 256;

/// Where a walk goes on and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub from: Bound<Key>,
    pub to: Bound<Key>,
}

impl KeyRange {
    fn is_behind_start(&self, key: &[u8]) -> bool {
        match &self.from {
            Bound::Included(from) => key >= &**from,
            Bound::Excluded(from) => key > &**from,
            Bound::Unbounded => true,
        }
    }

    fn is_before_end(&self, key: &[u8]) -> bool {
        match &self.to {
            Bound::Included(to) => key <= &**to,
            Bound::Excluded(to) => key < &**to,
            Bound::Unbounded => true,
        }
    }
}

/// Collects the smallest keys of a range, up to a bound.
struct Smallest {
    keys: BTreeSet<Key>,
    most: usize,
    full: bool,
}

impl Smallest {
    fn offer(&mut self, key: &[u8]) {
        if self.keys.len() >= self.most {
            self.full = true;
            if self.keys.last().is_some_and(|last| key >= &**last) {
                return;
            }
        }
        self.keys.insert(Key::from(key));
        if self.keys.len() > self.most {
            self.keys.pop_last();
        }
    }
}

impl Tiers {
    /// The smallest keys of the range that may be there, in order, and whether there may be more.
    pub(crate) fn keys_piece(
        &self,
        incarnation: Incarnation,
        range: &KeyRange,
        most: usize,
    ) -> Result<(Vec<Key>, bool)> {
        let mut smallest = Smallest { keys: BTreeSet::new(), most, full: false };
        self.warm_keys(incarnation, range, &mut smallest);
        self.cold_keys(incarnation, range, &mut smallest)?;
        let full = smallest.full;
        Ok((smallest.keys.into_iter().collect(), full))
    }

    fn warm_keys(&self, incarnation: Incarnation, range: &KeyRange, smallest: &mut Smallest) {
        let mut from = Some(0);
        while let Some(tag) = from {
            let append = self.append.lock();
            from = self.index.walk(&append.index, tag, HOMES_PER_PIECE, |entry| {
                if entry.tombstone {
                    return;
                }
                let Some(segment) = append.table.of(entry.location) else { return };
                let Ok(record) = segment.record(u64::from(entry.location.offset)) else { return };
                if record.header.incarnation == incarnation
                    && range.is_behind_start(record.key)
                    && range.is_before_end(record.key)
                {
                    smallest.offer(record.key);
                }
            });
        }
    }

    fn cold_keys(
        &self,
        incarnation: Incarnation,
        range: &KeyRange,
        smallest: &mut Smallest,
    ) -> Result<()> {
        let start: &[u8] = match &range.from {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => &[],
        };
        for entry in self.cold.load().entries() {
            let mut cursor = entry.archive.cursor();
            cursor.seek(incarnation, start)?;
            let mut taken = 0;
            while let Some(found) = cursor.next_if(|ordinal| !entry.dead.is_dead(ordinal))? {
                let record = &found.record;
                if record.incarnation != incarnation || !range.is_before_end(record.key) {
                    break;
                }
                if !range.is_behind_start(record.key) {
                    continue;
                }
                smallest.offer(record.key);
                taken += 1;
                if taken > smallest.most {
                    smallest.full = true;
                    break;
                }
            }
        }
        Ok(())
    }
}
