//! What walks ask of the order and what they tell it: the tags of leaves, and where records were
//! found. Knows what is in a tree; knows nothing of records.

use crate::vfs::map::anon::prefetch_items;
use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::{Hint, Leaf, LeafEntry};
use crate::warm::index::order::{KeySource, OrderIndex, Tagged, Tree};
use crate::warm::index::shelf::At;

impl OrderIndex {
    /// Appends the tags of up to `leaves` leaves whose keys may be at or above `from`, in order.
    /// So many leaves `ahead` of them are asked for, without waiting. Returns the fence that ends
    /// the last, `None` when nothing follows.
    pub(crate) fn tags_from(
        &self,
        from: &[u8],
        leaves: usize,
        ahead: usize,
        tags: &mut Vec<Tagged>,
    ) -> Option<Fence> {
        let tree = self.tree.read();
        let mut at = tree.leaf_of(from);
        // All are asked for before the first is looked at.
        tree.ask_for(at, leaves);
        let (fence, leaf) = tree.leaves.get(at?)?;
        let (mut skip, mut left) = (leaf.lower(fence, from), leaves);
        while let Some((_, leaf)) = at.filter(|_| left > 0).and_then(|at| tree.leaves.get(at)) {
            tags.extend(tagged(leaf).skip(std::mem::take(&mut skip)));
            at = at.and_then(|at| tree.leaves.after(at));
            left -= usize::from(!tags.is_empty());
        }
        tree.ask_for(at, ahead);
        at.and_then(|at| tree.leaves.get(at)).map(|(next, _)| next.clone())
    }

    /// Appends the tags of one leaf whose keys may be below `to`, in order. Returns the leaf's
    /// fence, `None` when nothing comes before.
    pub(crate) fn tags_before(&self, to: &[u8], tags: &mut Vec<Tagged>) -> Option<Fence> {
        let tree = self.tree.read();
        let mut at = tree.leaves.up_to(to);
        while let Some((fence, leaf)) = at.and_then(|at| tree.leaves.get(at)) {
            // A leaf that begins at the bound has no keys below it.
            if **fence < *to {
                tags.extend(tagged(leaf).take(leaf.upper(fence, to)));
            }
            if !tags.is_empty() {
                return (!fence.is_empty()).then(|| fence.clone());
            }
            at = at.and_then(|at| tree.leaves.before(at));
        }
        None
    }

    /// Notes where the records of some keys are: `each` hands sort keys, in order, with what holds
    /// since so many segments had `entered`.
    pub(crate) fn note_hints(
        &self,
        source: &dyn KeySource,
        entered: u32,
        each: impl FnOnce(&mut dyn FnMut(&[u8], u32, Hint)),
    ) {
        let leaves = &mut self.tree.write().leaves;
        let mut here: Option<(At, Fence, Option<Fence>)> = None;
        each(&mut |key, tag, hint| {
            let is_here = |(_, fence, next): &(At, Fence, Option<Fence>)| {
                **fence <= *key && next.as_deref().is_none_or(|next| key < next)
            };
            if !here.as_ref().is_some_and(is_here) {
                let fence_of = |at| leaves.get(at).map(|(fence, _)| fence.clone());
                here = leaves
                    .up_to(key)
                    .and_then(|at| Some((at, fence_of(at)?, leaves.after(at).and_then(fence_of))));
            }
            let Some((at, fence, _)) = &here else { return };
            let Some(leaf) = leaves.get_mut(*at) else { return };
            if leaf.entered() < entered {
                source.renew(leaf, entered);
            }
            if leaf.entered() == entered {
                leaf.note(fence, key, tag, hint);
            }
        });
    }

    /// Drops what nobody knows any more from so many leaves, of which a key belongs to the first.
    pub(crate) fn sweep_at(&self, key: &[u8], count: usize, source: &dyn KeySource) {
        let (fence, _) = self.tree.read().around(key);
        self.sweep(&fence, count, source);
    }
}

impl Tree {
    /// Asks for the entries of so many leaves without waiting.
    fn ask_for(&self, mut at: Option<At>, leaves: usize) {
        for _ in 0..leaves {
            let Some((_, leaf)) = at.and_then(|at| self.leaves.get(at)) else { break };
            prefetch_items(leaf.entries());
            at = at.and_then(|at| self.leaves.after(at));
        }
    }
}

/// What a leaf says, in order.
fn tagged(leaf: &Leaf) -> impl Iterator<Item = Tagged> {
    let of =
        |entry: &LeafEntry| Tagged { tag: entry.tag, hint: entry.hint, entered: leaf.entered() };
    leaf.entries().iter().map(of)
}
