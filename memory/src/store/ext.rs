//! The everyday calls on top of the five methods: put, delete, touch, update, walk.
//! Knows guards and retries; knows nothing of how a store keeps its rows.

use crate::error::Result;
use crate::store::{Batch, Bytes, Commit, Entry, Ns, Scan, Store, Ttl, Version, retry};

/// Everyday calls of every [`Store`].
pub trait StoreExt: Store {
    /// Writes a value.
    fn put(
        &self,
        ns: &Ns,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Ttl,
    ) -> Result<Version> {
        Ok(self.commit(Batch::new(ns).put(key, value, ttl))?.version)
    }

    /// Deletes a key; answers whether it was there.
    fn delete(&self, ns: &Ns, key: impl Into<Bytes>) -> Result<bool> {
        let key = key.into();
        retry(ns, || {
            let found = self.get(ns, &key)?;
            if found.is_none() {
                return Ok(false);
            }
            let batch = Batch::new(ns).unchanged(key.clone(), found.as_ref()).delete(key.clone());
            self.commit(batch).map(|_| true)
        })
    }

    /// Gives a record a new deadline; answers whether it was there. An expired one is not.
    fn touch(&self, ns: &Ns, key: impl Into<Bytes>, ttl: Ttl) -> Result<bool> {
        let key = key.into();
        retry(ns, || {
            let Some(found) = self.get(ns, &key)? else { return Ok(false) };
            let batch = Batch::new(ns).unchanged(key.clone(), Some(&found)).put(
                key.clone(),
                found.value,
                ttl,
            );
            self.commit(batch).map(|_| true)
        })
    }

    /// Reads, lets `change` decide, and writes if nobody was faster, else again: at most 16 times.
    /// `None` deletes. The closure may run more than once.
    fn update(
        &self,
        ns: &Ns,
        key: impl Into<Bytes>,
        mut change: impl FnMut(Option<&Entry>) -> Result<(Option<Bytes>, Ttl)>,
    ) -> Result<Option<Version>> {
        let key = key.into();
        retry(ns, || {
            let found = self.get(ns, &key)?;
            let (new, ttl) = change(found.as_ref())?;
            let batch = Batch::new(ns).unchanged(key.clone(), found.as_ref());
            match new {
                Some(value) => {
                    let Commit { version, .. } = self.commit(batch.put(key.clone(), value, ttl))?;
                    Ok(Some(version))
                }
                None if found.is_none() => Ok(None),
                None => self.commit(batch.delete(key.clone())).map(|_| None),
            }
        })
    }

    /// All rows of a scan, in calls of bounded size. Not one moment: rows that change meanwhile
    /// may be seen either way, rows that do not are seen once. `each` answers whether to go on.
    fn walk(
        &self,
        ns: &Ns,
        mut scan: Scan,
        mut each: impl FnMut(Bytes, Entry) -> Result<bool>,
    ) -> Result<()> {
        let page = 1024_usize;
        let mut left = scan.limit;
        loop {
            scan.limit = left.min(page);
            let rows = self.scan(ns, scan.clone())?;
            let last = rows.last().map(|(key, _)| key.clone());
            let full = rows.len() == page;
            left = left.saturating_sub(rows.len());
            for (key, entry) in rows {
                if !each(key, entry)? {
                    return Ok(());
                }
            }
            let Some(last) = last.filter(|_| full && left > 0) else { return Ok(()) };
            scan = if scan.reverse { scan.before(last) } else { scan.after(last) };
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
