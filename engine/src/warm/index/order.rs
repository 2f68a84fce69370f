//! The order of the warm tier's keys: leaves of tags, sorted by key, under fences in a tree.
//! Knows tags and sort keys; what a tag's keys are, a [`KeySource`] says. Locations are hints, so
//! that neither an overwrite nor a move changes anything here.
//!
//! A put of a new key leaves its tag in `fresh`; sorting in happens in pieces, in the background or
//! by the first walk that needs it. An entry whose key left the index stays until its leaf is
//! rewritten, and means nothing until then: whoever walks asks the index.

pub(crate) mod image;
pub(crate) mod tags;

use std::cmp::Ordering::{Equal, Greater, Less};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::{Hint, LEAF_LEN_MAX, Leaf, Place};
use crate::warm::index::shelf::{At, Shelves};

/// Tags that are sorted in for each time the tree is locked.
pub(crate) const MERGE_PIECE: usize = 4096;
/// Keys of a leaf that was split, so that there is room for more.
const SPLIT_LEN: usize = 24;
/// Keys of a leaf that was split at the end of the order, where more keys follow behind it.
const APPEND_LEN: usize = 30;
/// Keys for one leaf up to which they are placed one by one.
const FEW: usize = 4;
/// A leaf with fewer keys is joined with the next when it is swept.
const SPARSE_LEN: usize = LEAF_LEN_MAX / 4;
/// What a leaf takes besides entries and a long fence: its place in the tree, and an allocation.
const LEAF_OVERHEAD: usize = 118;

/// Hears of the sort key of a record and of the place of the newest; of `None` for a damaged one.
pub(crate) type EachKey<'e> = dyn FnMut(Option<(&[u8], Hint)>) + 'e;

/// Says which keys a tag means now.
pub(crate) trait KeySource {
    /// Tells `each` of every record with this tag.
    fn each_key(&self, tag: u32, each: &mut EachKey<'_>);

    /// Loads what `each_key` will need for these tags into the cache.
    fn prefetch(&self, tags: &[u32]);

    /// How many segments have entered their table.
    fn entered(&self) -> u32;

    /// Has a leaf drop the hints whose slots were used again; the others held when so many segments
    /// had `entered`.
    fn renew(&self, leaf: &mut Leaf, entered: u32);
}

#[derive(Debug, Default)]
pub(crate) struct OrderIndex {
    /// Tags of keys that entered the index and are not sorted in, in pieces that never grow. A leaf
    /// lock.
    fresh: Mutex<Vec<Vec<u32>>>,
    fresh_count: AtomicUsize,
    /// Tags of records that were damaged when they were to be sorted in: their keys may lie
    /// anywhere. A leaf lock.
    placeless: Mutex<Vec<u32>>,
    tree: RwLock<Tree>,
    charged: AtomicU64,
    entry_count: AtomicU64,
}

#[derive(Debug, Default)]
struct Tree {
    /// By fence: no key of a leaf is below its fence, or at or above the next.
    leaves: Shelves<Leaf>,
}

/// A key that is being sorted in: where its sort key stands in the arena.
#[derive(Debug, Clone)]
struct Item {
    key: Range<usize>,
    tag: u32,
    hint: Hint,
    /// The record is damaged: the entry keeps its place, behind the key that stands here.
    unknown: bool,
}

/// A tag in order, and where its newest record may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tagged {
    pub tag: u32,
    pub hint: Hint,
    /// The hint held when so many segments had entered their table, or later.
    pub entered: u32,
}

/// Sort keys and tags, the keys side by side in one buffer.
#[derive(Debug, Default)]
struct Items {
    arena: Vec<u8>,
    list: Vec<Item>,
    /// The hints held when so many segments had entered their table, or later.
    entered: u32,
}

impl Items {
    fn new(entered: u32) -> Self {
        Self { arena: Vec::new(), list: Vec::new(), entered }
    }

    fn key(&self, item: &Item) -> &[u8] {
        self.arena.get(item.key.clone()).unwrap_or(&[])
    }

    fn push(&mut self, key: &[u8], tag: u32, hint: Hint, unknown: bool) {
        let from = self.arena.len();
        self.arena.extend_from_slice(key);
        self.list.push(Item { key: from..self.arena.len(), tag, hint, unknown });
    }

