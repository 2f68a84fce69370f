//! Tiered memory: typed values in a keyspace of the engine, and where they are.
//! Thin: what is hot, warm or cold, the engine decides by use; a record keeps its deadline wherever
//! it lies.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use terrace::{Change, Db, Keyspace, PutOptions, Tier};

use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::store::{Clock, Ttl, VALUE_LEN_MAX};

/// What is to go to the cold tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DemotePolicy {
    /// What the engine's budgets want there: waits until its background work has caught up, at
    /// most so long.
    Settle(Duration),
    /// The same, after the whole log was cleaned. Never needed; sometimes wanted before a copy.
    Compact(Duration),
    /// What this policy of the engine means of this memory, at once, whatever the budgets say.
    Now(terrace::DemotePolicy),
}

/// What moved while [`TieredMemory::demote`] waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Records that went to an archive.
    pub records: u64,
    /// Bytes of archives that were written.
    pub archive_bytes: u64,
    /// Whether nothing more is wanted; `false` when the time was too short.
    pub settled: bool,
}

/// One tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierFigures {
    /// Records in it, of all keyspaces.
    pub records: u64,
    /// Its bytes: of memory for the hot tier, of files for the others.
    pub bytes: u64,
    /// Its files.
    pub files: u64,
    /// Reads that it answered since the store was opened.
    pub hits: u64,
}

/// Figures of the tiers. They are the engine's, over all its keyspaces; `entries` is this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierStats {
    /// Keys of this memory as far as it is known without reading: expired ones that were not
    /// collected yet count.
    pub entries: u64,
    /// L1, in memory.
    #[doc(alias = "l1_entries")]
    #[doc(alias = "l1_usage_mb")]
    pub hot: TierFigures,
    /// L2, the mapped log.
    #[doc(alias = "l2_files")]
    pub warm: TierFigures,
    /// L3, the archives.
    #[doc(alias = "l3_files")]
    pub cold: TierFigures,
    /// Reads of keys that were not there.
    pub misses: u64,
    /// Memory that the engine may use.
    #[doc(alias = "l1_capacity_mb")]
    pub memory_budget: u64,
}

impl TierStats {
    /// The share of reads that memory answered, of all that found their key; 0 before the first.
    pub fn hot_share(&self) -> f64 {
        let all = self.hot.hits + self.warm.hits + self.cold.hits;
        #[expect(clippy::cast_precision_loss, reason = "a share for people to read")]
        let share = self.hot.hits as f64 / all.max(1) as f64;
        share
    }
}

/// Typed values in tiers. Clones share it.
///
/// Reading moves what is used towards memory; what is not used goes to the archive when the log is
/// over its budget. Neither changes the value or its deadline.
#[derive(Clone)]
pub struct TieredMemory {
    db: Db,
    keyspace: Keyspace,
    schema: Schema,
    clock: Clock,
}

impl fmt::Debug for TieredMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TieredMemory({:?})", self.keyspace.name())
    }
}

impl TieredMemory {
    /// The memory of this name in an engine; begun when there is none.
    pub fn open(db: &Db, name: &str) -> Result<Self> {
        Self::with_schema(db, name, Schema::default())
    }

    /// The same, with a schema of the program's.
    pub fn with_schema(db: &Db, name: &str, schema: Schema) -> Result<Self> {
        let keyspace = db.keyspace(&format!("tiered/{name}"))?;
        Ok(Self { db: db.clone(), keyspace, schema, clock: Clock::system() })
    }

