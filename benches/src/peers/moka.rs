//! moka: a concurrent cache in memory with the policy W-TinyLFU.

use std::sync::Arc;

use terrace_benches::workload::Key;

use crate::engine::{Cache, Outcome};

pub(crate) const CONFIG: &str = "`sync::Cache::new` with room for all; values are `Arc<[u8]>`.";

struct Moka(moka::sync::Cache<Key, Arc<[u8]>>);

pub(crate) fn cache(count: u64) -> Box<dyn Cache> {
    Box::new(Moka(moka::sync::Cache::new(count)))
}

impl Cache for Moka {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.0.insert(*key, value.into());
        Ok(())
    }

    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key).map(|value| each(&value)).is_some())
    }
}
