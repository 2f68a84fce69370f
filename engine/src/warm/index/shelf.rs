//! The leaves of the order by their fences, in shelves of up to 64 that lie side by side.
//! Knows fences; a leaf is whatever stands under one.
//!
//! A search touches few lines of memory: eight bytes of each fence, behind what all fences of a
//! shelf share, stand together and decide nearly every comparison; where they tie, fences are
//! compared. The first fences of the shelves are searched the same way.

use crate::vfs::map::anon::prefetch_items;
use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::common_len;

/// Leaves of one shelf at most.
const SHELF_LEN_MAX: usize = 64;

/// Where a leaf stands. Holds until leaves come or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    shelf: usize,
    slot: usize,
}

/// Eight bytes of each of several keys in order, behind what all of them share.
#[derive(Debug, Default)]
struct Heads {
    shared: usize,
    heads: Vec<u64>,
}

fn head_of(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or(&[]);
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

impl Heads {
    fn of<'k>(keys: impl Iterator<Item = &'k [u8]> + Clone) -> Self {
        let (first, last) = (keys.clone().next(), keys.clone().last());
        let shared = first.zip(last).map_or(0, |(first, last)| common_len(first, last));
        Self { shared, heads: keys.map(|key| head_of(key, shared)).collect() }
    }

    /// How many keys are at or below `key`; `key_at` tells the keys themselves.
    #[inline]
    fn count_up_to<'k>(&self, key: &[u8], key_at: impl Fn(usize) -> &'k [u8]) -> usize {
        if self.heads.is_empty() {
            return 0;
        }
        let shared = key_at(0).get(..self.shared).unwrap_or(&[]);
        match key.get(..self.shared) {
            Some(start) if start == shared => {}
            _ => return if *shared < *key { self.heads.len() } else { 0 },
        }
        let wanted = head_of(key, self.shared);
        let below = self.heads.partition_point(|&head| head < wanted);
        let ties = self.heads.get(below..).unwrap_or(&[]);
        let mut ties = below..below + ties.partition_point(|&head| head == wanted);
        while let Some(last) = ties.len().checked_sub(1) {
            let middle = ties.start + last / 2;
            if key_at(middle) <= key {
                ties.start = middle + 1;
            } else {
                ties.end = middle;
            }
        }
        ties.start
    }

    /// Enters a key at this place; `false` when it does not share what the others do.
    fn insert(&mut self, at: usize, key: &[u8], other: &[u8]) -> bool {
        let fits = self.shared <= common_len(key, other);
        if fits {
            self.heads.insert(at, head_of(key, self.shared));
        }
        fits
    }

    fn remove(&mut self, at: usize) {
        self.heads.remove(at);
    }
}

/// Leaves that stand side by side.
#[derive(Debug)]
struct Shelf<L> {
    heads: Heads,
    leaves: Vec<(Fence, L)>,
}

impl<L> Shelf<L> {
    fn of(leaves: Vec<(Fence, L)>) -> Self {
        let heads = Heads::of(leaves.iter().map(|(fence, _)| &**fence));
        Self { heads, leaves }
    }

    fn fence(&self, slot: usize) -> &[u8] {
        self.leaves.get(slot).map_or(&[], |(fence, _)| fence)
    }

    fn first(&self) -> &[u8] {
        self.fence(0)
    }

    fn count_up_to(&self, key: &[u8]) -> usize {
        self.heads.count_up_to(key, |slot| self.fence(slot))
    }

    fn insert(&mut self, slot: usize, fence: Fence, leaf: L) {
        let first = self.leaves.first().map_or(&[][..], |(fence, _)| fence);
        let fits = self.heads.insert(slot, &fence, first);
        self.leaves.insert(slot, (fence, leaf));
        if !fits {
            self.heads = Heads::of(self.leaves.iter().map(|(fence, _)| &**fence));
        }
    }
}

/// Leaves by their fences.
#[derive(Debug)]
pub(crate) struct Shelves<L> {
    /// Of the first fences of the shelves.
    heads: Heads,
    /// None is empty.
    shelves: Vec<Shelf<L>>,
}

