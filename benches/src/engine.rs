//! What a row asks of an engine, and how an engine is told to open.
//! Knows no engine by name; `peers` does.

use std::error::Error;
use std::path::PathBuf;

use terrace_benches::workload::Key;

/// The result of anything here; the text is what a person reads.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How an engine opens.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// An empty directory, or the one that a run before left.
    pub dir: PathBuf,
    /// Bytes of its cache: equal for all.
    pub cache_bytes: u64,
    /// Every write is on stable storage when it returns.
    pub synced: bool,
    /// Keep as little as possible uncompressed.
    pub cold: bool,
}

/// One pair to write.
pub(crate) type Pair = (Key, Vec<u8>);

/// An open store.
pub(crate) trait Engine: Sync {
    /// Whether it keeps keys in order; rows that scan are left out otherwise.
    fn ordered(&self) -> bool {
        true
    }

    /// One write, done when it returns: as durable as `Config::synced` says.
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Several writes at once, by the means that the engine has for it.
    fn put_all(&self, pairs: &[Pair]) -> Outcome<()>;

    /// Several deletes at once.
    fn delete_all(&self, keys: &[Key]) -> Outcome<()>;

    /// Everything written before is on stable storage when it returns.
    fn sync(&self) -> Outcome<()>;

    /// Gives background work the chance to catch up, where the engine offers to wait for it.
    fn settle(&self) -> Outcome<()> {
        Ok(())
    }

    /// Compresses and compacts everything now, where the engine offers it.
    fn compact(&self) -> Outcome<()> {
        Ok(())
    }

    /// Bytes of memory a key that the engine itself reports, each with its name.
    fn report(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The share of all reads so far that its own cache of records answered, where it tells.
    fn hot_share(&self) -> Option<f64> {
        None
    }

    /// A view to read from: of one thread, as of now or later.
    fn reader(&self) -> Outcome<Box<dyn Reader + '_>>;

    /// Ends it the way its documentation wants.
    fn close(self: Box<Self>) -> Outcome<()>;
}

/// A view of a store, for one thread. A row of reads alone keeps one; a row that also writes takes
/// a new one for each read.
pub(crate) trait Reader {
    /// Hands the value to `each`, without a copy where the engine can; answers whether it is there.
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool>;

    /// Hands the values of several keys to `each`, with the index of the key.
    fn multi_get(&self, keys: &[Key], each: &mut dyn FnMut(usize, &[u8])) -> Outcome<()> {
        for (i, key) in keys.iter().enumerate() {
            self.get(key, &mut |value| each(i, value))?;
        }
        Ok(())
    }

    /// Hands at most `rows` records from `from` on to `each`, in order; answers how many.
    fn scan(&self, from: &Key, rows: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<u64>;
}

/// A map in memory: the peers of the hot tier.
pub(crate) trait Cache: Sync {
    /// Enters a value.
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Hands the value to `each`; answers whether it is there.
    fn get(&self, key: &Key, each: &mut dyn FnMut(&[u8])) -> Outcome<bool>;
}