    /// Sorts by key and drops what stands twice.
    fn sort(&mut self) {
        let arena = &self.arena;
        let key = |item: &Item| arena.get(item.key.clone()).unwrap_or(&[]);
        let rank = |item: &Item| (item.unknown, if item.unknown { item.tag } else { 0 });
        self.list.sort_unstable_by(|a, b| key(a).cmp(key(b)).then_with(|| rank(a).cmp(&rank(b))));
        self.list.dedup_by(|a, b| key(a) == key(b) && rank(a) == rank(b));
    }
}

impl OrderIndex {
    /// Notes a key that entered the index.
    pub(crate) fn push(&self, tag: u32) {
        let mut fresh = self.fresh.lock();
        match fresh.last_mut() {
            Some(piece) if piece.len() < MERGE_PIECE => piece.push(tag),
            _ => {
                let mut piece = Vec::with_capacity(MERGE_PIECE);
                piece.push(tag);
                fresh.push(piece);
            }
        }
        self.fresh_count.fetch_add(1, Ordering::Release);
    }

    /// Tags whose keys nobody knows: every walk looks at them.
    pub(crate) fn placeless(&self) -> Vec<Tagged> {
        let tags = self.placeless.lock();
        tags.iter().map(|&tag| Tagged { tag, hint: Hint::NONE, entered: 0 }).collect()
    }

    /// Keys that are not sorted in.
    pub(crate) fn fresh_count(&self) -> usize {
        self.fresh_count.load(Ordering::Acquire)
    }

    /// Entries in all leaves, those of keys that left the index included.
    pub(crate) fn entry_count(&self) -> u64 {
        self.entry_count.load(Ordering::Relaxed)
    }

    /// Bytes of anonymous memory.
    pub(crate) fn charged_len(&self) -> u64 {
        let unplaced = self.fresh_count().next_multiple_of(MERGE_PIECE);
        let unplaced = unplaced + self.placeless.lock().len();
        let fresh = unplaced as u64 * size_of::<u32>() as u64;
        self.charged.load(Ordering::Relaxed) + fresh
    }

    /// Sorts everything in that is fresh now.
    pub(crate) fn merge_all(&self, source: &dyn KeySource) {
        while self.fresh_count() > 0 {
            self.merge(MERGE_PIECE, source);
        }
    }

    /// Sorts at most so many of the fresh keys in. The tree is locked before they are taken, so
    /// that no walk misses a key between the two.
    pub(crate) fn merge(&self, most: usize, source: &dyn KeySource) {
        let mut tree = self.tree.write();
        let tags = self.take_fresh(most);
        let mut items = Items::new(source.entered());
        for chunk in tags.chunks(32) {
            source.prefetch(chunk);
            for &tag in chunk {
                source.each_key(tag, &mut |key| match key {
                    Some((key, hint)) => items.push(key, tag, hint, false),
                    None => self.placeless.lock().push(tag),
                });
            }
        }
        items.sort();
        let mut at = 0;
        while let Some(first) = items.list.get(at) {
            let (fence, next) = tree.around(items.key(first));
            let rest = items.list.get(at..).unwrap_or(&[]);
            let below = |item: &Item| next.as_deref().is_none_or(|next| items.key(item) < next);
            let count = rest.partition_point(below).max(1);
            self.sort_into(&mut tree, &fence, next.as_deref(), &items, at..at + count, source);
            at += count;
        }
    }

    /// At most so many tags of the last piece.
    fn take_fresh(&self, most: usize) -> Vec<u32> {
        let mut fresh = self.fresh.lock();
        let Some(mut piece) = fresh.pop() else { return Vec::new() };
        let taken = piece.split_off(piece.len().saturating_sub(most));
        if !piece.is_empty() {
            fresh.push(piece);
        }
        self.fresh_count.fetch_sub(taken.len(), Ordering::Release);
        taken
    }

