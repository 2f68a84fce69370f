//! What a search looks into: the vectors in memory, and the graph over them once there are many.
//! Follows what was committed; knows no store. Whatever the graph lacks is scanned, so that every
//! vector is found from the moment when it is entered here.

use bytes::Bytes;

use crate::error::Result;
use crate::store::{Seq, Version};
use crate::vector::arena::{Arena, Candidate, Query, Slot};
use crate::vector::graph::{self, Graph, Plan, Walker, saved};
use crate::vector::hash::Hash;

/// Nodes that the sweep looks at with each change.
const SWEEP_NODES: usize = 32;

/// How the graph is made, and from when on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) exact_up_to: usize,
    pub(super) m: usize,
    pub(super) ef_build: usize,
}

/// The vectors and the graph.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) arena: Arena,
    /// The last change that it has seen.
    pub(super) seq: Seq,
    shape: Shape,
    graph: Option<Graph>,
    /// Slots that are not in the graph yet, and the first of them to be entered.
    pending: Vec<Slot>,
    /// Changes of the graph since it was saved.
    pub(super) unsaved: usize,
}

impl Index {
    pub(super) fn new(dim: usize, shape: Shape) -> Self {
        let (arena, pending) = (Arena::new(dim), Vec::new());
        Self { arena, seq: Seq(0), shape, graph: None, pending, unsaved: 0 }
    }

    /// Enters a vector, in place of what its id stood for.
    pub(super) fn put(
        &mut self,
        id: &str,
        version: Version,
        signature: u64,
        vector: impl Iterator<Item = f32> + Clone,
    ) -> Result<()> {
        if self.arena.find(id).is_some_and(|slot| self.arena.version(slot) == Some(version)) {
            return Ok(());
        }
        self.remove(id);
        let slot = self.arena.insert(id, version, signature, vector)?;
        if self.graph.is_some() {
            self.pending.push(slot);
            self.unsaved += 1;
        } else if self.arena.len() > self.shape.exact_up_to / 2 {
            self.begin_graph(None);
        }
        Ok(())
    }

    /// Takes out what this id stands for, if anything.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(slot) = self.arena.find(id) else { return };
        self.arena.remove(slot);
        match &mut self.graph {
            Some(graph) => {
                self.unsaved += 1;
                self.pending.retain(|other| *other != slot);
                if graph.remove(slot) {
                    self.arena.release(slot);
                }
            }
            None => self.arena.release(slot),
        }
        if self.graph.is_some() && self.arena.len() < self.shape.exact_up_to / 4 {
            self.end_graph();
        }
    }

    /// Begins with this graph, or an empty one; what it lacks is pending.
    fn begin_graph(&mut self, graph: Option<Graph>) {
        let graph = graph.unwrap_or_else(|| Graph::new(self.shape.m, self.shape.ef_build));
        let lacking = |slot: &Slot| self.arena.id(*slot).is_some() && !graph.has(*slot);
        self.pending = (0..self.arena.end()).filter(lacking).collect();
        self.unsaved = self.pending.len();
        self.graph = Some(graph);
    }

    /// There are few: what the graph held back is free.
    fn end_graph(&mut self) {
        let Some(graph) = self.graph.take() else { return };
        for slot in graph.removed() {
            self.arena.release(slot);
        }
        self.pending = Vec::new();
    }

    /// Whether searches go by the graph.
    pub(super) fn is_large(&self) -> bool {
        self.graph.is_some() && self.arena.len() > self.shape.exact_up_to
    }

    /// Vectors that the graph lacks. None while there is no graph.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Nodes of the graph.
    pub(super) fn graph_len(&self) -> usize {
        self.graph.as_ref().map_or(0, Graph::len)
    }

    /// Where the next vector belongs that the graph lacks.
    pub(super) fn plan(&self, walker: &mut Walker) -> Option<Plan> {
        let (graph, slot) = (self.graph.as_ref()?, *self.pending.last()?);
        let level = graph::level_of(Hash::of(self.arena.id(slot)?), self.shape.m);
        Some(graph.plan(&self.arena, slot, level, walker))
    }

    /// Enters what was planned. Nothing else may have changed the graph since.
    pub(super) fn insert(&mut self, plan: Plan, walker: &mut Walker) {
        if let Some(graph) = &mut self.graph {
            self.pending.pop();
            graph.insert(&self.arena, plan, walker);
        }
    }

    /// Repairs some of what removed vectors left behind.
    pub(super) fn sweep(&mut self, walker: &mut Walker) {
        let Some(graph) = &mut self.graph else { return };
        let swept = graph.sweep(&self.arena, SWEEP_NODES, walker);
        self.pending.extend(swept.loose);
        for slot in swept.free {
            self.arena.release(slot);
        }
    }

    /// Every row that may be among the best, with the scores that it can have.
    pub(super) fn scan(&self, query: &Query, signature: u64, seen: impl FnMut(Candidate)) {
        self.arena.scan(query, signature, seen);
    }

    /// The rows that seem nearest by the graph, and all that the graph lacks.
    pub(super) fn search(
        &self,
        query: &Query,
        signature: u64,
        ef: usize,
        walker: &mut Walker,
        mut seen: impl FnMut(Candidate),
    ) {
        let Some(graph) = &self.graph else { return self.scan(query, signature, seen) };
        let mut found = Vec::with_capacity(ef);
        graph.search(&self.arena, query, ef, walker, &mut found);
        self.arena.scan_some(query, signature, &found, &mut seen);
        self.arena.scan_some(query, signature, &self.pending, &mut seen);
    }

    /// Chunks that the graph is saved in; 0 when there is none.
    pub(super) fn saved_chunks(&self) -> u32 {
        self.graph.as_ref().map_or(0, |_| self.arena.end().div_ceil(saved::CHUNK_SLOTS))
    }

    /// One chunk of the graph.
    pub(super) fn save_chunk(&self, chunk: u32) -> Option<Vec<u8>> {
        self.graph.as_ref().map(|graph| saved::encode(graph, &self.arena, chunk))
    }

    /// Takes over a graph that was saved; without one, or when it cannot be read, all is pending.
    pub(super) fn load_graph(&mut self, chunks: &[Bytes]) {
        if self.arena.len() <= self.shape.exact_up_to / 2 {
            return;
        }
        let versions: std::collections::HashMap<Version, Slot> = (0..self.arena.end())
            .filter_map(|slot| Some((self.arena.version(slot)?, slot)))
            .collect();
        let graph = Graph::new(self.shape.m, self.shape.ef_build);
        let slot_of = |version: Version| versions.get(&version).copied();
        self.begin_graph(saved::decode(graph, self.arena.end(), chunks, slot_of).ok());
    }

    /// Bytes in memory, about.
    pub(super) fn heap_size(&self) -> usize {
        let graph = self.graph.as_ref().map_or(0, Graph::heap_size);
        self.arena.heap_size() + graph + self.pending.capacity() * size_of::<Slot>()
    }
}
