//! dashmap: a sharded map in memory. It forgets nothing: what a cache costs without a policy.

use terrace_benches::workload::Key;

use crate::engine::{Cache, Outcome};

pub(crate) const CONFIG: &str = "`DashMap` of `Box<[u8]>`, no bound and no eviction.";

struct Dash(dashmap::DashMap<Key, Box<[u8]>>);

pub(crate) fn cache() -> Box<dyn Cache> {
    Box::new(Dash(dashmap::DashMap::new()))
}

impl Cache for Dash {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.0.insert(*key, value.into());
        Ok(())
    }

    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key).map(|value| each(&value)).is_some())
    }
}
