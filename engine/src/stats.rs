//! Figures of a running store, typed and documented. Reads counters; keeps none.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::tiers::Tiers;
use crate::tiers::moments::{HolderKind, Moment};
use crate::tiers::tally::Answer;

/// What the store did since it was opened, and what it holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records put.
    pub puts: u64,
    /// Tombstones written.
    pub deletes: u64,
    /// Reads that the hot tier answered.
    pub hot_hits: u64,
    /// Reads that the log answered.
    pub warm_hits: u64,
    /// Reads that an archive answered.
    pub cold_hits: u64,
    /// Reads of keys that were not there.
    pub misses: u64,
    /// Encoded bytes of the records that were put or deleted.
    pub user_bytes: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written by cleaning.
    pub survivor_bytes: u64,
    /// Bytes written to archives.
    pub archive_bytes: u64,
    /// Segments reclaimed.
    pub segments_cleaned: u64,
    /// Records that were copied into the order of their keys, for scans.
    pub records_gathered: u64,
    /// Records moved to an archive.
    pub records_demoted: u64,
    /// Expired records collected from the log.
    pub records_expired: u64,
    /// Archives merged.
    pub archives_merged: u64,
    /// Writes that waited for space.
    pub put_waits: u64,
    /// Microseconds that they were told to wait, in all.
    pub put_wait_us: u64,
    /// Bytes that movement owes: the log over the mark at which demotion begins, or garbage over
    /// its bound, whichever is more. From seven eighths of the warm budget on puts are slowed down.
    pub debt_bytes: u64,
    /// Records in the hot tier.
    pub hot_records: u64,
    /// Keys in the index of the log, tombstones included.
    pub warm_records: u64,
    /// Records in archives that are not known to be dead.
    pub cold_records: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Archives.
    pub archives: u64,
    /// Whether opening took the index from the image that the last close left.
    pub index_image: bool,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of memory that keep the keys in order.
    pub order_bytes: u64,
    /// Replaced records that somebody still sees.
    pub kept_versions: u64,
    /// Their bytes in the log.
    pub pinned_bytes: u64,
    /// Who looks at a moment of the past, the furthest back first.
    pub holders: Vec<HolderStats>,
    /// Bytes that the log takes.
    pub warm_bytes: u64,
    /// Bytes that all files take.
    pub disk_bytes: u64,
    /// The last mutation.
    pub last_seq: u64,
    /// The last mutation that is on stable storage, with all before it.
    pub durable_seq: u64,
    /// Names in the directory that are not the store's; they are left alone.
    pub foreign_files: Vec<String>,
    /// Bytes behind the last sound record that opening cut off; space that nothing was written to
    /// is not among them.
    pub tail_bytes_cut: u64,
    /// Copies of the manifest that were torn, missing or not sound when the store was opened, and
    /// that opening wrote anew from a sound one. A crash explains them.
    pub manifest_copies_mended: u64,
    /// Why movement fails, while it does.
    pub stuck: Option<String>,
}

/// A snapshot, iterator or transaction, and what is kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderStats {
    /// What it is.
    pub kind: HolderKind,
    /// The name that a snapshot was given.
    pub name: Option<String>,
    /// The moment that it sees.
    pub seq: u64,
    /// Milliseconds since it was made.
    pub age_ms: u64,
    /// The place in the program that made it: file, line and column.
    pub created_at: String,
    /// Replaced records that it sees. Several holders may see the same.
    pub kept_versions: u64,
    /// Their bytes in the log.
    pub pinned_bytes: u64,
}

impl HolderStats {
    fn of(tiers: &Tiers, moment: &Moment) -> Self {
        let (kept_versions, pinned_bytes) = tiers.kept_for(moment);
        Self {
            kind: moment.kind,
            name: moment.name.clone(),
            seq: moment.seq.0,
            age_ms: tiers.clock.monotonic_ms().saturating_sub(moment.created_ms),
            created_at: moment.site.to_string(),
            kept_versions,
            pinned_bytes,
        }
    }
}

impl Stats {
    pub(crate) fn of(tiers: &Tiers) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &tiers.counters;
        tiers.measure_space();
        let cold = tiers.cold.load();
        let cold_records = cold.entries().iter().map(|entry| {
            u64::from(entry.archive.record_count()).saturating_sub(entry.dead.total().record_count)
        });
        Self {
            index_image: tiers.report.index_image,
            puts: read(&counters.puts),
            deletes: read(&counters.deletes),
            hot_hits: counters.reads.sum(Answer::Hot),
            warm_hits: counters.reads.sum(Answer::Warm),
            cold_hits: counters.reads.sum(Answer::Cold),
            misses: counters.reads.sum(Answer::Miss),
            user_bytes: read(&counters.user_bytes),
            journal_bytes: read(&counters.journal_bytes),
            survivor_bytes: read(&counters.survivor_bytes),
            archive_bytes: read(&counters.archive_bytes),
            segments_cleaned: read(&counters.segments_cleaned),
            records_gathered: read(&counters.records_gathered),
            records_demoted: read(&counters.records_demoted),
            records_expired: read(&counters.records_expired),
            archives_merged: read(&counters.archives_merged),
            put_waits: read(&counters.put_waits),
            put_wait_us: read(&counters.put_wait_us),
            debt_bytes: tiers.debt_bytes(),
            hot_records: tiers.hot.record_count(),
            warm_records: tiers.index_count(),
            cold_records: cold_records.sum(),
            segments: tiers.segments.load().iter().count() as u64,
            archives: cold.entries().len() as u64,
            index_bytes: tiers.index.charged_len(),
            order_bytes: tiers.order_len(),
            kept_versions: tiers.versions.count(),
            pinned_bytes: tiers.append.lock().pinned_bytes(),
            holders: tiers.moments.all().iter().map(|one| HolderStats::of(tiers, one)).collect(),
            warm_bytes: read(&tiers.warm_len),
            disk_bytes: read(&tiers.disk_len),
            last_seq: tiers.visible().0,
            durable_seq: tiers.flusher.durable().0,
            foreign_files: tiers.report.foreign.clone(),
            tail_bytes_cut: tiers.report.tail_bytes_cut,
            manifest_copies_mended: tiers.report.manifest_mended,
            stuck: tiers.stuck.lock().as_ref().map(ToString::to_string),
        }
    }
}
