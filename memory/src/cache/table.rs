//! One part of a cache: a hash table over slots that form a list in the order of their last use.
//! Knows slots and weights; knows nothing of locks or loaders.
//!
//! The list is a circle through slot 0, which holds nothing: its next is the newest slot, its
//! previous the oldest. Every step is a constant number of them; slots with a deadline also stand
//! in an ordered set, so that expired ones are found without a search.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::store::Millis;

const HEAD: usize = 0;

/// A slot of the list. Free slots and slot 0 hold nothing.
#[derive(Debug)]
struct Slot<K, V> {
    newer: usize,
    older: usize,
    item: Option<Item<K, V>>,
}

/// What is cached.
#[derive(Debug)]
pub(crate) struct Item<K, V> {
    pub key: K,
    pub hash: u64,
    pub value: Arc<V>,
    pub weight: u64,
    pub deadline: Option<Millis>,
}

/// Slots by key and by age.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    slots: Vec<Slot<K, V>>,
    free: Vec<usize>,
    index: HashTable<usize>,
    deadlines: BTreeSet<(Millis, usize)>,
    weight: u64,
}

impl<K: Eq, V> Table<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Slot { newer: HEAD, older: HEAD, item: None }],
            free: Vec::new(),
            index: HashTable::new(),
            deadlines: BTreeSet::new(),
            weight: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The weights of all items together.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    fn item(&self, at: usize) -> Option<&Item<K, V>> {
        self.slots.get(at)?.item.as_ref()
    }

    fn find(&self, hash: u64, key: &K) -> Option<usize> {
        let same = |at: &usize| self.item(*at).is_some_and(|item| item.key == *key);
        self.index.find(hash, same).copied()
    }

    /// The item, which is now the newest.
    pub(crate) fn touch(&mut self, hash: u64, key: &K) -> Option<&Item<K, V>> {
        let at = self.find(hash, key)?;
        self.unlink(at);
        self.link_newest(at);
        self.item(at)
    }

    /// Puts an item in as the newest. Its key must not be there.
    pub(crate) fn insert(&mut self, item: Item<K, V>) {
        let at = self.free.pop().unwrap_or(self.slots.len());
        self.weight = self.weight.saturating_add(item.weight);
        if let Some(deadline) = item.deadline {
            self.deadlines.insert((deadline, at));
        }
        let hash = item.hash;
        let slot = Slot { newer: HEAD, older: HEAD, item: Some(item) };
        match self.slots.get_mut(at) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.link_newest(at);
        let slots = &self.slots;
        let hash_of = |at: &usize| {
            slots.get(*at).and_then(|slot| slot.item.as_ref()).map_or(0, |item| item.hash)
        };
        self.index.insert_unique(hash, at, hash_of);
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &K) -> Option<Item<K, V>> {
        let at = self.find(hash, key)?;
        self.take(at)
    }

    /// Takes out an item that has expired.
    pub(crate) fn pop_expired(&mut self, now: Millis) -> Option<Item<K, V>> {
        let (deadline, at) = *self.deadlines.first()?;
        if deadline > now { None } else { self.take(at) }
    }

    /// Takes out the item that was not used for the longest.
    pub(crate) fn pop_oldest(&mut self) -> Option<Item<K, V>> {
        let at = self.slots.get(HEAD)?.newer;
        if at == HEAD { None } else { self.take(at) }
    }

    fn take(&mut self, at: usize) -> Option<Item<K, V>> {
        self.unlink(at);
        let item = self.slots.get_mut(at)?.item.take()?;
        self.free.push(at);
        self.weight -= item.weight;
        if let Some(deadline) = item.deadline {
            self.deadlines.remove(&(deadline, at));
        }
        if let Ok(entry) = self.index.find_entry(item.hash, |found| *found == at) {
            entry.remove();
        }
        Some(item)
    }

    fn unlink(&mut self, at: usize) {
        let Some(Slot { newer, older, .. }) = self.slots.get(at) else { return };
        let (newer, older) = (*newer, *older);
        self.set(newer, None, Some(older));
        self.set(older, Some(newer), None);
    }

    /// Puts a slot between slot 0 and the newest one. Seen from slot 0, the oldest is `newer` and
    /// the newest is `older`: the circle goes on through it.
    fn link_newest(&mut self, at: usize) {
        let newest = self.slots.get(HEAD).map_or(HEAD, |head| head.older);
        self.set(at, Some(HEAD), Some(newest));
        self.set(newest, Some(at), None);
        self.set(HEAD, None, Some(at));
    }

    fn set(&mut self, at: usize, newer: Option<usize>, older: Option<usize>) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.newer = newer.unwrap_or(slot.newer);
            slot.older = older.unwrap_or(slot.older);
        }
    }

    /// Asserts what always holds: table, list, weights and deadlines are of the same items.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let (mut at, mut count, mut weight, mut deadlines) = (self.slots[HEAD].older, 0, 0, 0);
        let mut newer = HEAD;
        while at != HEAD {
            let slot = &self.slots[at];
            let item = slot.item.as_ref().unwrap();
            assert_eq!(slot.newer, newer, "the list is the same both ways");
            assert_eq!(self.find(item.hash, &item.key), Some(at), "the table finds it");
            count += 1;
            weight += item.weight;
            deadlines += usize::from(item.deadline.is_some());
            (newer, at) = (at, slot.older);
        }
        assert_eq!((count, weight), (self.len(), self.weight));
        assert_eq!(deadlines, self.deadlines.len());
        assert_eq!(self.slots.len(), count + self.free.len() + 1, "no slot is lost");
    }
}
