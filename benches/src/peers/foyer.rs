//! foyer: the cache in memory of a hybrid cache. Its disk half is asynchronous and not used.

use std::sync::Arc;

use terrace_benches::workload::Key;

use crate::engine::{Cache, Outcome};

pub(crate) const CONFIG: &str = "`foyer-memory`, `CacheBuilder::new` with room for all, 8 shards \
    and LRU as it comes; values are `Arc<[u8]>`.";

struct Foyer(foyer_memory::Cache<Key, Arc<[u8]>>);

pub(crate) fn cache(count: u64) -> Outcome<Box<dyn Cache>> {
    Ok(Box::new(Foyer(foyer_memory::CacheBuilder::new(usize::try_from(count)?).build())))
}

impl Cache for Foyer {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.0.insert(*key, value.into());
        Ok(())
    }

    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key).map(|entry| each(entry.value())).is_some())
    }
}
