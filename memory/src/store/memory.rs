//! The store in memory: for tests, and for what need not outlive the process.
//! One lock around ordered maps; the plainest thing that holds to every rule.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock, Millis, Stopwatch};
use crate::error::{Error, Result};
use crate::store::{
    Batch, Change, ChangeKind, ChangeLog, Commit, Entry, Guard, LogRetention, Ns, Op, Scan, Seq,
    Store, Version, check_key, deadline,
};

/// Expired rows that one commit removes.
const SWEEP_ROWS: usize = 64;

/// A store in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    clock: Clock,
    /// Protects everything; never held while a closure of a caller runs.
    spaces: Mutex<HashMap<Arc<str>, Space>>,
    changed: Condvar,
}

/// One namespace.
#[derive(Debug, Default)]
struct Space {
    rows: BTreeMap<Bytes, Entry>,
    deadlines: BTreeSet<(Millis, Bytes)>,
    log: VecDeque<(Change, Millis)>,
    log_bytes: u64,
    seq: u64,
}

impl MemStore {
    /// An empty one, on the system's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one, on this clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { clock, ..Shared::default() }) }
    }
}

impl Space {
    fn live(&self, key: &[u8], now: Millis) -> Option<&Entry> {
        self.rows.get(key).filter(|entry| is_live(entry, now))
    }

    fn check_guards(&self, batch: &Batch, now: Millis) -> Result<()> {
        for op in &batch.ops {
            let Op::Expect { key, is } = op else { continue };
            let found = self.live(key, now).map(|entry| entry.version);
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

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, Entry { deadline: Some(deadline), .. })) = self.rows.remove_entry(key) {
            self.deadlines.remove(&(deadline, key));
        }
    }

    fn put(&mut self, key: Bytes, entry: Entry) {
        self.remove(&key);
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, key.clone()));
        }
        self.rows.insert(key, entry);
    }

    fn note(&mut self, ns: &Ns, key: Bytes, kind: ChangeKind, now: Millis) {
        self.seq += 1;
        if let ChangeLog::Keep(_) = ns.log() {
            self.log_bytes += key.len() as u64;
            let change = Change { seq: Seq(self.seq), key, version: Version(self.seq), kind };
            self.log.push_back((change, now));
        }
    }

    fn trim_log(&mut self, retention: LogRetention, now: Millis) {
        while let Some((change, at)) = self.log.front() {
            let over = self.log.len() as u64 > retention.count
                || retention.age.is_some_and(|age| now.since(*at) > age)
                || retention.bytes.is_some_and(|bytes| self.log_bytes > bytes);
            if !over || self.log.len() == 1 {
                break;
            }
            self.log_bytes -= change.key.len() as u64;
            self.log.pop_front();
        }
    }

    fn sweep(&mut self, now: Millis) {
        for _ in 0..SWEEP_ROWS {
            let Some((deadline, _)) = self.deadlines.first() else { return };
            if *deadline > now {
                return;
            }
            if let Some((_, key)) = self.deadlines.pop_first() {
                self.rows.remove(&key);
            }
        }
    }

    fn changes(&self, after: Seq, limit: usize) -> Result<Vec<Change>> {
        let first = self.log.front().map_or(self.seq + 1, |(change, _)| change.seq.0);
        if after.0.saturating_add(1) < first {
            return Err(Error::Truncated { first: Seq(first) });
        }
        let skip = usize::try_from(after.0 + 1 - first).unwrap_or(usize::MAX);
        Ok(self.log.iter().skip(skip).take(limit).map(|(change, _)| change.clone()).collect())
    }
}

fn is_live(entry: &Entry, now: Millis) -> bool {
    entry.deadline.is_none_or(|deadline| deadline > now)
}

impl Store for MemStore {
    fn now(&self) -> Millis {
        self.shared.clock.now()
    }

    fn get(&self, ns: &Ns, key: &[u8]) -> Result<Option<Entry>> {
        check_key(key)?;
        let spaces = self.shared.spaces.lock();
        let now = self.now();
        Ok(spaces.get(ns.name()).and_then(|space| space.live(key, now)).cloned())
    }

