//! Vectors: texts found by what they mean; exactly while they are few, by a graph beyond.
//! Knows vectors and metadata; where they come from, an embedder knows.
//!
//! A row of the store is a vector together with its content and metadata, so no record is without
//! its vector and no vector without its record. What is in memory is made of rows, follows them,
//! and is made of them again when a memory is opened: one byte a component, some 60 bytes and the
//! id a vector, and 150 bytes of links beyond [`VectorOptions::exact_up_to`].

mod arena;
mod filter;
mod follow;
mod graph;
pub(crate) mod hash;
mod index;
mod row;
mod search;
mod simd;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::codec::{Json, Schema};
use crate::embed::{self, Embedder};
use crate::error::{Error, Result};
use crate::leak::MemSize;
use crate::store::{Batch, Durability, Guard, Ns, Store, StoreExt, Ttl};
use crate::vector::arena::Query;
pub use crate::vector::filter::Filter;
use crate::vector::follow::{Follower, row_key};
use crate::vector::graph::Walker;
use crate::vector::index::Shape;
pub use crate::vector::row::{DIM_MAX, Metric};
use crate::vector::row::{Head, Row};
use crate::vector::search::{Candidates, Found, judge};

/// The longest id, in bytes.
pub const ID_LEN_MAX: u64 = 1000;
/// The most hits of a search.
pub const HITS_MAX: u64 = 10_000;
/// The most links of a node; twice as many on the bottom of the graph.
const LINKS_MAX: usize = 64;
/// A search by the graph that finds too few looks at four times as many nodes, up to this part of
/// all; then it is exact.
const EF_PART: usize = 16;

const META: &[u8] = b"m";

/// A vector and what it stands for.
#[doc(alias = "MemoryEntry")]
#[derive(Debug, Clone, PartialEq)]
pub struct VectorEntry {
    /// What it is found by; one entry for each.
    pub id: String,
    /// The text, or whatever it stands for.
    pub content: String,
    /// The vector, of the dimension of the memory.
    pub embedding: Vec<f32>,
    /// What filters look at; best an object.
    pub metadata: Json,
    /// When it was made; `None` for when it is added.
    pub created_at: Option<Millis>,
}

impl VectorEntry {
    /// One without metadata, made when it is added.
    pub fn new(id: &str, content: &str, embedding: impl Into<Vec<f32>>) -> Self {
        let (id, content, embedding) = (id.to_owned(), content.to_owned(), embedding.into());
        Self { id, content, embedding, metadata: Json::Null, created_at: None }
    }

    /// With this metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Json) -> Self {
        self.metadata = metadata;
        self
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Whose it is.
    pub id: String,
    /// How near it is: greater is nearer.
    pub score: f32,
    /// The content as it was added.
    pub content: String,
    /// The metadata as it was added.
    pub metadata: Json,
}

/// What a memory of vectors is like. Dimension and metric are stored when it is first opened.
#[derive(Debug, Clone, Copy)]
pub struct VectorOptions {
    dim: usize,
    metric: Metric,
    exact_up_to: usize,
    links: usize,
    ef_build: usize,
    ef_search: usize,
}

impl VectorOptions {
    /// Vectors of so many components, 1 to [`DIM_MAX`], compared by cosine.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            metric: Metric::Cosine,
            exact_up_to: 100_000,
            links: 16,
            ef_build: 128,
            ef_search: 96,
        }
    }

    /// Compared by this metric.
    #[must_use]
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Searches are exact up to so many vectors; 100,000 unless set. Beyond it they go by a graph,
    /// which is built from half of it on.
    #[must_use]
    pub fn exact_up_to(mut self, vectors: usize) -> Self {
        self.exact_up_to = vectors;
        self
    }

    /// Links of a node of the graph, 2 to 64; 16 unless set, twice as many on the bottom.
    #[must_use]
    pub fn links(mut self, links: usize) -> Self {
        self.links = links;
        self
    }

    /// How many nodes are looked at to find the neighbours of a new one; 128 unless set.
    #[must_use]
    pub fn effort_build(mut self, nodes: usize) -> Self {
        self.ef_build = nodes;
        self
    }

    /// How many nodes a search by the graph keeps in view; 96 unless set. More find more.
    #[must_use]
    pub fn effort_search(mut self, nodes: usize) -> Self {
        self.ef_search = nodes;
        self
    }

    fn check(&self) -> Result<()> {
        Error::check_limit("dimension of a vector", self.dim, DIM_MAX)?;
        Error::check_limit("links of a node", self.links, LINKS_MAX as u64)?;
        if self.dim == 0 {
            return Err(Error::Invalid("vectors without components"));
        }
        if self.links < 2 || self.ef_build == 0 || self.ef_search == 0 {
            return Err(Error::Invalid("a graph without links, or a search without effort"));
        }
        Ok(())
    }
}

