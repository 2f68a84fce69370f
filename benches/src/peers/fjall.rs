//! fjall: a log-structured merge tree.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use terrace_benches::workload::Key;

use crate::engine::{Config, Engine, Outcome, Pair, Reader};

pub(crate) const CONFIG: &str = "`cache_size` is the cache size; else defaults (LZ4, journal in \
    the kernel's buffers). A synced write calls `persist(SyncAll)`. Reads go to the \
    keyspace itself.";

struct Fjall {
    db: Database,
    records: Keyspace,
    synced: bool,
}

pub(crate) fn open(config: &Config) -> Outcome<Box<dyn Engine>> {
    let db = Database::builder(&config.dir).cache_size(config.cache_bytes).open()?;
    let records = db.keyspace("bench", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { db, records, synced: config.synced }))
}

impl Fjall {
    fn written(&self) -> Outcome<()> {
        if self.synced { self.sync() } else { Ok(()) }
    }
}

impl Engine for Fjall {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.records.insert(&key[..], value)?;
        self.written()
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.insert(&self.records, &key[..], &value[..]);
        }
        batch.commit()?;
        self.written()
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        let mut batch = self.db.batch();
        for key in keys {
            batch.remove(&self.records, &key[..]);
        }
        batch.commit()?;
        self.written()
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn compact(&self) -> Outcome<()> {
        self.records.rotate_memtable_and_wait()?;
        Ok(self.records.major_compact()?)
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(View(&self.records)))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.sync()
    }
}

struct View<'a>(&'a Keyspace);

impl Reader for View<'_> {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(key)?.map(|value| each(&value)).is_some())
    }

    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        let mut count = 0;
        for guard in self.0.range(&from[..]..) {
            let (key, value) = guard.into_inner()?;
            each(&key, &value);
            count += 1;
            if count == rows {
                break;
            }
        }
        Ok(count)
    }
}
