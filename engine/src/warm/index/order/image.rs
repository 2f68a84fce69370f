//! The order as an image keeps it: leaves and loose tags, out and in again.
//! Knows what is in a tree; knows nothing of bytes.

use std::sync::atomic::Ordering;

use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::Leaf;
use crate::warm::index::order::{LEAF_OVERHEAD, OrderIndex};
use crate::warm::index::shelf::Shelves;

impl OrderIndex {
    /// Hands every leaf to `each`, in order, under its fence. Sorting in waits.
    pub(crate) fn each_leaf(&self, mut each: impl FnMut(&[u8], &Leaf)) {
        let tree = self.tree.read();
        tree.leaves.iter().for_each(|(fence, leaf)| each(fence, leaf));
    }

    /// Tags that stand in no leaf.
    pub(crate) fn loose(&self) -> Vec<u32> {
        let mut tags = self.fresh.lock().concat();
        tags.extend(self.placeless.lock().iter());
        tags
    }

    /// Takes over leaves, in the order of their fences. The order must be empty but for fresh keys.
    pub(crate) fn restore(&self, leaves: Vec<(Fence, Leaf)>) {
        let lens = leaves.iter().map(|(fence, leaf)| leaf.charged_len() + fence.charged_len());
        let charged = lens.sum::<usize>() + leaves.len() * LEAF_OVERHEAD;
        let count: usize = leaves.iter().map(|(_, leaf)| leaf.entries().len()).sum();
        let mut tree = self.tree.write();
        assert!(tree.leaves.is_empty(), "an order is restored before anything is sorted in");
        tree.leaves = Shelves::of(leaves);
        self.charged.store(charged as u64, Ordering::Relaxed);
        self.entry_count.store(count as u64, Ordering::Relaxed);
    }
}