/// What a memory of vectors holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VectorStats {
    /// Vectors.
    pub vectors: u64,
    /// Those of them that are in the graph.
    pub in_graph: u64,
    /// Those that wait for it; searches scan them.
    pub pending: u64,
    /// Bytes of memory, about.
    pub memory_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    dim: usize,
    metric: Metric,
    model: Option<String>,
}

/// Vectors under ids, with content and metadata. Clones share it.
///
/// Searches are exact up to 100,000 vectors: what they answer is what comparing with every vector
/// would. Beyond that a graph answers, which may miss some.
///
/// ```
/// use std::sync::Arc;
/// use terrace_memory::store::MemStore;
/// use terrace_memory::vector::{Filter, VectorEntry, VectorMemory, VectorOptions};
///
/// let memory = VectorMemory::open(Arc::new(MemStore::new()), "notes", VectorOptions::new(2))?;
/// memory.add(VectorEntry::new("east", "sunrise", [1.0, 0.0]))?;
/// memory.add(VectorEntry::new("north", "cold", [0.0, 1.0]))?;
/// let hits = memory.search(&[0.9, 0.1], 1, &Filter::All)?;
/// assert_eq!(hits[0].content, "sunrise");
/// # Ok::<(), terrace_memory::Error>(())
/// ```
#[derive(Clone)]
pub struct VectorMemory {
    follower: Arc<Follower>,
    walkers: Arc<Mutex<Vec<Walker>>>,
    options: VectorOptions,
    embedder: Option<Arc<dyn Embedder>>,
    durability: Durability,
}

impl fmt::Debug for VectorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VectorMemory({:?}, {:?})", self.follower.ns, self.options)
    }
}

impl VectorMemory {
    /// The memory of this name. Reads all rows, and the graph if there is one.
    ///
    /// Errors: [`Error::Dimension`] when it is stored with another dimension, [`Error::Invalid`]
    /// when with another metric.
    pub fn open(store: Arc<dyn Store>, name: &str, options: VectorOptions) -> Result<Self> {
        Self::open_with(store, name, options, None)
    }

    /// As [`VectorMemory::open`], for texts: this embedder makes their vectors.
    ///
    /// Errors: also [`Error::Dimension`] when the embedder has another dimension, and
    /// [`Error::Invalid`] when the memory has vectors of another model.
    pub fn open_with_embedder(
        store: Arc<dyn Store>,
        name: &str,
        options: VectorOptions,
        embedder: Arc<dyn Embedder>,
    ) -> Result<Self> {
        if embedder.dim() != options.dim {
            return Err(Error::Dimension { expected: options.dim, got: embedder.dim() });
        }
        Self::open_with(store, name, options, Some(embedder))
    }

    fn open_with(
        store: Arc<dyn Store>,
        name: &str,
        options: VectorOptions,
        embedder: Option<Arc<dyn Embedder>>,
    ) -> Result<Self> {
        options.check()?;
        let ns = Ns::within("vectors", name)?;
        let graph_ns = Ns::within("vectors.graph", name)?.without_log();
        check_meta(&*store, &ns, &options, embedder.as_deref().map(Embedder::model))?;
        let VectorOptions { dim, exact_up_to, links: m, ef_build, .. } = options;
        let shape = Shape { exact_up_to, m, ef_build };
        let follower = Arc::new(Follower::open(store, ns, graph_ns, dim, shape)?);
        let durability = Durability::Buffered;
        Ok(Self { follower, walkers: Arc::default(), options, embedder, durability })
    }

    /// This handle with another effort of its searches by the graph.
    #[must_use]
    pub fn effort_search(mut self, nodes: usize) -> Self {
        self.options.ef_search = nodes.max(1);
        self
    }

