//! The hot tier: records in memory, in shards, within one budget of bytes.
//! Knows records and what they weigh; knows nothing of the log or of why a record came.
//!
//! Clean copies of durable records may be evicted at any time, for nothing is lost with them.
//! Records of volatile keyspaces live here alone and are never evicted.
//!
//! All bytes of records and all entries lie in anonymous maps of the tier's own and are charged by
//! page. A record costs, besides key, value and `seq`: 11 to 14 bytes in the table, 6 of deadline
//! and flags in its block, 4 in the ghost; and each shard 16 KiB of epochs and its shadows.

mod ghost;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod model;
mod policy;
mod shard;
mod slab;
mod table;
mod volatile;

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::hash::{HashSeed, KeyHash};
pub(crate) use crate::hot::shard::HotKey;
use crate::hot::shard::Shard;
use crate::ids::{Incarnation, Seq};
use crate::key::Key;

/// A record as the hot tier holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HotRecord<'a> {
    pub value: &'a [u8],
    pub seq: Seq,
    pub deadline_ms: u64,
}

/// Bytes that an allocation of this length takes: a multiple of 16, and the allocator's own 16.
fn allocation_len(len: usize) -> u64 {
    (len as u64).next_multiple_of(16) + 16
}

fn is_expired(deadline_ms: u64, now_ms: impl FnOnce() -> u64) -> bool {
    deadline_ms != 0 && deadline_ms <= now_ms()
}

/// Bytes of budget that make a shard worth having; from `TWO_SHARDS_FROM` on there are two.
const SHARD_BUDGET: u64 = 16 << 20;
const TWO_SHARDS_FROM: u64 = 4 << 20;
const SHARD_COUNT_MAX: u64 = 64;
/// Where the records are, in errors.
const MEMORY: &str = "anonymous memory";

/// L1. Every method may be called from any thread; each takes one shard's lock, once.
#[derive(Debug)]
pub(crate) struct HotTier {
    shards: Vec<Mutex<Shard>>,
    /// Bytes that each shard may take.
    shard_budget: AtomicU64,
    /// Records in all shards, so that an empty tier costs a read one load.
    count: AtomicU64,
}

impl HotTier {
    /// A tier whose shards and slabs are cut for `budget` bytes.
    pub(crate) fn new(seed: HashSeed, budget: u64) -> Result<Self> {
        let least = if budget < TWO_SHARDS_FROM { 1 } else { 2 };
        let count = (budget / SHARD_BUDGET).clamp(least, SHARD_COUNT_MAX).next_power_of_two();
        let shard = |_| Shard::new(seed, budget / count).map(Mutex::new);
        let shards: io::Result<Vec<_>> = (0..count).map(shard).collect();
        Ok(Self {
            shards: shards.map_err(|error| Error::io("map hot tier", MEMORY, error))?,
            shard_budget: AtomicU64::new(budget / count),
            count: AtomicU64::new(0),
        })
    }

    #[expect(clippy::indexing_slicing, reason = "the mask is below the number of shards")]
    fn shard(&self, hash: KeyHash) -> &Mutex<Shard> {
        // The upper half orders a shard's table. Their number is a power of two.
        &self.shards[usize::try_from(hash.0 & 0xFFFF).unwrap_or(0) & (self.shards.len() - 1)]
    }

    fn budget(&self) -> u64 {
        self.shard_budget.load(Ordering::Relaxed)
    }

    /// Runs `change` on a shard and counts what came and went.
    fn change<R>(&self, shard: &Mutex<Shard>, change: impl FnOnce(&mut Shard) -> R) -> R {
        let mut shard = shard.lock();
        let before = shard.count();
        let result = change(&mut shard);
        let more = (shard.count() as u64).wrapping_sub(before as u64);
        if more != 0 {
            self.count.fetch_add(more, Ordering::Relaxed);
        }
        result
    }

    /// Changes the budget; clean records above it are evicted and their memory goes back.
    pub(crate) fn set_budget(&self, bytes: u64) {
        let each = bytes / self.shards.len() as u64;
        if self.shard_budget.swap(each, Ordering::Relaxed) <= each {
            return;
        }
        for shard in &self.shards {
            if let Err(error) = self.change(shard, |shard| shard.fit(each)) {
                tracing::warn!(%error, "the hot tier could not give memory back");
            }
        }
    }

