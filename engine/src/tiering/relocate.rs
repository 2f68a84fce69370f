//! Reclaiming segments: live records go to a survivor segment or to an archive, the rest goes.
//! Write new, sync, publish in the manifest, switch the index, retire: in this order.
//!
//! What was judged dead may be dead because of a record that is not durable yet, so the journal is
//! flushed through everything visible at the judgement before the edit that makes it final.

use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::cold::builder::{ArchiveBuilder, NewArchive};
use crate::cold::dictionary::Sampler;
use crate::cold::reader::Archive;
use crate::cold::{ArchiveEntry, ColdRecord};
use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::format::record::Record;
use crate::ids::{ArchiveId, Incarnation, Location, Seq, Slot};
use crate::manifest::seal_op;
use crate::options::DemotePolicy;
use crate::tiering::gather::Gathered;
use crate::tiering::switch::Item;
use crate::tiers::{Maintenance, Tiers, bump};
use crate::warm::active::SegmentWriter;
use crate::warm::segment::Segment;
use crate::warm::versions::{OldPlace, OldVersion};

/// What reclaiming does with live records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// All of them survive in the log.
    Clean,
    /// Those that nobody touched go to the archive.
    Demote,
    /// Those of one keyspace that a policy means go to the archive.
    DemoteOf(Incarnation, DemotePolicy),
}

impl Aim {
    /// Whether a live record of a keyspace goes to the archive.
    fn demotes(self, incarnation: Incarnation, touched: bool) -> bool {
        match self {
            Self::Clean => false,
            Self::Demote => !touched,
            Self::DemoteOf(meant, policy) => {
                incarnation == meant && (policy == DemotePolicy::All || !touched)
            }
        }
    }
}

/// Everything that was judged about the victims.
#[derive(Debug, Default)]
struct Judged {
    survivors: Vec<Item>,
    /// Old versions that somebody needs; they survive with a flag that says so.
    kept: Vec<Item>,
    cold: Vec<Item>,
    /// Tombstones and expired records whose older versions are all marked dead.
    dropped: Vec<Item>,
}

/// Where the live records went. The archive has them in the order of `Judged::cold`.
#[derive(Debug, Default)]
struct Copies {
    /// Places in the survivor segment, first of the survivors, then of what was kept.
    offsets: Vec<u32>,
    archive: Option<Arc<ArchiveEntry>>,
}

/// The files that a reclaiming writes, and those that were written before it.
struct Drafts {
    gathered: Gathered,
    survivor: Option<(SegmentWriter, u32)>,
    archive: Option<u32>,
    bits: Option<u32>,
    ops: Vec<Op>,
}

impl Tiers {
    /// Reclaims these sealed segments.
    pub(crate) fn reclaim(
        &self,
        maintenance: &mut Maintenance,
        victims: &[Arc<Segment>],
        aim: Aim,
    ) -> Result<()> {
        self.reclaim_rest(maintenance, victims, aim, Gathered::default())
    }

    /// The same, where some of what lives in them was copied before.
    pub(crate) fn reclaim_rest(
        &self,
        maintenance: &mut Maintenance,
        victims: &[Arc<Segment>],
        aim: Aim,
        gathered: Gathered,
    ) -> Result<()> {
        let _span = tracing::debug_span!("reclaim", ?aim, segments = victims.len()).entered();
        for segment in victims {
            segment.map.prefetch(0..segment.records_end());
        }
        let mut judged = match self.judge(victims, aim, &gathered) {
            Ok(judged) => judged,
            Err(error) => {
                self.abandon_outputs(gathered.outputs);
                return not_reclaimed(maintenance, victims, error);
            }
        };
        self.sort_items(&mut judged.survivors);
        self.sort_items(&mut judged.cold);
        let mut drafts = self.draft(&judged, gathered)?;
        let written = self.write_drafts(&judged, &mut drafts, victims);
        let copies = match written {
            Ok(copies) => copies,
            Err(error) => {
                self.abandon(drafts);
                return not_reclaimed(maintenance, victims, error);
            }
        };
        let mut ops = std::mem::take(&mut drafts.ops);
        ops.extend(victims.iter().map(|segment| Op::Doom { id: segment.id.0 }));
        ops.extend(maintenance.gone.drain(..).map(|id| Op::Gone { id }));
        if planted(Canary::ReclaimBeforePublish) {
            for segment in victims {
                drop(self.dir.unlink(&segment.id.to_string()));
            }
        }
        if let Err(error) = self.commit_edit(&ops) {
            self.abandon(drafts);
            return Err(error);
        }
        self.publish_files(&drafts, copies.archive.as_ref());
        self.switch_copied(&judged, &drafts, &copies);
        self.switch_dropped(&judged.dropped);
        self.retire(maintenance, victims);
        bump(&self.counters.segments_cleaned, victims.len() as u64);
        bump(&self.counters.records_demoted, judged.cold.len() as u64);
        Ok(())
    }

