//! emdb: an append-only log with a hash index in memory.

use emdb::{Emdb, FlushPolicy};
use terrace_benches::workload::Key;

use crate::engine::{Config, Engine, Outcome, Pair, Reader};

pub(crate) const CONFIG: &str = "Defaults: no range scans (they cost a second index), so the rows \
    that scan are left out; a synced write calls `flush`. Reads by `get_zerocopy`. Space comes \
    back only by `compact`, which the cold rows call.";

struct Log {
    db: Emdb,
    synced: bool,
}

pub(crate) fn open(config: &Config) -> Outcome<Box<dyn Engine>> {
    let db = Emdb::builder()
        .path(config.dir.join("emdb"))
        .flush_policy(FlushPolicy::OnEachFlush)
        .build()?;
    Ok(Box::new(Log { db, synced: config.synced }))
}

impl Log {
    fn written(&self) -> Outcome<()> {
        if self.synced { self.sync() } else { Ok(()) }
    }
}

impl Engine for Log {
    fn ordered(&self) -> bool {
        false
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.db.insert(&key[..], value)?;
        self.written()
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        self.db.insert_many(pairs.iter().map(|(key, value)| (&key[..], &value[..])))?;
        self.written()
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        for key in keys {
            self.db.remove(key)?;
        }
        self.written()
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Outcome<()> {
        Ok(self.db.compact()?)
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(View(&self.db)))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.db.checkpoint()?;
        self.sync()
    }
}

struct View<'a>(&'a Emdb);

impl Reader for View<'_> {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get_zerocopy(key)?.map(|value| each(value.as_slice())).is_some())
    }

    fn scan(&self, _: &Key, _: u64, _: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        Err("opened without an ordered index".into())
    }
}
