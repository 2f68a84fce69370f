//! The rows of a session's state: header, versions, changes, snapshots.
//! Knows keys and bytes; knows nothing of what is reachable.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{Json, Schema};
use crate::error::{Error, Result};
use crate::keys;
use crate::state::SnapshotInfo;
use crate::store::{Batch, Entry, Ns, Scan, Seq, Store, Ttl};

pub(crate) const HEADER: &[u8] = b"h";
const DELETE_ROWS: usize = 1000;

/// The one row that every change rewrites under a guard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Which rows are the state: an import writes under a new epoch, then switches.
    pub epoch: u64,
    /// The last change.
    pub seq: Seq,
    /// The number of the last snapshot.
    pub snapshot: u64,
    /// What the newest snapshot sees: versions up to here may be needed.
    pub seen: Seq,
    /// Snapshots that are kept.
    pub snapshots: u64,
    /// Whether there are versions that nobody sees.
    #[serde(default)]
    pub garbage: bool,
}

/// The keys of one epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub epoch: u64,
}

impl Rows {
    fn key(self, kind: u8, rest: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![kind];
        key.extend_from_slice(&self.epoch.to_be_bytes());
        for part in rest {
            key.extend_from_slice(part);
        }
        key
    }

    /// What the keys of all versions of all keys begin with.
    pub(crate) fn all_versions(self) -> Vec<u8> {
        self.key(b'v', &[])
    }

    /// What the keys of all versions of a key begin with.
    pub(crate) fn versions(self, key: &str) -> Vec<u8> {
        self.key(b'v', &[&keys::join(&[key.as_bytes()])])
    }

    pub(crate) fn version(self, key: &str, seq: Seq) -> Vec<u8> {
        self.key(b'v', &[&keys::join(&[key.as_bytes()]), &seq.0.to_be_bytes()])
    }

    pub(crate) fn changes(self) -> Vec<u8> {
        self.key(b'c', &[])
    }

    pub(crate) fn change(self, seq: Seq) -> Vec<u8> {
        self.key(b'c', &[&seq.0.to_be_bytes()])
    }

    pub(crate) fn snapshots(self) -> Vec<u8> {
        self.key(b'p', &[])
    }

    pub(crate) fn snapshot(self, id: u64) -> Vec<u8> {
        self.key(b'p', &[&id.to_be_bytes()])
    }

    /// The key and the place of a version, from its row.
    pub(crate) fn of_version(row: &[u8]) -> Result<(String, Seq)> {
        let (key, rest) = keys::split_text(row.get(9..).unwrap_or(&[]))?;
        Ok((key, Seq(keys::number(rest)?)))
    }

    /// The newest version of a key at or before a place, deleted ones too.
    pub(crate) fn newest(
        self,
        store: &dyn Store,
        ns: &Ns,
        key: &str,
        at: Seq,
    ) -> Result<Option<(Seq, Option<Json>)>> {
        let end = self.version(key, Seq(at.0.saturating_add(1)));
        let scan = Scan::prefix(&self.versions(key)).before(end).reverse().limit(1);
        let Some((row, entry)) = store.scan(ns, scan)?.into_iter().next() else { return Ok(None) };
        Ok(Some((Self::of_version(&row)?.1, decode_value(&entry.value)?)))
    }

    /// The first version of a key behind a place, if it says that the key was removed.
    pub(crate) fn removal_after(
        self,
        store: &dyn Store,
        ns: &Ns,
        key: &str,
        at: Seq,
    ) -> Result<Option<Seq>> {
        let scan = Scan::prefix(&self.versions(key)).after(self.version(key, at)).limit(1);
        let Some((row, entry)) = store.scan(ns, scan)?.into_iter().next() else { return Ok(None) };
        let removed = decode_value(&entry.value)?.is_none();
        Ok(if removed { Some(Self::of_version(&row)?.1) } else { None })
    }

    /// Deletes rows of other epochs.
    pub(crate) fn delete_others(self, store: &dyn Store, ns: &Ns) -> Result<()> {
        for (kind, own) in
            [(b"v", self.all_versions()), (b"c", self.changes()), (b"p", self.snapshots())]
        {
            let behind = keys::after_prefix(&own).unwrap_or_default();
            for scan in [Scan::prefix(kind).before(own), Scan::prefix(kind).from(behind)] {
                loop {
                    let rows = store.scan(ns, scan.clone().limit(DELETE_ROWS))?;
                    if rows.is_empty() {
                        break;
                    }
                    let delete = |batch: Batch, (key, _): (Bytes, Entry)| batch.delete(key);
                    store.commit(rows.into_iter().fold(Batch::new(ns), delete))?;
                }
            }
        }
        Ok(())
    }
}

/// 1 and a value, or 0 alone for "removed".
pub(crate) fn encode_value(value: Option<&Json>) -> Result<Bytes> {
    let Some(value) = value else { return Ok(Bytes::from_static(&[0])) };
    let encoded = Schema::default().encode(value)?;
    Ok([&[1], &encoded[..]].concat().into())
}

pub(crate) fn decode_value(stored: &[u8]) -> Result<Option<Json>> {
    match stored {
        [0] => Ok(None),
        [1, value @ ..] => Schema::default().decode(value).map(Some),
        other => Err(Error::corrupt("version", format!("flag {:?}", other.first()))),
    }
}

/// The header, and its row.
pub(crate) fn read_header(store: &dyn Store, ns: &Ns) -> Result<(Option<Entry>, Header)> {
    let entry = store.get(ns, HEADER)?;
    let header = match &entry {
        Some(entry) => Schema::default().decode(&entry.value)?,
        None => Header::default(),
    };
    Ok((entry, header))
}

/// Adds the header to a batch, under the guard that it was not changed.
pub(crate) fn stage_header(batch: Batch, read: Option<&Entry>, header: &Header) -> Result<Batch> {
    let stored = Schema::default().encode(header)?;
    Ok(batch.unchanged(HEADER, read).put(HEADER, stored, Ttl::Never))
}

pub(crate) fn decode_snapshot(entry: &Entry) -> Result<SnapshotInfo> {
    Schema::default().decode(&entry.value)
}
