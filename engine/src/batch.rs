//! A batch: changes of any keyspaces that become visible and durable together, or not at all.
//! Thin: collects, checks limits, asks the tiers.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::record::encoded_len;
use crate::handle::StoreHandle;
use crate::keyspace::Keyspace;
use crate::limits;
use crate::options::{Durability, PutOptions, check_ttl};
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::write::{Guard, Mutation, Outcome};

/// Changes that wait for [`Batch::commit`].
#[derive(Debug)]
pub struct Batch {
    inner: Arc<StoreHandle>,
    changes: Vec<Pending>,
    encoded_len: usize,
    durability: Option<Durability>,
    failed: Option<Error>,
}

#[derive(Debug)]
struct Pending {
    keyspace: Arc<KeyspaceState>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    deadline_ms: u64,
}

impl Batch {
    pub(crate) fn new(inner: Arc<StoreHandle>) -> Self {
        Self { inner, changes: Vec::new(), encoded_len: 0, durability: None, failed: None }
    }

    /// Adds a put. What is wrong with it, `commit` says.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_with(keyspace, key, value, PutOptions::new());
    }

    /// Adds a put with a TTL of its own. The strongest durability of the puts is the batch's.
    pub fn put_with(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: PutOptions,
    ) {
        if options.durability == Some(Durability::Synced) {
            self.durability = options.durability;
        }
        let checked = check_ttl(options.ttl).and_then(|()| limits::check_value(value.as_ref()));
        let deadline_ms = keyspace.deadline(options.ttl);
        self.push(keyspace, key.as_ref(), Some(value.as_ref()), deadline_ms, checked);
    }

    /// Adds a delete.
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        self.push(keyspace, key.as_ref(), None, 0, Ok(()));
    }

    /// How many changes it holds.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it holds no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
        deadline_ms: u64,
        checked: Result<()>,
    ) {
        let len = encoded_len(key.len(), value.map_or(0, <[u8]>::len));
        let total = self.encoded_len.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let checked = checked
            .and_then(|()| limits::check_key(key))
            .and_then(|()| limits::check_batch(total))
            .and_then(|()| self.check_keyspace(keyspace));
        match checked {
            Ok(()) => {
                self.encoded_len = total;
                let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
                let keyspace = Arc::clone(keyspace.state());
                self.changes.push(Pending { keyspace, key, value, deadline_ms });
            }
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }

    fn check_keyspace(&self, keyspace: &Keyspace) -> Result<()> {
        if keyspace.state().volatile {
            let expected = "a durable one: volatile records are outside of batches";
            return Err(Error::invalid("keyspace of a batch", "a volatile one", expected));
        }
        if !Arc::ptr_eq(&self.inner, keyspace.inner()) {
            return Err(Error::invalid("keyspace of a batch", "another store's", "this store's"));
        }
        Ok(())
    }

    /// Writes all changes or none, with the store's durability.
    pub fn commit(self) -> Result<()> {
        let durability = self.durability.unwrap_or(self.inner.tiers.options.durability);
        self.commit_with(durability)
    }

    /// Writes all changes or none, with this durability.
    pub fn commit_with(self, durability: Durability) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let tiers = &self.inner.tiers;
        tiers.check_open()?;
        if self.changes.is_empty() {
            return Ok(());
        }
        loop {
            let mutations = self
                .changes
                .iter()
                .map(|change| {
                    let value = change.value.as_deref();
                    Mutation::new(tiers, &change.keyspace, &change.key, value, change.deadline_ms)
                })
                .collect::<Result<Vec<_>>>()?;
            if let Outcome::Done(_) = tiers.write(&mutations, Guard::Free, durability)? {
                return Ok(());
            }
        }
    }
}
