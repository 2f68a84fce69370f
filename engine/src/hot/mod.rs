//! The hot tier: records in memory, in shards, within one budget of bytes.
//! Knows records and what they weigh; knows nothing of the log or of why a record came.
//!
//! Clean copies of durable records may be evicted at any time, for nothing is lost with them.
//! Records of volatile keyspaces live here alone and are never evicted.

mod clean;
mod volatile;

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::hash::KeyHash;
use crate::hot::clean::Clean;
use crate::hot::volatile::Volatile;
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

#[derive(Debug, Default)]
struct Shard {
    clean: Clean,
    volatile: Volatile,
}

impl Shard {
    fn charged(&self) -> u64 {
        self.clean.charged() + self.volatile.charged()
    }
}

/// L1. Every method may be called from any thread; each takes one shard's lock.
#[derive(Debug)]
pub(crate) struct HotTier {
    shards: Vec<Mutex<Shard>>,
    /// Bytes that each shard may take.
    shard_budget: AtomicU64,
    /// Records in all shards, so that an empty tier costs a read one load.
    count: AtomicU64,
}

impl HotTier {
    pub(crate) fn new(shards: usize, budget: u64) -> Self {
        let count = shards.max(1);
        Self {
            shards: (0..count).map(|_| Mutex::default()).collect(),
            shard_budget: AtomicU64::new(budget / count as u64),
            count: AtomicU64::new(0),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    fn shard(&self, hash: KeyHash) -> &Mutex<Shard> {
        &self.shards[usize::try_from(hash.0 & 0xFFFF).unwrap_or(0) % self.shards.len()]
    }

    /// Changes the budget; clean records above it are evicted.
    pub(crate) fn set_budget(&self, bytes: u64) {
        let each = bytes / self.shards.len() as u64;
        if self.shard_budget.swap(each, Ordering::Relaxed) <= each {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.lock();
            let room = each.saturating_sub(shard.volatile.charged());
            let evicted = shard.clean.shrink_to(room);
            self.count.fetch_sub(evicted, Ordering::Relaxed);
        }
    }

    /// Whether nothing is resident: then a read need not ask.
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
    pub(crate) fn get<R>(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        now_ms: impl FnOnce() -> u64,
        read: impl FnOnce(HotRecord<'_>) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(hash).lock();
        let shard = &mut *shard;
        let record = shard.clean.get(hash, incarnation, key);
        let record = record.or_else(|| shard.volatile.get(incarnation, key))?;
        (!is_expired(record.deadline_ms, now_ms)).then(|| read(record))
    }

    /// Notes a touch of a record that is not resident; `true` when it was touched before.
    pub(crate) fn note_touch(&self, hash: KeyHash) -> bool {
        self.shard(hash).lock().clean.note_touch(hash)
    }

    /// Takes a clean copy if `still_newest`, asked under the shard's lock, says so. What must be
    /// evicted for it goes; a record of more than an eighth of the shard is not taken.
    #[expect(clippy::too_many_arguments, reason = "one record, spelled out")]
    pub(crate) fn admit(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        value: &[u8],
        seq: Seq,
        deadline_ms: u64,
        still_newest: impl FnOnce() -> bool,
    ) -> bool {
        let budget = self.shard_budget.load(Ordering::Relaxed);
        let mut shard = self.shard(hash).lock();
        if clean::charge(key, value) > budget / 8 || !still_newest() {
            return false;
        }
        let room = budget.saturating_sub(shard.volatile.charged());
        let record = HotRecord { value, seq, deadline_ms };
        let before = shard.clean.count();
        shard.clean.insert(hash, incarnation, key, record);
        shard.clean.shrink_to(room);
        self.count_changed(before, shard.clean.count());
        true
    }

    fn count_changed(&self, before: u64, after: u64) {
        self.count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Drops a resident copy and runs `switch`, both under the shard's lock: no reader meets the
    /// old copy after the switch, and no stale admission comes between.
    pub(crate) fn replace_with<R>(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        switch: impl FnOnce() -> R,
    ) -> R {
        let mut shard = self.shard(hash).lock();
        if shard.clean.remove(hash, incarnation, key) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        switch()
    }

    /// Writes a volatile record. [`Error::Full`] when it does not fit beside the other volatile
    /// ones; clean copies make way.
    pub(crate) fn put_volatile(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        value: &[u8],
        deadline_ms: u64,
    ) -> Result<()> {
        let budget = self.shard_budget.load(Ordering::Relaxed);
        let mut shard = self.shard(hash).lock();
        let freed = shard.volatile.weight_of(incarnation, key);
        let used = shard.volatile.charged() - freed + volatile::charge(key, value);
        if used > budget {
            let (doing, what) = ("put volatile record", "hot tier");
            return Err(Error::Full { doing, what, used, limit: budget });
        }
        let evicted = shard.clean.shrink_to(budget - used);
        self.count.fetch_sub(evicted, Ordering::Relaxed);
        if shard.volatile.put(incarnation, key, value, deadline_ms) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes a volatile record; answers whether it was there and had not expired.
    pub(crate) fn remove_volatile(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        now_ms: u64,
    ) -> bool {
        let removed = self.shard(hash).lock().volatile.remove(incarnation, key);
        let Some(deadline_ms) = removed else { return false };
        self.count.fetch_sub(1, Ordering::Relaxed);
        !is_expired(deadline_ms, || now_ms)
    }

    /// Drops everything of an incarnation that ended.
    pub(crate) fn purge_incarnation(&self, incarnation: Incarnation) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let removed = shard.clean.purge(incarnation) + shard.volatile.purge(incarnation);
            self.count.fetch_sub(removed, Ordering::Relaxed);
        }
    }

    /// Drops up to `most` expired records of each shard; returns how many went.
    pub(crate) fn sweep_expired(&self, now_ms: u64, most: usize) -> u64 {
        let mut swept = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            swept += shard.clean.sweep(now_ms, most) + shard.volatile.sweep(now_ms, most);
        }
        self.count.fetch_sub(swept, Ordering::Relaxed);
        swept
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
            let found = shard.lock().volatile.keys(incarnation, from, to, most);
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
            count += shard.clean.validate() + shard.volatile.validate();
            let budget = self.shard_budget.load(Ordering::Relaxed);
            assert!(shard.charged() <= budget.max(shard.volatile.charged()), "over the budget");
        }
        assert_eq!(count, self.record_count());
    }
}

#[cfg(test)]
mod tests;
