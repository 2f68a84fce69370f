//! Terrace itself, ordered and unordered, and its volatile keyspace as a cache.

use std::ops::ControlFlow;
use std::time::Duration;

use terrace::{Db, DemotePolicy, Durability, Error, Keyspace, KeyspaceOptions, Options};
use terrace_benches::workload::Key;

use crate::engine::{Cache, Config, Engine, Outcome, Pair, Reader};

/// Longer than any row's data: the log stays warm but for the cold rows.
const WARM_BUDGET: u64 = 64 << 30;
/// The least that an option takes: everything goes to the archive.
const COLD_BUDGET: u64 = 4 << 20;
const SETTLE_MAX: Duration = Duration::from_mins(1);

pub(crate) const CONFIG: &str = "`memory_budget` is the cache size and holds the index too; \
    `warm_budget` above the data, 4 MiB in the cold rows; else defaults. Reads by `get_with` and \
    `scan_with`.";
pub(crate) const CONFIG_UNORDERED: &str = "As terrace, keyspace with `unordered()`.";
pub(crate) const CONFIG_HOT: &str = "A volatile keyspace, read by `get_with`.";

struct Terrace {
    db: Db,
    keyspace: Keyspace,
    ordered: bool,
    cold: bool,
}

pub(crate) fn open(config: &Config, ordered: bool) -> Outcome<Box<dyn Engine>> {
    let warm = if config.cold { COLD_BUDGET } else { WARM_BUDGET };
    let durability = if config.synced { Durability::Synced } else { Durability::Buffered };
    let db = Options::new()
        .memory_budget(config.cache_bytes)
        .warm_budget(warm)
        .durability(durability)
        .open(&config.dir)?;
    let options = KeyspaceOptions::new();
    let options = if ordered { options } else { options.unordered() };
    let keyspace = db.keyspace_with("bench", options)?;
    Ok(Box::new(Terrace { db, keyspace, ordered, cold: config.cold }))
}

impl Engine for Terrace {
    fn ordered(&self) -> bool {
        self.ordered
    }

    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        loop {
            let mut batch = self.db.batch();
            for (key, value) in pairs {
                batch.put(&self.keyspace, key, value);
            }
            match batch.commit() {
                // The log of the cold rows is tiny: the batch waits until demotion has caught up.
                Err(Error::Full { .. }) if self.cold => self.settle()?,
                other => return Ok(other?),
            }
        }
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        let mut batch = self.db.batch();
        for key in keys {
            batch.delete(&self.keyspace, key);
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.db.sync()?)
    }

    fn settle(&self) -> Outcome<()> {
        self.db.settle(SETTLE_MAX)?;
        Ok(())
    }

    fn compact(&self) -> Outcome<()> {
        if self.cold {
            self.db.demote(&self.keyspace, DemotePolicy::All)?;
        }
        Ok(self.db.compact()?)
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        let memory = self.db.ledger().memory;
        vec![("index", memory.index), ("order", memory.order)]
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn hot_share(&self) -> Option<f64> {
        let hits = self.db.hits();
        let [hot, ..] = hits;
        Some(hot as f64 / hits.iter().sum::<u64>().max(1) as f64)
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(Borrowed(&self.keyspace)))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        Ok(self.db.close()?)
    }
}

struct Borrowed<'a>(&'a Keyspace);

impl Reader for Borrowed<'_> {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get_with(key, each)?.is_some())
    }

    fn multi_get(&self, keys: &[Key], each: &mut dyn FnMut(usize, &[u8])) -> Outcome<()> {
        for (i, value) in self.0.multi_get(keys)?.iter().enumerate() {
            if let Some(value) = value {
                each(i, value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        let mut count = 0;
        self.0.scan_with(&from[..].., |key, value| {
            each(key, value);
            count += 1;
            if count == rows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(count)
    }
}

struct Volatile {
    keyspace: Keyspace,
}

/// The volatile keyspace of a store in a directory that is gone with it.
pub(crate) fn cache(bytes: u64) -> Outcome<Box<dyn Cache>> {
    let db = Options::new().memory_budget(bytes).temporary()?;
    let keyspace = db.keyspace_with("bench", KeyspaceOptions::new().volatile())?;
    Ok(Box::new(Volatile { keyspace }))
}

impl Cache for Volatile {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.keyspace.get_with(key, each)?.is_some())
    }
}
