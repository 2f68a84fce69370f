//! State that several nodes share: each writes its own copy, and all come to hold the same.
//!
//! For each key the last writer wins, by a hybrid logical clock; a deleted key leaves a tombstone.
//! What changed is kept in one order of places, one row a key, so that what a peer has not
//! acknowledged is never more than the keys there are. Frames may be lost, doubled, reordered;
//! applying one twice changes nothing. Sums over all keys are compared now and then, so that also
//! a node whose store was lost or set back comes to hold what the others do.

mod frame;
mod hlc;
mod pump;
mod rows;
mod tcp;
mod transport;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::Stopwatch;
use crate::codec::{Json, Schema};
use crate::error::{Error, Result};
use crate::store::{Batch, Ns, Scan, Store, StoreExt, Ttl, retry};
pub use crate::sync::frame::FRAME_LEN_MAX;
pub use crate::sync::hlc::Hlc;
use crate::sync::pump::Link;
use crate::sync::rows::{Header, PeerRow, Register};
pub use crate::sync::tcp::TcpTransport;
pub use crate::sync::transport::{LocalNetwork, LocalTransport, Transport};
pub use crate::worker::Worker;

/// The longest key, and the longest value as JSON, in bytes.
const KEY_LEN_MAX: u64 = 512;
const VALUE_LEN_MAX: u64 = 1 << 20;
const NODE_LEN_MAX: u64 = 128;
const WORKER_WAIT: Duration = Duration::from_millis(100);

/// What one call of [`DistributedSessionSync::pump`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pumped {
    /// Frames sent.
    pub sent: u64,
    /// Frames that could not be sent; they are sent again.
    pub lost: u64,
    /// Frames received.
    pub received: u64,
    /// Keys that changed here.
    pub applied: u64,
    /// Frames that were not understood, or came from nobody we know, or from the future.
    pub refused: u64,
}

/// One node's copy of a session. Clones share it.
#[derive(Clone)]
pub struct DistributedSessionSync {
    store: Arc<dyn Store>,
    transport: Arc<dyn Transport>,
    ns: Ns,
    node: Arc<str>,
    /// Protects: what was sent to whom. Never held while the store or the transport is called.
    links: Arc<Mutex<HashMap<String, Link>>>,
}

impl fmt::Debug for DistributedSessionSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistributedSessionSync({:?} of {:?})", self.node, self.ns)
    }
}

