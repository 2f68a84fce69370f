//! Merging: archives with too much garbage, or too many archives, become one. Live records are
//! copied, the rest goes; an archive in which everything has expired goes unread.
//! Knows archives; the log is not touched.

use std::sync::Arc;

use crate::cold::builder::{ArchiveBuilder, NewArchive};
use crate::cold::dictionary::Sampler;
use crate::cold::live::Live;
use crate::cold::reader::Archive;
use crate::cold::{ArchiveEntry, ArchiveSet, ColdRecord};
use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::ids::{ArchiveId, Incarnation};
use crate::limits::ARCHIVE_LEN_MAX;
use crate::tiering::Step;
use crate::tiers::debt::Debt;
use crate::tiers::{Maintenance, Tiers, bump};
use crate::vfs::os;

/// Most archives that stand side by side; a lookup asks each one's filter.
const ARCHIVE_COUNT_MAX: usize = 8;
/// Garbage, in percent of an archive's records, at which it is rewritten.
const GARBAGE_PERCENT_MAX: u64 = 20;
/// The least level that zstd has.
const LEVEL_MIN: i32 = 1;

/// A record that waits in the merge.
struct Head {
    victim: usize,
    incarnation: Incarnation,
    key: Vec<u8>,
}

impl Tiers {
    /// Removes expired archives, or merges those that it pays to merge.
    pub(crate) fn merge_step(&self, maintenance: &mut Maintenance) -> Result<Step> {
        let set = self.cold.load_full();
        let now = self.clock.now_ms();
        let free = self.free_archives(&set);
        let expired: Vec<_> =
            free.iter().filter(|entry| self.live_bytes_of(entry, now) == 0).cloned().collect();
        if !expired.is_empty() {
            self.replace_archives(maintenance, &expired, None)?;
            return Ok(Step::Worked);
        }
        let victims = self.pick(&free, now);
        if victims.is_empty() {
            return Ok(Step::Idle);
        }
        self.merge(maintenance, &victims, now, LEVEL_MIN)?;
        Ok(Step::Worked)
    }

    /// The archives of a set that may be rewritten: one with a dead record that a snapshot needs
    /// stays as it is until then.
    pub(crate) fn free_archives(&self, set: &ArchiveSet) -> Vec<Arc<ArchiveEntry>> {
        let free = |entry: &&Arc<ArchiveEntry>| {
            self.versions.cold_ordinals(entry.archive.id().0).is_empty()
        };
        set.entries().iter().filter(free).cloned().collect()
    }

    /// Encoded bytes of an archive's records that are neither dead, nor expired as a class, nor of
    /// an incarnation that ended.
    pub(crate) fn live_bytes_of(&self, entry: &ArchiveEntry, now_ms: u64) -> u64 {
        let tables = entry.archive.tables();
        let mut live = 0;
        for row in &tables.incarnations {
            if self.keyspaces.is_kept(row.incarnation) {
                let dead = entry.dead.of_incarnation(row.incarnation).encoded_len;
                live += row.encoded_len.saturating_sub(dead);
            }
        }
        for (index, row) in tables.classes.iter().enumerate() {
            if row.end_ms != 0 && row.end_ms <= now_ms && self.keyspaces.is_kept(row.incarnation) {
                let dead = entry.dead.of_class(index).encoded_len;
                live = live.saturating_sub(row.encoded_len.saturating_sub(dead));
            }
        }
        live
    }

    fn pick(&self, entries: &[Arc<ArchiveEntry>], now_ms: u64) -> Vec<Arc<ArchiveEntry>> {
        let total = |entry: &ArchiveEntry| entry.archive.footer().encoded_len.max(1);
        let garbage = |entry: &Arc<ArchiveEntry>| {
            100 - self.live_bytes_of(entry, now_ms).min(total(entry)) * 100 / total(entry)
        };
        let worst = entries.iter().max_by_key(|entry| garbage(entry));
        if let Some(worst) = worst
            && garbage(worst) > GARBAGE_PERCENT_MAX
        {
            return vec![Arc::clone(worst)];
        }
        if entries.len() <= ARCHIVE_COUNT_MAX {
            return Vec::new();
        }
        let mut by_len = entries.to_vec();
        by_len.sort_by_key(|entry| entry.archive.file_len());
        let mut len = 0;
        by_len.retain(|entry| {
            len += entry.archive.file_len();
            len <= ARCHIVE_LEN_MAX
        });
        by_len.truncate((entries.len() / 2).max(2));
        if by_len.len() < 2 { Vec::new() } else { by_len }
    }

    /// Makes one archive of the victims, at their keyspace's level or `level_min`, if that is more.
    pub(crate) fn merge(
        &self,
        maintenance: &mut Maintenance,
        victims: &[Arc<ArchiveEntry>],
        now_ms: u64,
        level_min: i32,
    ) -> Result<()> {
        let _span = tracing::debug_span!("merge", archives = victims.len()).entered();
        self.take_scratch();
        let id = self.manifest.next_file();
        self.commit_edit(&vec![Op::DraftArchive { id }])?;
        let made = match self.write_merged(id, victims, now_ms, level_min) {
            Ok(made) => made,
            Err(error) => {
                self.discard_file(id);
                return Err(error);
            }
        };
        bump(&self.counters.archives_merged, victims.len() as u64);
        if let Some(entry) = made {
            bump(&self.counters.archive_bytes, entry.archive.file_len());
            return self.replace_archives(maintenance, victims, Some(entry));
        }
        self.discard_file(id);
        self.replace_archives(maintenance, victims, None)
    }

