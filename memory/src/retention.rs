//! How much of an append-only history is kept: bounds, and the loop for rows in order of age.
//! Knows rows and moments; what a row means, its owner says.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::store::{Batch, Millis, Ns, Scan, Store, StoreExt};

/// Rows that one commit deletes.
const ROWS: usize = 1000;

/// Bounds of a history. What is over one of them is deleted, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// At most so many.
    pub count: Option<u64>,
    /// None older than this.
    pub age: Option<Duration>,
    /// At most so much: tokens of a conversation, bytes of events and snapshots.
    pub size: Option<u64>,
}

impl Retention {
    /// The newest so many.
    pub fn count(count: u64) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    /// What is not older than this.
    pub fn age(age: Duration) -> Self {
        Self { age: Some(age), ..Self::default() }
    }

    /// The newest that take so much together.
    pub fn size(size: u64) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
}

/// Deletes the oldest rows of a prefix until the rest is within the bounds; answers how many went.
/// Keys are in order of age; `read` says when a row was made, and which other row goes with it.
/// `size` is bytes as stored.
pub(crate) fn retain_rows(
    store: &dyn Store,
    ns: &Ns,
    prefix: &[u8],
    retention: Retention,
    read: impl Fn(&[u8]) -> Result<(Millis, Option<Vec<u8>>)>,
) -> Result<u64> {
    let now = store.now();
    let scan = Scan { limit: usize::MAX, ..Scan::prefix(prefix) };
    let (mut count, mut size) = (0_u64, 0_u64);
    let mut doomed: Vec<(Bytes, Option<Vec<u8>>)> = Vec::new();
    store.walk(ns, scan.reverse(), |key, entry| {
        count += 1;
        size += entry.value.len() as u64;
        let (at, also) = read(&entry.value)?;
        let over = retention.count.is_some_and(|most| count > most)
            || retention.size.is_some_and(|most| size > most)
            || retention.age.is_some_and(|age| now.since(at) > age);
        if over || !doomed.is_empty() {
            doomed.push((key, also));
        }
        Ok(true)
    })?;
    // The oldest first, so that what is left has no gap wherever this ends.
    for rows in doomed.rchunks(ROWS) {
        let delete = |batch: Batch, (key, also): &(Bytes, Option<Vec<u8>>)| {
            also.iter().cloned().fold(batch.delete(key.clone()), Batch::delete)
        };
        store.commit(rows.iter().rev().fold(Batch::new(ns), delete))?;
    }
    Ok(doomed.len() as u64)
}
