//! RocksDB: plain, and with zstd and dictionaries.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use terrace_benches::workload::Key;

use crate::engine::{Config, Engine, Outcome, Pair, Reader};

/// As its documentation recommends: a dictionary of at most 16 KiB, trained on 100 times as much.
const DICTIONARY_LEN: i32 = 16 << 10;

pub(crate) const CONFIG: &str = "The options of its tuning page: LRU block cache of the cache \
    size, blocks of 16 KiB, index and filters in the cache, 10-bit Bloom filters, 2 \
    background jobs, no \
    compression. A synced write sets `sync`.";
pub(crate) const CONFIG_ZSTD: &str =
    "As rocksdb, with zstd and dictionaries of 16 KiB, blocks of 16 KiB.";

struct Rocks {
    db: DB,
    write: WriteOptions,
}

pub(crate) fn open(config: &Config, zstd: bool) -> Outcome<Box<dyn Engine>> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(usize::try_from(config.cache_bytes)?));
    table.set_block_size(16 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    if zstd {
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_compression_options(-14, 3, 0, DICTIONARY_LEN);
        options.set_zstd_max_train_bytes(100 * DICTIONARY_LEN);
    } else {
        options.set_compression_type(DBCompressionType::None);
    }
    let mut write = WriteOptions::default();
    write.set_sync(config.synced);
    Ok(Box::new(Rocks { db: DB::open(&options, config.dir.join("rocksdb"))?, write }))
}

impl Engine for Rocks {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.db.put_opt(key, value, &self.write)?)
    }

    fn put_all(&self, pairs: &[Pair]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn delete_all(&self, keys: &[Key]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for key in keys {
            batch.delete(key);
        }
        Ok(self.db.write_opt(batch, &self.write)?)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn compact(&self) -> Outcome<()> {
        self.db.flush()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn reader(&self) -> Outcome<Box<dyn Reader + '_>> {
        Ok(Box::new(View(&self.db)))
    }

    fn close(self: Box<Self>) -> Outcome<()> {
        self.sync()
    }
}

struct View<'a>(&'a DB);

impl Reader for View<'_> {
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        Ok(self.0.get_pinned(key)?.map(|value| each(&value)).is_some())
    }

    fn multi_get(&self, keys: &[Key], each: &mut dyn FnMut(usize, &[u8])) -> Outcome<()> {
        for (i, value) in self.0.multi_get(keys).into_iter().enumerate() {
            if let Some(value) = value? {
                each(i, &value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let mut count = 0;
        for pair in self.0.iterator_opt(mode, ReadOptions::default()) {
            let (key, value) = pair?;
            each(&key, &value);
            count += 1;
            if count == rows {
                break;
            }
        }
        Ok(count)
    }
}
