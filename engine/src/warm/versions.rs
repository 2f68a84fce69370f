//! The version table: records that the index no longer names and that somebody still needs.
//! Knows keys by their hash, and where an old version is; knows nothing of who needs it, or why.
//!
//! A version holds for the moments from its own `seq` up to, not including, that of the mutation
//! that replaced it. A writer enters the old version before it replaces the index entry; whoever
//! marks an archived record dead enters it before the mark. So a reader that finds the newest
//! version too new finds the one it wants here, or as a live record of an archive, or it does not
//! exist.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::hash::KeyHash;
use crate::ids::{Location, Seq};

/// Bytes of memory that one version is charged: 40 in the tree, whose nodes are two thirds full.
pub(crate) const VERSION_LEN: u64 = 60;

/// Where an old version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OldPlace {
    /// In the log.
    Warm(Location),
    /// In an archive: its number and the record's ordinal.
    Cold { archive: u32, ordinal: u32 },
    /// Nowhere: the key was absent.
    Gone,
}

/// One old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OldVersion {
    pub seq: Seq,
    /// The `seq` of the mutation that replaced it.
    pub until: Seq,
    pub place: OldPlace,
}

impl OldVersion {
    fn holds_at(&self, moment: Seq) -> bool {
        self.seq <= moment && moment < self.until
    }
}

#[derive(Debug, Default)]
struct Versions {
    by_key: BTreeMap<(KeyHash, Seq), (Seq, OldPlace)>,
    /// The archived ones, for walks over an archive.
    cold: BTreeMap<(u32, u32), (KeyHash, Seq)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct VersionTable {
    /// A leaf lock.
    versions: Mutex<Versions>,
    count: AtomicU64,
    cold_count: AtomicU64,
}

impl VersionTable {
    /// Whether there is none: then nobody need ask further.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of anonymous memory.
    pub(crate) fn charged_len(&self) -> u64 {
        self.count() * VERSION_LEN
    }

    fn counted(&self, versions: &Versions) {
        self.count.store(versions.by_key.len() as u64, Ordering::Release);
        self.cold_count.store(versions.cold.len() as u64, Ordering::Release);
    }

    /// Enters a version that is about to be replaced. Answers whether it is new here.
    pub(crate) fn enter(&self, hash: KeyHash, version: OldVersion) -> bool {
        let OldVersion { seq, mut until, place } = version;
        let mut versions = self.versions.lock();
        if versions.by_key.contains_key(&(hash, seq)) {
            return false;
        }
        // An archived version is entered late: a tombstone that is kept here may have ended it
        // before the record that the log holds now.
        let later = versions.by_key.range((hash, seq)..=(hash, Seq(u64::MAX))).next();
        if let Some((&(_, later), _)) = later {
            until = until.min(later);
        }
        versions.by_key.insert((hash, seq), (until, place));
        if let OldPlace::Cold { archive, ordinal } = place {
            versions.cold.insert((archive, ordinal), (hash, seq));
        }
        self.counted(&versions);
        true
    }

    /// The version of a key that holds at a moment.
    pub(crate) fn at(&self, hash: KeyHash, moment: Seq) -> Option<OldVersion> {
        if self.is_empty() {
            return None;
        }
        let versions = self.versions.lock();
        let mut below = versions.by_key.range((hash, Seq::ZERO)..=(hash, moment));
        let (&(_, seq), &(until, place)) = below.next_back()?;
        let version = OldVersion { seq, until, place };
        version.holds_at(moment).then_some(version)
    }

    /// Every place in the log that a version with this tag has.
    pub(crate) fn warm_places(&self, tag: u32) -> Vec<Location> {
        if self.is_empty() {
            return Vec::new();
        }
        let versions = self.versions.lock();
        let places = versions.by_key.range(tag_range(tag)).map(|(_, &(_, place))| place);
        places
            .filter_map(|place| match place {
                OldPlace::Warm(location) => Some(location),
                _ => None,
            })
            .collect()
    }