impl DistributedSessionSync {
    /// The copy of a session that `node` has. Two nodes never have one name.
    pub fn open(
        store: Arc<dyn Store>,
        session: &str,
        node: &str,
        transport: Arc<dyn Transport>,
    ) -> Result<Self> {
        let ns = Ns::within("sync", session)?.without_log();
        Error::check_limit("name of a node", node.len(), NODE_LEN_MAX)?;
        retry(&ns, || {
            let (entry, mut header) = Header::read(&*store, &ns)?;
            if entry.is_some() {
                return Ok(());
            }
            // Greater than that of a store that was here before, unless the clock went back.
            header.incarnation =
                store.now().0 << 20 | uuid::Uuid::now_v7().as_u64_pair().1 & 0xF_FFFF;
            store.commit(header.batch(&ns, None)?).map(|_| ())
        })?;
        let links = Arc::default();
        Ok(Self { store, transport, ns, node: node.into(), links })
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Adds a peer; `false` when it was one already. It is sent everything, and what it sends is
    /// taken.
    pub fn add_peer(&self, id: &str) -> Result<bool> {
        if id == &*self.node || id.is_empty() {
            return Err(Error::Invalid("a peer is another node"));
        }
        Error::check_limit("name of a node", id.len(), NODE_LEN_MAX)?;
        let key = rows::peer_key(id);
        let value = Schema::default().encode(&PeerRow::default())?;
        let batch = Batch::new(&self.ns).unchanged(key.clone(), None);
        match self.store.commit(batch.put(key, value, Ttl::Never)) {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets a peer; `false` when it was none.
    pub fn remove_peer(&self, id: &str) -> Result<bool> {
        self.links.lock().remove(id);
        self.store.delete(&self.ns, rows::peer_key(id))
    }

    /// The peers, in order.
    pub fn peers(&self) -> Result<Vec<String>> {
        Ok(self.peer_rows()?.into_keys().collect())
    }

    fn peer_rows(&self) -> Result<BTreeMap<String, PeerRow>> {
        let mut found = BTreeMap::new();
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(b"p") };
        self.store.walk(&self.ns, scan, |key, entry| {
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or(&[])).into_owned();
            found.insert(name, Schema::default().decode(&entry.value)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// Writes a value here, at once; the peers get it with the next calls of `pump`.
    #[doc(alias = "broadcast_state_change")]
    pub fn set(&self, key: &str, value: &Json) -> Result<Hlc> {
        let len = serde_json::to_string(value).map_or(0, |text| text.len());
        Error::check_limit("value", len, VALUE_LEN_MAX)?;
        self.write(key, Some(value))
    }

    /// Deletes a key here and, with the next calls of `pump`, everywhere.
    pub fn remove(&self, key: &str) -> Result<Hlc> {
        self.write(key, None)
    }

    fn write(&self, key: &str, value: Option<&Json>) -> Result<Hlc> {
        Error::check_limit("key", key.len(), KEY_LEN_MAX)?;
        retry(&self.ns, || {
            let (entry, mut header) = Header::read(&*self.store, &self.ns)?;
            let old = rows::register(&*self.store, &self.ns, key)?;
            let hlc = Hlc::next((header.at, header.count), self.store.now(), &self.node);
            let batch = Batch::new(&self.ns);
            let new = (hlc.clone(), value.cloned());
            let batch = header.stage(batch, key, old.as_ref(), new)?;
            let mut whole = header.batch(&self.ns, entry.as_ref())?;
            whole.ops.extend(batch.ops);
            self.store.commit(whole)?;
            Ok(hlc)
        })
    }

    /// What this node holds.
    pub fn get(&self, key: &str) -> Result<Option<Json>> {
        let found = rows::register(&*self.store, &self.ns, key)?;
        Ok(found.and_then(Register::live))
    }

    /// All keys and values that this node holds.
    pub fn all(&self) -> Result<BTreeMap<String, Json>> {
        let mut found = BTreeMap::new();
        self.each_register(|key, register| {
            found.extend(register.live().map(|value| (key, value)));
            Ok(())
        })?;
        Ok(found)
    }

    fn each_register(&self, mut each: impl FnMut(String, Register) -> Result<()>) -> Result<()> {
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(b"v") };
        self.store.walk(&self.ns, scan, |key, entry| {
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or(&[])).into_owned();
            each(name, Schema::default().decode(&entry.value)?)?;
            Ok(true)
        })
    }

    /// Keys whose newest change a peer has not acknowledged.
    pub fn unacked(&self, peer: &str) -> Result<u64> {
        let row = self.peer_rows()?.remove(peer);
        let acked = row.ok_or(Error::Invalid("no such peer"))?.acked;
        let mut count = 0;
        self.store.walk(&self.ns, places_after(acked), |_, _| {
            count += 1;
            Ok(true)
        })?;
        Ok(count)
    }

    /// Pumps until all peers have this change or a newer one of its key; `false` when that took
    /// longer.
    pub fn wait_acked(&self, upto: &Hlc, wait: Duration) -> Result<bool> {
        let watch = Stopwatch::start(wait);
        loop {
            if self.is_acked(upto)? {
                return Ok(true);
            }
            let Some(left) = watch.left() else { return Ok(false) };
            self.pump(left.min(WORKER_WAIT))?;
        }
    }

    fn is_acked(&self, upto: &Hlc) -> Result<bool> {
        let least = self.peer_rows()?.values().map(|row| row.acked).min();
        let Some(acked) = least else { return Ok(true) };
        let mut done = true;
        self.store.walk(&self.ns, places_after(acked), |_, entry| {
            let key = String::from_utf8_lossy(&entry.value).into_owned();
            let register = rows::register(&*self.store, &self.ns, &key)?;
            done &= register.is_none_or(|register| register.hlc > *upto);
            Ok(done)
        })?;
        Ok(done)
    }

    /// Deletes tombstones older than this that all peers have acknowledged; answers how many. A
    /// node that was away for longer may bring its older value back.
    pub fn sweep(&self, age: Duration) -> Result<u64> {
        let least = self.peer_rows()?.values().map(|row| row.acked).min().unwrap_or(u64::MAX);
        let now = self.store.now();
        let mut doomed = Vec::new();
        self.each_register(|key, register| {
            let old = now.since(register.hlc.at) > age && register.place <= least;
            if old && register.deleted {
                doomed.push((key, register.place));
            }
            Ok(())
        })?;
        let mut swept = 0;
        for (key, place) in doomed {
            swept += u64::from(retry(&self.ns, || {
                let (entry, header) = Header::read(&*self.store, &self.ns)?;
                let found = rows::register(&*self.store, &self.ns, &key)?;
                if found.is_none_or(|found| found.place != place) {
                    return Ok(false);
                }
                let batch = header.batch(&self.ns, entry.as_ref())?;
                let batch = batch.delete(rows::register_key(&key)).delete(rows::place_key(place));
                self.store.commit(batch).map(|_| true)
            })?);
        }
        Ok(swept)
    }

    /// Pumps in a thread of its own until the worker is dropped.
    pub fn spawn(&self) -> Worker {
        let this = self.clone();
        Worker::spawn(move |end| {
            while !end.load(Ordering::Acquire) {
                this.pump(WORKER_WAIT)?;
            }
            Ok(())
        })
    }
}

fn places_after(place: u64) -> Scan {
    let from = Bound::Excluded(Bytes::from(rows::place_key(place)));
    Scan { from, limit: usize::MAX, ..Scan::prefix(b"o") }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
