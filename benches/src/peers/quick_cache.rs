//! `quick_cache`: a sharded cache in memory, bounded by what it holds.

use std::sync::Arc;

use terrace_benches::workload::Key;

use crate::engine::{Cache, Outcome};

pub(crate) const CONFIG: &str = "`Cache::new` with room for all; values are `Arc<[u8]>`.";

struct Quick(quick_cache::sync::Cache<Key, Arc<[u8]>>);

pub(crate) fn cache(count: u64) -> Outcome<Box<dyn Cache>> {
    Ok(Box::new(Quick(quick_cache::sync::Cache::new(usize::try_from(count)?))))
}

impl Cache for Quick {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.0.insert(*key, value.into());
        Ok(())
    }

    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key).map(|value| each(&value)).is_some())
    }
}
