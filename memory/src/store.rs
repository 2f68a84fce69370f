//! The one trait under all abstractions: read, ordered scan, guarded commit, changes, a clock.
//! Knows bytes, versions and deadlines; knows nothing of what they mean to an agent.
//!
//! A namespace ([`Ns`]) is a set of keys with an order of its own. One commit changes one
//! namespace, all or nothing, and only if its guards hold. From these five methods everything else
//! is made; [`StoreExt`] has the everyday calls. What every store must hold to is written as a
//! program: [`conformance`].

pub mod conformance;
mod contention;
mod engine;
mod ext;
mod layout;
mod memory;
mod ns;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

use std::ops::Bound;
use std::time::Duration;

pub use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::clock::{Clock, Millis};
use crate::error::{Error, Result};
pub use crate::store::contention::retry;
pub use crate::store::engine::EngineStore;
pub use crate::store::ext::StoreExt;
pub use crate::store::memory::MemStore;
pub use crate::store::ns::{ChangeLog, LogRetention, Ns};
#[cfg(feature = "postgres")]
pub use crate::store::postgres::PgStore;
#[cfg(feature = "redis")]
pub use crate::store::redis::RedisStore;

/// The longest name of a namespace, in bytes.
pub const NS_LEN_MAX: u64 = 256;
/// The longest key, in bytes.
pub const KEY_LEN_MAX: u64 = 1024;
/// The largest value, in bytes: 16 MiB.
pub const VALUE_LEN_MAX: u64 = 16 << 20;
/// The most operations of one commit.
pub const BATCH_OPS_MAX: u64 = 10_000;
/// The most bytes of keys and values of one commit: 64 MiB.
pub const BATCH_LEN_MAX: u64 = 64 << 20;
/// The most rows that one scan, and changes that one call of `changes`, gives.
pub const SCAN_ROWS_MAX: u64 = 10_000;

/// A place in the order of a namespace's changes. The first is 1; with a change log kept since the
/// first commit there are no gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// Which write a record is from. Every put of a namespace has a higher one than the put before.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value's bytes.
    pub value: Bytes,
    /// Which write it is from.
    pub version: Version,
    /// When it expires; `None` for never.
    pub deadline: Option<Millis>,
}

/// How long a put lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As long as the record that it replaces; for ever when there is none.
    Keep,
    /// For ever.
    #[default]
    Never,
    /// So long from now, by the store's clock. Zero is [`Error::Invalid`].
    For(Duration),
    /// Until this moment. A moment that has passed is [`Error::Invalid`].
    Until(Millis),
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Survives the death of the process.
    #[default]
    Buffered,
    /// Survives the death of the machine.
    Synced,
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// No live record.
    Absent,
    /// A live record of this version.
    Version(Version),
    /// A live record of any version.
    Any,
}

/// One step of a commit. A key is put or deleted at most once in a batch, and guarded at will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// How long it lives.
        ttl: Ttl,
    },
    /// Deletes a key. No change when it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Lets the commit happen only if this holds before it.
    Expect {
        /// The key.
        key: Bytes,
        /// What must hold.
        is: Guard,
    },
}

/// One commit: operations on one namespace that happen together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The namespace.
    pub ns: Ns,
    /// What to do, in order.
    pub ops: Vec<Op>,
    /// When it counts as done.
    pub durability: Durability,
}

impl Batch {
    /// An empty one, buffered.
    pub fn new(ns: &Ns) -> Self {
        Self { ns: ns.clone(), ops: Vec::new(), durability: Durability::Buffered }
    }

    /// With this durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Ttl) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), ttl });
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Adds a guard.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Bytes>, is: Guard) -> Self {
        self.ops.push(Op::Expect { key: key.into(), is });
        self
    }

    /// Adds the guard that `key` still holds what was read.
    #[must_use]
    pub fn unchanged(self, key: impl Into<Bytes>, read: Option<&Entry>) -> Self {
        let is = read.map_or(Guard::Absent, |entry| Guard::Version(entry.version));
        self.expect(key, is)
    }

    /// Refuses what no store accepts. Every store calls it first.
    pub fn check(&self) -> Result<()> {
        Error::check_limit("operations of a batch", self.ops.len(), BATCH_OPS_MAX)?;
        let mut total = 0_usize;
        let mut changed = std::collections::HashSet::with_capacity(self.ops.len());
        for op in &self.ops {
            let (key, value_len) = match op {
                Op::Put { key, value, .. } => (key, value.len()),
                Op::Delete { key } | Op::Expect { key, .. } => (key, 0),
            };
            check_key(key)?;
            Error::check_limit("value", value_len, VALUE_LEN_MAX)?;
            total = total.saturating_add(key.len()).saturating_add(value_len);
            if !matches!(op, Op::Expect { .. }) && !changed.insert(key) {
                return Err(Error::Invalid("a batch changes a key at most once"));
            }
            if let Op::Put { ttl: Ttl::For(Duration::ZERO), .. } = op {
                return Err(Error::Invalid("a TTL of zero; delete removes a key"));
            }
        }
        Error::check_limit("bytes of a batch", total, BATCH_LEN_MAX)
    }
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The last change of the namespace, this commit's included.
    pub seq: Seq,
    /// The version of the last change. The puts of a commit count up to it, in their order.
    pub version: Version,
}

