//! Transactions: reads at one moment, writes kept aside, and a commit that holds only if nothing
//! that was read has changed. Serializable; no lock is held while the closure runs.
//!
//! Validation is backward (Kung and Robinson, "On optimistic methods for concurrency control",
//! 1981): under the append lock the reads of the transaction are compared with the changes made
//! since its moment. So transactions are ordered by their commits, and a range that was read keeps
//! phantoms out, since it is compared as a range.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::hash::KeyHash;
use crate::ids::{Incarnation, Seq};
use crate::iter::Iter;
use crate::key::Key;
use crate::keyspace::Keyspace;
use crate::limits;
use crate::options::{PutOptions, check_ttl};
use crate::reader::{Held, View};
use crate::tiers::changes::{Change, Happened};
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::moments::HolderKind;
use crate::tiers::span::KeyRange;
use crate::tiers::write::{Guard, Mutation, Outcome};
use crate::value::Value;

/// How often a transaction is tried before it gives up.
const ATTEMPTS_MAX: u32 = 256;

/// What a transaction read.
#[derive(Debug, Default)]
struct Reads {
    points: HashSet<KeyHash>,
    ranges: Vec<(Incarnation, KeyRange)>,
    incarnations: HashSet<Incarnation>,
}

impl Reads {
    /// Whether a change touches something that was read.
    fn meet(&self, change: &Change) -> bool {
        if let Happened::Ended { .. } = change.happened {
            return self.incarnations.contains(&change.incarnation);
        }
        let inside = |(incarnation, range): &(Incarnation, KeyRange)| {
            *incarnation == change.incarnation && range.contains(&change.key)
        };
        self.points.contains(&change.hash) || self.ranges.iter().any(inside)
    }
}

/// One write that waits for the commit.
#[derive(Debug, Clone)]
struct Write {
    value: Option<Value>,
    deadline_ms: u64,
}

/// The writes of one keyspace.
#[derive(Debug)]
struct Writes {
    state: Arc<KeyspaceState>,
    keys: BTreeMap<Key, Write>,
}

/// The view of the store that a transaction's closure works with.
#[derive(Debug)]
pub struct Transaction {
    held: Arc<Held>,
    reads: Rc<RefCell<Reads>>,
    writes: BTreeMap<String, Writes>,
    encoded_len: usize,
}

/// Unsubscribes from the changes when the transaction ends, however it does.
struct Subscribed<'h>(&'h Arc<StoreHandle>);

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.0.tiers.changes.unsubscribe();
    }
}

/// Runs `body` until its commit holds, at most [`ATTEMPTS_MAX`] times.
#[track_caller]
pub(crate) fn run<T>(
    inner: &Arc<StoreHandle>,
    mut body: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let tiers = &inner.tiers;
    for attempt in 0..ATTEMPTS_MAX {
        tiers.check_open()?;
        // Subscribed before the moment is taken, so that no change between the two is missed.
        {
            let _no_writer = tiers.append.lock();
            tiers.changes.subscribe(tiers.visible());
        }
        let _subscribed = Subscribed(inner);
        let held = Held::now(inner, HolderKind::Transaction, None, None);
        let mut transaction =
            Transaction { held, reads: Rc::default(), writes: BTreeMap::new(), encoded_len: 0 };
        let result = body(&mut transaction)?;
        if transaction.commit()? {
            return Ok(result);
        }
        for _ in 0..attempt.min(16) {
            std::hint::spin_loop();
        }
    }
    Err(Error::Conflict { doing: "transaction", attempts: ATTEMPTS_MAX })
}

impl Transaction {
    /// The moment at which it reads.
    pub fn seq(&self) -> u64 {
        self.held.moment.seq.0
    }

    fn view(&self, keyspace: &Keyspace) -> Result<View> {
        let bad = |found| {
            Error::invalid("keyspace of a transaction", found, "a durable one of its store")
        };
        if !Arc::ptr_eq(&self.held.inner, keyspace.inner()) {
            return Err(bad("another store's"));
        }
        if keyspace.state().volatile {
            return Err(bad("a volatile one"));
        }
        let view = keyspace.reader().view_at(&self.held)?;
        self.reads.borrow_mut().incarnations.insert(view.incarnation);
        Ok(view)
    }

    fn written(&self, keyspace: &Keyspace, key: &[u8]) -> Option<&Write> {
        self.writes.get(&keyspace.state().name)?.keys.get(key)
    }

