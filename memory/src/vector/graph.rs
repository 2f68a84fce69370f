//! The graph over the vectors: hierarchical navigable small worlds (Malkov and Yashunin, "Efficient
//! and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs",
//! arXiv 1603.09320). Knows slots and how near they are; knows no ids, no store and no rows.
//!
//! Every node has links on the bottom level, 2m at most, and one in m has links on the level above,
//! m at most, and so on. A search goes greedily down from the top and keeps the `ef` nearest that
//! it has seen on the bottom. Whose neighbour a node becomes, the paper's heuristic says (algorithm
//! 4): nobody who is nearer to a neighbour that was chosen already.
//!
//! A removed node stays and is walked over until a sweep has given each node that linked to it the
//! neighbours of the removed one to choose from (as in Singh and others, "`FreshDiskANN`", arXiv
//! 2105.09613, algorithm 4). The sweep goes a few nodes with each change; then slots are free, and
//! nobody links to them, not even a node that was removed while the sweep went on: a walk over it
//! would end in an empty slot.
//! The graph only says where to look: what it misses is missed, what it finds is judged elsewhere.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "slots below `states.len()`, which is below 2^31, have all their places; links and \
              levels are few"
)]

mod build;
mod repair;
pub(super) mod saved;
mod walk;

use std::collections::HashMap;

use crate::vector::arena::Slot;
pub(super) use crate::vector::graph::build::Plan;
pub(super) use crate::vector::graph::walk::Walker;

/// The highest level that a node may have.
const LEVEL_MAX: usize = 15;

/// What a slot is to the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Not in it, and nobody links to it.
    #[default]
    Out,
    /// In it.
    In,
    /// It lost too many neighbours and waits to be linked anew. Nodes may link to it.
    Loose,
    /// Removed. Nodes may link to it until a sweep that began later has passed.
    Dead,
    /// Removed before the sweep began. What the sweep has passed does not link to it any more.
    Leaving,
}

/// The graph. Slots are those of the arena.
#[derive(Debug)]
pub(super) struct Graph {
    m: usize,
    ef_build: usize,
    states: Vec<State>,
    /// Places for 2m links of each slot, and how many are used.
    bottom: Vec<Slot>,
    counts: Vec<u8>,
    /// Links above the bottom, of those that are there; the first is level 1.
    upper: HashMap<Slot, Vec<Vec<Slot>>>,
    /// Where searches begin: a node of the highest level.
    entry: Option<Slot>,
    nodes: usize,
    repair: repair::Repair,
}

impl Graph {
    /// An empty one, of at most `2 * m` links a node, that looks at `ef_build` nodes to find them.
    pub(super) fn new(m: usize, ef_build: usize) -> Self {
        Self {
            m,
            ef_build,
            states: Vec::new(),
            bottom: Vec::new(),
            counts: Vec::new(),
            upper: HashMap::new(),
            entry: None,
            nodes: 0,
            repair: repair::Repair::default(),
        }
    }

    /// Nodes that are in it.
    pub(super) fn len(&self) -> usize {
        self.nodes
    }

    /// Whether searches may answer with this slot.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.states.get(slot as usize) == Some(&State::In)
    }

    /// Makes room for slots below `end`.
    fn reach(&mut self, end: Slot) {
        let end = end as usize;
        if self.states.len() < end {
            self.states.resize(end, State::Out);
            self.counts.resize(end, 0);
            self.bottom.resize(end * 2 * self.m, 0);
        }
    }

    fn links_max(&self, level: usize) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    fn links(&self, slot: Slot, level: usize) -> &[Slot] {
        let index = slot as usize;
        if level > 0 {
            return self
                .upper
                .get(&slot)
                .and_then(|up| up.get(level - 1))
                .map_or(&[], Vec::as_slice);
        }
        let from = index * 2 * self.m;
        &self.bottom[from..from + usize::from(self.counts[index])]
    }

    fn set_links(&mut self, slot: Slot, level: usize, links: &[Slot]) {
        let index = slot as usize;
        if level > 0 {
            if let Some(own) = self.upper.get_mut(&slot).and_then(|up| up.get_mut(level - 1)) {
                own.clear();
                own.extend_from_slice(links);
            }
            return;
        }
        let from = index * 2 * self.m;
        let count = links.len().min(2 * self.m);
        self.bottom[from..from + count].copy_from_slice(&links[..count]);
        self.counts[index] = count as u8;
    }

    /// The highest level on which this node has links.
    fn level(&self, slot: Slot) -> usize {
        self.upper.get(&slot).map_or(0, Vec::len)
    }

    /// Takes a node out. Answers whether its slot is free at once; else the sweep gives it back.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        match self.states.get_mut(slot as usize) {
            None | Some(State::Out) => true,
            Some(State::Dead | State::Leaving) => false,
            Some(state) => {
                if *state == State::In {
                    self.nodes -= 1;
                }
                *state = State::Dead;
                self.repair.note(slot);
                false
            }
        }
    }

    /// Slots of removed nodes that the sweep has not given back.
    pub(super) fn removed(&self) -> impl Iterator<Item = Slot> + use<'_> {
        self.repair.removed()
    }

    /// Begins where nodes are left, when the entry was taken out.
    fn find_entry(&mut self) {
        let alive = |slot: &Slot| self.states[*slot as usize] == State::In;
        let above = self.upper.keys().copied().filter(alive);
        let highest = above.max_by_key(|slot| (self.level(*slot), std::cmp::Reverse(*slot)));
        self.entry = highest.or_else(|| (0..self.states.len() as Slot).find(alive));
    }

    /// Bytes in memory, about.
    pub(super) fn heap_size(&self) -> usize {
        let upper: usize =
            self.upper.values().flatten().map(|links| links.capacity() * 4 + 56).sum();
        self.states.capacity() + self.counts.capacity() + self.bottom.capacity() * 4 + upper
    }
}

/// The level of a node, by the hash of what it stands for: the same whenever it is asked for.
pub(super) fn level_of(hash: u64, m: usize) -> usize {
    // 53 bits as a number above 0, at most 1.
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    ((-uniform.ln() / (m as f64).ln()) as usize).min(LEVEL_MAX)
}

/// Those of `found`, nearest first, that searches may answer with.
fn alive(graph: &Graph, found: &[walk::Near]) -> impl Iterator<Item = walk::Near> {
    found.iter().copied().filter(|near| graph.states[near.slot as usize] == State::In)
}

#[cfg(test)]
mod tests;