    /// Whether nothing is resident: then a read need not ask.
    #[inline]
    pub(crate) fn is_empty_fast(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn record_count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes that all shards take.
    pub(crate) fn charged_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().charged()).sum()
    }

    /// Hands the record to `read`, unless it is absent or expired. Marks the touch.
    #[inline]
    pub(crate) fn get<R>(
        &self,
        key: &HotKey<'_>,
        now_ms: impl FnOnce() -> u64,
        read: impl FnOnce(HotRecord<'_>) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(key.hash).lock();
        let record = shard.get(key)?;
        (!is_expired(record.deadline_ms, now_ms)).then(|| read(record))
    }

    /// Notes a touch of a record that is not resident; `true` when it was touched before.
    pub(crate) fn note_touch(&self, hash: KeyHash) -> bool {
        self.shard(hash).lock().note_touch(hash)
    }

    /// Takes a clean copy if `still_newest`, asked under the shard's lock, says so. Who must leave
    /// for it leaves; a record of more than an eighth of the shard is not taken.
    pub(crate) fn admit(
        &self,
        key: &HotKey<'_>,
        record: &HotRecord<'_>,
        still_newest: impl FnOnce() -> bool,
    ) -> bool {
        let budget = self.budget();
        if (key.key.len() + record.value.len()) as u64 > budget / 8 {
            return false;
        }
        let admitted = self.change(self.shard(key.hash), |shard| {
            if still_newest() { shard.admit(key, record, budget) } else { Ok(false) }
        });
        // Where the system has no memory to map, a record stays where it is.
        admitted.unwrap_or(false)
    }

    /// Drops a resident copy and runs `switch`, both under the shard's lock: no reader meets the
    /// old copy after the switch, and no stale admission comes between.
    pub(crate) fn replace_with<R>(&self, key: &HotKey<'_>, switch: impl FnOnce() -> R) -> R {
        self.change(self.shard(key.hash), |shard| {
            shard.remove(key);
            switch()
        })
    }

    /// Writes a volatile record. [`Error::Full`] when it does not fit beside the other volatile
    /// ones; clean copies make way.
    pub(crate) fn put_volatile(
        &self,
        key: &HotKey<'_>,
        value: &[u8],
        deadline_ms: u64,
    ) -> Result<()> {
        let (budget, doing) = (self.budget(), "put volatile record");
        let record = HotRecord { value, seq: Seq::ZERO, deadline_ms };
        let (put, charged) = self.change(self.shard(key.hash), |shard| {
            (shard.put_volatile(key, &record, budget), shard.charged())
        });
        if put.map_err(|error| Error::io(doing, MEMORY, error))? {
            return Ok(());
        }
        let used = charged + (key.key.len() + value.len()) as u64;
        Err(Error::Full { doing, what: "hot tier", used, limit: budget })
    }

    /// Removes a volatile record; answers whether it was there and had not expired.
    pub(crate) fn remove_volatile(&self, key: &HotKey<'_>, now_ms: u64) -> bool {
        let removed = self.change(self.shard(key.hash), |shard| shard.remove_volatile(key));
        removed.is_some_and(|deadline_ms| !is_expired(deadline_ms, || now_ms))
    }

    /// Drops everything of an incarnation that ended, a piece at a time.
    pub(crate) fn purge_incarnation(&self, incarnation: Incarnation) {
        for shard in &self.shards {
            while self.change(shard, |shard| shard.purge_volatile(incarnation)) {}
            let mut next = Some(0);
            while let Some(slot) = next {
                next = self.change(shard, |shard| shard.purge_slots(incarnation, slot));
            }
        }
    }

    /// Drops up to `most` expired records of each shard; returns how many went.
    pub(crate) fn sweep_expired(&self, now_ms: u64, most: usize) -> u64 {
        let sweep = |shard| self.change(shard, |shard| shard.sweep(now_ms, most));
        self.shards.iter().map(sweep).sum()
    }

    /// The smallest keys of a volatile keyspace's range, and whether there may be more.
    pub(crate) fn keys_piece(
        &self,
        incarnation: Incarnation,
        from: &Bound<Key>,
        to: &Bound<Key>,
        most: usize,
    ) -> (Vec<Key>, bool) {
        let mut keys = Vec::new();
        let mut more = false;
        for shard in &self.shards {
            let found = shard.lock().volatile_keys(incarnation, from, to, most);
            more |= found.len() == most;
            keys.extend(found);
        }
        keys.sort_unstable();
        more |= keys.len() > most;
        keys.truncate(most);
        (keys, more)
    }

    /// Walks every shard and asserts that each sum is what it claims.
    #[cfg(test)]
    fn validate(&self) {
        let mut count = 0;
        for shard in &self.shards {
            let shard = shard.lock();
            shard.validate(self.budget());
            count += shard.count() as u64;
        }
        assert_eq!(count, self.record_count());
    }
}

#[cfg(test)]
mod tests;
