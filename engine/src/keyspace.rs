//! A keyspace as a program holds it: get, put, delete, update and the rest, one key at a time.
//! Thin: checks its arguments, hashes the key once, asks the tiers.

use std::ops::{ControlFlow, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::iter::{Iter, Keys};
use crate::key::Key;
use crate::limits;
use crate::options::{PutOptions, check_ttl};
use crate::reader::Reader;
use crate::tiers::Tiers;
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::read::Seen;
use crate::tiers::span::KeyRange;
use crate::tiers::write::{Expected, Guard, Mutation, Outcome};
use crate::value::Value;
use crate::watch::Watch;

/// How often an optimistic change is tried before it gives up.
pub(crate) const ATTEMPTS_MAX: u32 = 10_000;
/// Keys that one batch of `delete_prefix` deletes.
const DELETE_BATCH_LEN: usize = 1024;

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tier {
    /// L1, in memory.
    Hot,
    /// L2, the mapped log.
    Warm,
    /// L3, an archive.
    Cold,
}

/// What is known of a record besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordInfo {
    /// Its place in the order of mutations; 0 in a volatile keyspace.
    pub seq: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// Where it was found.
    pub tier: Tier,
    /// Bytes of the key.
    pub key_len: usize,
    /// Bytes of the value.
    pub value_len: usize,
    /// Bytes of the record before compression: header, key, value, padding.
    pub stored_len: u64,
}

/// A named set of keys. Clones share it; it keeps the store open.
#[derive(Debug, Clone)]
pub struct Keyspace {
    reader: Reader,
}

impl Keyspace {
    pub(crate) fn new(inner: Arc<StoreHandle>, state: Arc<KeyspaceState>) -> Self {
        Self { reader: Reader { inner, state } }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) fn state(&self) -> &Arc<KeyspaceState> {
        &self.reader.state
    }

    pub(crate) fn inner(&self) -> &Arc<StoreHandle> {
        &self.reader.inner
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> u64 {
        self.reader.deadline(ttl)
    }

    pub(crate) fn tiers(&self) -> &Tiers {
        &self.reader.inner.tiers
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.reader.state.name
    }

    /// Writes a value with the keyspace's default TTL and the store's durability.
    ///
    /// Errors: [`Error::Limit`] for a key above 65,535 bytes or a value above 256 MiB,
    /// [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`]. After an error of another kind the
    /// write may or may not have happened.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, PutOptions::new())
    }