    fn switch_copied(&self, judged: &Judged, drafts: &Drafts, copies: &Copies) {
        for output in &drafts.gathered.outputs {
            self.switch_gathered(output);
            bump(&self.counters.records_gathered, output.items.len() as u64);
        }
        if let Some((writer, _)) = &drafts.survivor {
            let from = judged.survivors.iter().chain(&judged.kept);
            self.switch_to_warm(from.zip(&copies.offsets), writer.segment.slot);
        }
        if let Some(archive) = &copies.archive {
            self.switch_to_cold(&judged.cold, archive);
        }
    }

    /// Reads the victims' trailers and decides about each record that the index names.
    fn judge(&self, victims: &[Arc<Segment>], aim: Aim, gathered: &Gathered) -> Result<Judged> {
        let now = self.clock.now_ms();
        let mut judged = Judged::default();
        for segment in victims {
            let trailer = segment.trailer()?;
            for entry in trailer.entries() {
                let entry = entry.map_err(|e| segment.damage("read trailer", 0, e))?;
                let from = Location::new(segment.slot, entry.offset);
                let item = Item { tag: entry.tag, from };
                let mut named = None;
                if !entry.superseded {
                    named = self.index.peek(entry.tag, |e| Ok::<_, Error>(e.location == from))?;
                }
                let Some(named) = named else {
                    if self.versions.holds(entry.tag, from) {
                        judged.kept.push(item);
                    }
                    continue;
                };
                if gathered.holds(from) {
                    continue;
                }
                let expired = entry.deadline_ms != 0 && entry.deadline_ms <= now;
                let ended = !self.keyspaces.is_kept(entry.incarnation);
                if entry.tombstone || expired || ended {
                    judged.dropped.push(item);
                } else if aim.demotes(entry.incarnation, named.touched) {
                    judged.cold.push(item);
                } else {
                    judged.survivors.push(item);
                }
            }
        }
        if aim == Aim::Demote && judged.survivors.len() > judged.cold.len() {
            // Everything is warm, and yet something must go: half of it gets no second chance.
            let keep = judged.survivors.len() / 2;
            judged.cold.extend(judged.survivors.drain(keep..));
        }
        Ok(judged)
    }

    /// Names all files that will be written in one edit.
    fn draft(&self, judged: &Judged, gathered: Gathered) -> Result<Drafts> {
        let mut ops = Vec::new();
        let survives = !judged.survivors.is_empty() || !judged.kept.is_empty();
        let survivor = survives.then(|| self.manifest.next_file());
        let archive = (!judged.cold.is_empty()).then(|| self.manifest.next_file());
        let witness = !judged.cold.is_empty() || !judged.dropped.is_empty();
        let witness = witness && !planted(Canary::DropTombstoneEarly);
        let bits = witness.then(|| self.manifest.next_file());
        ops.extend(survivor.map(|id| Op::DraftSegment { id }));
        ops.extend(archive.map(|id| Op::DraftArchive { id }));
        ops.extend(bits.map(|id| Op::DraftBits { id }));
        let mut drafts = Drafts { gathered, survivor: None, archive, bits, ops: Vec::new() };
        if !ops.is_empty()
            && let Err(error) = self.commit_edit(&ops)
        {
            self.abandon(drafts);
            return Err(error);
        }
        if let Some(id) = survivor {
            let made = self.survivors_len(judged).and_then(|len| self.create_survivor(id, len));
            match made {
                Ok(writer) => drafts.survivor = Some((writer, id)),
                Err(error) => {
                    self.discard_file(id);
                    self.abandon(drafts);
                    return Err(error);
                }
            }
        }
        Ok(drafts)
    }

    fn survivors_len(&self, judged: &Judged) -> Result<u64> {
        let items = judged.survivors.iter().chain(&judged.kept);
        items
            .map(|item| self.with_record(item, |_, record| Ok(record.header.encoded_len())))
            .try_fold(4096, |sum, len| Ok(sum + len?))
    }