impl<L> Default for Shelves<L> {
    fn default() -> Self {
        Self { heads: Heads::default(), shelves: Vec::new() }
    }
}

impl<L> Shelves<L> {
    /// Takes leaves in the order of their fences.
    pub(crate) fn of(leaves: Vec<(Fence, L)>) -> Self {
        let mut shelves = Vec::with_capacity(leaves.len().div_ceil(SHELF_LEN_MAX));
        let mut rest = leaves.into_iter();
        loop {
            let leaves: Vec<_> = rest.by_ref().take(SHELF_LEN_MAX).collect();
            if leaves.is_empty() {
                break;
            }
            shelves.push(Shelf::of(leaves));
        }
        let mut this = Self { heads: Heads::default(), shelves };
        this.renew_heads();
        this
    }

    fn renew_heads(&mut self) {
        self.heads = Heads::of(self.shelves.iter().map(Shelf::first));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shelves.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Fence, &L)> {
        self.shelves.iter().flat_map(|shelf| shelf.leaves.iter().map(|(fence, leaf)| (fence, leaf)))
    }

    /// The last leaf whose fence is at or below `key`.
    #[inline]
    pub(crate) fn up_to(&self, key: &[u8]) -> Option<At> {
        let first = |shelf: usize| self.shelves.get(shelf).map_or(&[][..], Shelf::first);
        let shelf = self.heads.count_up_to(key, first).checked_sub(1)?;
        let held = self.shelves.get(shelf)?;
        // A search would wait for one line after the other.
        prefetch_items(&held.heads.heads);
        let slot = held.count_up_to(key).checked_sub(1)?;
        Some(At { shelf, slot })
    }

    pub(crate) fn first(&self) -> Option<At> {
        (!self.is_empty()).then_some(At { shelf: 0, slot: 0 })
    }

    pub(crate) fn after(&self, at: At) -> Option<At> {
        if at.slot + 1 < self.shelves.get(at.shelf)?.leaves.len() {
            return Some(At { slot: at.slot + 1, ..at });
        }
        let shelf = at.shelf + 1;
        (shelf < self.shelves.len()).then_some(At { shelf, slot: 0 })
    }

    pub(crate) fn before(&self, at: At) -> Option<At> {
        if let Some(slot) = at.slot.checked_sub(1) {
            return Some(At { slot, ..at });
        }
        let shelf = at.shelf.checked_sub(1)?;
        Some(At { shelf, slot: self.shelves.get(shelf)?.leaves.len() - 1 })
    }

    pub(crate) fn get(&self, at: At) -> Option<(&Fence, &L)> {
        self.shelves.get(at.shelf)?.leaves.get(at.slot).map(|(fence, leaf)| (fence, leaf))
    }

    pub(crate) fn get_mut(&mut self, at: At) -> Option<&mut L> {
        self.shelves.get_mut(at.shelf)?.leaves.get_mut(at.slot).map(|(_, leaf)| leaf)
    }

    /// The leaf with this very fence.
    pub(crate) fn find(&self, fence: &[u8]) -> Option<At> {
        self.up_to(fence).filter(|&at| self.get(at).is_some_and(|(found, _)| **found == *fence))
    }

    /// Enters a leaf under a fence that has none.
    pub(crate) fn insert(&mut self, fence: Fence, leaf: L) {
        let Some(shelf) = self.up_to(&fence).or_else(|| self.first()).map(|at| at.shelf) else {
            *self = Self::of(vec![(fence, leaf)]);
            return;
        };
        let is_last = shelf + 1 == self.shelves.len();
        let Some(held) = self.shelves.get_mut(shelf) else { return };
        let slot = held.count_up_to(&fence);
        if slot > 0 && held.leaves.len() < SHELF_LEN_MAX {
            held.insert(slot, fence, leaf);
            return;
        }
        if slot == 0 {
            // It is below all others.
            held.insert(slot, fence, leaf);
            self.renew_heads();
        } else if is_last && slot == held.leaves.len() {
            self.enter_shelf(shelf + 1, Shelf::of(vec![(fence, leaf)]));
            return;
        } else {
            held.insert(slot, fence, leaf);
        }
        let Some(held) = self.shelves.get_mut(shelf) else { return };
        if held.leaves.len() > SHELF_LEN_MAX {
            let upper = held.leaves.split_off(SHELF_LEN_MAX / 2);
            *held = Shelf::of(std::mem::take(&mut held.leaves));
            self.enter_shelf(shelf + 1, Shelf::of(upper));
        }
    }

