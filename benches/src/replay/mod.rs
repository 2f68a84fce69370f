//! Caches that hold keys alone, to be judged by what they hit on a trace.
//! Knows requests; knows nothing of values or time.

mod crates;
mod list;
mod optimum;
mod queues;

use std::io::{self, Read};
use std::path::Path;

use terrace::internals::PolicyModel;

/// One cache; a key that misses is admitted.
pub trait Cache {
    /// A request; answers whether it was resident.
    fn touch(&mut self, key: u32) -> io::Result<bool>;
}

impl Cache for PolicyModel {
    fn touch(&mut self, key: u32) -> io::Result<bool> {
        Self::touch(self, key)
    }
}

/// The requests of one workload: dense keys in the order of their first appearance.
#[derive(Debug)]
pub struct Trace {
    /// Where it comes from.
    pub name: String,
    /// One key a request.
    pub keys: Vec<u32>,
    /// Keys run below this.
    pub distinct: usize,
}

impl Trace {
    /// Reads a zstd stream of little-endian 64-bit keys.
    pub fn read(path: &Path) -> io::Result<Self> {
        #[expect(clippy::disallowed_types, reason = "a bench reads its input")]
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        zstd::Decoder::new(file)?.read_to_end(&mut bytes)?;
        let key = |bytes: &[u8; 8]| u32::try_from(u64::from_le_bytes(*bytes));
        let keys: Result<Vec<u32>, _> = bytes.as_chunks::<8>().0.iter().map(key).collect();
        let keys = keys.map_err(io::Error::other)?;
        let distinct = keys.iter().max().map_or(0, |&key| key as usize + 1);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".u64.zst").to_owned();
        Ok(Self { name, keys, distinct })
    }

    /// The part of the requests that this cache answers, in percent.
    #[expect(clippy::cast_precision_loss, reason = "requests are counted in millions")]
    pub fn hit_percent(&self, cache: &mut dyn Cache) -> io::Result<f64> {
        let mut hits = 0_u64;
        for &key in &self.keys {
            hits += u64::from(cache.touch(key)?);
        }
        Ok(hits as f64 * 100.0 / self.keys.len().max(1) as f64)
    }
}

/// Names of the caches, in the order of [`cache`]: the peers, ours, the optimum.
pub const CACHES: [&str; 7] =
    ["LRU", "S3-FIFO", "SIEVE", "W-TinyLFU (moka)", "quick_cache", "Terrace", "optimum"];

/// The cache of this name's index, with so many records, for this trace.
pub fn cache(index: usize, capacity: usize, trace: &Trace) -> io::Result<Box<dyn Cache>> {
    let capacity = capacity.max(1);
    Ok(match index {
        0 => Box::new(list::Lru::new(capacity, trace.distinct)),
        1 => Box::new(queues::S3Fifo::new(capacity, trace.distinct)),
        2 => Box::new(list::Sieve::new(capacity, trace.distinct)),
        3 => Box::new(crates::Moka::new(capacity)),
        4 => Box::new(crates::QuickCache::new(capacity)),
        5 => Box::new(PolicyModel::new(capacity)?),
        _ => Box::new(optimum::Optimum::new(capacity, trace)),
    })
}
