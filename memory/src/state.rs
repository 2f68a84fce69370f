//! Session state with snapshots: every value is a version, a snapshot is a place in their order.
//! Knows versions and what is reachable; how rows lie, `state/rows` says.
//!
//! A snapshot copies nothing. A version that a change replaces goes in the same commit, unless a
//! snapshot sees it; when a snapshot goes, so do the versions that only it saw, by looking at the
//! changes up to the next snapshot alone.

mod rows;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{Json, Schema};
use crate::error::{Error, Result};
use crate::state::rows::{Header, Rows};
use crate::store::{
    Batch, Entry, Millis, Ns, SCAN_ROWS_MAX, Scan, Seq, Store, StoreExt, Ttl, Version, retry,
};

/// Snapshots that are kept unless it is set.
const SNAPSHOTS_MAX: u64 = 100;
/// Keys whose versions one commit forgets with a snapshot; [`SessionStateManager::compact`] takes
/// the rest.
const FORGET_KEYS_MAX: u64 = 1000;
/// Rows that one commit of it deletes.
const COMPACT_ROWS: usize = 2000;
/// Keys that one restore changes; each takes up to four rows of one commit.
const RESTORE_KEYS_MAX: u64 = 2000;

/// Which snapshot. Numbers rise and are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub u64);

/// What is known of a snapshot.
#[doc(alias = "SessionSnapshot")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its number.
    pub id: SnapshotId,
    /// The last change that it sees.
    pub seq: Seq,
    /// When it was made.
    pub at: Millis,
    /// What its maker said of it.
    pub metadata: Json,
    /// The snapshot whose restore it can undo; `None` for one that the program made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<SnapshotId>,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Keys whose value changed.
    pub changed: u64,
    /// The snapshot of the state before: restore it to undo this.
    pub undo: SnapshotId,
}

/// The state of a session. Clones, and all managers of one session, share it.
#[derive(Clone)]
pub struct SessionStateManager {
    store: Arc<dyn Store>,
    ns: Ns,
    snapshots_max: u64,
}

impl fmt::Debug for SessionStateManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionStateManager({:?})", self.ns)
    }
}

impl SessionStateManager {
    /// The state of this session.
    pub fn new(store: Arc<dyn Store>, session: &str) -> Result<Self> {
        let ns = Ns::within("state", session)?.without_log();
        Ok(Self { store, ns, snapshots_max: SNAPSHOTS_MAX })
    }

    /// How many snapshots are kept, 2 to 5000; the oldest goes first. 100 unless set.
    pub fn max_snapshots(mut self, count: u64) -> Result<Self> {
        if !(2..=SCAN_ROWS_MAX / 2).contains(&count) {
            return Err(Error::Invalid("a number of snapshots that is not 2 to 5000"));
        }
        self.snapshots_max = count;
        Ok(self)
    }

