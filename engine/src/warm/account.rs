//! What the records of one segment amount to: live, tombstones, dead, by keyspace and deadline.
//! Knows bytes and counts; knows nothing of where they are or why they died.

use std::collections::{BTreeMap, HashSet};

use crate::format::deadline::deadline_class_end;
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind};
use crate::format::trailer::TrailerEntry;
use crate::ids::Incarnation;

/// Live records that share an incarnation and a deadline class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub incarnation: Incarnation,
    /// When the class has expired as a whole; `u64::MAX` for records without deadline.
    pub class_end_ms: u64,
    pub bytes: u64,
    pub count: u64,
}

/// The account of one segment. Everything that is not live and not a tombstone is dead.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentAccount {
    created_ms: u64,
    /// Bytes of all records, whatever became of them.
    pub record_bytes: u64,
    pub tombstone_bytes: u64,
    pub tombstone_count: u64,
    /// Bytes of dead records that a snapshot keeps.
    pub pinned_bytes: u64,
    /// Damaged records that the index names, by offset: neither live nor dead.
    damaged: BTreeMap<u32, Weight>,
    groups: Vec<Group>,
    last: usize,
}

/// What one record weighs, and where it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    pub incarnation: Incarnation,
    pub deadline_ms: u64,
    pub len: u64,
    pub tombstone: bool,
}

impl Weight {
    /// What the record with this header weighs.
    pub(crate) fn of(header: &RecordHeader) -> Self {
        Self {
            incarnation: header.incarnation,
            deadline_ms: header.deadline_ms,
            len: header.encoded_len(),
            tombstone: header.kind == RecordKind::Tombstone,
        }
    }

    /// The same, as the trailer tells it.
    pub(crate) fn told(entry: &TrailerEntry) -> Self {
        Self {
            incarnation: entry.incarnation,
            deadline_ms: entry.deadline_ms,
            len: u64::from(entry.len),
            tombstone: entry.tombstone,
        }
    }
}

impl SegmentAccount {
    pub(crate) fn new(created_ms: u64) -> Self {
        Self { created_ms, ..Self::default() }
    }

    /// An account that was told from outside; `None` when it does not add up.
    pub(crate) fn told(
        created_ms: u64,
        record_bytes: u64,
        (tombstone_bytes, tombstone_count): (u64, u64),
        groups: Vec<Group>,
    ) -> Option<Self> {
        let live = groups.iter().try_fold(0_u64, |sum, group| sum.checked_add(group.bytes))?;
        let counts = groups.iter().try_fold(tombstone_count, |sum, g| sum.checked_add(g.count))?;
        let fits = live.checked_add(tombstone_bytes)? <= record_bytes;
        if !fits || counts > record_bytes / RECORD_HEADER_LEN as u64 {
            return None;
        }
        let rest = Self::new(created_ms);
        Some(Self { record_bytes, tombstone_bytes, tombstone_count, groups, ..rest })
    }

    /// Live records, tombstones included.
    pub(crate) fn record_count(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum::<u64>() + self.tombstone_count
    }

    fn class_end(&self, weight: &Weight) -> u64 {
        if weight.deadline_ms == 0 {
            return u64::MAX;
        }
        deadline_class_end(self.created_ms, weight.deadline_ms)
    }

    fn group(&mut self, weight: &Weight) -> &mut Group {
        let class_end_ms = self.class_end(weight);
        let is = |group: &Group| {
            group.incarnation == weight.incarnation && group.class_end_ms == class_end_ms
        };
        if !self.groups.get(self.last).is_some_and(is) {
            self.last = self.groups.iter().position(is).unwrap_or_else(|| {
                let incarnation = weight.incarnation;
                self.groups.push(Group { incarnation, class_end_ms, bytes: 0, count: 0 });
                self.groups.len() - 1
            });
        }
        #[expect(clippy::indexing_slicing, reason = "`last` was just found or pushed")]
        &mut self.groups[self.last]
    }

    /// A record was appended and is the newest of its key.
    pub(crate) fn add(&mut self, weight: &Weight) {
        self.record_bytes += weight.len;
        self.revive(weight);
    }

    /// A record that is already among `record_bytes` is the newest of its key.
    pub(crate) fn revive(&mut self, weight: &Weight) {
        if weight.tombstone {
            self.tombstone_bytes += weight.len;
            self.tombstone_count += 1;
        } else {
            let group = self.group(weight);
            group.bytes += weight.len;
            group.count += 1;
        }
    }

    /// A record was appended that is dead from the start, for example an attach record.
    pub(crate) fn add_dead(&mut self, len: u64) {
        self.record_bytes += len;
    }

    /// The newest record of a key was superseded or moved away. What a trailer or an image said of
    /// it may have been a lie: then the account is wrong, and nothing worse.
    pub(crate) fn kill(&mut self, weight: &Weight) {
        if weight.tombstone {
            self.tombstone_bytes = self.tombstone_bytes.saturating_sub(weight.len);
            self.tombstone_count = self.tombstone_count.saturating_sub(1);
        } else {
            // The group is gone when its incarnation was cleared: its records are dead already.
            let class_end_ms = self.class_end(weight);
            let group = self.groups.iter_mut().find(|group| {
                group.incarnation == weight.incarnation && group.class_end_ms == class_end_ms
            });
            if let Some(group) = group {
                group.bytes = group.bytes.saturating_sub(weight.len);
                group.count = group.count.saturating_sub(1);
            }
        }
    }

