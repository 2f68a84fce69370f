//! A session's state as one JSON document: everything that is stored, and back.
//! Knows the document; what the rows mean, `state` knows.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::codec::Json;
use crate::error::{Error, Result};
use crate::state::rows::{self, Rows};
use crate::state::{SessionStateManager, SnapshotInfo};
use crate::store::{Batch, SCAN_ROWS_MAX, Scan, Seq, StoreExt, Ttl, retry};

const FORMAT: &str = "terrace-session-state";
/// The longest document that is read: 1 GiB.
const DOCUMENT_LEN_MAX: u64 = 1 << 30;
/// Rows and bytes of one commit of an import.
const IMPORT_ROWS: usize = 1000;
const IMPORT_LEN: usize = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Document {
    format: String,
    version: u32,
    seq: Seq,
    last_snapshot: u64,
    keys: BTreeMap<String, Vec<Version>>,
    snapshots: Vec<SnapshotInfo>,
}

#[derive(Serialize, Deserialize)]
struct Version {
    seq: Seq,
    /// Not there when the key was removed; `null` is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Json>,
}

/// A field that is there is a value, `null` too.
fn present<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

impl SessionStateManager {
    /// Writes everything as one JSON document: every version that is kept, and every snapshot.
    /// Nothing is lost: imported, it is the same state.
    #[doc(alias = "save_snapshots")]
    pub fn export(&self, out: &mut dyn Write) -> Result<()> {
        // Read as of one header before anything is written.
        let document = retry(&self.ns, || {
            let (entry, header) = rows::read_header(&*self.store, &self.ns)?;
            let rows = Rows { epoch: header.epoch };
            let mut keys: BTreeMap<String, Vec<Version>> = BTreeMap::new();
            let scan = Scan { limit: usize::MAX, ..Scan::prefix(&rows.all_versions()) };
            self.store.walk(&self.ns, scan, |row, entry| {
                let (key, seq) = Rows::of_version(&row)?;
                let value = rows::decode_value(&entry.value)?;
                keys.entry(key).or_default().push(Version { seq, value });
                Ok(true)
            })?;
            let snapshots = self.snapshots_of(rows)?;
            let (after, _) = rows::read_header(&*self.store, &self.ns)?;
            if after.as_ref().map(|one| one.version) != entry.as_ref().map(|one| one.version) {
                let found = after.map(|one| one.version);
                return Err(Error::Conflict { key: rows::HEADER.into(), found });
            }
            let (format, seq, last_snapshot) = (FORMAT.to_owned(), header.seq, header.snapshot);
            Ok(Document { format, version: 1, seq, last_snapshot, keys, snapshots })
        })?;
        serde_json::to_writer(&mut *out, &document).map_err(|error| {
            match error.io_error_kind() {
                Some(kind) => Error::Io(kind.into()),
                None => Error::Codec(error.to_string()),
            }
        })?;
        out.flush()?;
        Ok(())
    }

    /// Reads what [`SessionStateManager::export`] wrote into a session without any state. It is
    /// there as a whole or not at all.
    ///
    /// Errors: [`Error::Invalid`] when the session has state, [`Error::Codec`] for another
    /// document, [`Error::Limit`] above 1 GiB.
    #[doc(alias = "load_snapshots")]
    pub fn import(&self, from: &mut dyn Read) -> Result<()> {
        let mut text = Vec::new();
        from.take(DOCUMENT_LEN_MAX + 1).read_to_end(&mut text)?;
        Error::check_limit("document", text.len(), DOCUMENT_LEN_MAX)?;
        let document: Document =
            serde_json::from_slice(&text).map_err(|error| Error::Codec(error.to_string()))?;
        if document.format != FORMAT || document.version != 1 {
            return Err(Error::Codec(format!("not a {FORMAT} of version 1")));
        }
        check(&document)?;
        let (entry, mut header) = rows::read_header(&*self.store, &self.ns)?;
        if header.seq != Seq(0) || header.snapshot != 0 {
            return Err(Error::Invalid("an import into a session that has state"));
        }
        Rows { epoch: header.epoch }.delete_others(&*self.store, &self.ns)?;
        header.epoch += 1;
        let rows = Rows { epoch: header.epoch };
        self.import_rows(rows, &document)?;
        header.seq = document.seq;
        header.snapshot = document.last_snapshot;
        header.snapshots = document.snapshots.len() as u64;
        header.seen = document.snapshots.last().map_or(Seq(0), |last| last.seq);
        let batch = rows::stage_header(Batch::new(&self.ns), entry.as_ref(), &header)?;
        self.store.commit(batch)?;
        Ok(())
    }

    /// Writes the rows of an epoch that nobody sees yet, some at a time.
    fn import_rows(&self, rows: Rows, document: &Document) -> Result<()> {
        let (mut batch, mut len) = (Batch::new(&self.ns), 0);
        let versions = document.keys.iter();
        let versions = versions.flat_map(|(key, all)| all.iter().map(move |one| (key, one)));
        for (key, Version { seq, value }) in versions {
            let stored = rows::encode_value(value.as_ref())?;
            len += stored.len();
            batch = batch.put(rows.version(key, *seq), stored, Ttl::Never).put(
                rows.change(*seq),
                key.clone(),
                Ttl::Never,
            );
            if batch.ops.len() >= IMPORT_ROWS || len >= IMPORT_LEN {
                self.store.commit(std::mem::replace(&mut batch, Batch::new(&self.ns)))?;
                len = 0;
            }
        }
        for info in &document.snapshots {
            let stored = crate::codec::Schema::default().encode(info)?;
            batch = batch.put(rows.snapshot(info.id.0), stored, Ttl::Never);
        }
        self.store.commit(batch)?;
        Ok(())
    }
}

/// Refuses a document that no export can have written.
fn check(document: &Document) -> Result<()> {
    let wrong = |what: &str| Err(Error::Codec(format!("a document {what}")));
    Error::check_limit("snapshots", document.snapshots.len(), SCAN_ROWS_MAX / 2)?;
    let mut seqs = std::collections::BTreeSet::new();
    for version in document.keys.values().flatten() {
        if version.seq == Seq(0) || version.seq > document.seq || !seqs.insert(version.seq) {
            return wrong("whose changes are out of order");
        }
    }
    if !document.snapshots.is_sorted_by(|a, b| a.id < b.id && a.seq <= b.seq) {
        return wrong("whose snapshots are out of order");
    }
    match document.snapshots.last() {
        Some(last) if last.id.0 > document.last_snapshot || last.seq > document.seq => {
            wrong("with a snapshot of the future")
        }
        _ => Ok(()),
    }
}