    /// Sets a key; answers its version, which is the change's place.
    #[doc(alias = "set_state")]
    pub fn set(&self, key: &str, value: &Json) -> Result<Version> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let mut batch = Batch::new(&self.ns);
            self.stage(&mut batch, &mut header, key, Some(value))?;
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
            Ok(Version(header.seq.0))
        })
    }

    /// The value of a key. `Some(null)` is there.
    #[doc(alias = "get_state")]
    pub fn get(&self, key: &str) -> Result<Option<Json>> {
        let (_, header) = self.header()?;
        let found = self.rows(&header).newest(&*self.store, &self.ns, key, Seq(u64::MAX))?;
        Ok(found.and_then(|(_, value)| value))
    }

    /// Removes a key; answers whether it was there.
    pub fn remove(&self, key: &str) -> Result<bool> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let mut batch = Batch::new(&self.ns);
            if !self.stage(&mut batch, &mut header, key, None)? {
                return Ok(false);
            }
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
            Ok(true)
        })
    }

    /// All keys that are there, with their values.
    pub fn state(&self) -> Result<BTreeMap<String, Json>> {
        self.state_at(None)
    }

    /// What a snapshot sees.
    pub fn state_of(&self, id: SnapshotId) -> Result<BTreeMap<String, Json>> {
        self.state_at(Some(id))
    }

    fn state_at(&self, id: Option<SnapshotId>) -> Result<BTreeMap<String, Json>> {
        let (_, header) = self.header()?;
        let rows = self.rows(&header);
        let at = match id {
            Some(id) => self.snapshot_info(rows, id)?.seq,
            None => header.seq,
        };
        let mut state = BTreeMap::new();
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&rows.all_versions()) };
        self.store.walk(&self.ns, scan, |row, entry| {
            let (key, seq) = Rows::of_version(&row)?;
            if seq <= at {
                match rows::decode_value(&entry.value)? {
                    Some(value) => state.insert(key, value),
                    None => state.remove(&key),
                };
            }
            Ok(true)
        })?;
        Ok(state)
    }

    /// Remembers the state as it is now. Constant time, whatever its size.
    #[doc(alias = "create_snapshot")]
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn snapshot(&self, metadata: Json) -> Result<SnapshotId> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let mut batch = Batch::new(&self.ns);
            let id = self.stage_snapshot(&mut batch, &mut header, &metadata, None)?;
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
            Ok((id, header.garbage))
        })
        .and_then(|(id, garbage)| {
            if garbage {
                self.compact()?;
            }
            Ok(id)
        })
    }

    /// Deletes versions that nobody sees; answers how many. Never needed: it is called when a
    /// snapshot that went left too many of them for one commit.
    pub fn compact(&self) -> Result<u64> {
        let mut deleted = 0;
        loop {
            let step = retry(&self.ns, || self.compact_step())?;
            deleted += step;
            if step < COMPACT_ROWS as u64 {
                return Ok(deleted);
            }
        }
    }

    fn compact_step(&self) -> Result<u64> {
        let (entry, mut header) = self.header()?;
        let rows = self.rows(&header);
        let seen: BTreeSet<Seq> = self.snapshots_of(rows)?.iter().map(|info| info.seq).collect();
        let mut doomed: Vec<(String, Seq)> = Vec::new();
        let (mut of, mut versions): (String, Vec<(Seq, bool)>) = Default::default();
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&rows.all_versions()) };
        self.store.walk(&self.ns, scan, |row, version| {
            let (key, seq) = Rows::of_version(&row)?;
            if key != of {
                let unseen = unseen(&seen, std::mem::take(&mut versions));
                doomed.extend(unseen.into_iter().map(|seq| (of.clone(), seq)));
                of = key;
            }
            versions.push((seq, rows::decode_value(&version.value)?.is_some()));
            Ok(doomed.len() < COMPACT_ROWS)
        })?;
        if doomed.len() < COMPACT_ROWS {
            doomed.extend(unseen(&seen, versions).into_iter().map(|seq| (of.clone(), seq)));
        }
        doomed.truncate(2 * COMPACT_ROWS);
        let deleted = doomed.len() as u64;
        header.garbage = deleted >= COMPACT_ROWS as u64;
        let mut batch = Batch::new(&self.ns);
        for (key, seq) in doomed {
            batch = batch.delete(rows.version(&key, seq)).delete(rows.change(seq));
        }
        if !batch.ops.is_empty() {
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
        }
        Ok(deleted)
    }

    /// Makes the state what a snapshot sees, in one commit. The state before is remembered first,
    /// so that a restore can be undone. Takes as long as keys changed since.
    ///
    /// Errors: [`Error::Invalid`] when there is no such snapshot; [`Error::Limit`] when more than
    /// 2000 keys changed since.
    #[doc(alias = "restore_snapshot")]
    pub fn restore(&self, id: SnapshotId) -> Result<Restored> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let rows = self.rows(&header);
            let target = self.snapshot_info(rows, id)?;
            let changed = self.changed_between(rows, target.seq, header.seq)?;
            Error::check_limit("keys that changed", changed.len(), RESTORE_KEYS_MAX)?;
            let mut batch = Batch::new(&self.ns);
            let metadata = serde_json::json!({ "before_restore_of": id.0 });
            let undo = self.stage_snapshot(&mut batch, &mut header, &metadata, Some(id))?;
            let mut count = 0;
            for key in &changed {
                let newest = |at| rows.newest(&*self.store, &self.ns, key, at);
                let old = newest(target.seq)?.and_then(|(_, value)| value);
                let new = newest(Seq(u64::MAX))?.and_then(|(_, value)| value);
                if old != new && self.stage(&mut batch, &mut header, key, old.as_ref())? {
                    count += 1;
                }
            }
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
            Ok(Restored { changed: count, undo })
        })
    }

    /// The snapshots that are kept, the oldest first.
    #[doc(alias = "get_snapshot_history")]
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let (_, header) = self.header()?;
        self.snapshots_of(self.rows(&header))
    }

    /// Forgets a snapshot, with the versions that only it saw; answers whether it was there.
    pub fn delete_snapshot(&self, id: SnapshotId) -> Result<bool> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let all = self.snapshots_of(self.rows(&header))?;
            let Some(index) = all.iter().position(|info| info.id == id) else { return Ok(false) };
            let mut batch = Batch::new(&self.ns);
            self.stage_forget(&mut batch, &mut header, &all, index)?;
            self.store.commit(rows::stage_header(batch, entry.as_ref(), &header)?)?;
            Ok(true)
        })
    }

    fn header(&self) -> Result<(Option<Entry>, Header)> {
        rows::read_header(&*self.store, &self.ns)
    }

    #[expect(clippy::unused_self, reason = "reads as: the rows of this session")]
    fn rows(&self, header: &Header) -> Rows {
        Rows { epoch: header.epoch }
    }

    pub(crate) fn snapshots_of(&self, rows: Rows) -> Result<Vec<SnapshotInfo>> {
        let found = self.store.scan(&self.ns, Scan::prefix(&rows.snapshots()))?;
        found.iter().map(|(_, entry)| rows::decode_snapshot(entry)).collect()
    }

    fn snapshot_info(&self, rows: Rows, id: SnapshotId) -> Result<SnapshotInfo> {
        let entry = self.store.get(&self.ns, &rows.snapshot(id.0))?;
        rows::decode_snapshot(&entry.ok_or(Error::Invalid("no such snapshot"))?)
    }

    /// Adds one change to a batch; `false` when it removes what is not there.
    fn stage(
        &self,
        batch: &mut Batch,
        header: &mut Header,
        key: &str,
        value: Option<&Json>,
    ) -> Result<bool> {
        let rows = self.rows(header);
        let before = rows.newest(&*self.store, &self.ns, key, Seq(u64::MAX))?;
        let was_there = matches!(before, Some((_, Some(_))));
        if value.is_none() && !was_there {
            return Ok(false);
        }
        let mut seen = false;
        if let Some((seq, _)) = before {
            seen = seq <= header.seen;
            if !seen {
                batch.ops.push(delete(rows.version(key, seq)));
                batch.ops.push(delete(rows.change(seq)));
            }
        }
        header.seq.0 += 1;
        if value.is_none() && !seen && !self.is_seen(rows, header, key)? {
            // It is gone to the newest snapshot as well, or never was: nothing more to say.
            return Ok(true);
        }
        batch.ops.push(put(rows.version(key, header.seq), rows::encode_value(value)?));
        let key = Bytes::copy_from_slice(key.as_bytes());
        batch.ops.push(put(rows.change(header.seq), key));
        Ok(true)
    }

    /// Whether what the newest snapshot sees of a key is a value.
    fn is_seen(&self, rows: Rows, header: &Header, key: &str) -> Result<bool> {
        let seen = rows.newest(&*self.store, &self.ns, key, header.seen)?;
        Ok(matches!(seen, Some((_, Some(_)))))
    }

    /// Adds a snapshot to a batch, and forgets the oldest when there are too many.
    fn stage_snapshot(
        &self,
        batch: &mut Batch,
        header: &mut Header,
        metadata: &Json,
        undoes: Option<SnapshotId>,
    ) -> Result<SnapshotId> {
        let rows = self.rows(header);
        header.snapshot += 1;
        header.snapshots += 1;
        let id = SnapshotId(header.snapshot);
        let (seq, at) = (header.seq, self.store.now());
        header.seen = seq;
        let info = SnapshotInfo { id, seq, at, metadata: metadata.clone(), undoes };
        if header.snapshots > self.snapshots_max {
            let mut all = self.snapshots_of(rows)?;
            all.push(info.clone());
            // The one that is being restored stays, however old it is.
            let index = usize::from(undoes.is_some() && all.first().map(|one| one.id) == undoes);
            self.stage_forget(batch, header, &all, index)?;
        }
        batch.ops.push(put(rows.snapshot(id.0), Schema::default().encode(&info)?));
        Ok(id)
    }

    /// Adds the end of a snapshot to a batch, and of the versions that only it sees: those that
    /// the snapshot before does not see and that were replaced before the next one.
    fn stage_forget(
        &self,
        batch: &mut Batch,
        header: &mut Header,
        all: &[SnapshotInfo],
        index: usize,
    ) -> Result<()> {
        let rows = self.rows(header);
        let seq_at = |index: Option<usize>| index.and_then(|i| all.get(i)).map(|info| info.seq);
        let before = seq_at(index.checked_sub(1)).unwrap_or_default();
        let Some(own) = all.get(index) else { return Ok(()) };
        let next = seq_at(Some(index + 1)).unwrap_or(header.seq);
        let mut gone = 0;
        for key in self.changed_between(rows, own.seq, next)? {
            let newest = |at| rows.newest(&*self.store, &self.ns, &key, at);
            let Some((seq, _)) = newest(own.seq)?.filter(|(seq, _)| *seq > before) else {
                continue;
            };
            gone += 1;
            if gone > FORGET_KEYS_MAX {
                header.garbage = true;
                break;
            }
            batch.ops.push(delete(rows.version(&key, seq)));
            batch.ops.push(delete(rows.change(seq)));
            let was_there = matches!(newest(before)?, Some((_, Some(_))));
            if !was_there
                && let Some(next) = rows.removal_after(&*self.store, &self.ns, &key, own.seq)?
            {
                // To the snapshot before it is gone as well, or never was: nothing more to say.
                batch.ops.push(delete(rows.version(&key, next)));
                batch.ops.push(delete(rows.change(next)));
            }
        }
        batch.ops.push(delete(rows.snapshot(own.id.0)));
        header.snapshots = header.snapshots.saturating_sub(1);
        if index + 1 == all.len() {
            header.seen = before;
        }
        Ok(())
    }

    /// Keys that changed behind one place, up to and including another.
    fn changed_between(&self, rows: Rows, after: Seq, to: Seq) -> Result<BTreeSet<String>> {
        let place = |seq: Seq| rows.change(Seq(seq.0.saturating_add(1)));
        let scan = Scan { limit: usize::MAX, ..Scan::all() }.from(place(after)).before(place(to));
        let mut found = BTreeSet::new();
        self.store.walk(&self.ns, scan, |_, entry| {
            let key = std::str::from_utf8(&entry.value)
                .map_err(|_| Error::corrupt("change", "a key that is not text"))?;
            found.insert(key.to_owned());
            Ok(true)
        })?;
        Ok(found)
    }
}

/// Of the versions of one key, in order, those that neither a snapshot nor the present sees, and
/// removals of what was not there.
fn unseen(seen: &BTreeSet<Seq>, versions: Vec<(Seq, bool)>) -> Vec<Seq> {
    let mut gone = Vec::new();
    let mut kept = false;
    let ends: Vec<Option<Seq>> =
        versions.iter().skip(1).map(|(seq, _)| Some(*seq)).chain([None]).collect();
    for ((seq, is_value), end) in versions.into_iter().zip(ends) {
        let is_seen = end.is_none_or(|end| seen.range(seq..end).next().is_some());
        if is_seen && (is_value || kept) {
            kept = is_value;
        } else {
            gone.push(seq);
        }
    }
    gone
}

fn put(key: Vec<u8>, value: Bytes) -> crate::store::Op {
    crate::store::Op::Put { key: key.into(), value, ttl: Ttl::Never }
}

fn delete(key: Vec<u8>) -> crate::store::Op {
    crate::store::Op::Delete { key: key.into() }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
