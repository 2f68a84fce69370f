//! A small LIRS cache of hashes alone (Jiang and Zhang, SIGMETRICS 2002), which tells how often a
//! share for probation would have hit. Knows tags; knows nothing of records or of its rivals.
//!
//! LIRS in two lists by recency: the stack of the paper holds whoever was touched after the
//! protected record that was touched longest ago, so a time of touch answers for it.
#![expect(clippy::indexing_slicing, reason = "nodes and lists are bounded by their construction")]

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::hot::policy::as_is::AsIs;

const NONE: u16 = u16::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Protected = 0,
    Probation = 1,
    /// Not resident any more.
    Gone = 2,
}

#[derive(Debug, Clone)]
struct Node {
    tag: u32,
    touched: u32,
    newer: u16,
    older: u16,
    list: List,
}

#[derive(Debug)]
pub(crate) struct Shadow {
    nodes: Vec<Node>,
    by_tag: HashMap<u32, u16, BuildHasherDefault<AsIs>>,
    vacant: Vec<u16>,
    newest: [u16; 3],
    oldest: [u16; 3],
    lens: [usize; 3],
    now: u32,
    percent: usize,
    capacity: usize,
    gone_max: usize,
}

/// Bytes that a shadow of so many nodes takes.
pub(crate) fn charge(capacity: usize, gone_max: usize) -> u64 {
    // A node of 16 bytes, its place in the list of vacant ones, and the map's 18.
    (capacity + gone_max + 1) as u64 * (16 + 2 + 18) + 256
}

impl Shadow {
    /// `percent` of the records are on probation.
    pub(crate) fn new(capacity: usize, gone_max: usize, percent: usize) -> Self {
        let count = capacity + gone_max + 1;
        assert!(count < usize::from(NONE), "shadow of {count} nodes");
        let node = Node { tag: 0, touched: 0, newer: NONE, older: NONE, list: List::Gone };
        Self {
            nodes: vec![node; count],
            by_tag: HashMap::with_capacity_and_hasher(count, BuildHasherDefault::default()),
            vacant: (0..u16::try_from(count).unwrap_or(NONE)).collect(),
            newest: [NONE; 3],
            oldest: [NONE; 3],
            lens: [0; 3],
            now: 0,
            percent,
            capacity,
            gone_max,
        }
    }

    /// How many records it holds from now on at most, and hashes that left.
    pub(crate) fn set_capacity(&mut self, capacity: usize, gone_max: usize) {
        assert!(capacity > 0 && capacity + gone_max < self.nodes.len(), "shadow of {capacity}");
        (self.capacity, self.gone_max) = (capacity, gone_max);
        self.demote();
        self.make_room(self.capacity + 1);
    }

    fn protected_max(&self) -> usize {
        self.capacity - ((self.capacity * self.percent + 50) / 100).clamp(1, self.capacity)
    }

    /// One touch; answers whether it would have hit.
    pub(crate) fn touch(&mut self, tag: u32) -> bool {
        self.now = self.now.wrapping_add(1);
        let Some(&id) = self.by_tag.get(&tag) else {
            self.make_room(self.capacity);
            let Some(id) = self.vacant.pop() else { return false };
            self.by_tag.insert(tag, id);
            self.nodes[usize::from(id)].tag = tag;
            let room = self.lens[List::Protected as usize] < self.protected_max();
            self.enter(id, if room { List::Protected } else { List::Probation });
            return false;
        };
        let was = self.nodes[usize::from(id)].list;
        let room = self.lens[List::Protected as usize] < self.protected_max();
        let early = room || self.is_early(id);
        let to = if was == List::Protected || early && self.protected_max() > 0 {
            List::Protected
        } else {
            List::Probation
        };
        self.unlink(id);
        if was == List::Gone {
            self.make_room(self.capacity);
        }
        self.enter(id, to);
        was != List::Gone
    }

    /// Whether it was touched after the protected record that was touched longest ago.
    fn is_early(&self, id: u16) -> bool {
        let oldest = self.oldest[List::Protected as usize];
        let touched = |id: u16| self.now.wrapping_sub(self.nodes[usize::from(id)].touched);
        oldest != NONE && touched(id) < touched(oldest)
    }

    fn enter(&mut self, id: u16, list: List) {
        self.nodes[usize::from(id)].touched = self.now;
        self.link(id, list);
        self.demote();
    }

    fn demote(&mut self) {
        while self.lens[List::Protected as usize] > self.protected_max() {
            let id = self.oldest[List::Protected as usize];
            self.unlink(id);
            self.link(id, List::Probation);
        }
    }

    /// Evicts until one less than `count` are resident.
    fn make_room(&mut self, count: usize) {
        while self.lens[0] + self.lens[1] >= count.max(1) {
            let probation = self.oldest[List::Probation as usize];
            let id = if probation == NONE { self.oldest[0] } else { probation };
            self.unlink(id);
            self.link(id, List::Gone);
            while self.lens[List::Gone as usize] > self.gone_max {
                let id = self.oldest[List::Gone as usize];
                self.unlink(id);
                self.by_tag.remove(&self.nodes[usize::from(id)].tag);
                self.vacant.push(id);
            }
        }
    }

    fn link(&mut self, id: u16, list: List) {
        let newest = self.newest[list as usize];
        let node = &mut self.nodes[usize::from(id)];
        (node.newer, node.older, node.list) = (NONE, newest, list);
        match newest {
            NONE => self.oldest[list as usize] = id,
            _ => self.nodes[usize::from(newest)].newer = id,
        }
        self.newest[list as usize] = id;
        self.lens[list as usize] += 1;
    }

    fn unlink(&mut self, id: u16) {
        let Node { newer, older, list, .. } = self.nodes[usize::from(id)];
        match newer {
            NONE => self.newest[list as usize] = older,
            _ => self.nodes[usize::from(newer)].older = older,
        }
        match older {
            NONE => self.oldest[list as usize] = newer,
            _ => self.nodes[usize::from(older)].newer = newer,
        }
        self.lens[list as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(percent: usize, touches: impl Iterator<Item = u32>) -> usize {
        let mut shadow = Shadow::new(100, 200, percent);
        touches.filter(|&tag| shadow.touch(tag)).count()
    }

    #[test]
    fn a_loop_longer_than_the_cache_hits_when_most_are_protected_and_never_in_recency_alone() {
        let touches = || (0..20_u32).flat_map(|_| 0..150);
        assert_eq!(hits(100, touches()), 0);
        let found = hits(2, touches());
        assert!(found > 19 * 90, "{found} of {}", 19 * 100);
    }

    #[test]
    fn going_back_and_forth_hits_in_recency() {
        let touches = || (0..20_u32).flat_map(|_| (0..150).chain((0..150).rev()));
        let (recency, protected) = (hits(100, touches()), hits(2, touches()));
        assert!(recency >= 39 * 100 && protected <= recency / 2, "{recency}, {protected}");
    }

    #[test]
    fn a_smaller_one_keeps_what_was_touched_last() {
        let mut shadow = Shadow::new(100, 100, 100);
        assert!(!(0..100).any(|tag| shadow.touch(tag)));
        shadow.set_capacity(10, 100);
        assert!((90..100).all(|tag| shadow.touch(tag)));
        assert!(!shadow.touch(50));
    }
}
