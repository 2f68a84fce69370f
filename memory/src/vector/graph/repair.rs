//! Removed nodes: a sweep over all nodes gives those who linked to one new neighbours.
//! Knows links; knows nothing of when it is called, but that it is called with every change.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "slots come from the graph's own lists and are below 2^31"
)]

use crate::vector::arena::{Arena, Slot};
use crate::vector::graph::walk::Walker;
use crate::vector::graph::{Graph, State};

/// A sweep begins when one node in so many is dead, and not before there are some.
const DEAD_PART: usize = 16;
const DEAD_MIN: usize = 64;

/// Removed nodes, and how far the sweep is.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Removed since the sweep began.
    dead: Vec<Slot>,
    /// Removed before; free when the sweep has passed all nodes.
    sweeping: Vec<Slot>,
    next: Slot,
}

impl Repair {
    pub(super) fn note(&mut self, slot: Slot) {
        self.dead.push(slot);
    }

    pub(super) fn removed(&self) -> impl Iterator<Item = Slot> + use<'_> {
        self.dead.iter().chain(&self.sweeping).copied()
    }
}

/// What a step of the sweep found.
#[derive(Debug, Default)]
pub(in crate::vector) struct Swept {
    /// Slots that nobody links to any more.
    pub(in crate::vector) free: Vec<Slot>,
    /// Nodes that must be entered anew: too few neighbours are left.
    pub(in crate::vector) loose: Vec<Slot>,
}

impl Graph {
    /// Goes over so many nodes, if there is something to repair.
    pub(in crate::vector) fn sweep(
        &mut self,
        arena: &Arena,
        nodes: usize,
        walker: &mut Walker,
    ) -> Swept {
        let mut swept = Swept::default();
        if self.repair.sweeping.is_empty() {
            if self.repair.dead.len() < DEAD_MIN.max(self.nodes / DEAD_PART) {
                return swept;
            }
            self.begin_sweep();
        }
        let end = (self.repair.next as usize + nodes).min(self.states.len());
        for slot in self.repair.next..end as Slot {
            let state = self.states[slot as usize];
            if matches!(state, State::Loose | State::Dead) {
                self.let_go(slot);
            } else if state == State::In && !self.repair_node(arena, slot, walker) {
                self.states[slot as usize] = State::Loose;
                self.nodes -= 1;
                swept.loose.push(slot);
            }
        }
        self.repair.next = end as Slot;
        if end == self.states.len() {
            self.finish_sweep(&mut swept);
        }
        swept
    }

    fn begin_sweep(&mut self) {
        self.repair.sweeping = std::mem::take(&mut self.repair.dead);
        self.repair.next = 0;
        for slot in &self.repair.sweeping {
            self.states[*slot as usize] = State::Leaving;
        }
    }

    /// Ends the links of a node, which nobody will repair, to those who leave.
    fn let_go(&mut self, slot: Slot) {
        for level in 0..=self.level(slot) {
            let mut links = self.links(slot, level).to_vec();
            links.retain(|link| self.states[*link as usize] != State::Leaving);
            self.set_links(slot, level, &links);
        }
    }

    fn finish_sweep(&mut self, swept: &mut Swept) {
        swept.free = std::mem::take(&mut self.repair.sweeping);
        for slot in &swept.free {
            self.states[*slot as usize] = State::Out;
            self.counts[*slot as usize] = 0;
            self.upper.remove(slot);
        }
        if self.entry.is_some_and(|entry| self.states[entry as usize] != State::In) {
            self.find_entry();
        }
    }

    /// Gives a node the neighbours of its removed neighbours to choose from. Answers whether it has
    /// enough of them on the bottom.
    fn repair_node(&mut self, arena: &Arena, slot: Slot, walker: &mut Walker) -> bool {
        let mut enough = true;
        for level in 0..=self.level(slot) {
            let is_dead =
                |slot: &Slot| matches!(self.states[*slot as usize], State::Dead | State::Leaving);
            let links = self.links(slot, level);
            let before = links.len();
            if !links.iter().any(is_dead) {
                continue;
            }
            let (dead, kept): (Vec<Slot>, Vec<Slot>) = links.iter().partition(|slot| is_dead(slot));
            let theirs = dead.iter().flat_map(|dead| self.links(*dead, level));
            let mut open: Vec<Slot> = theirs.copied().collect();
            open.sort_unstable();
            open.dedup();
            open.retain(|other| *other != slot && !kept.contains(other));
            let links = self.choose(arena, slot, (kept, open), level, walker);
            enough &=
                level > 0 || links.len() >= (before / 2).min(self.m / 2) || self.nodes <= self.m;
            self.set_links(slot, level, &links);
        }
        enough
    }
}