    /// Whether the record at this place of the log is kept here.
    pub(crate) fn holds(&self, tag: u32, location: Location) -> bool {
        !self.is_empty() && self.warm_places(tag).contains(&location)
    }

    /// The archived version at this place, if it holds at the moment.
    pub(crate) fn cold_holds_at(&self, archive: u32, ordinal: u32, moment: Seq) -> bool {
        if self.cold_count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let versions = self.versions.lock();
        let found = versions.cold.get(&(archive, ordinal)).and_then(|key| {
            let &(until, place) = versions.by_key.get(key)?;
            Some(OldVersion { seq: key.1, until, place })
        });
        found.is_some_and(|version| version.holds_at(moment))
    }

    /// The kept ordinals of an archive, in order.
    pub(crate) fn cold_ordinals(&self, archive: u32) -> Vec<u32> {
        if self.cold_count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let versions = self.versions.lock();
        let range = (archive, 0)..=(archive, u32::MAX);
        versions.cold.range(range).map(|(&(_, ordinal), _)| ordinal).collect()
    }

    /// The version with this tag at `from` is at `to` now. Answers whether there is one.
    pub(crate) fn move_warm(&self, tag: u32, from: Location, to: OldPlace) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut versions = self.versions.lock();
        let found = versions.by_key.range_mut(tag_range(tag));
        let mut moved = None;
        for (key, (_, place)) in found {
            if *place == OldPlace::Warm(from) {
                *place = to;
                moved = Some(*key);
            }
        }
        if let (Some(key), OldPlace::Cold { archive, ordinal }) = (moved, to) {
            versions.cold.insert((archive, ordinal), key);
            self.counted(&versions);
        }
        moved.is_some()
    }

    /// The archived version at this place is in the log now.
    pub(crate) fn move_cold(&self, archive: u32, ordinal: u32, to: Location) -> bool {
        let mut versions = self.versions.lock();
        let Some(key) = versions.cold.remove(&(archive, ordinal)) else { return false };
        if let Some((_, place)) = versions.by_key.get_mut(&key) {
            *place = OldPlace::Warm(to);
        }
        self.counted(&versions);
        true
    }

    /// Nobody will ask for the version at this place of the log again.
    pub(crate) fn forget(&self, tag: u32, location: Location) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut versions = self.versions.lock();
        let mut found = versions.by_key.range(tag_range(tag));
        let key = found.find(|(_, (_, place))| *place == OldPlace::Warm(location));
        let Some(key) = key.map(|(key, _)| *key) else { return false };
        versions.by_key.remove(&key);
        self.counted(&versions);
        true
    }

    /// Removes one version.
    pub(crate) fn remove(&self, hash: KeyHash, seq: Seq) -> Option<OldPlace> {
        let mut versions = self.versions.lock();
        let (_, place) = versions.by_key.remove(&(hash, seq))?;
        if let OldPlace::Cold { archive, ordinal } = place {
            versions.cold.remove(&(archive, ordinal));
        }
        self.counted(&versions);
        Some(place)
    }

    /// Looks at up to `most` versions behind `from` and removes those that no moment needs. Hands
    /// the places of what went to `gone`; returns where to go on.
    pub(crate) fn prune(
        &self,
        from: Option<(KeyHash, Seq)>,
        most: usize,
        needed: impl Fn(Seq, Seq) -> bool,
        mut gone: impl FnMut(OldPlace),
    ) -> Option<(KeyHash, Seq)> {
        let mut versions = self.versions.lock();
        let start = from.unwrap_or((KeyHash(0), Seq::ZERO));
        let mut last = None;
        let mut dead = Vec::new();
        for (&key, &(until, place)) in versions.by_key.range(start..).take(most) {
            last = Some(key);
            if !needed(key.1, until) {
                dead.push((key, place));
            }
        }
        let done = versions.by_key.range(start..).nth(most).is_none();
        for (key, place) in dead {
            versions.by_key.remove(&key);
            if let OldPlace::Cold { archive, ordinal } = place {
                versions.cold.remove(&(archive, ordinal));
            }
            gone(place);
        }
        self.counted(&versions);
        last.filter(|_| !done)
    }

    /// The places of all versions that hold at a moment.
    pub(crate) fn places_at(&self, moment: Seq) -> Vec<OldPlace> {
        let versions = self.versions.lock();
        let all = versions.by_key.iter();
        let all = all.map(|(&(_, seq), &(until, place))| OldVersion { seq, until, place });
        all.filter(|version| version.holds_at(moment)).map(|version| version.place).collect()
    }

    /// Every place in the log that a version has.
    pub(crate) fn all_warm_places(&self) -> Vec<Location> {
        let versions = self.versions.lock();
        let places = versions.by_key.values().map(|&(_, place)| place);
        places
            .filter_map(|place| match place {
                OldPlace::Warm(location) => Some(location),
                _ => None,
            })
            .collect()
    }
}