    /// The value of a key: what this transaction wrote, else what it had at the moment.
    #[track_caller]
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        let view = self.view(keyspace)?;
        if let Some(write) = self.written(keyspace, key) {
            return Ok(write.value.clone());
        }
        let hash = self.held.inner.tiers.seed.hash(view.incarnation, key);
        self.reads.borrow_mut().points.insert(hash);
        view.get(key)
    }

    /// The records of a range of keys, in order, with what this transaction wrote. What was walked
    /// over counts as read.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> TransactionIter {
        self.walk(keyspace, KeyRange::of(&range))
    }

    /// The records whose key begins with `prefix`, in order.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> TransactionIter {
        self.walk(keyspace, KeyRange::prefix(prefix.as_ref()))
    }

    /// All records of a keyspace, in order.
    pub fn iter(&self, keyspace: &Keyspace) -> TransactionIter {
        self.range::<&[u8]>(keyspace, ..)
    }

    fn walk(&self, keyspace: &Keyspace, range: KeyRange) -> TransactionIter {
        let view = self.view(keyspace);
        let writes = self.writes.get(&keyspace.state().name);
        let own = writes.into_iter().flat_map(|writes| &writes.keys);
        let own = own.filter(|(key, _)| range.contains(key));
        let own: Vec<_> = own.map(|(key, write)| (key.clone(), write.value.clone())).collect();
        let mut index = None;
        if let Ok(view) = &view {
            let mut reads = self.reads.borrow_mut();
            // Until something was walked over, nothing was read.
            let from = range.from.clone();
            let nothing = KeyRange { to: Bound::Excluded(Key::from(&[][..])), from };
            index = Some(reads.ranges.len());
            reads.ranges.push((view.incarnation, nothing));
        }
        TransactionIter {
            stored: Iter::new(view, range.clone()).peekable(),
            own: own.into_iter().peekable(),
            reads: Rc::clone(&self.reads),
            index,
            to: range.to,
        }
    }

    /// Writes a value, at the commit.
    pub fn put(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.put_with(keyspace, key, value, PutOptions::new())
    }

    /// Writes a value with a TTL of its own, at the commit. Durability is the store's.
    pub fn put_with(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) -> Result<()> {
        check_ttl(options.ttl)?;
        limits::check_value(value.as_ref())?;
        let deadline_ms = keyspace.deadline(options.ttl);
        self.write(keyspace, key.as_ref(), Some(value.as_ref()), deadline_ms)
    }

    /// Deletes a key, at the commit.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(keyspace, key.as_ref(), None, 0)
    }

    fn write(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
        deadline_ms: u64,
    ) -> Result<()> {
        limits::check_key(key)?;
        self.view(keyspace)?;
        let len = crate::format::record::encoded_len(key.len(), value.map_or(0, <[u8]>::len));
        let total = self.encoded_len.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        limits::check_batch(total)?;
        self.encoded_len = total;
        let state = keyspace.state();
        let writes = self
            .writes
            .entry(state.name.clone())
            .or_insert_with(|| Writes { state: Arc::clone(state), keys: BTreeMap::new() });
        writes.keys.insert(Key::from(key), Write { value: value.map(Value::from), deadline_ms });
        Ok(())
    }

    /// Writes everything, if nothing that was read has changed; answers whether that was so.
    fn commit(self) -> Result<bool> {
        if self.writes.is_empty() {
            // Everything was read at one moment: that is its place in the order.
            self.held.moment.check()?;
            return Ok(true);
        }
        let tiers = &self.held.inner.tiers;
        let reads = self.reads.borrow();
        let since = self.held.moment.seq;
        // What has changed by now is compared before the lock is taken, the rest under it.
        let compared: Seq = tiers.visible();
        if tiers.changes.any_after(since, |change| reads.meet(change)) {
            return Ok(false);
        }
        let mutations = self
            .writes
            .values()
            .flat_map(|writes| writes.keys.iter().map(|(key, write)| (&writes.state, key, write)))
            .map(|(state, key, write)| {
                Mutation::new(tiers, state, key, write.value.as_deref(), write.deadline_ms)
            })
            .collect::<Result<Vec<_>>>()?;
        let unchanged = || !tiers.changes.any_after(compared, |change| reads.meet(change));
        let guard = Guard::Unchanged(&unchanged);
        let outcome = tiers.write(&mutations, guard, tiers.options.durability)?;
        Ok(matches!(outcome, Outcome::Done(_)))
    }
}

/// The records of a range as a transaction sees them.
#[derive(Debug)]
pub struct TransactionIter {
    stored: Peekable<Iter>,
    own: Peekable<std::vec::IntoIter<(Key, Option<Value>)>>,
    reads: Rc<RefCell<Reads>>,
    index: Option<usize>,
    to: Bound<Key>,
}

impl TransactionIter {
    /// Everything up to here was read.
    fn note(&self, to: Bound<Key>) {
        let mut reads = self.reads.borrow_mut();
        if let Some((_, range)) = self.index.and_then(|index| reads.ranges.get_mut(index)) {
            range.to = to;
        }
    }
}

impl Iterator for TransactionIter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let stored = match self.stored.peek() {
                Some(Err(_)) => return self.stored.next(),
                Some(Ok((key, _))) => Some(key.clone()),
                None => None,
            };
            let own = self.own.peek().map(|(key, _)| key.clone());
            let Some(key) = stored.iter().chain(&own).min().cloned() else {
                self.note(self.to.clone());
                return None;
            };
            self.note(Bound::Included(key.clone()));
            let from_store = if stored.as_ref() == Some(&key) { self.stored.next() } else { None };
            if own.as_ref() == Some(&key) {
                // What the transaction wrote hides what is stored.
                if let Some((key, Some(value))) = self.own.next() {
                    return Some(Ok((key, value)));
                }
                continue;
            }
            return from_store;
        }
    }
}
