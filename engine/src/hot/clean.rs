//! Clean copies of one shard, evicted by S3-FIFO (Yang and others, SOSP 2023): a small queue for
//! what is new, a main queue for what was touched again, a ghost of hashes for what left early.
//! Knows weights and touches; knows nothing of other shards or of who asks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::hash::KeyHash;
use crate::hot::{HotRecord, allocation_len, is_expired};
use crate::ids::{Incarnation, Seq};

/// What an entry weighs besides its bytes: its place in the map, in a queue, and the map's slack.
const ENTRY_LEN: u64 = 112;
/// What one hash of the ghost weighs. The ghost takes at most a sixteenth of the shard.
const GHOST_LEN: u64 = 24;
/// Hashes of records that were touched once, or left early.
const GHOST_COUNT: usize = 8192;
/// The small queue's share of the bytes, in percent.
const SMALL_PERCENT: u64 = 10;
/// Touches that are told apart.
const TOUCHES_MAX: u8 = 3;

/// The hash is unpredictable already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type ByHash<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

#[derive(Debug)]
struct Entry {
    /// Key, then value.
    bytes: Box<[u8]>,
    seq: Seq,
    deadline_ms: u64,
    incarnation: Incarnation,
    key_len: u32,
    touches: u8,
    main: bool,
}

impl Entry {
    fn charge(&self) -> u64 {
        allocation_len(self.bytes.len()) + ENTRY_LEN
    }

    fn is(&self, incarnation: Incarnation, key: &[u8]) -> bool {
        self.incarnation == incarnation && self.bytes.get(..self.key_len as usize) == Some(key)
    }
}

/// What a record would weigh.
pub(crate) fn charge(key: &[u8], value: &[u8]) -> u64 {
    allocation_len(key.len() + value.len()) + ENTRY_LEN
}

/// The clean records of one shard. Two keys of one 64-bit hash take turns.
#[derive(Debug, Default)]
pub(crate) struct Clean {
    entries: ByHash<Entry>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    small_len: u64,
    main_len: u64,
    ghost: VecDeque<u64>,
    ghost_set: HashSet<u64, BuildHasherDefault<AsIs>>,
}

impl Clean {
    pub(crate) fn charged(&self) -> u64 {
        self.small_len + self.main_len + self.ghost.len() as u64 * GHOST_LEN
    }

    pub(crate) fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn get(
        &mut self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Option<HotRecord<'_>> {
        let entry = self.entries.get_mut(&hash.0).filter(|entry| entry.is(incarnation, key))?;
        if entry.touches < TOUCHES_MAX {
            entry.touches += 1;
        }
        let value = entry.bytes.get(entry.key_len as usize..).unwrap_or(&[]);
        Some(HotRecord { value, seq: entry.seq, deadline_ms: entry.deadline_ms })
    }

    /// Whether the hash was noted before; notes it.
    pub(crate) fn note_touch(&mut self, hash: KeyHash) -> bool {
        if self.ghost_set.contains(&hash.0) {
            return true;
        }
        self.remember(hash.0);
        false
    }

    fn remember(&mut self, hash: u64) {
        if self.ghost_set.insert(hash) {
            self.ghost.push_back(hash);
        }
        if self.ghost.len() > GHOST_COUNT
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.ghost_set.remove(&oldest);
        }
    }

    pub(crate) fn insert(
        &mut self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        record: HotRecord<'_>,
    ) {
        self.remove_hash(hash.0);
        let main = self.ghost_set.contains(&hash.0);
        let entry = Entry {
            bytes: [key, record.value].concat().into_boxed_slice(),
            seq: record.seq,
            deadline_ms: record.deadline_ms,
            incarnation,
            key_len: u32::try_from(key.len()).unwrap_or(u32::MAX),
            touches: 0,
            main,
        };
        if main {
            self.main_len += entry.charge();
            self.main.push_back(hash.0);
        } else {
            self.small_len += entry.charge();
            self.small.push_back(hash.0);
        }
        self.entries.insert(hash.0, entry);
    }

    pub(crate) fn remove(&mut self, hash: KeyHash, incarnation: Incarnation, key: &[u8]) -> bool {
        let same = self.entries.get(&hash.0).is_some_and(|entry| entry.is(incarnation, key));
        same && self.remove_hash(hash.0)
    }

    /// The hash stays in its queue and is passed over there.
    fn remove_hash(&mut self, hash: u64) -> bool {
        let Some(entry) = self.entries.remove(&hash) else { return false };
        if entry.main {
            self.main_len -= entry.charge();
            self.main.retain(|&other| other != hash);
        } else {
            self.small_len -= entry.charge();
            self.small.retain(|&other| other != hash);
        }
        true
    }

    /// Evicts until the records take at most `room` bytes; returns how many went.
    pub(crate) fn shrink_to(&mut self, room: u64) -> u64 {
        let before = self.count();
        while self.ghost.len() as u64 * GHOST_LEN > room / 16
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.ghost_set.remove(&oldest);
        }
        while self.charged() > room && !self.entries.is_empty() {
            let small_share = room / 100 * SMALL_PERCENT;
            if self.small_len > small_share || self.main.is_empty() {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        while self.charged() > room
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.ghost_set.remove(&oldest);
        }
        before - self.count()
    }

    /// The oldest of the small queue goes on to the main queue if it was touched, else out.
    fn evict_small(&mut self) {
        let Some(hash) = self.small.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        self.small_len -= entry.charge();
        if entry.touches > 0 {
            (entry.touches, entry.main) = (0, true);
            self.main_len += entry.charge();
            self.main.push_back(hash);
        } else {
            self.entries.remove(&hash);
            self.remember(hash);
        }
    }

    /// The oldest of the main queue goes round again for each touch, else out.
    fn evict_main(&mut self) {
        let Some(hash) = self.main.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        if entry.touches > 0 {
            entry.touches -= 1;
            self.main.push_back(hash);
        } else {
            self.main_len -= entry.charge();
            self.entries.remove(&hash);
        }
    }

    pub(crate) fn purge(&mut self, incarnation: Incarnation) -> u64 {
        self.drop_those(usize::MAX, |entry| entry.incarnation == incarnation)
    }

    pub(crate) fn sweep(&mut self, now_ms: u64, most: usize) -> u64 {
        self.drop_those(most, |entry| is_expired(entry.deadline_ms, || now_ms))
    }

    fn drop_those(&mut self, most: usize, goes: impl Fn(&Entry) -> bool) -> u64 {
        let hashes = self.entries.iter().filter(|(_, entry)| goes(entry)).map(|(&hash, _)| hash);
        let hashes: Vec<u64> = hashes.take(most).collect();
        hashes.into_iter().filter(|&hash| self.remove_hash(hash)).count() as u64
    }

    #[cfg(test)]
    pub(crate) fn validate(&self) -> u64 {
        let sum = |main: bool| -> u64 {
            self.entries.values().filter(|entry| entry.main == main).map(Entry::charge).sum()
        };
        assert_eq!((sum(false), sum(true)), (self.small_len, self.main_len));
        assert_eq!(self.small.len() + self.main.len(), self.entries.len());
        assert_eq!(self.ghost.len(), self.ghost_set.len());
        self.count()
    }
}
