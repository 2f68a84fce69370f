//! redb: a copy-on-write B-tree in one file, with a cache of its own.

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, WriteTransaction,
};
use terrace_benches::workload::Key;

use crate::engine::{Config, Engine, Outcome, Pair, Reader};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("bench");

pub(crate) const CONFIG: &str = "`set_cache_size` is the cache size. Buffered writes commit with \
    `Durability::None`: a killed process loses them, which is less than the others promise; a \
    synced one with `Immediate`. One read transaction a row of reads.";

struct Redb {
    db: Database,
    durability: Durability,
}

pub(crate) fn open(config: &Config) -> Outcome<Box<dyn Engine>> {
    let cache = usize::try_from(config.cache_bytes)?;
    let db = Database::builder().set_cache_size(cache).create(config.dir.join("redb"))?;
    let durability = if config.synced { Durability::Immediate } else { Durability::None };
    let engine = Redb { db, durability };
    let txn = engine.begin()?;
    txn.open_table(RECORDS)?;
    txn.commit()?;
    Ok(Box::new(engine))
}

impl Redb {
    fn begin(&self) -> Outcome<WriteTransaction> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(self.durability)?;
        Ok(txn)
    }
}

impl Engine for Redb {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        let txn = self.begin()?;
        txn.open_table(RECORDS)?.insert(&key[..], value)?;
        Ok(txn.commit()?)
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(RECORDS)?;
        for (key, value) in pairs {
            table.insert(&key[..], &value[..])?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(RECORDS)?;
        for key in keys {
            table.remove(&key[..])?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn sync(&self) -> Outcome<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        Ok(txn.commit()?)
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(View(self.db.begin_read()?.open_table(RECORDS)?)))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.sync()
    }
}

struct View(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Reader for View {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get(&key[..])?.map(|value| each(value.value())).is_some())
    }

    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        let mut count = 0;
        for pair in self.0.range(&from[..]..)? {
            let (key, value) = pair?;
            each(key.value(), value.value());
            count += 1;
            if count == rows {
                break;
            }
        }
        Ok(count)
    }
}