    /// This handle with another durability of what it writes.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds a vector, in place of what its id stood for.
    ///
    /// Errors: [`Error::Dimension`], [`Error::InvalidVector`] when it is zero or not finite,
    /// [`Error::Limit`] for an id above [`ID_LEN_MAX`]. Nothing was written then.
    pub fn add(&self, entry: VectorEntry) -> Result<()> {
        self.add_all(vec![entry])
    }

    /// Adds vectors in one commit: all or none. Of two with one id the call refuses both.
    ///
    /// Errors: as [`VectorMemory::add`], and [`Error::Limit`] beyond what a commit holds: 10,000
    /// vectors or 64 MiB.
    pub fn add_all(&self, entries: Vec<VectorEntry>) -> Result<()> {
        let mut batch = Batch::new(&self.follower.ns).durability(self.durability);
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let VectorEntry { id, content, embedding, metadata, created_at } = entry;
            Error::check_limit("id of a vector", id.len(), ID_LEN_MAX)?;
            if id.is_empty() {
                return Err(Error::Invalid("an empty id"));
            }
            let vector = row::prepared(&embedding, self.options.dim, self.options.metric)?;
            let created_at = created_at.unwrap_or_else(|| self.follower.store.now());
            let head = Head { content, metadata, created_at };
            batch = batch.put(row_key(&id), row::encode(&vector, &head)?, Ttl::Never);
            rows.push((id, filter::signature(&head.metadata), vector));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let commit = self.follower.store.commit(batch)?;
        self.follower.committed(commit, &rows)
    }

    /// Adds a text, with the vector that the embedder makes of it.
    ///
    /// Errors: as [`VectorMemory::add`], what the embedder says, and [`Error::Invalid`] without
    /// one.
    pub fn add_text(&self, id: &str, text: &str, metadata: Json) -> Result<()> {
        let embedding = self.embed(text)?;
        self.add(VectorEntry::new(id, text, embedding).metadata(metadata))
    }

    /// What this id stands for. With [`Metric::Cosine`] its vector has length one.
    pub fn get(&self, id: &str) -> Result<Option<VectorEntry>> {
        let key = row_key(id);
        let Some(entry) = self.follower.store.get(&self.follower.ns, &key)? else {
            return Ok(None);
        };
        let row = Row::decode(&entry.value, self.options.dim)?;
        let Head { content, metadata, created_at } = row.head()?;
        let embedding = row.vector().collect();
        let (id, created_at) = (id.to_owned(), Some(created_at));
        Ok(Some(VectorEntry { id, content, embedding, metadata, created_at }))
    }

    /// Takes out what this id stands for; answers whether there was something.
    pub fn remove(&self, id: &str) -> Result<bool> {
        let found = self.follower.store.delete(&self.follower.ns, row_key(id))?;
        self.follower.refresh()?;
        Ok(found)
    }

    /// The nearest `k` that the filter lets through, nearest first; of equal scores the lesser id.
    /// None for `k` of 0.
    ///
    /// Cost: while exact, a byte of memory for each component of each vector; a read of the store
    /// for each hit, for the few that are too near to tell apart, and for each row that the filter
    /// refuses after its signature let it through.
    /// Errors: [`Error::Dimension`] and [`Error::InvalidVector`] for a query that cannot be
    /// compared, [`Error::Limit`] for `k` above [`HITS_MAX`].
    pub fn search(&self, query: &[f32], k: usize, filter: &Filter) -> Result<Vec<Hit>> {
        self.search_with(query, k, filter, false)
    }

    /// As [`VectorMemory::search`], exact at any number of vectors.
    pub fn search_exact(&self, query: &[f32], k: usize, filter: &Filter) -> Result<Vec<Hit>> {
        self.search_with(query, k, filter, true)
    }

    /// As [`VectorMemory::search`], for what the embedder makes of a text.
    pub fn search_text(&self, query: &str, k: usize, filter: &Filter) -> Result<Vec<Hit>> {
        let query = self.embed(query)?;
        self.search(&query, k, filter)
    }