    /// Enters items that all belong to the leaf under `fence`.
    fn sort_into(
        &self,
        tree: &mut Tree,
        fence: &[u8],
        next: Option<&[u8]>,
        items: &Items,
        which: Range<usize>,
        source: &dyn KeySource,
    ) {
        let group = items.list.get(which).unwrap_or(&[]);
        let mut rest = group;
        if group.len() <= FEW
            && let Some(leaf) = tree.leaf_mut(fence)
        {
            let before = leaf.charged_len();
            if leaf.entered() != items.entered {
                source.renew(leaf, items.entered);
            }
            while let Some((item, others)) = rest.split_first() {
                match try_insert(leaf, fence, items.key(item), item, source) {
                    Some(inserted) => {
                        self.entry_count.fetch_add(u64::from(inserted), Ordering::Relaxed);
                        rest = others;
                    }
                    None => break,
                }
            }
            self.recharge(before, leaf.charged_len());
        }
        if !rest.is_empty() {
            let old = self.take_leaf(tree, fence);
            self.rebuild(tree, fence, next, &old, (items, rest), source);
        }
    }

    fn recharge(&self, before: usize, after: usize) {
        self.charged.fetch_add(after as u64, Ordering::Relaxed);
        self.charged.fetch_sub(before as u64, Ordering::Relaxed);
    }

    fn take_leaf(&self, tree: &mut Tree, fence: &[u8]) -> Vec<u32> {
        let Some((fence, leaf)) = tree.leaves.remove(fence) else { return Vec::new() };
        self.recharge(leaf.charged_len() + fence.charged_len() + LEAF_OVERHEAD, 0);
        self.entry_count.fetch_sub(leaf.entries().len() as u64, Ordering::Relaxed);
        leaf.entries().iter().map(|entry| entry.tag).collect()
    }

    fn put_leaf(&self, tree: &mut Tree, fence: &[u8], items: &Items, list: &[Item]) {
        let keys = list.iter().map(|item| (items.key(item), item.tag, item.hint));
        let leaf = Leaf::of(fence, items.entered, keys);
        let fence = Fence::from(fence);
        self.recharge(0, leaf.charged_len() + fence.charged_len() + LEAF_OVERHEAD);
        self.entry_count.fetch_add(leaf.entries().len() as u64, Ordering::Relaxed);
        tree.leaves.insert(fence, leaf);
    }

    /// Writes the keys between two fences anew: the old ones that the source still knows, and the
    /// added ones.
    fn rebuild(
        &self,
        tree: &mut Tree,
        fence: &[u8],
        next: Option<&[u8]>,
        old: &[u32],
        (added, list): (&Items, &[Item]),
        source: &dyn KeySource,
    ) {
        let mut all = Items::new(added.entered);
        let inside = |key: &[u8]| key >= fence && next.is_none_or(|next| key < next);
        let mut last = fence.to_vec();
        source.prefetch(old);
        for &tag in old {
            let mut damaged = false;
            source.each_key(tag, &mut |key| match key {
                Some((key, hint)) if inside(key) => {
                    all.push(key, tag, hint, false);
                    last.clear();
                    last.extend_from_slice(key);
                }
                Some(_) => {}
                None => damaged = true,
            });
            if damaged {
                all.push(&last, tag, Hint::NONE, true);
            }
        }
        let appends =
            next.is_none() && list.first().is_some_and(|first| *last <= *added.key(first));
        for item in list {
            all.push(added.key(item), item.tag, item.hint, false);
        }
        all.sort();
        self.put_leaves(tree, fence, &all, appends);
    }

    fn put_leaves(&self, tree: &mut Tree, fence: &[u8], all: &Items, appends: bool) {
        let count = all.list.len();
        let each = if count <= LEAF_LEN_MAX {
            LEAF_LEN_MAX
        } else if appends {
            APPEND_LEN
        } else {
            count.div_ceil(count.div_ceil(SPLIT_LEN))
        };
        let mut rest = &all.list[..];
        let mut fence = fence.to_vec();
        loop {
            let mut len = each.min(rest.len());
            // A fence is a key of its own: an entry of unknown key never begins a leaf.
            while rest.get(len).is_some_and(|item| item.unknown) {
                len += 1;
            }
            let (now, later) = rest.split_at(len);
            if !now.is_empty() || fence.is_empty() {
                self.put_leaf(tree, &fence, all, now);
            }
            let Some(first) = later.first() else { return };
            fence = all.key(first).to_vec();
            rest = later;
        }
    }

