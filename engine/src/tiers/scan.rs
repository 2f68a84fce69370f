//! Keys in order without an order in memory: the least, or the greatest, of a range at a time.
//! For keyspaces that do without it. Knows which keys may be there; whether one is, and its value,
//! is the read path's answer.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::error::Result;
use crate::ids::Incarnation;
use crate::key::Key;
use crate::tiers::Tiers;
use crate::tiers::span::{Direction, KeyRange};

/// Homes of the index that are walked for each time the append lock is taken.
const HOMES_PER_PIECE: u64 = 256;

/// Collects the outermost keys of a range, up to a bound.
struct Outermost {
    keys: BTreeSet<Key>,
    most: usize,
    direction: Direction,
    /// A key was left out.
    more: bool,
}

impl Outermost {
    /// The kept key that the next better one pushes out.
    fn worst(&self) -> Option<&Key> {
        match self.direction {
            Direction::Forward => self.keys.last(),
            Direction::Backward => self.keys.first(),
        }
    }

    fn offer(&mut self, key: &[u8]) {
        if self.keys.len() >= self.most
            && let Some(worst) = self.worst()
        {
            let worse = match self.direction {
                Direction::Forward => key > &**worst,
                Direction::Backward => key < &**worst,
            };
            let same = key == &**worst;
            self.more |= !same;
            if worse || same {
                return;
            }
        }
        self.keys.insert(Key::from(key));
        if self.keys.len() > self.most {
            match self.direction {
                Direction::Forward => self.keys.pop_last(),
                Direction::Backward => self.keys.pop_first(),
            };
        }
    }
}

impl Tiers {
    /// The outermost keys of the range that may be there, in order of the direction, and whether
    /// there may be more.
    pub(crate) fn keys_piece(
        &self,
        incarnation: Incarnation,
        range: &KeyRange,
        most: usize,
        direction: Direction,
    ) -> Result<(Vec<Key>, bool)> {
        let mut outermost = Outermost { keys: BTreeSet::new(), most, direction, more: false };
        self.warm_keys(incarnation, range, &mut outermost);
        self.cold_keys(incarnation, range, &mut outermost)?;
        let keys = outermost.keys.into_iter();
        let keys = match direction {
            Direction::Forward => keys.collect(),
            Direction::Backward => keys.rev().collect(),
        };
        Ok((keys, outermost.more))
    }

    fn warm_keys(&self, incarnation: Incarnation, range: &KeyRange, outermost: &mut Outermost) {
        let mut from = Some(0);
        while let Some(tag) = from {
            let append = self.append.lock();
            let mut offer = |location| {
                let Some(segment) = append.table.of(location) else { return };
                let Ok(record) = segment.record(u64::from(location.offset)) else { return };
                if record.header.incarnation == incarnation && range.contains(record.key) {
                    outermost.offer(record.key);
                }
            };
            if tag == 0 {
                self.versions.all_warm_places().into_iter().for_each(&mut offer);
            }
            from =
                self.index.walk(&append.index, tag, HOMES_PER_PIECE, |entry| offer(entry.location));
        }
    }

    fn cold_keys(
        &self,
        incarnation: Incarnation,
        range: &KeyRange,
        outermost: &mut Outermost,
    ) -> Result<()> {
        let start: &[u8] = match &range.from {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => &[],
        };
        for entry in self.cold.load().entries() {
            let kept = self.versions.cold_ordinals(entry.archive.id().0);
            let wanted = |at: u32| !entry.dead.is_dead(at) || kept.binary_search(&at).is_ok();
            let mut cursor = entry.archive.cursor();
            cursor.seek(incarnation, start)?;
            while let Some(found) = cursor.next_if(wanted)? {
                let record = &found.record;
                if record.incarnation != incarnation {
                    break;
                }
                if range.contains(record.key) {
                    outermost.offer(record.key);
                } else if !matches!(&range.from, Bound::Excluded(from) if **from == *record.key) {
                    break;
                }
            }
        }
        Ok(())
    }
}
