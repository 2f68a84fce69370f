//! The header of a conversation, and the keys of its rows.
//! Knows figures and keys; knows nothing of texts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Schema;
use crate::conversation::{DELETE_ROWS, GroupId};
use crate::error::Result;
use crate::store::{Batch, Entry, Millis, Ns, Scan, Seq, Store};

pub(crate) const KEY: &[u8] = b"h";

/// The one row that every change of a conversation rewrites under a guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Tells a session from a deleted one of the same id.
    pub incarnation: u64,
    /// Which rows are its messages.
    pub epoch: u64,
    pub deleted: bool,
    /// Who counted the tokens.
    pub counter: String,
    pub created: Millis,
    pub updated: Millis,
    /// The place of the next message; the first of all is 1.
    pub next: Seq,
    /// Messages that are kept.
    pub len: u64,
    /// Tokens of all messages since it began, deleted ones included.
    pub total: u64,
    /// Tokens of the deleted ones among them.
    pub first_before: u64,
    /// System messages that are kept, and their tokens.
    pub system_len: u64,
    pub system_tokens: u64,
    /// Where the newest group begins; 0 when there is none.
    pub group_start: Seq,
    pub group: Option<GroupId>,
    /// Whether something was said that a tool's message can belong to.
    pub answered: bool,
}

impl Header {
    /// A conversation that begins now, after `old` when there was one.
    pub(crate) fn begin(now: Millis, old: Option<&Self>, counter: &str) -> Self {
        let epoch = old.map_or(now.0, |old| now.0.max(old.epoch + 1));
        Self {
            incarnation: epoch,
            epoch,
            deleted: false,
            counter: counter.to_owned(),
            created: now,
            updated: now,
            next: Seq(1),
            len: 0,
            total: 0,
            first_before: 0,
            system_len: 0,
            system_tokens: 0,
            group_start: Seq(0),
            group: None,
            answered: false,
        }
    }

    /// The same conversation without any message, under a new epoch.
    pub(crate) fn cleared(&self, now: Millis) -> Self {
        let mut header = Self::begin(now, Some(self), &self.counter);
        header.incarnation = self.incarnation;
        header.created = self.created;
        header.next = self.next;
        header
    }

    /// What says that it was deleted.
    pub(crate) fn tombstone(&self) -> Self {
        Self { deleted: true, ..self.clone() }
    }

    /// Tokens of the messages that are kept.
    pub(crate) fn tokens(&self) -> u64 {
        self.total.saturating_sub(self.first_before)
    }

    pub(crate) fn encode(&self) -> Result<Bytes> {
        Schema::default().encode(self)
    }

    pub(crate) fn decode(entry: &Entry) -> Result<Self> {
        Schema::default().decode(&entry.value)
    }
}

/// What the keys of all messages of an epoch begin with.
pub(crate) fn messages(epoch: u64) -> Vec<u8> {
    row_key(b'm', epoch, None)
}

pub(crate) fn message(epoch: u64, seq: Seq) -> Vec<u8> {
    row_key(b'm', epoch, Some(seq))
}

/// What the keys that say where system messages are begin with.
pub(crate) fn systems(epoch: u64) -> Vec<u8> {
    row_key(b's', epoch, None)
}

pub(crate) fn system(epoch: u64, seq: Seq) -> Vec<u8> {
    row_key(b's', epoch, Some(seq))
}

fn row_key(kind: u8, epoch: u64, seq: Option<Seq>) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&epoch.to_be_bytes());
    if let Some(seq) = seq {
        key.extend_from_slice(&seq.0.to_be_bytes());
    }
    key
}

/// Deletes the rows of all epochs before this one, some at a time.
pub(crate) fn delete_epochs_before(store: &dyn Store, ns: &Ns, epoch: u64) -> Result<()> {
    for (all, end) in [(b"m", messages(epoch)), (b"s", systems(epoch))] {
        loop {
            let scan = Scan::prefix(all).before(end.clone()).limit(DELETE_ROWS);
            let rows = store.scan(ns, scan)?;
            if rows.is_empty() {
                break;
            }
            let delete = |batch: Batch, (key, _): (Bytes, Entry)| batch.delete(key);
            store.commit(rows.into_iter().fold(Batch::new(ns), delete))?;
        }
    }
    Ok(())
}
