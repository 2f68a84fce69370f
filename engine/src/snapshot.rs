//! One moment of the store, held for reading: points and ranges of any keyspace at one `seq`.
//! Thin: what a key held at a moment, the tiers say.

use std::ops::{ControlFlow, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::iter::{Iter, Keys};
use crate::keyspace::Keyspace;
use crate::reader::{Held, View};
use crate::tiers::moments::HolderKind;
use crate::tiers::span::KeyRange;
use crate::value::Value;

/// How a snapshot behaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotOptions {
    name: Option<String>,
    age_max: Option<Duration>,
}

impl SnapshotOptions {
    /// No name, no maximum age.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name under which `stats()` shows it.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// After so long it ends by itself, and reads answer [`Error::SnapshotExpired`].
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }
}

/// The store at one moment. Clones share it.
///
/// Making one takes constant time. While it lives, versions that it shows and that are replaced are
/// kept: their bytes on disk, and some 60 bytes of memory each. `stats()` shows it with what it
/// keeps; when all that is kept takes more than an eighth of the memory budget, the snapshot that
/// lies furthest back is ended, and its reads answer [`Error::SnapshotExpired`]. Expiry is judged
/// at now: a snapshot freezes `seq`, not time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

impl Snapshot {
    #[track_caller]
    pub(crate) fn new(inner: &Arc<StoreHandle>, options: SnapshotOptions) -> Self {
        let SnapshotOptions { name, age_max } = options;
        Self { held: Held::now(inner, HolderKind::Snapshot, name, age_max) }
    }

    /// Everything up to this mutation is seen, nothing after it.
    pub fn seq(&self) -> u64 {
        self.held.moment.seq.0
    }

    fn view(&self, keyspace: &Keyspace) -> Result<View> {
        if !Arc::ptr_eq(&self.held.inner, keyspace.inner()) {
            let (found, expected) = ("another store's", "this store's");
            return Err(Error::invalid("keyspace of a snapshot", found, expected));
        }
        keyspace.reader().view_at(&self.held)
    }

    /// The value that the key had.
    #[track_caller]
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.view(keyspace)?.get(key.as_ref())
    }

    /// Whether the key was there.
    pub fn contains(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(keyspace, key)?.is_some())
    }

    /// The records of a range of keys, in order.
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Iter {
        Iter::new(self.view(keyspace), KeyRange::of(&range))
    }

    /// The records whose key begins with `prefix`, in order.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(self.view(keyspace), KeyRange::prefix(prefix.as_ref()))
    }

    /// All records, in order of their keys.
    pub fn iter(&self, keyspace: &Keyspace) -> Iter {
        self.range::<&[u8]>(keyspace, ..)
    }

    /// The keys of a range, in order.
    pub fn keys<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Keys {
        Keys::new(self.view(keyspace), KeyRange::of(&range))
    }

    /// Hands each record of a range to `each`, in order and without a copy, until it breaks.
    pub fn scan_with<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
        each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.range(keyspace, range).each(each)
    }
}