    fn search_with(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter,
        exact: bool,
    ) -> Result<Vec<Hit>> {
        Error::check_limit("hits of a search", k, HITS_MAX)?;
        let query = row::prepared(query, self.options.dim, self.options.metric)?;
        if k == 0 {
            return Ok(Vec::new());
        }
        self.follower.refresh()?;
        let found = self.find(&query, k, filter, exact)?;
        let hit = |found: Found| {
            let Head { content, metadata, .. } = found.head(self.options.dim)?;
            Ok(Hit { id: found.id.into(), score: found.score, content, metadata })
        };
        found.into_iter().map(hit).collect()
    }

    fn find(&self, query: &[f32], k: usize, filter: &Filter, exact: bool) -> Result<Vec<Found>> {
        let Follower { store, ns, index, .. } = &*self.follower;
        let index = index.read();
        let quantised = Query::new(query, &index.arena);
        let signature = filter.signature();
        let read = |slot| {
            let Some(id) = index.arena.id(slot) else { return Ok(None) };
            Ok(store.get(ns, &row_key(id))?.map(|entry| (id, entry.value)))
        };
        if !exact && index.is_large() {
            let mut walker = self.walkers.lock().pop().unwrap_or_default();
            let mut ef = self.options.ef_search.max(k);
            while ef <= (index.arena.len() / EF_PART).max(self.options.ef_search) {
                let mut candidates = Candidates::new(k, filter);
                let seen = |candidate| candidates.offer(candidate);
                index.search(&quantised, signature, ef, &mut walker, seen);
                let found = judge(candidates, (query, k), filter, read)?;
                if found.len() == k {
                    self.walkers.lock().push(walker);
                    return Ok(found);
                }
                ef = ef.saturating_mul(4);
            }
            self.walkers.lock().push(walker);
        }
        let mut candidates = Candidates::new(k, filter);
        index.scan(&quantised, signature, |candidate| candidates.offer(candidate));
        judge(candidates, (query, k), filter, read)
    }

    /// Vectors that are there.
    #[expect(clippy::len_without_is_empty, reason = "is_empty would hide that it may fail")]
    pub fn len(&self) -> Result<u64> {
        self.follower.refresh()?;
        Ok(self.follower.index.read().arena.len() as u64)
    }

    /// Enters all vectors into the graph that wait for it, and saves the graph. Never needed: it
    /// happens with each change, some at a time. Wanted after a large load, before many searches.
    pub fn settle(&self) -> Result<()> {
        self.follower.settle()
    }

    /// What is in memory.
    pub fn stats(&self) -> VectorStats {
        let index = self.follower.index.read();
        VectorStats {
            vectors: index.arena.len() as u64,
            in_graph: index.graph_len() as u64,
            pending: index.pending() as u64,
            memory_bytes: index.heap_size() as u64,
        }
    }

    fn embed(&self, text: &str) -> Result<Vec<f32>> {
        let embedder = self.embedder.as_deref();
        let embedder = embedder.ok_or(Error::Invalid("a text for a memory without embedder"))?;
        embed::one(embedder, text)
    }
}

impl MemSize for VectorMemory {
    fn heap_size(&self) -> usize {
        self.follower.index.read().heap_size()
    }
}

/// What is stored of the options, and whether it is these.
fn check_meta(
    store: &dyn Store,
    ns: &Ns,
    options: &VectorOptions,
    model: Option<&str>,
) -> Result<()> {
    let schema = Schema::default();
    let Some(entry) = store.get(ns, META)? else {
        let VectorOptions { dim, metric, .. } = *options;
        let meta = Meta { dim, metric, model: model.map(str::to_owned) };
        let batch = Batch::new(ns).expect(META, Guard::Absent);
        return match store.commit(batch.put(META, schema.encode(&meta)?, Ttl::Never)) {
            Err(Error::Conflict { .. }) => check_meta(store, ns, options, model),
            done => done.map(|_| ()),
        };
    };
    let meta: Meta = schema.decode(&entry.value)?;
    if meta.dim != options.dim {
        return Err(Error::Dimension { expected: meta.dim, got: options.dim });
    }
    if meta.metric != options.metric {
        return Err(Error::Invalid("the memory was made with another metric"));
    }
    match (&meta.model, model) {
        (Some(stored), Some(model)) if stored != model => {
            Err(Error::Invalid("the memory has vectors of another model"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "vector_tests.rs"]
mod tests;