    /// Writes and syncs everything that was drafted, and collects the ops that list it.
    fn write_drafts(
        &self,
        judged: &Judged,
        drafts: &mut Drafts,
        victims: &[Arc<Segment>],
    ) -> Result<Copies> {
        let mut copies = Copies::default();
        for output in &drafts.gathered.outputs {
            let facts = output.writer.segment.sealed().copied().ok_or(Error::Closed)?;
            drafts.ops.push(seal_op(output.id, &facts));
            bump(&self.counters.survivor_bytes, facts.len);
        }
        if let Some((writer, id)) = &mut drafts.survivor {
            copies.offsets.reserve_exact(judged.survivors.len() + judged.kept.len());
            self.write_survivor(writer, &judged.survivors, false, &mut copies.offsets)?;
            self.write_survivor(writer, &judged.kept, true, &mut copies.offsets)?;
            let (facts, footer) = writer.write_trailer(&self.seed)?;
            writer.segment.set_sealed(facts, footer);
            drafts.ops.push(seal_op(*id, &facts));
            bump(&self.counters.survivor_bytes, facts.len);
        }
        if let Some(id) = drafts.archive {
            self.moved();
            let made = self.write_archive(id, &judged.cold)?;
            drafts.ops.push(Op::ListArchive { id, len: made.archive.file_len() });
            bump(&self.counters.archive_bytes, made.archive.file_len());
            copies.archive = Some(made);
        }
        // A reader that missed in the index before a mark and in the archive after it asks again.
        self.moved();
        for item in &judged.dropped {
            self.mark_older_dead(item)?;
        }
        if let Some(id) = drafts.bits {
            let len = self.write_bits(id, victims)?;
            drafts.ops.push(Op::ListBits { id, len });
            let old = self.manifest.read(crate::manifest::FileSet::bits);
            drafts.ops.extend(old.map(|id| Op::Doom { id }));
        }
        self.sync_dirs()?;
        self.sync()?;
        Ok(copies)
    }

    pub(crate) fn sync_dirs(&self) -> Result<()> {
        if planted(Canary::SkipDirSync) {
            return Ok(());
        }
        for dir in [&self.dir, &self.archive_dir] {
            let synced = dir.sync();
            let synced = synced.map_err(|error| Error::io("sync directory", dir.path(), error));
            synced.inspect_err(|error| self.flusher.poison(error))?;
        }
        Ok(())
    }

    /// Makes a dictionary and writes the cold records, sorted by key before, as one archive.
    fn write_archive(&self, id: u32, cold: &[Item]) -> Result<Arc<ArchiveEntry>> {
        let table = self.segments.load_full();
        let record = |item: &Item| {
            table.of(item.from).and_then(|segment| segment.record(u64::from(item.from.offset)).ok())
        };
        let created_ms = self.clock.now_ms();
        let level = self.level_of(cold.first().and_then(record));
        let total = cold.iter().filter_map(record).map(|record| record.header.encoded_len()).sum();
        let sample_max = self.scratch().sample_max();
        let mut sampler = Sampler::new(total, sample_max, created_ms, self.draw_nonce()?);
        for item in cold {
            if let Some(record) = record(item) {
                sampler.add(&cold_record(&record));
            }
        }
        let dictionary = sampler.finish(level);
        let new = NewArchive {
            id: ArchiveId(id),
            store: self.store,
            nonce: self.draw_nonce()?,
            created_ms,
            level,
            seed: self.seed,
            dictionary,
            hashes_max: self.scratch().hashes_max(),
        };
        let mut builder = ArchiveBuilder::new(&*self.archive_dir, new)?;
        for item in cold {
            self.with_record(item, |_, record| builder.add(&cold_record(record)))?;
            self.mark_older_dead(item)?;
        }
        builder.finish()?;
        let archive = Archive::open(&*self.archive_dir, ArchiveId(id), self.store, self.seed)?;
        Ok(ArchiveEntry::new(archive))
    }

    fn level_of(&self, record: Option<Record<'_>>) -> i32 {
        record
            .and_then(|record| self.keyspaces.by_incarnation(record.header.incarnation))
            .map_or(3, |keyspace| keyspace.level)
    }

