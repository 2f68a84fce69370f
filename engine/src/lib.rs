//! Terrace: an embedded, tiered key-value storage engine. Synchronous, no server, one library.
//!
//! `Db::open("data")`, `put`, `get`, and nothing to size but a memory budget and a disk budget. Hot
//! records are answered from memory, warm ones from a memory-mapped append log, cold ones from a
//! zstd archive. Records move between the tiers by how they are used; expired and deleted bytes go
//! back to the operating system by themselves.
//!
//! ```
//! use std::time::Duration;
//! use terrace::{Options, PutOptions};
//!
//! let db = Options::new().memory_budget(64 << 20).temporary()?;
//! let notes = db.keyspace("notes")?;
//! notes.put("a", "1")?;
//! notes.put_with("b", "2", PutOptions::new().ttl(Duration::from_secs(60)))?;
//! assert_eq!(notes.get("a")?.as_deref(), Some(&b"1"[..]));
//! assert!(notes.delete("a")?);
//! assert_eq!(notes.get("a")?, None);
//! # Ok::<(), terrace::Error>(())
//! ```
#![deny(unsafe_code)]
#![expect(dead_code, reason = "parts that tests alone call, and where a gap begins")]

#[cfg(not(target_os = "linux"))]
compile_error!("terrace is tested on Linux alone so far; other systems are refused until they are");

mod canary;
mod error;
mod hash;
mod ids;
mod key;
mod limits;
mod options;
mod shim;
mod value;

mod vfs;

mod codec;
mod format;

mod ledger;
mod manifest;

mod cold;
mod hot;
mod warm;

mod tiering;
mod tiers;

mod batch;
mod checkpoint;
mod db;
mod handle;
mod iter;
mod keyspace;
mod leaks;
mod reader;
pub mod repair;
mod snapshot;
mod statistics;
mod stats;
mod transaction;
mod update;
mod verify;
mod watch;

pub use batch::Batch;
pub use db::Db;
pub use error::{Damage, Error, Result};
pub use iter::{Iter, Keys};
pub use key::Key;
pub use keyspace::{Keyspace, RecordInfo, Tier};
pub use ledger::leaks::{
    GrowingPrefix, Growth, HandleKind, LeakPolicy, LeakReport, LiveHandle, Unowned,
};
pub use ledger::{Audit, FileAccount, FileBytes, KeyspaceBytes, Ledger, MemoryBytes};
pub use limits::{BATCH_LEN_MAX, KEY_LEN_MAX, KEYSPACE_NAME_LEN_MAX, VALUE_LEN_MAX};
pub use options::{DemotePolicy, Durability, KeyspaceOptions, OpenPolicy, Options, PutOptions};
pub use snapshot::{Snapshot, SnapshotOptions};
pub use stats::{HolderStats, Stats};
pub use tiers::moments::HolderKind;
pub use transaction::{Transaction, TransactionIter};
pub use update::{Change, Expect};
pub use value::Value;
pub use verify::{Progress, Verified, VerifyOptions};
pub use watch::{Watch, WatchEvent, WatchKind};

#[cfg(feature = "internals")]
pub mod internals;

/// The outside world, for tests: a clock that a test sets, the simulated disk.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::canary::{Canary, plant};
    pub use crate::vfs::clock::{ManualTime, TimeSource};
    pub use crate::vfs::os::seed_random;
    pub use crate::vfs::sim::{SimVfs, Survivors};
    pub use crate::vfs::{Dir, Entry, EntryKind, File, Lock, Vfs};
}

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
