//! The index kept up with what is committed: by this handle, by others, and before a kill.
//! Knows the store's changes; knows nothing of searches.
//!
//! Rows are the truth, and each is a vector with what it stands for: neither can be without the
//! other. The index is made of rows when a memory is opened and follows the change log from there;
//! when that is cut it is made anew. The graph is saved now and then, and checked against the rows
//! when it is read: what it lacks is scanned, and entered with the next changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::store::{Batch, Commit, Entry, Ns, SCAN_ROWS_MAX, Scan, Seq, Store, Ttl, Version};
use crate::vector::filter;
use crate::vector::graph::Walker;
use crate::vector::index::{Index, Shape};
use crate::vector::row::Row;

/// Rows that one scan brings.
const PAGE_ROWS: usize = 1000;
/// Vectors that enter the graph with each change, while it lacks some.
const INSERTS: usize = 3;
/// The graph is saved after so many changes at least, or when one part in so many has changed.
const SAVE_MIN: usize = 10_000;
const SAVE_PART: usize = 8;

const HEADER: &[u8] = b"h";
const CHUNKS: u8 = b'g';

/// The key of a row.
pub(super) fn row_key(id: &str) -> Vec<u8> {
    [b"r", id.as_bytes()].concat()
}

/// Which saving of the graph counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    generation: String,
    chunks: u32,
}

/// A saving that is under way.
#[derive(Debug)]
struct Saving {
    generation: String,
    /// The next chunk, and one past the last.
    next: u32,
    end: u32,
    /// What the header was when it began.
    header: Option<Entry>,
}

#[derive(Debug, Default)]
struct Writer {
    walker: Walker,
    saving: Option<Saving>,
}

/// One memory's rows and index. Shared by all clones of a handle.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) ns: Ns,
    graph_ns: Ns,
    dim: usize,
    shape: Shape,
    /// Protects: what searches see. Written for one step at a time.
    pub(super) index: RwLock<Index>,
    /// Protects: who changes the index. Lock 1 of 2, before `index`.
    writer: Mutex<Writer>,
}

impl Follower {
    /// Reads all rows.
    pub(super) fn open(
        store: Arc<dyn Store>,
        ns: Ns,
        graph_ns: Ns,
        dim: usize,
        shape: Shape,
    ) -> Result<Self> {
        let index = RwLock::new(Index::new(dim, shape));
        let writer = Mutex::default();
        let follower = Self { store, ns, graph_ns, dim, shape, index, writer };
        follower.load(&mut follower.writer.lock())?;
        Ok(follower)
    }

    fn load(&self, writer: &mut Writer) -> Result<()> {
        let mut index = Index::new(self.dim, self.shape);
        // What changes from here on, the log says; to see a row twice does no harm.
        index.seq = self.store.commit(Batch::new(&self.ns))?.seq;
        let mut scan = Scan::prefix(b"r").limit(PAGE_ROWS);
        loop {
            let page = self.store.scan(&self.ns, scan.clone())?;
            for (key, entry) in &page {
                self.put(&mut index, key, entry)?;
            }
            let Some((last, _)) = page.last().filter(|_| page.len() == PAGE_ROWS) else { break };
            scan = scan.after(last.clone());
        }
        index.load_graph(&self.saved_chunks()?);
        writer.saving = None;
        *self.index.write() = index;
        self.catch_up(writer)
    }

    fn put(&self, index: &mut Index, key: &Bytes, entry: &Entry) -> Result<()> {
        let row = Row::decode(&entry.value, self.dim)?;
        let signature = filter::signature(&row.head()?.metadata);
        index.put(id_of(key)?, entry.version, signature, row.vector())
    }

    /// Follows what others have committed since.
    pub(super) fn refresh(&self) -> Result<()> {
        let seq = self.index.read().seq;
        match self.store.changes(&self.ns, seq, 1, Duration::ZERO) {
            Ok(changes) if changes.is_empty() => Ok(()),
            Ok(_) | Err(Error::Truncated { .. }) => self.catch_up(&mut self.writer.lock()),
            Err(error) => Err(error),
        }
    }

    fn catch_up(&self, writer: &mut Writer) -> Result<()> {
        let limit = usize::try_from(SCAN_ROWS_MAX).unwrap_or(PAGE_ROWS);
        loop {
            let seq = self.index.read().seq;
            let changes = match self.store.changes(&self.ns, seq, limit, Duration::ZERO) {
                Ok(changes) => changes,
                Err(Error::Truncated { .. }) => return self.load(writer),
                Err(error) => return Err(error),
            };
            if changes.is_empty() {
                return Ok(());
            }
            for change in &changes {
                self.follow(&change.key, change.seq)?;
                self.work(writer, 1);
            }
        }
    }

    fn follow(&self, key: &Bytes, seq: Seq) -> Result<()> {
        let found = if key.first() == Some(&b'r') { self.store.get(&self.ns, key)? } else { None };
        let mut index = self.index.write();
        match (&found, key.first()) {
            (Some(entry), _) => self.put(&mut index, key, entry)?,
            (None, Some(b'r')) => index.remove(id_of(key)?),
            _ => {}
        }
        index.seq = seq;
        Ok(())
    }

    /// Enters rows that were just committed, in their order.
    pub(super) fn committed(&self, commit: Commit, rows: &[(String, u64, Vec<f32>)]) -> Result<()> {
        let mut writer = self.writer.lock();
        let mut index = self.index.write();
        let count = rows.len() as u64;
        if index.seq.0 + count != commit.seq.0 {
            drop(index);
            return self.catch_up(&mut writer);
        }
        for (at, (id, signature, vector)) in rows.iter().enumerate() {
            let version = Version(commit.version.0 - (count - 1) + at as u64);
            index.put(id, version, *signature, vector.iter().copied())?;
        }
        index.seq = commit.seq;
        drop(index);
        self.work(&mut writer, rows.len());
        Ok(())
    }

