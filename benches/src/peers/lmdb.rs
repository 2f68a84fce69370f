//! LMDB by heed: a B+ tree in one mapped file, written by copying pages.

use std::ops::Bound;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use terrace_benches::workload::Key;

use crate::engine::{Config, Engine, Outcome, Pair, Reader};

/// Address space, not disk: the file grows as it is filled.
const MAP_LEN: usize = 64 << 30;

pub(crate) const CONFIG: &str = "heed, map of 64 GiB, `NO_READAHEAD`; `NO_SYNC` where writes are \
    buffered (a power cut may then damage the file); the page cache is its cache. One read \
    transaction a row of reads.";

struct Lmdb {
    env: Env<WithTls>,
    records: Database<Bytes, Bytes>,
}

#[expect(unsafe_code, reason = "heed marks mapping a file and its flags unsafe")]
pub(crate) fn open(config: &Config) -> Outcome<Box<dyn Engine>> {
    let mut flags = EnvFlags::NO_READ_AHEAD;
    if !config.synced {
        flags |= EnvFlags::NO_SYNC;
    }
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_LEN).max_readers(64);
    // SAFETY: the flags change what a power cut may take, and nothing about memory.
    unsafe { options.flags(flags) };
    // SAFETY: the directory is this run's own; no other process opens or changes its files.
    let env = unsafe { options.open(&config.dir) }?;
    let mut txn = env.write_txn()?;
    let records = env.create_database(&mut txn, None)?;
    txn.commit()?;
    Ok(Box::new(Lmdb { env, records }))
}

impl Engine for Lmdb {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        self.records.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in pairs {
            self.records.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        for key in keys {
            self.records.delete(&mut txn, key)?;
        }
        Ok(txn.commit()?)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.env.force_sync()?)
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(View { txn: self.env.read_txn()?, records: self.records }))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.env.force_sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

struct View<'a> {
    txn: RoTxn<'a, WithTls>,
    records: Database<Bytes, Bytes>,
}

impl Reader for View<'_> {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.records.get(&self.txn, key)?.map(each).is_some())
    }

    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        let mut count = 0;
        let range = (Bound::Included(&from[..]), Bound::<&[u8]>::Unbounded);
        for pair in self.records.range(&self.txn, &range)? {
            let (key, value) = pair?;
            each(key, value);
            count += 1;
            if count == rows {
                break;
            }
        }
        Ok(count)
    }
}