    /// Writes a value.
    ///
    /// Errors: [`Error::Invalid`] for a TTL that is over, [`Error::Limit`] for a key above 64 KiB
    /// or a value above 16 MiB.
    pub fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T, ttl: Ttl) -> Result<()> {
        let stored = self.schema.encode(value)?;
        Error::check_limit("value", stored.len(), VALUE_LEN_MAX)?;
        if ttl == Ttl::Keep {
            self.keyspace.update(key, |_| Change::Put(stored.to_vec()))?;
            return Ok(());
        }
        let now = self.clock.now();
        let deadline = crate::store::deadline(ttl, now, None)?;
        let options = PutOptions::new();
        let options = deadline.map_or(options, |deadline| options.ttl(deadline.since(now)));
        self.keyspace.put_with(key, &stored, options)?;
        Ok(())
    }

    /// The value, or `None` when it is absent or expired.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let found = self.keyspace.get_with(key, |stored| self.schema.decode(stored))?;
        found.transpose()
    }

    /// Deletes a value; answers whether it was there.
    pub fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.keyspace.delete(key)?)
    }

    /// The tier that holds a value now.
    pub fn tier(&self, key: &str) -> Result<Option<Tier>> {
        Ok(self.keyspace.info(key)?.map(|info| info.tier))
    }

    /// Waits until what the budgets want in the cold tier is there; answers what moved.
    pub fn demote(&self, policy: DemotePolicy) -> Result<Moved> {
        let before = self.db.stats();
        let wait = match policy {
            DemotePolicy::Settle(wait) => wait,
            DemotePolicy::Compact(wait) => {
                self.db.compact()?;
                wait
            }
            DemotePolicy::Now(policy) => {
                self.db.demote(&self.keyspace, policy)?;
                Duration::ZERO
            }
        };
        let settled = self.db.settle(wait)?;
        let after = self.db.stats();
        Ok(Moved {
            records: after.records_demoted.saturating_sub(before.records_demoted),
            archive_bytes: after.archive_bytes.saturating_sub(before.archive_bytes),
            settled,
        })
    }

    /// Figures of the tiers.
    #[doc(alias = "get_stats")]
    pub fn stats(&self) -> TierStats {
        let (stats, ledger) = (self.db.stats(), self.db.ledger());
        TierStats {
            entries: self.keyspace.approximate_len(),
            hot: TierFigures {
                records: stats.hot_records,
                bytes: ledger.memory.hot,
                files: 0,
                hits: stats.hot_hits,
            },
            warm: TierFigures {
                records: stats.warm_records,
                bytes: ledger.warm.len,
                files: stats.segments,
                hits: stats.warm_hits,
            },
            cold: TierFigures {
                records: stats.cold_records,
                bytes: ledger.cold.len,
                files: stats.archives,
                hits: stats.cold_hits,
            },
            misses: stats.misses,
            memory_budget: ledger.memory.budget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Millis;

    /// Text that does not compress to nothing.
    fn text(seed: u64) -> String {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let word = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            format!("{state:016x}")
        };
        (0..64).map(word).collect()
    }

    #[test]
    fn values_keep_what_they_are_and_their_deadline_through_all_tiers() {
        let options = terrace::Options::new().memory_budget(8 << 20).warm_budget(4 << 20);
        let db = options.temporary().unwrap();
        let memory = TieredMemory::open(&db, "notes").unwrap();
        let hour = Ttl::For(Duration::from_hours(1));
        let mut moved = 0;
        for i in 0..8000_u64 {
            memory.put(&format!("k{i}"), &(i, text(i)), hour).unwrap();
            if i % 1000 == 999 {
                let one = memory.demote(DemotePolicy::Settle(Duration::from_secs(20))).unwrap();
                assert!(one.settled);
                moved += one.records;
            }
        }
        let stats = memory.stats();
        assert_eq!(stats.entries, 8000);
        assert!(stats.cold.records > 1000 && stats.cold.files > 0, "{stats:?}");
        assert!(moved <= stats.cold.records, "workers move as well");
        let cold = (0..8000).find(|i| memory.tier(&format!("k{i}")).unwrap() == Some(Tier::Cold));
        let key = format!("k{}", cold.unwrap());
        let deadline = || memory.keyspace.info(&key).unwrap().unwrap().expires_at;
        let before = deadline();
        assert!(before.is_some());
        for _ in 0..4 {
            let (i, found): (u64, String) = memory.get(&key).unwrap().unwrap();
            assert_eq!((format!("k{i}"), found), (key.clone(), text(i)));
        }
        assert_eq!(deadline(), before, "reading changes no deadline");
        memory.put(&key, &1, Ttl::Keep).unwrap();
        assert_eq!(deadline(), before, "Keep keeps it, wherever the record was");
        assert!(memory.stats().hot_share() <= 1.0);
        assert!(memory.delete(&key).unwrap() && !memory.delete(&key).unwrap());
        assert_eq!(memory.tier(&key).unwrap(), None);
        memory.demote(DemotePolicy::Compact(Duration::from_secs(20))).unwrap();
        assert_eq!(memory.get::<u64>("missing").unwrap(), None);
        memory.put("fresh", &1, Ttl::Never).unwrap();
        let all = DemotePolicy::Now(terrace::DemotePolicy::All);
        assert!(memory.demote(all).unwrap().records > 0);
        assert_eq!(memory.tier("fresh").unwrap(), Some(Tier::Cold));
    }

    #[test]
    fn ttls_that_are_over_and_values_too_large_are_refused() {
        let db = terrace::Options::new().temporary().unwrap();
        let memory = TieredMemory::open(&db, "notes").unwrap();
        for ttl in [Ttl::For(Duration::ZERO), Ttl::Until(Millis(1))] {
            assert!(matches!(memory.put("k", &1, ttl), Err(Error::Invalid(_))));
        }
        let large = "x".repeat(17 << 20);
        assert!(matches!(memory.put("k", &large, Ttl::Never), Err(Error::Limit { .. })));
        memory.put("k", &1, Ttl::Until(Millis(u64::MAX))).unwrap();
        assert!(matches!(memory.get::<String>("k"), Err(Error::Codec(_))));
        let name = "x".repeat(300);
        assert!(TieredMemory::open(&db, &name).is_err());
    }
}