    /// The newest record of a key, at this offset, turned out to be damaged.
    pub(crate) fn damage(&mut self, offset: u32, weight: &Weight) {
        if !self.damaged.contains_key(&offset) {
            self.kill(weight);
            self.damaged.insert(offset, *weight);
        }
    }

    /// The record at this offset was superseded or moved away; `kill` for damaged ones as well.
    pub(crate) fn kill_at(&mut self, offset: u32, weight: &Weight) {
        if self.damaged.remove(&offset).is_none() {
            self.kill(weight);
        }
    }

    /// Offsets of records that are known to be damaged.
    pub(crate) fn damaged_offsets(&self) -> impl Iterator<Item = u32> {
        self.damaged.keys().copied()
    }

    pub(crate) fn damaged_bytes(&self) -> u64 {
        self.damaged.values().map(|weight| weight.len).sum()
    }

    /// All records of an incarnation are dead at once; returns their bytes and count.
    pub(crate) fn clear(&mut self, incarnation: Incarnation) -> (u64, u64) {
        let mut cleared = (0, 0);
        self.groups.retain(|group| {
            if group.incarnation == incarnation {
                cleared = (cleared.0 + group.bytes, cleared.1 + group.count);
            }
            group.incarnation != incarnation
        });
        self.last = 0;
        self.damaged.retain(|_, weight| weight.incarnation != incarnation);
        cleared
    }

    /// All records of incarnations that are none of these are dead.
    pub(crate) fn keep_only(&mut self, current: &HashSet<u32>) {
        self.groups.retain(|group| current.contains(&group.incarnation.0));
        self.last = 0;
        self.damaged.retain(|_, weight| current.contains(&weight.incarnation.0));
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes).sum()
    }

    pub(crate) fn live_count(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// Live records whose whole deadline class lies in the past.
    pub(crate) fn expired_bytes(&self, now_ms: u64) -> u64 {
        self.groups.iter().filter(|group| group.class_end_ms <= now_ms).map(|g| g.bytes).sum()
    }

    /// A dead record is kept for a snapshot.
    pub(crate) fn pin(&mut self, len: u64) {
        self.pinned_bytes += len;
    }

    /// It is not needed any more, or kept elsewhere.
    pub(crate) fn unpin(&mut self, len: u64) {
        self.pinned_bytes = self.pinned_bytes.saturating_sub(len);
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        let others = self.live_bytes() + self.tombstone_bytes + self.damaged_bytes();
        self.record_bytes.saturating_sub(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(incarnation: u32, deadline_ms: u64, len: u64) -> Weight {
        Weight { incarnation: Incarnation(incarnation), deadline_ms, len, tombstone: false }
    }

    #[test]
    fn live_tombstone_and_dead_sum_to_the_bytes_of_all_records() {
        let mut account = SegmentAccount::new(1000);
        account.add(&weight(1, 0, 100));
        account.add(&weight(1, 61_000, 50));
        account.add(&weight(2, 0, 30));
        account.add(&Weight { tombstone: true, ..weight(1, 0, 48) });
        account.add_dead(8);
        account.kill(&weight(1, 0, 100));
        assert_eq!((account.live_bytes(), account.live_count()), (80, 2));
        assert_eq!((account.tombstone_bytes, account.dead_bytes()), (48, 108));
        assert_eq!(account.record_bytes, 236);
        assert_eq!(account.expired_bytes(60_000), 0);
        assert_eq!(account.expired_bytes(70_000), 50);
        assert_eq!(account.clear(Incarnation(2)), (30, 1));
        assert_eq!((account.live_bytes(), account.dead_bytes()), (50, 138));
        let group = account.groups().to_vec();
        let told = |bytes| SegmentAccount::told(1000, bytes, (48, 1), group.clone());
        assert_eq!(told(236).map(|told| told.dead_bytes()), Some(138));
        assert!(told(97).is_none());
    }

    #[test]
    fn a_damaged_record_is_neither_live_nor_dead_until_it_is_superseded() {
        let mut account = SegmentAccount::new(1000);
        account.add(&weight(1, 0, 100));
        account.add(&weight(2, 0, 40));
        account.damage(64, &weight(1, 0, 100));
        account.damage(64, &weight(1, 0, 100));
        let sums = |a: &SegmentAccount| [a.live_bytes(), a.damaged_bytes(), a.dead_bytes()];
        assert_eq!(sums(&account), [40, 100, 0]);
        account.kill_at(64, &weight(1, 0, 100));
        assert_eq!(sums(&account), [40, 0, 100]);
        account.damage(164, &weight(2, 0, 40));
        account.clear(Incarnation(2));
        assert_eq!(sums(&account), [0, 0, 140]);
    }
}
