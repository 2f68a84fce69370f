//! The best `k` rows of a query: candidates by what is in memory, judged by what is stored.
//! Knows bounds and rows; knows nothing of how the index finds candidates.
//!
//! A candidate has a lower and an upper bound of its score. Candidates are read in order of their
//! upper bounds, until the next one cannot be better than the worst of `k` that were read. So a
//! search over all candidates is exact, whatever the codes in memory hide.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use bytes::Bytes;

use crate::error::Result;
use crate::vector::arena::{Candidate, Slot};
use crate::vector::filter::Filter;
use crate::vector::row::{Head, Row};

/// A score as a number with the same order, for heaps.
type Key = i32;

fn key(score: f32) -> Key {
    let bits = score.to_bits().cast_signed();
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

/// Candidates of a search.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Candidates that cannot be among the best `k` are left out. Not with a filter: those that
    /// seem better may all be refused.
    k: Option<usize>,
    found: Vec<(Key, Reverse<Slot>)>,
    /// The `k` greatest lower bounds.
    lowest: BinaryHeap<Reverse<Key>>,
    compact_at: usize,
}

impl Candidates {
    pub(super) fn new(k: usize, filter: &Filter) -> Self {
        let k = (*filter == Filter::All).then_some(k);
        Self { k, found: Vec::new(), lowest: BinaryHeap::new(), compact_at: 4096 }
    }

    pub(super) fn offer(&mut self, candidate: Candidate) {
        let (lower, upper) = (key(candidate.lower), key(candidate.upper));
        if let Some(k) = self.k {
            let bound = self.bound(k);
            if bound.is_some_and(|bound| upper < bound) {
                return;
            }
            if bound.is_none_or(|bound| lower > bound) {
                if bound.is_some() {
                    self.lowest.pop();
                }
                self.lowest.push(Reverse(lower));
            }
        }
        self.found.push((upper, Reverse(candidate.slot)));
        if self.found.len() >= self.compact_at {
            self.compact();
            self.compact_at = self.found.len() * 2 + 4096;
        }
    }

    /// What the best `k` reach at least, once there are so many.
    fn bound(&self, k: usize) -> Option<Key> {
        self.lowest.peek().filter(|_| self.lowest.len() >= k).map(|lowest| lowest.0)
    }

    fn compact(&mut self) {
        if let Some(bound) = self.k.and_then(|k| self.bound(k)) {
            self.found.retain(|(upper, _)| *upper >= bound);
        }
    }

    /// From the greatest upper bound down.
    fn into_heap(mut self) -> BinaryHeap<(Key, Reverse<Slot>)> {
        self.compact();
        BinaryHeap::from(self.found)
    }
}

/// A row that was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: Box<str>,
    pub(super) score: f32,
    pub(super) row: Bytes,
}

impl Found {
    /// The better first; of equal scores the lesser id.
    fn order(&self, score: f32, id: &str) -> Ordering {
        score.total_cmp(&self.score).then_with(|| (*self.id).cmp(id))
    }

    pub(super) fn head(&self, dim: usize) -> Result<Head> {
        Row::decode(&self.row, dim)?.head()
    }
}

/// Reads candidates until no other can be among the best `k`. `read` gives id and row of a slot,
/// or `None` when it is gone.
pub(super) fn judge<'i>(
    candidates: Candidates,
    (query, k): (&[f32], usize),
    filter: &Filter,
    mut read: impl FnMut(Slot) -> Result<Option<(&'i str, Bytes)>>,
) -> Result<Vec<Found>> {
    let mut best: Vec<Found> = Vec::new();
    let mut heap = candidates.into_heap();
    while let Some((upper, Reverse(slot))) = heap.pop() {
        let worst = best.last().filter(|_| best.len() == k).map(|worst| key(worst.score));
        if worst.is_some_and(|worst| upper < worst) {
            break;
        }
        let Some((id, row)) = read(slot)? else { continue };
        let stored = Row::decode(&row, query.len())?;
        if *filter != Filter::All && !filter.holds(&stored.head()?.metadata) {
            continue;
        }
        let score = stored.score(query);
        let place = best.partition_point(|found| found.order(score, id).is_lt());
        if place < k {
            best.truncate(k - 1);
            best.insert(place, Found { id: id.into(), score, row });
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_have_the_order_of_scores(a in any::<f32>(), b in any::<f32>()) {
            prop_assert_eq!(key(a).cmp(&key(b)), a.total_cmp(&b));
        }

        #[test]
        fn nothing_that_may_be_among_the_best_is_left_out(
            rows in proptest::collection::vec((-1.0_f32..1.0, 0.0_f32..0.3, -1.0_f32..1.0), 0..300),
            k in 1_usize..12,
        ) {
            let mut candidates = Candidates::new(k, &Filter::All);
            candidates.compact_at = 16;
            let mut scores = Vec::new();
            for (slot, (middle, slack, part)) in (0..).zip(&rows) {
                let (lower, upper) = (middle - slack, middle + slack);
                candidates.offer(Candidate { slot, lower, upper });
                scores.push((key(middle + slack * part), Reverse(slot)));
            }
            let kept: Vec<Slot> = candidates.into_heap().iter().map(|(_, slot)| slot.0).collect();
            scores.sort_unstable_by(|a, b| b.cmp(a));
            for (score, slot) in scores.iter().take(k) {
                prop_assert!(kept.contains(&slot.0), "{slot:?} of score {score}");
            }
        }
    }
}
