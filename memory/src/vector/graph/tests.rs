//! The graph alone: what is linked is alive, removed slots come back free, any saved bytes are read
//! or refused.

use proptest::prelude::*;

use super::*;
use crate::store::Version;
use crate::vector::arena::{Arena, Query};
use crate::vector::hash::Hash;

/// A graph over vectors in all directions, one for each name.
struct Small {
    arena: Arena,
    graph: Graph,
    walker: Walker,
}

/// The vector of this name: any direction, the same whenever it is asked for.
fn point(name: u32) -> impl Iterator<Item = f32> + Clone {
    let at = move |part: u32| {
        let mut hash = Hash::new();
        hash.add(&name.to_le_bytes());
        hash.add(&part.to_le_bytes());
        (hash.finish() >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..16).map(at)
}

impl Small {
    fn new(count: u32) -> Self {
        let (arena, graph) = (Arena::new(16), Graph::new(8, 32));
        let mut small = Self { arena, graph, walker: Walker::default() };
        for name in 0..count {
            small.add(name);
        }
        small
    }

    fn add(&mut self, name: u32) {
        let version = Version(u64::from(name) + 1);
        let slot = self.arena.insert(&name.to_string(), version, 0, point(name)).unwrap();
        self.enter(slot, name);
    }

    fn enter(&mut self, slot: Slot, name: u32) {
        let level = level_of(u64::from(name).wrapping_mul(0x9E37_79B9_7F4A_7C15), 8);
        let plan = self.graph.plan(&self.arena, slot, level, &mut self.walker);
        self.graph.insert(&self.arena, plan, &mut self.walker);
    }

    fn remove(&mut self, name: u32) {
        let slot = self.arena.find(&name.to_string()).unwrap();
        self.arena.remove(slot);
        assert!(!self.graph.remove(slot));
        let swept = self.graph.sweep(&self.arena, 32, &mut self.walker);
        for slot in swept.free {
            self.arena.release(slot);
        }
        for slot in swept.loose {
            let name = self.arena.id(slot).unwrap().parse().unwrap();
            self.enter(slot, name);
        }
    }

    fn nearest(&mut self, name: u32) -> Vec<String> {
        let query = Query::new(&point(name).collect::<Vec<_>>(), &self.arena);
        let mut found = Vec::new();
        self.graph.search(&self.arena, &query, 32, &mut self.walker, &mut found);
        found.iter().map(|slot| self.arena.id(*slot).unwrap().to_owned()).collect()
    }

    /// Which of these a search for them does not find.
    fn missed(&mut self, names: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut missed = Vec::new();
        for name in names {
            if !self.nearest(name).contains(&name.to_string()) {
                missed.push(name);
            }
        }
        missed
    }

    /// Every rule of the structure.
    fn validate(&self) {
        let mut alive = 0;
        for (slot, state) in self.graph.states.iter().enumerate() {
            let slot = slot as Slot;
            alive += usize::from(*state == State::In);
            assert_eq!(*state == State::In, self.arena.id(slot).is_some());
            for level in 0..=self.graph.level(slot) {
                let links = self.graph.links(slot, level);
                assert!(links.len() <= self.graph.links_max(level) && !links.contains(&slot));
                let mut sorted = links.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), links.len(), "a link twice");
                for link in links {
                    assert_ne!(self.graph.states[*link as usize], State::Out);
                    assert!(self.graph.level(*link) >= level);
                }
            }
        }
        assert_eq!(alive, self.graph.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn after_any_removals_and_returns_most_of_the_nearest_are_found(
        removed in proptest::collection::btree_set(0_u32..300, 0..290),
        back in 0_u32..300,
    ) {
        let mut small = Small::new(300);
        for name in &removed {
            small.remove(*name);
        }
        small.validate();
        for name in removed.range(..back) {
            small.add(*name);
        }
        small.validate();
        let there = (0..300).filter(|name| !removed.contains(name) || *name < back);
        let there: Vec<u32> = there.collect();
        let missed = small.missed(there.iter().copied());
        prop_assert!(missed.len() <= 1 + there.len() / 20, "{missed:?}");
    }

    #[test]
    fn any_saved_bytes_are_read_or_refused(
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let small = Small::new(60);
        let mut bytes = saved::encode(&small.graph, &small.arena, 0);
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let slot_of = |version: Version| u32::try_from(version.0.checked_sub(1)?).ok();
        if let Ok(graph) = saved::decode(Graph::new(8, 32), 60, &[bytes], slot_of) {
            let mut damaged = Small { graph, ..small };
            prop_assert!(damaged.graph.len() <= 60);
            damaged.nearest(1);
        }
    }
}

#[test]
fn a_saved_graph_comes_back_in_other_slots_without_those_who_left() {
    let small = Small::new(1100);
    let chunks = [0, 1].map(|chunk| saved::encode(&small.graph, &small.arena, chunk));
    let mut arena = Arena::new(16);
    for name in (0..1100_u32).rev().filter(|name| name % 10 != 3) {
        let version = Version(u64::from(name) + 1);
        arena.insert(&name.to_string(), version, 0, point(name)).unwrap();
    }
    let find = |version: Version| arena.find(&(version.0 - 1).to_string());
    let graph = saved::decode(Graph::new(8, 32), arena.end(), &chunks, find).unwrap();
    assert!(graph.len() > 700, "{} of {}", graph.len(), arena.len());
    let mut small = Small { arena, graph, walker: Walker::default() };
    let loose = (0..small.arena.end()).filter(|slot| !small.graph.has(*slot));
    for slot in loose.collect::<Vec<_>>() {
        let name = small.arena.id(slot).unwrap().parse().unwrap();
        small.enter(slot, name);
    }
    small.validate();
    let missed = small.missed((0..1100).filter(|name| name % 10 != 3));
    assert!(missed.len() < 30, "{missed:?}");
}

#[test]
fn levels_are_a_matter_of_the_hash_and_rarely_high() {
    let mixed = |i: u64| (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let above = (0..16_000).filter(|i| level_of(mixed(*i), 16) > 0).count();
    assert!((800..1200).contains(&above), "{above}");
    assert_eq!(level_of(0, 2), LEVEL_MAX);
    assert_eq!(level_of(u64::MAX, 16), 0);
}