    fn enter_shelf(&mut self, at: usize, shelf: Shelf<L>) {
        let first = self.shelves.first().map_or(&[][..], Shelf::first);
        let fits = self.heads.insert(at, shelf.first(), first);
        self.shelves.insert(at, shelf);
        if !fits {
            self.renew_heads();
        }
    }

    /// Takes the leaf with this very fence out.
    pub(crate) fn remove(&mut self, fence: &[u8]) -> Option<(Fence, L)> {
        let At { shelf, slot } = self.find(fence)?;
        let held = self.shelves.get_mut(shelf)?;
        held.heads.remove(slot);
        let taken = held.leaves.remove(slot);
        let is_empty = held.leaves.is_empty();
        if is_empty {
            self.shelves.remove(shelf);
            self.heads.remove(shelf);
        }
        if slot == 0 && !is_empty {
            self.renew_heads();
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        let short = proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..6);
        let long = (0_u32..400).prop_map(|n| format!("what/all/share/{n:07}").into_bytes());
        let longer = (0_u32..400).prop_map(|n| {
            format!("what/all/share/and/some/more/that/no/fence/holds/{n:05}").into_bytes()
        });
        prop_oneof![1 => short, 4 => long, 2 => longer]
    }

    fn check(shelves: &Shelves<u32>, model: &BTreeMap<Vec<u8>, u32>, seek: &[u8]) {
        assert!(shelves.iter().map(|(f, l)| (&**f, l)).eq(model.iter().map(|(f, l)| (&**f, l))));
        let told = |at: Option<At>| at.and_then(|at| shelves.get(at)).map(|(_, leaf)| *leaf);
        let found = shelves.up_to(seek);
        let known = model.range(..=seek.to_vec()).next_back();
        assert_eq!(told(found), known.map(|(_, leaf)| *leaf));
        assert_eq!(told(shelves.find(seek)), model.get(seek).copied());
        assert_eq!(told(shelves.first()), model.values().next().copied());
        let above = model.range(seek.to_vec()..).find(|(key, _)| **key != seek);
        let after = found.map_or_else(|| shelves.first(), |at| shelves.after(at));
        assert_eq!(told(after), above.map(|(_, leaf)| *leaf));
        assert!(after.is_none_or(|at| shelves.before(at) == found));
        assert!(shelves.shelves.iter().all(|shelf| {
            let len = shelf.leaves.len();
            (1..=SHELF_LEN_MAX).contains(&len) && shelf.heads.heads.len() == len
        }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn shelves_are_a_sorted_map(
            steps in proptest::collection::vec((key(), 0_u32..4), 1..500),
            seeks in proptest::collection::vec(key(), 1..20),
        ) {
            let (mut shelves, mut model) = (Shelves::default(), BTreeMap::new());
            for (number, (key, kind)) in (0..).zip(steps) {
                if kind == 0 {
                    let removed = shelves.remove(&key).map(|(_, leaf)| leaf);
                    prop_assert_eq!(removed, model.remove(&key));
                } else if let Some(at) = shelves.find(&key) {
                    *shelves.get_mut(at).unwrap() = number;
                    model.insert(key, number);
                } else {
                    shelves.insert(Fence::from(&key[..]), number);
                    model.insert(key, number);
                }
            }
            let all = model.iter().map(|(key, leaf)| (Fence::from(&key[..]), *leaf));
            let made = Shelves::of(all.collect());
            for seek in seeks.iter().chain(model.keys().step_by(7)) {
                check(&shelves, &model, seek);
                check(&made, &model, seek);
            }
        }
    }
}
