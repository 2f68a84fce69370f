//! Records of volatile keyspaces in one shard, in order of their keys. They live here alone.
//! Knows records and weights; knows nothing of budgets.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::hot::{HotRecord, allocation_len, is_expired};
use crate::ids::{Incarnation, Seq};
use crate::key::Key;

/// What an entry weighs besides key and value: its place in the tree, and the tree's slack.
const ENTRY_LEN: u64 = 96;

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    deadline_ms: u64,
}

/// What a record would weigh.
pub(crate) fn charge(key: &[u8], value: &[u8]) -> u64 {
    // A key is a shared slice: two counts stand in front of its bytes.
    allocation_len(key.len() + 16) + allocation_len(value.len()) + ENTRY_LEN
}

#[derive(Debug, Default)]
pub(crate) struct Volatile {
    keyspaces: BTreeMap<Incarnation, BTreeMap<Key, Entry>>,
    charged: u64,
}

impl Volatile {
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    pub(crate) fn get(&self, incarnation: Incarnation, key: &[u8]) -> Option<HotRecord<'_>> {
        let entry = self.keyspaces.get(&incarnation)?.get(key)?;
        Some(HotRecord { value: &entry.value, seq: Seq::ZERO, deadline_ms: entry.deadline_ms })
    }

    /// What the record under this key weighs now.
    pub(crate) fn weight_of(&self, incarnation: Incarnation, key: &[u8]) -> u64 {
        let entry = self.keyspaces.get(&incarnation).and_then(|keys| keys.get(key));
        entry.map_or(0, |entry| charge(key, &entry.value))
    }

    /// Writes a record; answers whether its key is new.
    pub(crate) fn put(
        &mut self,
        incarnation: Incarnation,
        key: &[u8],
        value: &[u8],
        deadline_ms: u64,
    ) -> bool {
        self.charged -= self.weight_of(incarnation, key);
        self.charged += charge(key, value);
        let entry = Entry { value: Box::from(value), deadline_ms };
        self.keyspaces.entry(incarnation).or_default().insert(Key::from(key), entry).is_none()
    }

    /// Removes a record; returns its deadline if it was there.
    pub(crate) fn remove(&mut self, incarnation: Incarnation, key: &[u8]) -> Option<u64> {
        let entry = self.keyspaces.get_mut(&incarnation)?.remove(key)?;
        self.charged -= charge(key, &entry.value);
        Some(entry.deadline_ms)
    }

    pub(crate) fn purge(&mut self, incarnation: Incarnation) -> u64 {
        let Some(keys) = self.keyspaces.remove(&incarnation) else { return 0 };
        self.charged -= keys.iter().map(|(key, entry)| charge(key, &entry.value)).sum::<u64>();
        keys.len() as u64
    }

    pub(crate) fn sweep(&mut self, now_ms: u64, most: usize) -> u64 {
        let mut expired = Vec::new();
        for (&incarnation, keys) in &self.keyspaces {
            let those = keys.iter().filter(|(_, e)| is_expired(e.deadline_ms, || now_ms));
            expired.extend(those.map(|(key, _)| (incarnation, key.clone())).take(most));
        }
        expired.truncate(most);
        let gone =
            expired.iter().filter(|(incarnation, key)| self.remove(*incarnation, key).is_some());
        gone.count() as u64
    }

    /// Up to `most` keys of a range, in order.
    pub(crate) fn keys(
        &self,
        incarnation: Incarnation,
        from: &Bound<Key>,
        to: &Bound<Key>,
        most: usize,
    ) -> Vec<Key> {
        let Some(keys) = self.keyspaces.get(&incarnation) else { return Vec::new() };
        let behind = |key: &Key| match to {
            Bound::Included(to) => key > to,
            Bound::Excluded(to) => key >= to,
            Bound::Unbounded => false,
        };
        let range = keys.range((from.clone(), Bound::Unbounded)).map(|(key, _)| key);
        range.take_while(|key| !behind(key)).take(most).cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn validate(&self) -> u64 {
        let records = self.keyspaces.values().flatten();
        let sum: u64 = records.map(|(key, entry)| charge(key, &entry.value)).sum();
        assert_eq!(sum, self.charged);
        self.keyspaces.values().map(|keys| keys.len() as u64).sum()
    }
}