    /// Marks the archived copy of the item's key dead, if there is one.
    pub(crate) fn mark_older_dead(&self, item: &Item) -> Result<()> {
        let cold = self.cold.load();
        if cold.entries().is_empty() {
            return Ok(());
        }
        self.with_record(item, |_, record| {
            let header = &record.header;
            let hash = self.seed.hash(header.incarnation, record.key);
            if self.moments.need(Seq::ZERO)
                && let Some((old, place)) = cold.locate(hash, header.incarnation, record.key)?
                && let Some(entry) = cold.entries().get(place)
                && old.seq < header.seq
                && self.moments.need_between(old.seq, header.seq)
            {
                let (archive, ordinal) = (entry.archive.id().0, old.ordinal);
                let place = OldPlace::Cold { archive, ordinal };
                let version = OldVersion { seq: old.seq, until: header.seq, place };
                self.versions.enter(hash, version);
            }
            cold.mark_dead(hash, header.incarnation, record.key, header.seq)?;
            Ok(())
        })
    }

    /// Removes what was drafted and will not count.
    fn abandon(&self, drafts: Drafts) {
        self.abandon_outputs(drafts.gathered.outputs);
        let mut ids: Vec<u32> = drafts.archive.into_iter().chain(drafts.bits).collect();
        if let Some((writer, id)) = drafts.survivor {
            self.append.lock().table.release(writer.segment.slot);
            ids.push(id);
        }
        for id in ids {
            self.discard_file(id);
        }
    }

    /// Lets readers find the new files, before the index names them and before anything moves.
    fn publish_files(&self, drafts: &Drafts, archive: Option<&Arc<ArchiveEntry>>) {
        if let Some(entry) = archive {
            let set = self.cold.load().replaced(&[], vec![Arc::clone(entry)]);
            self.cold.store(Arc::new(set));
        }
        let outputs = drafts.gathered.outputs.iter().map(|output| &output.writer);
        let writers = drafts.survivor.iter().map(|(writer, _)| writer);
        let mut append = self.append.lock();
        for writer in outputs.chain(writers) {
            let segment = Arc::clone(&writer.segment);
            append.open_account(segment.slot, segment.created_ms);
            let slot: Slot = segment.slot;
            append.table.insert(segment);
            if let Some(account) = append.account(slot) {
                account.record_bytes = writer.segment.records_end()
                    - crate::format::segment::SEGMENT_HEADER_LEN as u64;
            }
        }
        self.publish_table(&append);
    }

    /// No new reader finds the victims; their files go, their maps stay while somebody holds them.
    fn retire(&self, maintenance: &mut Maintenance, victims: &[Arc<Segment>]) {
        {
            let mut append = self.append.lock();
            for segment in victims {
                segment.pins.retire(segment.sealed().map_or(0, |facts| facts.len));
                append.table.remove(segment.slot);
                append.close_account(segment.slot);
            }
            self.publish_table(&append);
        }
        self.unlink_doomed(maintenance);
    }

    /// Unlinks what the manifest says is doomed; the next edit records that it was seen.
    pub(crate) fn unlink_doomed(&self, maintenance: &mut Maintenance) {
        let doomed: Vec<(u32, crate::manifest::FileState)> = self.manifest.read(|set| {
            use crate::manifest::FileState::{DoomedArchive, DoomedBits, DoomedSegment};
            let doomed = |state| matches!(state, DoomedArchive | DoomedBits | DoomedSegment);
            let doomed = set.files.iter().filter(|(_, state)| doomed(**state));
            doomed.map(|(&id, &state)| (id, state)).collect()
        });
        for (id, state) in doomed {
            if maintenance.gone.contains(&id) {
                continue;
            }
            let name = state.name(id);
            let dir = if state.is_archive() { &self.archive_dir } else { &self.dir };
            match dir.unlink(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = name, %error, "a retired file stays for now");
                }
                _ => maintenance.gone.push(id),
            }
        }
    }
}

/// A segment with damage stays as it is; any other error is one.
fn not_reclaimed(
    maintenance: &mut Maintenance,
    victims: &[Arc<Segment>],
    error: Error,
) -> Result<()> {
    let Error::Corrupt(damage) = error else { return Err(error) };
    tracing::error!(%damage, "a segment with damage is not reclaimed");
    maintenance.damaged.extend(victims.iter().map(|segment| segment.id.0));
    Ok(())
}

fn cold_record<'a>(record: &Record<'a>) -> ColdRecord<'a> {
    ColdRecord {
        incarnation: record.header.incarnation,
        key: record.key,
        seq: record.header.seq,
        deadline_ms: record.header.deadline_ms,
        body_crc: record.header.body_crc,
        value: record.value,
    }
}