    /// Writes a value with a TTL or durability of its own.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        limits::check_key(key)?;
        limits::check_value(value)?;
        check_ttl(options.ttl)?;
        let deadline_ms = self.deadline(options.ttl);
        if self.reader.state.volatile {
            return self.put_volatile(key, value, deadline_ms);
        }
        let tiers = self.tiers();
        let durability = options.durability.unwrap_or(tiers.options.durability);
        loop {
            let mutation = Mutation::new(tiers, &self.reader.state, key, Some(value), deadline_ms)?;
            if let Outcome::Done(_) = tiers.write(&[mutation], Guard::Free, durability)? {
                return Ok(());
            }
        }
    }

    fn put_volatile(&self, key: &[u8], value: &[u8], deadline_ms: u64) -> Result<()> {
        self.tiers().check_open()?;
        self.tiers().check_writable("write")?;
        let _one = self.tiers().volatile_changes.lock();
        let at = self.reader.key_ref(key)?;
        let was = self.reader.hot_get(&at, |_| ()).is_some();
        self.tiers().hot.put_volatile(&at.hot(), value, deadline_ms)?;
        self.reader.state.count_by(i64::from(!was));
        Ok(())
    }

    /// Returns the value of `key`, or `None` when it is absent or has expired.
    ///
    /// Cost: one hash, no lock; one page fault at most when the record is warm.
    /// Errors: [`Error::Corrupt`] when the newest version is damaged; an older one is never served.
    #[track_caller]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.reader.get(key.as_ref())
    }

    /// Hands the value of `key` to `read`: no copy, no reference count when it is hot.
    pub fn get_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let key = key.as_ref();
        let read = std::cell::Cell::new(Some(read));
        let once = |bytes: &[u8]| read.take().map(|read| read(bytes));
        let found =
            self.reader.read(key, |record| once(record.value), |seen| once(seen.bytes()))?;
        Ok(found.flatten())
    }

    /// The values of several keys, in their order, as of one moment.
    ///
    /// Looking them up together costs less than one by one: the waits for memory overlap.
    #[track_caller]
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        for key in keys {
            limits::check_key(key.as_ref())?;
        }
        self.reader.multi_get(keys)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// What is known of a record besides its value.
    pub fn info(&self, key: impl AsRef<[u8]>) -> Result<Option<RecordInfo>> {
        let key = key.as_ref();
        let info = |seq: u64, deadline: u64, tier, value_len: usize, stored_len| RecordInfo {
            seq,
            expires_at: (deadline != 0).then_some(deadline),
            tier,
            key_len: key.len(),
            value_len,
            stored_len,
        };
        self.reader.read(
            key,
            |record| {
                let len = crate::format::record::encoded_len(key.len(), record.value.len());
                info(record.seq.0, record.deadline_ms, Tier::Hot, record.value.len(), len)
            },
            |seen| {
                let tier = if matches!(seen, Seen::Cold(_)) { Tier::Cold } else { Tier::Warm };
                let len = seen.bytes().len();
                info(seen.seq().0, seen.deadline_ms(), tier, len, seen.stored_len())
            },
        )
    }

    /// Deletes a key; answers whether it was there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        limits::check_key(key)?;
        let tiers = self.tiers();
        tiers.check_open()?;
        tiers.check_writable("delete")?;
        if self.reader.state.volatile {
            let _one = tiers.volatile_changes.lock();
            let at = self.reader.key_ref(key)?;
            let now = tiers.clock.now_ms();
            let was = tiers.hot.remove_volatile(&at.hot(), now);
            self.reader.state.count_by(-i64::from(was));
            return Ok(was);
        }
        for _ in 0..ATTEMPTS_MAX {
            let at = self.reader.key_ref(key)?;
            let moves = tiers.moves();
            let guard = match tiers.newest_hit(&at) {
                Ok(None) => return Ok(false),
                Ok(Some(hit)) => Guard::Version(Expected { seq: Some(hit.seq()), moves }),
                // Deleting a damaged record is how damage heals.
                Err(Error::Corrupt(_)) => Guard::Free,
                Err(error) => return Err(error),
            };
            let mutation = Mutation::new(tiers, &self.reader.state, key, None, 0)?;
            if mutation.incarnation != at.incarnation {
                continue; // Cleared since it was read.
            }
            let durability = tiers.options.durability;
            if let Outcome::Done(_) = tiers.write(&[mutation], guard, durability)? {
                return Ok(true);
            }
        }
        Err(Error::Conflict { doing: "delete", attempts: ATTEMPTS_MAX })
    }

    /// Removes all records in constant time, in the order of mutations.
    pub fn clear(&self) -> Result<()> {
        let tiers = self.tiers();
        tiers.check_open()?;
        if self.reader.state.volatile {
            let _creating = tiers.creating.lock();
            return tiers.end_volatile(&self.reader.state, false);
        }
        let ended = self.reader.state.incarnation()?;
        tiers.end_incarnation(&self.reader.state, false)?;
        tiers.hot.purge_incarnation(ended);
        Ok(())
    }

    /// The records of a range of keys, in order, from both ends, as of now.
    #[track_caller]
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        Iter::new(self.reader.view(), KeyRange::of(&range))
    }

    /// The records whose key begins with `prefix`, in order.
    #[track_caller]
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(self.reader.view(), KeyRange::prefix(prefix.as_ref()))
    }

    /// All records, in order of their keys.
    #[track_caller]
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// The keys of a range, in order. Reads no values of the log.
    #[track_caller]
    pub fn keys<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Keys {
        Keys::new(self.reader.view(), KeyRange::of(&range))
    }

    /// Hands each record of a range to `each`, in order and without a copy, until it breaks. The
    /// first damage ends it with [`Error::Corrupt`].
    #[track_caller]
    pub fn scan_with<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.range(range).each(each)
    }

    /// The record with the least key.
    #[track_caller]
    pub fn first(&self) -> Result<Option<(Key, Value)>> {
        self.iter().next().transpose()
    }

    /// The record with the greatest key.
    #[track_caller]
    pub fn last(&self) -> Result<Option<(Key, Value)>> {
        self.iter().next_back().transpose()
    }

    /// Deletes every record whose key begins with `prefix`, and that is there now, in batches of
    /// bounded size; answers how many went. Not atomic as a whole: an error leaves the rest.
    #[track_caller]
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        let mut keys = Keys::new(self.reader.view(), KeyRange::prefix(prefix.as_ref()));
        let mut count = 0;
        loop {
            let some = keys.by_ref().take(DELETE_BATCH_LEN).collect::<Result<Vec<Key>>>()?;
            if some.is_empty() {
                return Ok(count);
            }
            count += some.len() as u64;
            self.delete_all(&some)?;
        }
    }

    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        let tiers = self.tiers();
        if self.reader.state.volatile {
            return keys.iter().try_for_each(|key| self.delete(key).map(|_| ()));
        }
        loop {
            let state = &self.reader.state;
            let mutations = keys.iter().map(|key| Mutation::new(tiers, state, key, None, 0));
            let mutations = mutations.collect::<Result<Vec<_>>>()?;
            let durability = tiers.options.durability;
            if let Outcome::Done(_) = tiers.write(&mutations, Guard::Free, durability)? {
                return Ok(());
            }
        }
    }

    /// Counts the keys by walking them.
    #[track_caller]
    pub fn len(&self) -> Result<u64> {
        let mut count = 0;
        for key in self.keys::<&[u8]>(..) {
            key?;
            count += 1;
        }
        Ok(count)
    }

    /// Whether there is no key.
    #[track_caller]
    pub fn is_empty(&self) -> Result<bool> {
        self.keys::<&[u8]>(..).next().transpose().map(|key| key.is_none())
    }

    /// Changes of keys that begin with `prefix`, from now on, each once and in the order of `seq`.
    /// A volatile keyspace has none: the first item is [`Error::Invalid`].
    #[track_caller]
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Watch {
        Watch::new(&self.reader.inner, &self.reader.state, prefix.as_ref())
    }

    /// The number of keys as far as it is known without reading: expired records that were not
    /// collected yet count, and keys overwritten while archived may count twice.
    pub fn approximate_len(&self) -> u64 {
        self.reader.state.count()
    }
}

impl IntoIterator for &Keyspace {
    type Item = Result<(Key, Value)>;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}