    /// Copies the live records of the victims in key order; `None` when there were none.
    fn write_merged(
        &self,
        id: u32,
        victims: &[Arc<ArchiveEntry>],
        now_ms: u64,
        level_min: i32,
    ) -> Result<Option<Arc<ArchiveEntry>>> {
        let level = self.merge_level(victims).max(level_min);
        let dictionary = self.sample(victims, now_ms, level)?;
        let new = NewArchive {
            id: ArchiveId(id),
            store: self.store,
            nonce: random()?,
            created_ms: now_ms,
            level,
            seed: self.seed,
            dictionary,
            hashes_max: self.scratch().hashes_max(),
        };
        let mut builder = ArchiveBuilder::new(&*self.archive_dir, new)?;
        self.each_live(victims, now_ms, |record| {
            // Writers that wait for the log to shrink do not wait for the last percent.
            builder.set_haste(self.space_debt() != Debt::None)?;
            builder.add(record)
        })?;
        if builder.record_count() == 0 {
            builder.abandon(&*self.archive_dir)?;
            return Ok(None);
        }
        builder.finish()?;
        self.sync_dirs()?;
        let archive = Archive::open(&*self.archive_dir, ArchiveId(id), self.store, self.seed)?;
        Ok(Some(ArchiveEntry::new(archive)))
    }

    fn merge_level(&self, victims: &[Arc<ArchiveEntry>]) -> i32 {
        let first = victims.first().and_then(|entry| entry.archive.tables().incarnations.first());
        first
            .and_then(|row| self.keyspaces.by_incarnation(row.incarnation))
            .map_or(3, |keyspace| keyspace.level)
    }

    fn sample(
        &self,
        victims: &[Arc<ArchiveEntry>],
        now_ms: u64,
        level: i32,
    ) -> Result<Option<Vec<u8>>> {
        let total = victims.iter().map(|entry| entry.archive.footer().encoded_len).sum();
        let mut sampler = Sampler::new(total, self.scratch().sample_max(), now_ms, random()?);
        self.each_live(victims, now_ms, |record| {
            sampler.add(record);
            Ok(())
        })?;
        Ok(sampler.finish(level))
    }

    /// Hands the live records of all victims to `each`, in order of (incarnation, key).
    fn each_live(
        &self,
        victims: &[Arc<ArchiveEntry>],
        now_ms: u64,
        mut each: impl FnMut(&ColdRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut victims: Vec<Live> = victims.iter().map(Live::of).collect();
        let mut heads: Vec<Head> = Vec::new();
        for (index, live) in victims.iter_mut().enumerate() {
            heads.extend(self.advance(index, live, now_ms)?);
        }
        while let Some(first) = heads
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| (a.incarnation, &a.key).cmp(&(b.incarnation, &b.key)))
            .map(|(at, _)| at)
        {
            let head = heads.swap_remove(first);
            let Some(live) = victims.get_mut(head.victim) else { continue };
            // It stands behind the head's record, which is read again and handed on.
            live.seek(head.incarnation, &head.key)?;
            if let Some(found) = live.next()? {
                each(&found.record)?;
            }
            heads.extend(self.advance(head.victim, live, now_ms)?);
        }
        Ok(())
    }

    /// The next record of an archive that a merge keeps, as a head.
    fn advance(&self, victim: usize, live: &mut Live, now_ms: u64) -> Result<Option<Head>> {
        while let Some(found) = live.next()? {
            let record = &found.record;
            let expired = record.deadline_ms != 0 && record.deadline_ms <= now_ms;
            if !expired && self.keyspaces.is_kept(record.incarnation) {
                let (incarnation, key) = (record.incarnation, record.key.to_vec());
                return Ok(Some(Head { victim, incarnation, key }));
            }
        }
        Ok(None)
    }

    /// Lists the new archive and dooms the old ones in one edit, then tells the readers.
    fn replace_archives(
        &self,
        maintenance: &mut Maintenance,
        gone: &[Arc<ArchiveEntry>],
        made: Option<Arc<ArchiveEntry>>,
    ) -> Result<()> {
        let mut ops: Vec<Op> = Vec::new();
        if let Some(entry) = &made {
            let (id, len) = (entry.archive.id().0, entry.archive.file_len());
            ops.push(Op::ListArchive { id, len });
        }
        ops.extend(gone.iter().map(|entry| Op::Doom { id: entry.archive.id().0 }));
        ops.extend(maintenance.gone.drain(..).map(|id| Op::Gone { id }));
        // What was left behind may be dead by a record, or an end of a keyspace, that is not
        // durable yet.
        if let Err(error) = self.sync().and_then(|()| self.commit_edit(&ops)) {
            if let Some(entry) = &made {
                self.discard_file(entry.archive.id().0);
            }
            return Err(error);
        }
        let ids: Vec<ArchiveId> = gone.iter().map(|entry| entry.archive.id()).collect();
        let set = self.cold.load().replaced(&ids, made.into_iter().collect());
        self.cold.store(Arc::new(set));
        for entry in gone {
            entry.archive.retire();
        }
        self.moved();
        self.unlink_doomed(maintenance);
        Ok(())
    }
}

fn random() -> Result<u64> {
    let bytes = os::random_bytes();
    let bytes = bytes.map_err(|error| Error::io("draw nonce", "random numbers", error))?;
    Ok(u64::from_le_bytes(bytes))
}
