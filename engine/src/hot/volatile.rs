//! The order of the keys of volatile keyspaces in one shard. Their records live among the others
//! and are never evicted. Knows keys; knows nothing of values or budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::hot::allocation_len;
use crate::ids::Incarnation;
use crate::key::Key;

/// What a key weighs besides its bytes: its place in the tree, and the tree's slack.
const ENTRY_LEN: u64 = 40;

fn charge(key: &[u8]) -> u64 {
    // A key is a shared slice: two counts stand in front of its bytes.
    allocation_len(key.len() + 16) + ENTRY_LEN
}

#[derive(Debug, Default)]
pub(crate) struct VolatileKeys {
    keyspaces: BTreeMap<Incarnation, BTreeSet<Key>>,
    charged: u64,
}

impl VolatileKeys {
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    pub(crate) fn insert(&mut self, incarnation: Incarnation, key: &[u8]) {
        if self.keyspaces.entry(incarnation).or_default().insert(Key::from(key)) {
            self.charged += charge(key);
        }
    }

    pub(crate) fn remove(&mut self, incarnation: Incarnation, key: &[u8]) {
        let Some(keys) = self.keyspaces.get_mut(&incarnation) else { return };
        if keys.remove(key) {
            self.charged -= charge(key);
        }
        if keys.is_empty() {
            self.keyspaces.remove(&incarnation);
        }
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
        let range = keys.range((from.clone(), Bound::Unbounded));
        range.take_while(|key| !behind(key)).take(most).cloned().collect()
    }

    /// How many keys there are; asserts what they weigh.
    #[cfg(test)]
    pub(crate) fn validate(&self) -> usize {
        let keys = || self.keyspaces.values().flatten();
        assert_eq!(keys().map(|key| charge(key)).sum::<u64>(), self.charged);
        keys().count()
    }
}
