//! The store over the engine: rows of all namespaces in one keyspace of a `terrace::Db`.
//! Knows locks and commits; how rows lie in bytes, `layout` says.
//!
//! A commit holds the lock of its namespace, checks the guards, and writes records and changes as
//! one batch of the engine. Reads take no lock. Expiry is judged here, by one clock; the engine
//! gets the deadline as a TTL with some slack, so that the space comes back by itself.

use std::collections::HashMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use terrace::{Db, Expect, Keyspace, KeyspaceOptions, PutOptions};

use crate::clock::{Clock, Millis, Stopwatch};
use crate::error::{Error, Result};
use crate::store::layout::{self, Keys};
use crate::store::{
    Batch, Change, ChangeKind, ChangeLog, Commit, Durability, Entry, Guard, LogRetention, Ns, Op,
    Scan, Seq, Store, Version, check_key, deadline,
};

/// The keyspace that [`EngineStore::new`] uses.
const KEYSPACE: &str = "memory";
/// How much later than here the engine lets a record go.
const TTL_SLACK: Duration = Duration::from_secs(5);
/// Versions of a namespace without a change log are reserved so many at a time.
const VERSIONS_RESERVED: u64 = 4096;
/// Namespaces whose state is kept in memory; others are read anew when they are written to.
const SPACES_MAX: usize = 16 * 1024;
/// Changes over the bounds of a log that one commit removes, besides as many as it adds.
const TRIM_ROWS: usize = 64;
/// Most that the mark of the clock rises at a time: a day, so that one look at a broken clock
/// cannot expire what has years to live.
const MARK_STEP_MS: u64 = 24 * 60 * 60 * 1000;

/// A store over the engine. Clones share it.
///
/// The engine is single-process, and so is this: one `EngineStore` for one keyspace of a `Db`;
/// a second one is refused while the first lives.
#[derive(Clone)]
pub struct EngineStore {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    keyspace: Keyspace,
    owner: Owner,
    clock: Clock,
    /// What is kept of the clock on disk, in milliseconds.
    mark_ms: AtomicU64,
    /// Protects: which namespaces have a state. Never held while one of their locks is waited for.
    spaces: Mutex<HashMap<Arc<str>, Arc<Space>>>,
}

#[derive(Debug)]
struct Space {
    keys: Keys,
    /// Protects: the order of commits of this namespace. Reads do not take it.
    state: Mutex<State>,
    changed: Condvar,
}

/// What a commit needs to know. `None` until it was read, and after a commit failed.
#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    seq: u64,
    /// Versions up to here may be given without writing the meta row.
    reserved: u64,
    /// First and one past the last change in the log.
    log: (u64, u64),
    log_bytes: u64,
}

/// The mark, in memory alone, that says a keyspace has its `EngineStore`.
struct Owner {
    keyspace: Keyspace,
    name: String,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A closed store has no marks; then there is nothing to take back.
        drop(self.keyspace.delete(&self.name));
    }
}