/// Which rows, in which order, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// From here.
    pub from: Bound<Bytes>,
    /// To there.
    pub to: Bound<Bytes>,
    /// From the greatest key to the least.
    pub reverse: bool,
    /// At most so many rows, [`SCAN_ROWS_MAX`] at most.
    pub limit: usize,
}

impl Scan {
    /// All keys, as many as one call gives.
    pub fn all() -> Self {
        let limit = usize::try_from(SCAN_ROWS_MAX).unwrap_or(usize::MAX);
        Self { from: Bound::Unbounded, to: Bound::Unbounded, reverse: false, limit }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let to = crate::keys::after_prefix(prefix);
        Self {
            from: Bound::Included(Bytes::copy_from_slice(prefix)),
            to: to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.into())),
            ..Self::all()
        }
    }

    /// At most so many rows.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// From the greatest key to the least.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// From this key on.
    #[must_use]
    pub fn from(mut self, key: impl Into<Bytes>) -> Self {
        self.from = Bound::Included(key.into());
        self
    }

    /// Behind this key.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Self {
        self.from = Bound::Excluded(key.into());
        self
    }

    /// Before this key.
    #[must_use]
    pub fn before(mut self, key: impl Into<Bytes>) -> Self {
        self.to = Bound::Excluded(key.into());
        self
    }

    /// Refuses what no store accepts. Every store calls it first.
    pub fn check(&self) -> Result<()> {
        Error::check_limit("rows of a scan", self.limit, SCAN_ROWS_MAX)
    }

    /// Whether no key can be in it: bounds that cross.
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
            _ => false,
        }
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was put.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of a namespace. It carries no value: what the key holds now, `get` says. Expiry is
/// not a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order.
    pub seq: Seq,
    /// The key.
    pub key: Bytes,
    /// The version that was put; for a delete, its place as a version.
    pub version: Version,
    /// What happened.
    pub kind: ChangeKind,
}

/// Where all abstractions keep their records.
///
/// Rules that every store holds to, and [`conformance`] checks: a record past its deadline is
/// absent to reads, scans and guards alike; a deadline is a moment by the store's own clock, and
/// `now` never goes back; versions rise with every put of a namespace; a commit is whole or did
/// not happen; a scan is one moment.
pub trait Store: Send + Sync + 'static {
    /// The clock that judges deadlines.
    fn now(&self) -> Millis;

    /// What the key holds; `None` when it is absent or expired.
    fn get(&self, ns: &Ns, key: &[u8]) -> Result<Option<Entry>>;

    /// Live rows in order of their keys' bytes.
    fn scan(&self, ns: &Ns, scan: Scan) -> Result<Vec<(Bytes, Entry)>>;

    /// Checks all guards, then does all operations, or nothing.
    ///
    /// Errors: [`Error::Conflict`] names the first guard that did not hold.
    fn commit(&self, batch: Batch) -> Result<Commit>;

    /// Changes behind `after` in their order, at most `limit`; waits so long for the first.
    ///
    /// Errors: [`Error::Truncated`] when changes behind `after` are no longer kept;
    /// [`Error::Invalid`] for a namespace without a change log.
    fn changes(&self, ns: &Ns, after: Seq, limit: usize, wait: Duration) -> Result<Vec<Change>>;
}

/// Refuses a key that is too long.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    Error::check_limit("key", key.len(), KEY_LEN_MAX)
}

/// The deadline of a put, by the clock of the store. `kept` is that of the record it replaces.
pub fn deadline(ttl: Ttl, now: Millis, kept: Option<Millis>) -> Result<Option<Millis>> {
    match ttl {
        Ttl::Keep => Ok(kept),
        Ttl::Never => Ok(None),
        Ttl::For(time) if time.is_zero() => {
            Err(Error::Invalid("a TTL of zero; delete removes a key"))
        }
        Ttl::For(time) => Ok(Some(now.after(time))),
        Ttl::Until(moment) if moment <= now => Err(Error::Invalid("a deadline that has passed")),
        Ttl::Until(moment) => Ok(Some(moment)),
    }
}

#[cfg(test)]
mod ttl_tests;