fn tag_range(tag: u32) -> std::ops::RangeInclusive<(KeyHash, Seq)> {
    let low = u64::from(tag) << 32;
    (KeyHash(low), Seq::ZERO)..=(KeyHash(low | u64::from(u32::MAX)), Seq(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    const HASH: KeyHash = KeyHash(7 << 32 | 5);

    fn warm(slot: u32) -> OldPlace {
        OldPlace::Warm(Location::new(Slot(slot), 64))
    }

    #[test]
    fn a_version_answers_from_its_seq_until_it_was_replaced() {
        let table = VersionTable::default();
        for (seq, until, slot) in [(3, 7, 1), (7, 9, 2)] {
            table.enter(HASH, OldVersion { seq: Seq(seq), until: Seq(until), place: warm(slot) });
        }
        let place = |moment| table.at(HASH, Seq(moment)).map(|version| version.place);
        assert_eq!(
            [2, 3, 6, 7, 8, 9].map(place),
            [None, Some(warm(1)), Some(warm(1)), Some(warm(2)), Some(warm(2)), None]
        );
    }

    #[test]
    fn a_version_that_is_entered_late_ends_where_a_kept_tombstone_began() {
        let table = VersionTable::default();
        let gone = OldVersion { seq: Seq(5), until: Seq(9), place: OldPlace::Gone };
        assert!(table.enter(HASH, gone));
        let place = OldPlace::Cold { archive: 4, ordinal: 9 };
        assert!(table.enter(HASH, OldVersion { seq: Seq(3), until: Seq(9), place }));
        assert!(table.cold_holds_at(4, 9, Seq(4)) && !table.cold_holds_at(4, 9, Seq(6)));
        assert_eq!(table.at(HASH, Seq(6)).map(|version| version.place), Some(OldPlace::Gone));
    }

    #[test]
    fn versions_follow_moves_between_log_and_archive_and_go_when_nobody_needs_them() {
        let table = VersionTable::default();
        table.enter(HASH, OldVersion { seq: Seq(3), until: Seq(7), place: warm(1) });
        let OldPlace::Warm(from) = warm(1) else { unreachable!() };
        assert!(table.move_warm(7, from, OldPlace::Cold { archive: 4, ordinal: 9 }));
        assert!(table.cold_holds_at(4, 9, Seq(5)) && !table.cold_holds_at(4, 9, Seq(7)));
        assert_eq!(table.cold_ordinals(4), [9]);
        assert!(table.move_cold(4, 9, Location::new(Slot(3), 128)));
        assert_eq!(table.warm_places(7), [Location::new(Slot(3), 128)]);
        let mut gone = Vec::new();
        assert_eq!(table.prune(None, 10, |seq, _| seq > Seq(3), |place| gone.push(place)), None);
        assert_eq!((gone.len(), table.count(), table.is_empty()), (1, 0, true));
    }
}