impl EngineStore {
    /// The store in the keyspace `memory` of this `Db`.
    ///
    /// ```
    /// use terrace_memory::store::{EngineStore, Ns, Store, StoreExt, Ttl};
    ///
    /// let db = terrace::Options::new().temporary()?;
    /// let store = EngineStore::new(&db)?;
    /// let notes = Ns::new("notes")?;
    /// store.put(&notes, "a", "1", Ttl::Never)?;
    /// assert_eq!(store.get(&notes, b"a")?.unwrap().value, "1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(db: &Db) -> Result<Self> {
        Self::with(db, KEYSPACE, Clock::system())
    }

    /// The store in this keyspace, on this clock.
    ///
    /// Errors: [`Error::Invalid`] when the keyspace has an `EngineStore` already; clone that one.
    pub fn with(db: &Db, keyspace: &str, clock: Clock) -> Result<Self> {
        let owners = db.keyspace_with("memory.owners", KeyspaceOptions::new().volatile())?;
        if !owners.compare_and_swap(keyspace, Expect::Absent, Some(b"1"))? {
            return Err(Error::Invalid(
                "the keyspace has an EngineStore in this process: clone it",
            ));
        }
        let owner = Owner { keyspace: owners, name: keyspace.to_owned() };
        let keyspace = db.keyspace(keyspace)?;
        let mark = keyspace.get(layout::CLOCK_KEY)?;
        let mark_ms = mark.map_or(Ok(0), |mark| layout::u64_at(&mark, 0, "mark of the clock"))?;
        let shared = Shared {
            db: db.clone(),
            keyspace,
            owner,
            clock: clock.not_before(Millis(mark_ms)),
            mark_ms: AtomicU64::new(mark_ms),
            spaces: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The engine below.
    pub fn db(&self) -> &Db {
        &self.shared.db
    }

    fn space(&self, ns: &Ns) -> Arc<Space> {
        let mut spaces = self.shared.spaces.lock();
        if let Some(space) = spaces.get(ns.name()) {
            return Arc::clone(space);
        }
        if spaces.len() >= SPACES_MAX {
            // Nobody else has one that is held here alone: the map's lock is taken.
            spaces.retain(|_, space| Arc::strong_count(space) > 1);
        }
        let state = Mutex::default();
        let space = Arc::new(Space { keys: Keys::of(ns), state, changed: Condvar::new() });
        spaces.insert(Arc::clone(ns.shared_name()), Arc::clone(&space));
        space
    }

    /// Whether a record with this deadline is there now. What is once answered as expired stays so,
    /// also when the wall clock is set back between two openings: the mark is kept on disk.
    fn is_live(&self, deadline: Option<Millis>) -> Result<bool> {
        let Some(deadline) = deadline else { return Ok(true) };
        let now = self.now();
        if deadline > now {
            return Ok(true);
        }
        let kept = self.shared.mark_ms.load(Ordering::Relaxed);
        if deadline.0 > kept {
            let step = if kept == 0 { now.0 } else { kept.saturating_add(MARK_STEP_MS) };
            let mark = now.0.min(step);
            self.shared.keyspace.put(layout::CLOCK_KEY, mark.to_le_bytes())?;
            self.shared.mark_ms.fetch_max(mark, Ordering::Relaxed);
        }
        Ok(false)
    }

    /// Version and deadline of the live record under an engine's key.
    fn live_header(&self, key: &[u8]) -> Result<Option<(Version, Option<Millis>)>> {
        let found = self.shared.keyspace.get_with(key, layout::decode_record_header)?;
        let Some(header) = found.transpose()? else { return Ok(None) };
        Ok(self.is_live(header.1)?.then_some(header))
    }

    fn check_guards(&self, keys: &Keys, batch: &Batch) -> Result<()> {
        for op in &batch.ops {
            let Op::Expect { key, is } = op else { continue };
            let found = self.live_header(&keys.record(key))?.map(|(version, _)| version);
            let holds = match is {
                Guard::Absent => found.is_none(),
                Guard::Any => found.is_some(),
                Guard::Version(version) => found == Some(*version),
            };
            if !holds {
                return Err(Error::Conflict { key: key.clone(), found });
            }
        }
        Ok(())
    }

    fn load(&self, keys: &Keys, log: ChangeLog) -> Result<Known> {
        let keyspace = &self.shared.keyspace;
        let meta = keyspace.get(keys.meta())?;
        let reserved = meta.map_or(Ok(0), |meta| layout::u64_at(&meta, 0, "meta row"))?;
        let mut changes = keyspace.prefix(keys.changes());
        let seq_of = |found: Option<terrace::Result<(terrace::Key, terrace::Value)>>| {
            let Some(found) = found else { return Ok::<_, Error>(None) };
            crate::keys::number(&keys.rest(&found?.0)).map(Some)
        };
        let first = seq_of(changes.next())?;
        let last = seq_of(changes.next_back())?.or(first);
        let seq = reserved.max(last.unwrap_or(0));
        let log_range = (first.unwrap_or(seq + 1), last.unwrap_or(seq) + 1);
        let mut log_bytes = 0;
        if let ChangeLog::Keep(LogRetention { bytes: Some(_), .. }) = log {
            for row in keyspace.prefix(keys.changes()) {
                log_bytes += row?.1.len() as u64;
            }
        }
        Ok(Known { seq, reserved, log: log_range, log_bytes })
    }

    /// Fills the engine's batch, and says what is known once it is written.
    fn stage(
        &self,
        keys: &Keys,
        mut known: Known,
        batch: &Batch,
        out: &mut terrace::Batch,
    ) -> Result<Known> {
        let (now, keyspace) = (self.now(), &self.shared.keyspace);
        let mut record = Vec::new();
        let logged = batch.ns.log() != ChangeLog::Off;
        let stored_end = known.log.1;
        if logged && known.log.1 <= known.seq {
            // Without a log for a while: what it has does not reach to here.
            known.log.1 = known.seq + 1;
        }
        for op in &batch.ops {
            let (key, kind) = match op {
                Op::Put { key, value, ttl } => {
                    let at = keys.record(key);
                    let kept = if *ttl == crate::store::Ttl::Keep {
                        self.live_header(&at)?.and_then(|(_, deadline)| deadline)
                    } else {
                        None
                    };
                    let deadline = deadline(*ttl, now, kept)?;
                    layout::encode_record(Version(known.seq + 1), deadline, value, &mut record);
                    out.put_with(keyspace, at, &record, engine_ttl(deadline, now));
                    (key, ChangeKind::Put)
                }
                Op::Delete { key } => {
                    let at = keys.record(key);
                    if self.live_header(&at)?.is_none() {
                        continue;
                    }
                    out.delete(keyspace, at);
                    (key, ChangeKind::Delete)
                }
                Op::Expect { .. } => continue,
            };
            known.seq += 1;
            if logged {
                let change = layout::encode_change(kind, now, key);
                known.log_bytes += change.len() as u64;
                known.log.1 = known.seq + 1;
                out.put(keyspace, keys.change(known.seq), change);
            }
        }
        if let ChangeLog::Keep(retention) = batch.ns.log() {
            let rows_max = TRIM_ROWS + batch.ops.len();
            self.stage_trim(keys, &mut known, (stored_end, rows_max), retention, out)?;
        } else if known.seq > known.reserved {
            known.reserved = known.seq + VERSIONS_RESERVED;
            out.put(keyspace, keys.meta(), known.reserved.to_le_bytes());
        }
        Ok(known)
    }

    /// Deletes changes over the bounds of the log: stored ones only, and some at a time.
    fn stage_trim(
        &self,
        keys: &Keys,
        known: &mut Known,
        (stored_end, rows_max): (u64, usize),
        retention: LogRetention,
        out: &mut terrace::Batch,
    ) -> Result<()> {
        let (now, keyspace) = (self.now(), &self.shared.keyspace);
        for _ in 0..rows_max {
            let (first, end) = known.log;
            if end <= first + 1 || first >= stored_end {
                break;
            }
            let mut over = end - first > retention.count
                || retention.bytes.is_some_and(|bytes| known.log_bytes > bytes);
            let key = keys.change(first);
            if retention.bytes.is_some() || retention.age.is_some() && !over {
                let read = |stored: &[u8]| (stored.len(), layout::u64_at(stored, 1, "change"));
                let (len, at) = match keyspace.get_with(&key, read)? {
                    Some((len, at)) => (len as u64, Millis(at?)),
                    // Of a time without a log.
                    None => (0, Millis(0)),
                };
                over |= retention.age.is_some_and(|age| now.since(at) > age);
                known.log_bytes = known.log_bytes.saturating_sub(if over { len } else { 0 });
            }
            if !over {
                break;
            }
            out.delete(keyspace, key);
            known.log.0 += 1;
        }
        Ok(())
    }

    fn changes_now(&self, keys: &Keys, after: Seq, limit: usize) -> Result<Vec<Change>> {
        let from = keys.change(after.0.saturating_add(1));
        let end = crate::keys::after_prefix(&keys.changes()).unwrap_or_default();
        let mut found = Vec::new();
        for row in self.shared.keyspace.range((Bound::Included(from), Bound::Excluded(end))) {
            if found.len() == limit {
                break;
            }
            let (key, stored) = row?;
            found.push(layout::decode_change(&keys.rest(&key), &stored)?.0);
        }
        let expected = after.0.saturating_add(1);
        match found.first() {
            Some(Change { seq, .. }) if seq.0 > expected => Err(Error::Truncated { first: *seq }),
            _ => Ok(found),
        }
    }
}

/// What the engine is told of a deadline.
fn engine_ttl(deadline: Option<Millis>, now: Millis) -> PutOptions {
    match deadline {
        Some(deadline) => PutOptions::new().ttl(deadline.since(now).saturating_add(TTL_SLACK)),
        None => PutOptions::new(),
    }
}

impl Store for EngineStore {
    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    fn get(&self, ns: &Ns, key: &[u8]) -> Result<Option<Entry>> {
        check_key(key)?;
        let Some(stored) = self.shared.keyspace.get(Keys::of(ns).record(key))? else {
            return Ok(None);
        };
        let entry = layout::decode_record(stored)?;
        Ok(self.is_live(entry.deadline)?.then_some(entry))
    }

    fn scan(&self, ns: &Ns, scan: Scan) -> Result<Vec<(Bytes, Entry)>> {
        scan.check()?;
        if scan.is_empty() || scan.limit == 0 {
            return Ok(Vec::new());
        }
        let keys = Keys::of(ns);
        let placed = |bound: Bound<Bytes>| bound.map(|key| keys.record(&key));
        let from = match placed(scan.from) {
            Bound::Unbounded => Bound::Included(keys.record(&[])),
            bound => bound,
        };
        let to = match placed(scan.to) {
            Bound::Unbounded => Bound::Excluded(keys.records_end()),
            bound => bound,
        };
        let mut rows = self.shared.keyspace.range((from, to));
        let mut found = Vec::new();
        while found.len() < scan.limit {
            let Some(row) = (if scan.reverse { rows.next_back() } else { rows.next() }) else {
                break;
            };
            let (key, stored) = row?;
            let entry = layout::decode_record(stored)?;
            if self.is_live(entry.deadline)? {
                found.push((keys.rest(&key), entry));
            }
        }
        Ok(found)
    }

    fn commit(&self, batch: Batch) -> Result<Commit> {
        batch.check()?;
        let space = self.space(&batch.ns);
        let mut state = space.state.lock();
        self.check_guards(&space.keys, &batch)?;
        let known = match &state.known {
            Some(known) => known.clone(),
            None => self.load(&space.keys, batch.ns.log())?,
        };
        let mut out = self.shared.db.batch();
        let known = self.stage(&space.keys, known, &batch, &mut out)?;
        let commit = Commit { seq: Seq(known.seq), version: Version(known.seq) };
        if !out.is_empty() {
            // After a failure it is not known whether the batch was written: it is read anew.
            state.known = None;
            out.commit()?;
        }
        state.known = Some(known);
        drop(state);
        space.changed.notify_all();
        if batch.durability == Durability::Synced {
            // Outside of the lock, so that all who wait share one flush.
            self.shared.db.sync()?;
        }
        Ok(commit)
    }

    fn changes(&self, ns: &Ns, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Change>> {
        if ns.log() == ChangeLog::Off {
            return Err(Error::Invalid("changes of a namespace without a change log"));
        }
        Error::check_limit("changes of a call", limit, crate::store::SCAN_ROWS_MAX)?;
        let keys = Keys::of(ns);
        let found = self.changes_now(&keys, after, limit)?;
        if !found.is_empty() || limit == 0 || wait.is_zero() {
            return Ok(found);
        }
        let watch = Stopwatch::start(wait);
        let space = self.space(ns);
        let mut state = space.state.lock();
        loop {
            // Read under the lock, so that no commit between reading and waiting is missed.
            let found = self.changes_now(&keys, after, limit)?;
            if !found.is_empty() {
                return Ok(found);
            }
            let Some(left) = watch.left() else { return Ok(found) };
            space.changed.wait_for(&mut state, left.min(Duration::from_millis(500)));
        }
    }
}

impl fmt::Debug for EngineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { name, .. } = &self.shared.owner;
        f.debug_struct("EngineStore").field("keyspace", name).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