    fn scan(&self, ns: &Ns, scan: Scan) -> Result<Vec<(Bytes, Entry)>> {
        scan.check()?;
        let spaces = self.shared.spaces.lock();
        let now = self.now();
        let Some(space) = spaces.get(ns.name()).filter(|_| !scan.is_empty()) else {
            return Ok(Vec::new());
        };
        let rows = space.rows.range::<Bytes, _>((scan.from, scan.to));
        let rows = rows.filter(|(_, entry)| is_live(entry, now));
        let pair = |(key, entry): (&Bytes, &Entry)| (key.clone(), entry.clone());
        Ok(if scan.reverse {
            rows.rev().take(scan.limit).map(pair).collect()
        } else {
            rows.take(scan.limit).map(pair).collect()
        })
    }

    fn commit(&self, batch: Batch) -> Result<Commit> {
        batch.check()?;
        let mut spaces = self.shared.spaces.lock();
        let now = self.now();
        let space = spaces.entry(Arc::clone(batch.ns.shared_name())).or_default();
        space.check_guards(&batch, now)?;
        let mut deadlines = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            deadlines.push(match op {
                Op::Put { key, ttl, .. } => {
                    let kept = space.live(key, now).and_then(|entry| entry.deadline);
                    deadline(*ttl, now, kept)?
                }
                _ => None,
            });
        }
        for (op, deadline) in batch.ops.into_iter().zip(deadlines) {
            match op {
                Op::Put { key, value, .. } => {
                    space.note(&batch.ns, key.clone(), ChangeKind::Put, now);
                    let version = Version(space.seq);
                    // Own bytes: a slice of something large must not keep all of it.
                    let (key, value) = (Bytes::copy_from_slice(&key), own(value));
                    space.put(key, Entry { value, version, deadline });
                }
                Op::Delete { key } => {
                    if space.live(&key, now).is_some() {
                        space.note(&batch.ns, key.clone(), ChangeKind::Delete, now);
                        space.remove(&key);
                    }
                }
                Op::Expect { .. } => {}
            }
        }
        if let ChangeLog::Keep(retention) = batch.ns.log() {
            space.trim_log(retention, now);
        }
        space.sweep(now);
        let commit = Commit { seq: Seq(space.seq), version: Version(space.seq) };
        drop(spaces);
        self.shared.changed.notify_all();
        Ok(commit)
    }

    fn changes(&self, ns: &Ns, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Change>> {
        if ns.log() == ChangeLog::Off {
            return Err(Error::Invalid("changes of a namespace without a change log"));
        }
        Error::check_limit("changes of a call", limit, crate::store::SCAN_ROWS_MAX)?;
        let watch = Stopwatch::start(wait);
        let mut spaces = self.shared.spaces.lock();
        loop {
            let found = match spaces.get(ns.name()) {
                Some(space) => space.changes(after, limit)?,
                None => Vec::new(),
            };
            if !found.is_empty() || limit == 0 {
                return Ok(found);
            }
            let Some(left) = watch.left() else { return Ok(found) };
            self.shared.changed.wait_for(&mut spaces, left);
        }
    }
}

/// The same bytes without what may lie around them.
fn own(value: Bytes) -> Bytes {
    if value.is_unique() { value } else { Bytes::copy_from_slice(&value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Subject};

    struct InMemory {
        store: MemStore,
        clock: Clock,
    }

    impl Subject for InMemory {
        fn store(&self) -> Arc<dyn Store> {
            Arc::new(self.store.clone())
        }

        fn pass(&self, time: Duration) {
            self.clock.advance(time);
        }
    }

    #[test]
    fn the_store_in_memory_conforms() {
        let clock = Clock::manual(Millis(1_800_000_000_000));
        let store = MemStore::with_clock(clock.clone());
        let held = conformance::run(&InMemory { store, clock }).unwrap();
        assert!(held.len() >= 12, "{held:?}");
    }

    #[test]
    fn expired_rows_leave_memory_with_the_next_commits() {
        let clock = Clock::manual(Millis(1));
        let store = MemStore::with_clock(clock.clone());
        let ns = Ns::new("a").unwrap();
        for i in 0..10_u8 {
            let ttl = crate::store::Ttl::For(Duration::from_secs(1));
            store.commit(Batch::new(&ns).put(vec![i], vec![i], ttl)).unwrap();
        }
        clock.advance(Duration::from_secs(1));
        store.commit(Batch::new(&ns)).unwrap();
        let spaces = store.shared.spaces.lock();
        let space = spaces.get("a").unwrap();
        assert_eq!((space.rows.len(), space.deadlines.len()), (0, 0));
    }
}
