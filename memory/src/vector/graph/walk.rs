//! Searches in the graph: from an entry to what is nearest.
//! Knows links and scores; changes nothing.
#![expect(clippy::indexing_slicing, reason = "lists are bounded by their construction")]

use crate::vector::arena::{Arena, Query, Slot};
use crate::vector::graph::Graph;

/// A node and how near it is to what is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub(super) score: f32,
    pub(super) slot: Slot,
    /// Whether its links were not followed yet.
    open: bool,
}

impl Near {
    pub(super) fn new(score: f32, slot: Slot) -> Self {
        Self { score, slot, open: true }
    }
}

/// What a search needs for its work; used again by the next one.
#[derive(Debug, Default)]
pub(in crate::vector) struct Walker {
    /// One bit for each slot that was seen, and which they are.
    seen: Vec<u64>,
    marked: Vec<Slot>,
    /// The nearest that were seen, nearest first.
    pub(super) pool: Vec<Near>,
    pub(super) batch: Vec<Slot>,
    pub(super) sums: Vec<i32>,
    pub(super) scores: Vec<f32>,
    /// The node that is compared with others.
    pub(super) own: Query,
    pub(super) other: Query,
}

impl Walker {
    fn begin(&mut self, slots: usize) {
        for slot in self.marked.drain(..) {
            self.seen[slot as usize / 64] = 0;
        }
        self.seen.resize(slots.div_ceil(64).max(self.seen.len()), 0);
    }

    /// Whether it was not seen before.
    fn mark(&mut self, slot: Slot) -> bool {
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        let new = self.seen[word] & bit == 0;
        if new {
            self.seen[word] |= bit;
            self.marked.push(slot);
        }
        new
    }

    /// Keeps a node among the `ef` nearest; answers its place.
    fn keep(&mut self, near: Near, ef: usize) -> usize {
        let full = self.pool.len() >= ef;
        if full && self.pool.last().is_some_and(|last| last.score >= near.score) {
            return usize::MAX;
        }
        let place = self.pool.partition_point(|other| other.score >= near.score);
        if full {
            self.pool.pop();
        }
        self.pool.insert(place, near);
        place
    }

    /// Scores of the nodes in `batch`, in their order.
    pub(super) fn score_batch(&mut self, arena: &Arena, query: &Query) {
        arena.near(query, &self.batch, &mut self.sums, &mut self.scores);
    }
}

impl Graph {
    /// The slots that seem nearest to the query, `ef` at most, those of removed nodes left out.
    pub(in crate::vector) fn search(
        &self,
        arena: &Arena,
        query: &Query,
        ef: usize,
        walker: &mut Walker,
        found: &mut Vec<Slot>,
    ) {
        found.clear();
        let Some(entry) = self.entry else { return };
        self.descend(arena, query, entry, 0, walker);
        self.search_level(arena, query, ef, 0, walker);
        found.extend(super::alive(self, &walker.pool).map(|near| near.slot));
    }

    /// Goes greedily from the top to above `level`; the pool has the place reached.
    pub(super) fn descend(
        &self,
        arena: &Arena,
        query: &Query,
        entry: Slot,
        level: usize,
        walker: &mut Walker,
    ) {
        walker.batch.clear();
        walker.batch.push(entry);
        walker.score_batch(arena, query);
        let score = walker.scores.first().copied().unwrap_or(0.0);
        walker.pool.clear();
        walker.pool.push(Near::new(score, entry));
        for level in (level + 1..=self.level(entry)).rev() {
            self.search_level(arena, query, 1, level, walker);
        }
    }

    /// The `ef` nearest on this level, from what is in the pool; they are in the pool then.
    pub(super) fn search_level(
        &self,
        arena: &Arena,
        query: &Query,
        ef: usize,
        level: usize,
        walker: &mut Walker,
    ) {
        walker.begin(self.states.len());
        for index in 0..walker.pool.len() {
            walker.pool[index].open = true;
            walker.mark(walker.pool[index].slot);
        }
        let mut next = 0;
        while let Some(near) = walker.pool.get_mut(next) {
            if !std::mem::take(&mut near.open) {
                next += 1;
                continue;
            }
            let slot = near.slot;
            walker.batch.clear();
            for linked in self.links(slot, level) {
                if walker.mark(*linked) {
                    walker.batch.push(*linked);
                }
            }
            walker.score_batch(arena, query);
            next += 1;
            for index in 0..walker.batch.len() {
                let near = Near::new(walker.scores[index], walker.batch[index]);
                next = next.min(walker.keep(near, ef));
            }
        }
    }
}
