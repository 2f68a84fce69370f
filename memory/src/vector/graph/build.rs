//! How a node enters the graph: first a plan, which changes nothing, then its links both ways.
//! Knows algorithms 1 and 4 of the paper; of removed nodes it knows to avoid them.
#![expect(clippy::indexing_slicing, reason = "lists are bounded by their construction")]

use crate::vector::arena::{Arena, Slot};
use crate::vector::graph::walk::{Near, Walker};
use crate::vector::graph::{Graph, State, alive};

/// Where a node will be linked.
#[derive(Debug)]
pub(in crate::vector) struct Plan {
    slot: Slot,
    /// Its neighbours, the bottom first; empty above the highest node.
    levels: Vec<Vec<Slot>>,
}

impl Graph {
    /// Where this slot's vector belongs, on levels up to this one.
    pub(in crate::vector) fn plan(
        &self,
        arena: &Arena,
        slot: Slot,
        level: usize,
        walker: &mut Walker,
    ) -> Plan {
        let mut levels = vec![Vec::new(); level + 1];
        let Some(entry) = self.entry else { return Plan { slot, levels } };
        let mut own = std::mem::take(&mut walker.own);
        arena.codes_as_query(slot, &mut own);
        self.descend(arena, &own, entry, level, walker);
        for level in (0..=level.min(self.level(entry))).rev() {
            self.search_level(arena, &own, self.ef_build, level, walker);
            let found = alive(self, &walker.pool)
                .filter(|near| near.slot != slot && self.level(near.slot) >= level);
            let found: Vec<Near> = found.collect();
            levels[level] = select(arena, Vec::new(), &found, self.m, walker);
        }
        walker.own = own;
        Plan { slot, levels }
    }

    /// Enters a node as planned. The graph must be as it was when the plan was made.
    pub(in crate::vector) fn insert(&mut self, arena: &Arena, plan: Plan, walker: &mut Walker) {
        let Plan { slot, levels } = plan;
        self.reach(arena.end());
        let top = levels.len() - 1;
        let above_all = self.nodes == 0 || self.entry.is_none_or(|entry| self.level(entry) < top);
        if top > 0 {
            self.upper.insert(slot, vec![Vec::new(); top]);
        }
        self.states[slot as usize] = State::In;
        self.nodes += 1;
        for (level, links) in levels.iter().enumerate() {
            self.set_links(slot, level, links);
            for neighbour in links {
                self.link(arena, *neighbour, slot, level, walker);
            }
        }
        if above_all {
            self.entry = Some(slot);
        }
    }

    /// Adds a link; where there is no place left, the heuristic says who stays.
    fn link(&mut self, arena: &Arena, from: Slot, to: Slot, level: usize, walker: &mut Walker) {
        let links_max = self.links_max(level);
        let mut links = std::mem::take(&mut walker.batch);
        links.clear();
        links.extend_from_slice(self.links(from, level));
        if !links.contains(&to) {
            links.push(to);
            if links.len() > links_max {
                links = self.choose(arena, from, (Vec::new(), links), level, walker);
            }
            self.set_links(from, level, &links);
        }
        walker.batch = links;
    }

    /// Links of a node on this level: those that it keeps, and more chosen from others. Left out is
    /// what was removed.
    pub(super) fn choose(
        &self,
        arena: &Arena,
        from: Slot,
        (kept, mut slots): (Vec<Slot>, Vec<Slot>),
        level: usize,
        walker: &mut Walker,
    ) -> Vec<Slot> {
        slots.retain(|slot| {
            let state = self.states[*slot as usize];
            matches!(state, State::In | State::Loose) && self.level(*slot) >= level
        });
        let mut own = std::mem::take(&mut walker.own);
        arena.codes_as_query(from, &mut own);
        arena.near(&own, &slots, &mut walker.sums, &mut walker.scores);
        walker.own = own;
        let scored = slots.iter().zip(&walker.scores);
        let mut found: Vec<Near> = scored.map(|(slot, score)| Near::new(*score, *slot)).collect();
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.slot.cmp(&b.slot)));
        select(arena, kept, &found, self.links_max(level), walker)
    }
}

/// Algorithm 4: to those chosen already, of these, nearest first, who is nearer to the node than to
/// one chosen. When that leaves half of the places empty, the nearest that were passed over take
/// them: vectors that lie along a line, or are all the same, would fall apart without.
fn select(
    arena: &Arena,
    mut chosen: Vec<Slot>,
    found: &[Near],
    links_max: usize,
    walker: &mut Walker,
) -> Vec<Slot> {
    let mut other = std::mem::take(&mut walker.other);
    for near in found {
        if chosen.len() >= links_max {
            break;
        }
        arena.codes_as_query(near.slot, &mut other);
        arena.near(&other, &chosen, &mut walker.sums, &mut walker.scores);
        if walker.scores.iter().all(|score| *score < near.score) {
            chosen.push(near.slot);
        }
    }
    walker.other = other;
    for near in found {
        if chosen.len() >= links_max / 2 {
            break;
        }
        if !chosen.contains(&near.slot) {
            chosen.push(near.slot);
        }
    }
    chosen
}
