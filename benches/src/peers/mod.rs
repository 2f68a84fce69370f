//! The engines by name: which were built, how each is configured, how each opens.

#[cfg(feature = "dashmap")]
mod dashmap;
#[cfg(feature = "emdb")]
mod emdb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "foyer-memory")]
mod foyer;
#[cfg(feature = "heed")]
mod lmdb;
#[cfg(feature = "moka")]
mod moka;
#[cfg(feature = "quick_cache")]
mod quick_cache;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod terrace;

use crate::engine::{Cache, Config, Engine, Outcome};

/// An engine: its name and how it is configured.
pub(crate) type Named = (&'static str, &'static str);

/// The stores that this build has.
pub(crate) fn stores() -> Vec<Named> {
    vec![
        ("terrace", terrace::CONFIG),
        ("terrace-unordered", terrace::CONFIG_UNORDERED),
        #[cfg(feature = "heed")]
        ("lmdb", lmdb::CONFIG),
        #[cfg(feature = "redb")]
        ("redb", redb::CONFIG),
        #[cfg(feature = "fjall")]
        ("fjall", fjall::CONFIG),
        #[cfg(feature = "emdb")]
        ("emdb", emdb::CONFIG),
        #[cfg(feature = "rocksdb")]
        ("rocksdb", rocksdb::CONFIG),
        #[cfg(feature = "rocksdb")]
        ("rocksdb-zstd", rocksdb::CONFIG_ZSTD),
    ]
}

/// The maps in memory that this build has.
pub(crate) fn caches() -> Vec<Named> {
    vec![
        ("terrace-hot", terrace::CONFIG_HOT),
        #[cfg(feature = "quick_cache")]
        ("quick_cache", quick_cache::CONFIG),
        #[cfg(feature = "moka")]
        ("moka", moka::CONFIG),
        #[cfg(feature = "foyer-memory")]
        ("foyer", foyer::CONFIG),
        #[cfg(feature = "dashmap")]
        ("dashmap", dashmap::CONFIG),
    ]
}

/// Opens a store by name.
pub(crate) fn open(name: &str, config: &Config) -> Outcome<Box<dyn Engine>> {
    match name {
        "terrace" => terrace::open(config, true),
        "terrace-unordered" => terrace::open(config, false),
        #[cfg(feature = "heed")]
        "lmdb" => lmdb::open(config),
        #[cfg(feature = "redb")]
        "redb" => redb::open(config),
        #[cfg(feature = "fjall")]
        "fjall" => fjall::open(config),
        #[cfg(feature = "emdb")]
        "emdb" => emdb::open(config),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => rocksdb::open(config, false),
        #[cfg(feature = "rocksdb")]
        "rocksdb-zstd" => rocksdb::open(config, true),
        _ => Err(format!("{name}: this build has no such store").into()),
    }
}

/// Makes a map in memory by name, with room for `count` records of `bytes` in all.
#[cfg_attr(not(feature = "moka"), expect(unused_variables, reason = "room is told in bytes here"))]
pub(crate) fn cache(name: &str, count: u64, bytes: u64) -> Outcome<Box<dyn Cache>> {
    match name {
        "terrace-hot" => terrace::cache(bytes),
        #[cfg(feature = "quick_cache")]
        "quick_cache" => quick_cache::cache(count),
        #[cfg(feature = "moka")]
        "moka" => Ok(moka::cache(count)),
        #[cfg(feature = "foyer-memory")]
        "foyer" => foyer::cache(count),
        #[cfg(feature = "dashmap")]
        "dashmap" => Ok(dashmap::cache()),
        _ => Err(format!("{name}: this build has no such cache").into()),
    }
}
