//! State that tells: each change is one commit of the value and its event; listeners hear of it
//! after the commit. Knows keys and JSON; what listeners do, they know.
//!
//! Rows of a session: `h` the header; `k` and a key, its value; `e` and a number, an event; `x`, a
//! key and a number, where the events of that key are.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec::{Json, Schema};
use crate::error::{Error, Result};
use crate::keys;
use crate::retention::{Retention, retain_rows};
use crate::store::{
    Batch, Entry, Millis, Ns, SCAN_ROWS_MAX, Scan, Seq, Store, StoreExt, Ttl, retry,
};

const HEADER: &[u8] = b"h";

/// One change that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// Its place: 1 for the first of a session, without gaps.
    pub seq: Seq,
    /// An id that no other event has; ids sort by time.
    pub event_id: String,
    /// When.
    #[doc(alias = "timestamp")]
    pub at: Millis,
    /// Which key.
    pub key: String,
    /// What it held; `None` when it was not there.
    pub old: Option<Json>,
    /// What it holds; `None` when it was removed.
    pub new: Option<Json>,
    /// Who changed it.
    pub source: String,
    /// Whatever the source wants to say.
    pub metadata: Json,
}

/// Hears of changes.
pub trait EventListener: Send + Sync {
    /// Called after the commit, in the thread that made it. A panic is caught and counted.
    fn on_state_change(&self, change: &StateChange);
}

impl<F: Fn(&StateChange) + Send + Sync> EventListener for F {
    fn on_state_change(&self, change: &StateChange) {
        self(change);
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Header {
    seq: u64,
}

#[derive(Default)]
struct Listeners {
    next_id: u64,
    all: Vec<(u64, Arc<dyn EventListener>)>,
}

/// Keeps a listener subscribed. Dropped, the listener hears nothing more.
#[must_use = "dropped, the listener is unsubscribed"]
pub struct ListenerGuard {
    id: u64,
    listeners: Weak<Mutex<Listeners>>,
}

impl Drop for ListenerGuard {
    #[doc(alias = "unsubscribe")]
    fn drop(&mut self) {
        if let Some(listeners) = self.listeners.upgrade() {
            let mut listeners = listeners.lock();
            let at = listeners.all.iter().position(|(id, _)| *id == self.id);
            let gone = at.map(|at| listeners.all.remove(at));
            // Its own drop may do anything: not under the lock.
            drop(listeners);
            drop(gone);
        }
    }
}

impl fmt::Debug for ListenerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListenerGuard({})", self.id)
    }
}

/// The state of a session, every change of it an event. Clones share state and listeners; other
/// managers of the same session share the state.
///
/// Changes made through another manager, or another process, are in the audit trail; listeners
/// hear of what is changed through the manager that they subscribed to and its clones.
#[derive(Clone)]
pub struct EventDrivenStateManager {
    store: Arc<dyn Store>,
    ns: Ns,
    listeners: Arc<Mutex<Listeners>>,
    panics: Arc<AtomicU64>,
}

impl fmt::Debug for EventDrivenStateManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventDrivenStateManager({:?})", self.ns)
    }
}

impl EventDrivenStateManager {
    /// The state of this session.
    pub fn new(store: Arc<dyn Store>, session: &str) -> Result<Self> {
        let ns = Ns::within("events", session)?.without_log();
        Ok(Self { store, ns, listeners: Arc::default(), panics: Arc::default() })
    }

    /// Lets a listener hear of changes until the guard is dropped.
    pub fn subscribe(&self, listener: Arc<dyn EventListener>) -> ListenerGuard {
        let mut listeners = self.listeners.lock();
        listeners.next_id += 1;
        let id = listeners.next_id;
        listeners.all.push((id, listener));
        ListenerGuard { id, listeners: Arc::downgrade(&self.listeners) }
    }

    /// Panics of listeners so far.
    pub fn listener_panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Json>> {
        let entry = self.store.get(&self.ns, &value_key(key))?;
        entry.map(|entry| Schema::default().decode(&entry.value)).transpose()
    }

    /// Sets a key, and writes the event in the same commit.
    #[doc(alias = "set_state")]
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn set(
        &self,
        key: &str,
        value: &Json,
        source: &str,
        metadata: Json,
    ) -> Result<StateChange> {
        let change = self.change(key, Some(value), source, &metadata)?;
        // A value that is set makes an event, also when it was the same before.
        change.ok_or(Error::Invalid("a set that changes nothing"))
    }

    /// Removes a key, and writes the event in the same commit; `None` when it was not there.
    #[expect(clippy::needless_pass_by_value, reason = "as `set`")]
    pub fn remove(&self, key: &str, source: &str, metadata: Json) -> Result<Option<StateChange>> {
        self.change(key, None, source, &metadata)
    }

    fn change(
        &self,
        key: &str,
        new: Option<&Json>,
        source: &str,
        metadata: &Json,
    ) -> Result<Option<StateChange>> {
        let change = retry(&self.ns, || self.commit_change(key, new, source, metadata))?;
        if let Some(change) = &change {
            self.tell(change);
        }
        Ok(change)
    }