    /// Rewrites up to `count` leaves from `from` on that hold entries without a key, or few keys.
    /// Returns where to go on; `None` behind the last.
    pub(crate) fn sweep(&self, from: &[u8], count: usize, source: &dyn KeySource) -> Option<Fence> {
        let mut tree = self.tree.write();
        let mut at: Option<Fence> = Some(from.into());
        for _ in 0..count {
            let (fence, leaf) = tree.leaf_from(&at?)?;
            let fence = fence.clone();
            let stale = leaf.entries().iter().any(|entry| {
                let mut known = false;
                source.each_key(entry.tag, &mut |_| known = true);
                !known
            });
            let sparse = leaf.entries().len() < SPARSE_LEN;
            let next = tree.next_fence(&fence);
            if !stale && !sparse {
                at = next;
                continue;
            }
            let mut old = self.take_leaf(&mut tree, &fence);
            let mut end = next;
            if let Some(follower) = end.take_if(|_| old.len() < LEAF_LEN_MAX / 2) {
                old.extend(self.take_leaf(&mut tree, &follower));
                end = tree.next_fence(&follower);
            }
            let none = Items::new(source.entered());
            self.rebuild(&mut tree, &fence, end.as_deref(), &old, (&none, &[]), source);
            let still_sparse =
                tree.leaf_mut(&fence).is_some_and(|leaf| leaf.entries().len() < SPARSE_LEN);
            at = if still_sparse && end.is_some() { Some(fence) } else { end };
        }
        at
    }
}

impl Tree {
    /// The leaf that a key belongs to.
    fn leaf_of(&self, key: &[u8]) -> Option<At> {
        self.leaves.up_to(key).or_else(|| self.leaves.first())
    }

    fn leaf_mut(&mut self, fence: &[u8]) -> Option<&mut Leaf> {
        let at = self.leaves.find(fence)?;
        self.leaves.get_mut(at)
    }

    /// The first leaf whose fence is at or above this one.
    fn leaf_from(&self, fence: &[u8]) -> Option<(&Fence, &Leaf)> {
        let found = self.leaves.find(fence).or_else(|| self.after(fence));
        self.leaves.get(found?)
    }

    /// The first leaf whose fence is above this one.
    fn after(&self, fence: &[u8]) -> Option<At> {
        let at = self.leaves.up_to(fence);
        at.map_or_else(|| self.leaves.first(), |at| self.leaves.after(at))
    }

    fn next_fence(&self, fence: &[u8]) -> Option<Fence> {
        let (next, _) = self.leaves.get(self.after(fence)?)?;
        Some(next.clone())
    }

    /// The fence of the leaf that a key belongs to, and the next one.
    fn around(&self, key: &[u8]) -> (Fence, Option<Fence>) {
        let found = self.leaves.up_to(key).and_then(|at| self.leaves.get(at));
        let fence = found.map_or_else(Fence::default, |(fence, _)| fence.clone());
        let next = self.next_fence(&fence);
        (fence, next)
    }
}

/// Places one key. `None` when the leaf must be written anew; else whether the key is new there.
fn try_insert(
    leaf: &mut Leaf,
    fence: &[u8],
    key: &[u8],
    item: &Item,
    source: &dyn KeySource,
) -> Option<bool> {
    let Place::Ties { from, to } = leaf.place(fence, key) else { return None };
    if leaf.is_full() {
        return None;
    }
    let (mut at, mut stands, mut is_behind) = (from, false, false);
    for tie in leaf.entries().get(from..to).unwrap_or(&[]) {
        let mut order = None;
        let mut answers = 0;
        source.each_key(tie.tag, &mut |other| {
            answers += 1;
            order = other.map(|(other, _)| other.cmp(key));
        });
        match (answers, order) {
            (1, Some(Equal)) if !stands && !is_behind => stands = true,
            (1, Some(Less)) if !stands && !is_behind => at += 1,
            (1, Some(Greater)) => is_behind = true,
            // A key that left the index may come back, and nobody knows on which side it lies. Or
            // another key has its tag, and is not what stands here.
            _ => return None,
        }
    }
    if !stands {
        leaf.insert(at, key, item.tag, item.hint);
    }
    Some(!stands)
}

#[cfg(test)]
mod tests;
