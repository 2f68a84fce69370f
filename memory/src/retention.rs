//! How much of an append-only history is kept. Plain bounds; who keeps to them says how.

use std::time::Duration;

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