    fn commit_change(
        &self,
        key: &str,
        new: Option<&Json>,
        source: &str,
        metadata: &Json,
    ) -> Result<Option<StateChange>> {
        let schema = Schema::default();
        let header_entry = self.store.get(&self.ns, HEADER)?;
        let mut header: Header = match &header_entry {
            Some(entry) => schema.decode(&entry.value)?,
            None => Header::default(),
        };
        let at_key = value_key(key);
        let entry = self.store.get(&self.ns, &at_key)?;
        if new.is_none() && entry.is_none() {
            return Ok(None);
        }
        let old = entry.as_ref().map(|entry| schema.decode(&entry.value)).transpose()?;
        header.seq += 1;
        let at = self.store.now();
        let change = StateChange {
            seq: Seq(header.seq),
            event_id: event_id(at),
            at,
            key: key.to_owned(),
            old,
            new: new.cloned(),
            source: source.to_owned(),
            metadata: metadata.clone(),
        };
        let batch = Batch::new(&self.ns)
            .unchanged(HEADER, header_entry.as_ref())
            .unchanged(at_key.clone(), entry.as_ref())
            .put(HEADER, schema.encode(&header)?, Ttl::Never)
            .put(event_key(change.seq), schema.encode(&change)?, Ttl::Never)
            .put(index_key(key, change.seq), "", Ttl::Never);
        let batch = match new {
            Some(value) => batch.put(at_key, schema.encode(value)?, Ttl::Never),
            None => batch.delete(at_key),
        };
        self.store.commit(batch)?;
        Ok(Some(change))
    }

    /// Tells every listener; one that panics keeps no other from hearing.
    fn tell(&self, change: &StateChange) {
        let listeners = self.listeners.lock().all.clone();
        for (_, listener) in listeners {
            let told = catch_unwind(AssertUnwindSafe(|| listener.on_state_change(change)));
            if told.is_err() {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Events before a place, of one key or of all, the newest first, at most `limit`.
    #[doc(alias = "get_audit_trail")]
    pub fn audit(
        &self,
        key: Option<&str>,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<StateChange>> {
        self.audit_during(Millis(0)..Millis(u64::MAX), key, before, limit)
    }

    /// The same, of a span of time.
    pub fn audit_during(
        &self,
        during: Range<Millis>,
        key: Option<&str>,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<StateChange>> {
        Error::check_limit("events of a call", limit, SCAN_ROWS_MAX)?;
        let prefix = key.map_or_else(|| b"e".to_vec(), index_prefix);
        let mut scan = Scan { limit: usize::MAX, ..Scan::prefix(&prefix) }.reverse();
        if let Some(before) = before {
            scan = scan.before([&prefix[..], &before.0.to_be_bytes()].concat());
        }
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.store.walk(&self.ns, scan, |row, entry| {
            let entry = match key {
                Some(_) => self.store.get(&self.ns, &event_key(seq_of(&row)?))?,
                None => Some(entry),
            };
            // Retention may have taken it since.
            let Some(entry) = entry else { return Ok(true) };
            let change: StateChange = Schema::default().decode(&entry.value)?;
            let after = change.at >= during.start;
            if after && change.at < during.end {
                found.push(change);
            }
            Ok(after && found.len() < limit)
        })?;
        Ok(found)
    }

    /// Deletes the oldest events until the rest is within the bounds; answers how many went. The
    /// state stays. `size` is bytes as stored.
    pub fn retain(&self, retention: Retention) -> Result<u64> {
        let read = |stored: &[u8]| {
            let change: StateChange = Schema::default().decode(stored)?;
            Ok((change.at, Some(index_key(&change.key, change.seq))))
        };
        retain_rows(&*self.store, &self.ns, b"e", retention, read)
    }

    /// The keys that are there and their values, behind `after`, at most `limit`.
    pub fn state(&self, after: Option<&str>, limit: usize) -> Result<Vec<(String, Json)>> {
        let mut scan = Scan::prefix(b"k").limit(limit);
        if let Some(after) = after {
            scan = scan.after(value_key(after));
        }
        let pair = |(row, entry): (Bytes, Entry)| {
            let key = String::from_utf8(row.get(1..).unwrap_or(&[]).to_vec())
                .map_err(|_| Error::corrupt("state", "a key that is not text"))?;
            Ok((key, Schema::default().decode(&entry.value)?))
        };
        self.store.scan(&self.ns, scan)?.into_iter().map(pair).collect()
    }
}

/// A UUID of version 7 with the store's time.
fn event_id(at: Millis) -> String {
    let (seconds, ms) = (at.0 / 1000, at.0 % 1000);
    let nanoseconds = u32::try_from(ms).unwrap_or(0) * 1_000_000;
    let moment = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds);
    uuid::Uuid::new_v7(moment).to_string()
}

fn value_key(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes()].concat()
}

fn event_key(seq: Seq) -> Vec<u8> {
    [&b"e"[..], &seq.0.to_be_bytes()].concat()
}

fn index_prefix(key: &str) -> Vec<u8> {
    [&b"x"[..], &keys::join(&[key.as_bytes()])].concat()
}

fn index_key(key: &str, seq: Seq) -> Vec<u8> {
    let mut row = index_prefix(key);
    row.extend_from_slice(&seq.0.to_be_bytes());
    row
}

fn seq_of(row: &[u8]) -> Result<Seq> {
    let tail = row.len().checked_sub(8).and_then(|at| row.get(at..)).unwrap_or(&[]);
    keys::number(tail).map(Seq)
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