    /// What is due with so many changes: the graph grows, is repaired, and is saved.
    fn work(&self, writer: &mut Writer, changes: usize) {
        self.grow(writer, changes.saturating_mul(INSERTS));
        for _ in 0..changes {
            self.index.write().sweep(&mut writer.walker);
            if self.save_step(writer, SAVE_MIN).is_err() {
                // The graph is made of rows; it is saved another time.
                writer.saving = None;
            }
        }
    }

    /// Enters at most so many vectors into the graph. Searches wait for the last part of each.
    fn grow(&self, writer: &mut Writer, at_most: usize) -> usize {
        let mut entered = 0;
        while entered < at_most {
            let plan = self.index.read().plan(&mut writer.walker);
            let Some(plan) = plan else { break };
            self.index.write().insert(plan, &mut writer.walker);
            entered += 1;
        }
        entered
    }

    /// Enters all that the graph lacks, and saves it.
    pub(super) fn settle(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.catch_up(&mut writer)?;
        self.grow(&mut writer, usize::MAX);
        while self.save_step(&mut writer, 1)? {}
        Ok(())
    }

    /// Saves one chunk, if the graph has changed so much or a saving is under way.
    fn save_step(&self, writer: &mut Writer, changes_min: usize) -> Result<bool> {
        let Some(saving) = &mut writer.saving else {
            let index = self.index.read();
            let due =
                changes_min.max(if changes_min > 1 { index.graph_len() / SAVE_PART } else { 0 });
            if index.unsaved < due || index.pending() > index.graph_len() / SAVE_PART {
                return Ok(false);
            }
            let end = index.saved_chunks();
            drop(index);
            let header = self.store.get(&self.graph_ns, HEADER)?;
            let generation = self.generation();
            self.index.write().unsaved = 0;
            writer.saving = Some(Saving { generation, next: 0, end, header });
            return Ok(true);
        };
        if saving.next < saving.end {
            let chunk = self.index.read().save_chunk(saving.next);
            let Some(chunk) = chunk else {
                writer.saving = None;
                return Ok(false);
            };
            let key = chunk_key(&saving.generation, saving.next);
            self.store.commit(Batch::new(&self.graph_ns).put(key, chunk, Ttl::Never))?;
            saving.next += 1;
            return Ok(true);
        }
        let Some(saving) = writer.saving.take() else { return Ok(false) };
        self.finish_saving(&saving)?;
        Ok(true)
    }

    /// A name that no other saving has.
    fn generation(&self) -> String {
        let seconds = self.store.now().0 / 1000;
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0)).to_string()
    }

    /// Makes a saving the one that counts, and deletes all others.
    fn finish_saving(&self, saving: &Saving) -> Result<()> {
        let header = Header { generation: saving.generation.clone(), chunks: saving.end };
        let batch = Batch::new(&self.graph_ns).unchanged(HEADER, saving.header.as_ref());
        let header = Schema::default().encode(&header)?;
        let kept = match self.store.commit(batch.put(HEADER, header, Ttl::Never)) {
            Ok(_) => chunk_prefix(&saving.generation),
            Err(Error::Conflict { .. }) => {
                return self
                    .delete_chunks(|key| key.starts_with(&chunk_prefix(&saving.generation)));
            }
            Err(error) => return Err(error),
        };
        self.delete_chunks(|key| !key.starts_with(&kept))
    }

    fn delete_chunks(&self, is_old: impl Fn(&[u8]) -> bool) -> Result<()> {
        let mut scan = Scan::prefix(&[CHUNKS]).limit(PAGE_ROWS);
        loop {
            let page = self.store.scan(&self.graph_ns, scan.clone())?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            scan = scan.after(last.clone());
            let old = page.into_iter().map(|(key, _)| key).filter(|key| is_old(key));
            self.store.commit(old.fold(Batch::new(&self.graph_ns), Batch::delete))?;
        }
    }

    /// The chunks of the graph that count; none when some are missing.
    fn saved_chunks(&self) -> Result<Vec<Bytes>> {
        let Some(header) = self.store.get(&self.graph_ns, HEADER)? else { return Ok(Vec::new()) };
        let header: Header = Schema::default().decode(&header.value)?;
        let prefix = chunk_prefix(&header.generation);
        let mut scan = Scan::prefix(&prefix).limit(PAGE_ROWS);
        let mut chunks = Vec::new();
        loop {
            let page = self.store.scan(&self.graph_ns, scan.clone())?;
            let Some((last, _)) = page.last() else { break };
            scan = scan.after(last.clone());
            chunks.extend(page.into_iter().map(|(_, entry)| entry.value));
        }
        if chunks.len() != header.chunks as usize {
            chunks.clear();
        }
        Ok(chunks)
    }
}

fn chunk_prefix(generation: &str) -> Vec<u8> {
    [[CHUNKS].as_slice(), generation.as_bytes()].concat()
}

fn chunk_key(generation: &str, chunk: u32) -> Vec<u8> {
    [chunk_prefix(generation).as_slice(), &chunk.to_be_bytes()].concat()
}

fn id_of(key: &[u8]) -> Result<&str> {
    let id = key.get(1..).unwrap_or(&[]);
    str::from_utf8(id).map_err(|_| Error::corrupt("key of a vector", "an id that is not text"))
}
