//! The rows of a synchronised session.
//! Knows keys and values; what is sent when, `sync` says.
//!
//! | key | value |
//! |---|---|
//! | `h` | the header: which store this is, the last moment seen, the last place given |
//! | `v`, key | the register: value or none, moment, place |
//! | `o`, place | the key that changed there; one row a key, the newest |
//! | `p`, peer | what the peer has acknowledged, and what was seen of it |

use serde::{Deserialize, Serialize};

use crate::codec::{Json, Schema};
use crate::error::Result;
use crate::store::{Batch, Entry, Millis, Ns, Store, Ttl};
use crate::sync::hlc::Hlc;

pub(crate) const HEADER: &[u8] = b"h";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Tells this store from one that was here before it: later ones are greater.
    pub incarnation: u64,
    /// The last moment seen, of any node.
    pub at: Millis,
    pub count: u32,
    /// The last place given.
    pub place: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Register {
    pub hlc: Hlc,
    pub place: u64,
    /// Whether this is a tombstone. A stored null is none.
    pub deleted: bool,
    pub value: Json,
}

impl Register {
    /// The value; `None` when the key was deleted.
    pub(crate) fn live(self) -> Option<Json> {
        if self.deleted { None } else { Some(self.value) }
    }
}

/// How far a peer is, and how far it has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRow {
    /// The peer's store that acknowledged, and up to which place of ours.
    pub acked_by: u64,
    pub acked: u64,
    /// The peer's store that sent, and up to which place of its own without a gap.
    pub seen_of: u64,
    pub seen: u64,
}

impl Header {
    pub(crate) fn read(store: &dyn Store, ns: &Ns) -> Result<(Option<Entry>, Self)> {
        let entry = store.get(ns, HEADER)?;
        let header = entry.as_ref().map(|entry| Schema::default().decode(&entry.value));
        Ok((entry, header.transpose()?.unwrap_or_default()))
    }

    /// A batch that happens only if nobody else changed the session since `read`.
    pub(crate) fn batch(&self, ns: &Ns, read: Option<&Entry>) -> Result<Batch> {
        let value = Schema::default().encode(self)?;
        Ok(Batch::new(ns).unchanged(HEADER, read).put(HEADER, value, Ttl::Never))
    }

    /// Puts a register at the next place; its older place goes.
    pub(crate) fn stage(
        &mut self,
        mut batch: Batch,
        key: &str,
        old: Option<&Register>,
        (hlc, value): (Hlc, Option<Json>),
    ) -> Result<Batch> {
        self.place += 1;
        if hlc.seen() > (self.at, self.count) {
            (self.at, self.count) = hlc.seen();
        }
        if let Some(old) = old {
            batch = batch.delete(place_key(old.place));
        }
        let (place, deleted) = (self.place, value.is_none());
        let register = Register { hlc, place, deleted, value: value.unwrap_or_default() };
        let value = Schema::default().encode(&register)?;
        batch = batch.put(place_key(self.place), key.to_owned(), Ttl::Never);
        Ok(batch.put(register_key(key), value, Ttl::Never))
    }
}

pub(crate) fn register_key(key: &str) -> Vec<u8> {
    [b"v", key.as_bytes()].concat()
}

pub(crate) fn place_key(place: u64) -> Vec<u8> {
    [&b"o"[..], &place.to_be_bytes()].concat()
}

pub(crate) fn peer_key(peer: &str) -> Vec<u8> {
    [b"p", peer.as_bytes()].concat()
}

pub(crate) fn register(store: &dyn Store, ns: &Ns, key: &str) -> Result<Option<Register>> {
    let entry = store.get(ns, &register_key(key))?;
    entry.map(|entry| Schema::default().decode(&entry.value)).transpose()
}
