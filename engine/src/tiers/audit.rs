//! The ledger of an open store, and its recount from the files.
//! Knows where each class is counted; the classes themselves are `ledger`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cold::ArchiveEntry;
use crate::error::{Damage, Error, Result};
use crate::format::record::{Record, RecordKind};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::trailer::TrailerEntry;
use crate::ids::{Location, Slot};
use crate::ledger::{Audit, FileAccount, FileBytes, Ledger, MemoryBytes};
use crate::manifest::FileState;
use crate::tiers::Tiers;
use crate::tiers::append::Append;
use crate::tiers::order::Unsorted;
use crate::vfs::File;
use crate::warm::account::{SegmentAccount, Weight};
use crate::warm::active::SegmentWriter;
use crate::warm::segment::Segment;

/// One segment, counted from its records.
struct Recount<'s> {
    segment: &'s Arc<Segment>,
    /// Whether bodies are read too.
    deep: bool,
    /// What the trailer tells of damaged records: read at the first of them, once for all.
    told: Option<BTreeMap<u32, TrailerEntry>>,
    account: SegmentAccount,
    records: u64,
    bytes: u64,
    /// Where a damaged record that nothing tells of ended the count.
    lost_at: Option<u64>,
}

impl Recount<'_> {
    fn told_of(&mut self, offset: u32) -> Option<TrailerEntry> {
        let segment = self.segment;
        self.told.get_or_insert_with(|| segment.damaged_witnesses()).get(&offset).copied()
    }

    /// What the account says otherwise of a segment whose records end at `end`.
    fn differs(&self, known: &SegmentAccount, end: u64) -> Vec<String> {
        let id = self.segment.id;
        if let Some(offset) = self.lost_at {
            return vec![format!("{id}: damaged from {offset} on")];
        }
        let found = &self.account;
        let end_bytes = end - SEGMENT_HEADER_LEN as u64;
        let lines = [
            ("records", known.record_bytes, found.record_bytes),
            ("bytes before the end", end_bytes, found.record_bytes),
            ("live", known.live_bytes(), found.live_bytes()),
            ("live records", known.live_count(), found.live_count()),
            ("tombstone", known.tombstone_bytes, found.tombstone_bytes),
            ("damaged", known.damaged_bytes(), found.damaged_bytes()),
        ];
        let differing = lines.into_iter().filter(|(_, known, found)| known != found);
        let text = |(line, known, found)| format!("{id}: {line} {known}, recounted {found}");
        differing.map(text).collect()
    }
}

impl Tiers {
    /// Where every byte is, as the accounts know it.
    pub(crate) fn ledger(&self) -> Ledger {
        let now = self.clock.now_ms();
        let mut ledger = Ledger::default();
        {
            let append = self.append.lock();
            for file in self.warm_files(&append, now) {
                ledger.warm.add(&file.bytes);
                ledger.files.push(file);
            }
            ledger.keyspaces = self.keyspace_bytes(&append);
        }
        for entry in self.cold.load().entries() {
            let file = self.cold_file(entry, now);
            ledger.cold.add(&file.bytes);
            ledger.files.push(file);
        }
        for file in self.other_files() {
            ledger.other.add(&file.bytes);
            ledger.files.push(file);
        }
        ledger.memory = self.memory();
        ledger.unlinked = self.pins.retired_len();
        ledger
    }

    pub(crate) fn memory(&self) -> MemoryBytes {
        let mut memory = MemoryBytes {
            hot: self.hot.charged_bytes(),
            index: self.index.charged_len(),
            order: self.order_len(),
            versions: self.versions.charged_len(),
            changes: self.changes.charged_len(),
            filters: self.cold.load().anonymous_len(),
            total: 0,
            budget: self.options.memory_budget,
        };
        let MemoryBytes { hot, index, order, versions, changes, filters, .. } = memory;
        memory.total = hot + index + order + versions + changes + filters;
        memory
    }

    fn warm_files(&self, append: &Append, now: u64) -> Vec<FileAccount> {
        let mut files = Vec::new();
        let open = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
        let open: Vec<&SegmentWriter> =
            open.chain([&append.active]).chain(&append.spares).collect();
        for writer in &open {
            let segment = &writer.segment;
            let len = writer.allocated();
            let account = account_of(append, segment.slot);
            files.push(self.warm_file(segment, &account, [len, len - writer.tail()], now));
        }
        for segment in append.table.iter() {
            let Some(facts) = segment.sealed() else { continue };
            if open.iter().any(|writer| writer.segment.id == segment.id) {
                continue;
            }
            let account = account_of(append, segment.slot);
            files.push(self.warm_file(segment, &account, [facts.len, 0], now));
        }
        files
    }

    /// The account of one segment's file, of which `[len, reserved]` bytes are allocated.
    fn warm_file(
        &self,
        segment: &Arc<Segment>,
        account: &SegmentAccount,
        [len, reserved]: [u64; 2],
        now: u64,
    ) -> FileAccount {
        let expired = account.expired_bytes(now);
        let header = SEGMENT_HEADER_LEN as u64;
        let trailer = len - header - account.record_bytes - reserved;
        let allocated = File::allocated_len(&*segment.file).unwrap_or(len);
        let newest = account.live_bytes() - expired;
        let resolved = self.is_resolved(segment);
        let bytes = FileBytes {
            live: if resolved { newest } else { 0 },
            unresolved: if resolved { 0 } else { newest },
            damaged: account.damaged_bytes(),
            dead: account.dead_bytes(),
            expired,
            tombstone: account.tombstone_bytes,
            header,
            trailer,
            reserved,
            len,
            filesystem: difference(allocated, len),
            ..FileBytes::default()
        };
        FileAccount { name: segment.id.to_string(), bytes }
    }

    /// Whether no record of the segment may shadow an archived one that counts as live.
    fn is_resolved(&self, segment: &Segment) -> bool {
        segment.resolved.load(Ordering::Acquire) || self.cold.load().entries().is_empty()
    }

    fn cold_file(&self, entry: &Arc<ArchiveEntry>, now: u64) -> FileAccount {
        let lens = entry.archive.lens();
        let encoded = entry.archive.footer().encoded_len;
        let stored = lens.blocks + lens.raw_values;
        let live = self.live_bytes_of(entry, now);
        let expired = self.expired_bytes_of(entry, now);
        let bytes = FileBytes {
            live,
            expired,
            dead: encoded.saturating_sub(live + expired),
            header: lens.header + lens.footer + stored.saturating_sub(encoded),
            padding: lens.padding,
            saved: encoded.saturating_sub(stored),
            index: lens.index + lens.tables,
            filter: lens.filter,
            dictionary: lens.dictionary,
            len: entry.archive.file_len(),
            filesystem: 0,
            ..FileBytes::default()
        };
        FileAccount { name: entry.archive.name().to_owned(), bytes }
    }

    fn expired_bytes_of(&self, entry: &ArchiveEntry, now: u64) -> u64 {
        let classes = entry.archive.tables().classes.iter().enumerate();
        let expired = classes.filter(|(_, row)| {
            row.end_ms != 0 && row.end_ms <= now && self.keyspaces.is_kept(row.incarnation)
        });
        expired
            .map(|(index, row)| {
                row.encoded_len.saturating_sub(entry.dead.of_class(index).encoded_len)
            })
            .sum()
    }

    fn other_files(&self) -> Vec<FileAccount> {
        let mut files = Vec::new();
        let (len, allocated) = self.manifest.file_lens();
        let filesystem = difference(allocated, len);
        let bytes = FileBytes { manifest: len, len, filesystem, ..FileBytes::default() };
        files.push(FileAccount { name: "manifest".into(), bytes });
        let bits = self.manifest.read(|set| {
            set.files.iter().find_map(|(&id, state)| match state {
                FileState::Bits { len } => Some((state.name(id), *len)),
                _ => None,
            })
        });
        if let Some((name, len)) = bits {
            let bytes = FileBytes { trailer: len, len, ..FileBytes::default() };
            files.push(FileAccount { name, bytes });
        }
        let len = self.extra.statistics_len.load(Ordering::Relaxed);
        if len > 0 {
            let name = crate::tiers::recover::STATISTICS_NAME.to_owned();
            let bytes = FileBytes { statistics: len, len, ..FileBytes::default() };
            files.push(FileAccount { name, bytes });
        }
        if let Unsorted::Image { image, .. } = &*self.unsorted.lock() {
            let (name, len) = (FileState::DoomedImage.name(image.id), image.len());
            let bytes = FileBytes { index: len, len, ..FileBytes::default() };
            files.push(FileAccount { name, bytes });
        }
        files
    }

    /// Recounts every segment from its records and compares; looks for files that nobody owns.
    /// Writers wait while one segment is recounted, movement until the end.
    pub(crate) fn audit(&self) -> Result<Audit> {
        let _moving = self.maintenance.lock();
        let mut audit = Audit::default();
        let table = self.segments.load_full();
        for segment in table.iter() {
            self.audit_segment(segment, &mut audit)?;
        }
        for file in self.ledger().files {
            audit.files += 1;
            if file.bytes.sum() != file.bytes.len {
                let (sum, len) = (file.bytes.sum(), file.bytes.len);
                audit
                    .differences
                    .push(format!("{}: classes sum to {sum}, length {len}", file.name));
            }
        }
        audit.orphans = self.orphan_files()?.into_iter().map(|(name, _)| name).collect();
        Ok(audit)
    }

    fn audit_segment(&self, segment: &Arc<Segment>, audit: &mut Audit) -> Result<()> {
        let mut append = self.append.lock();
        let append = &mut *append;
        let writers = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
        let open = writers.chain([&append.active]).find(|w| w.segment.id == segment.id);
        let end = open.map_or_else(|| segment.records_end(), SegmentWriter::records_end);
        let known = |append: &mut Append| append.account(segment.slot).cloned().unwrap_or_default();
        let mut recount = self.recount_all(append, segment, end, false)?;
        // A key that rotted leads nowhere: when something differs, every body is read as well.
        if !recount.differs(&known(append), end).is_empty() {
            recount = self.recount_all(append, segment, end, true)?;
        }
        audit.records += recount.records;
        audit.bytes += recount.bytes;
        // What the recount found to be damaged, the account knows from now on.
        audit.differences.extend(recount.differs(&known(append), end));
        Ok(())
    }

    /// Counts a segment's records up to `end`; with their bodies when `deep`.
    fn recount_all<'s>(
        &self,
        append: &mut Append,
        segment: &'s Arc<Segment>,
        end: u64,
        deep: bool,
    ) -> Result<Recount<'s>> {
        let account = SegmentAccount::new(segment.created_ms);
        let mut recount =
            Recount { segment, deep, told: None, account, records: 0, bytes: 0, lost_at: None };
        let mut offset = SEGMENT_HEADER_LEN as u64;
        while offset < end {
            let at = Location::new(segment.slot, u32::try_from(offset).unwrap_or(u32::MAX));
            let Some(len) = self.recount(append, at, &mut recount)? else {
                recount.lost_at = Some(offset);
                break;
            };
            recount.records += 1;
            recount.bytes += len;
            offset += len;
        }
        Ok(recount)
    }

    /// Counts the record at a place, from its own bytes or from what the trailer tells of a damaged
    /// one. Returns its length; `None` where nothing tells.
    fn recount(
        &self,
        append: &mut Append,
        at: Location,
        recount: &mut Recount<'_>,
    ) -> Result<Option<u64>> {
        let (segment, deep) = (recount.segment, recount.deep);
        let record = segment.record(u64::from(at.offset));
        let is_read = record.as_ref().is_ok_and(|record| !deep || record.check_body().is_ok());
        let told = if is_read { None } else { recount.told_of(at.offset) };
        let (weight, tag, keyed) = match (&record, told) {
            (_, Some(told)) => (Weight::told(&told), told.tag, true),
            (Ok(record), None) => {
                let header = &record.header;
                let keyed = matches!(header.kind, RecordKind::Put | RecordKind::Tombstone);
                let tag = self.seed.hash(header.incarnation, record.key).tag();
                (Weight::of(header), tag, keyed)
            }
            (Err(_), None) => return Ok(None),
        };
        let named = keyed && self.index.peek(tag, |e| Ok::<_, Error>(e.location == at))?.is_some();
        let counts = named && (weight.tombstone || self.keyspaces.is_kept(weight.incarnation));
        if counts {
            recount.account.add(&weight);
        } else {
            recount.account.add_dead(weight.len);
        }
        let account = append.account(at.slot);
        let suspected = account.is_some_and(|a| a.damaged_offsets().any(|one| one == at.offset));
        let is_sound = |record: &Record<'_>| !suspected || record.check_body().is_ok();
        if counts && !(is_read && record.as_ref().is_ok_and(is_sound)) {
            recount.account.damage(at.offset, &weight);
            if let Some(account) = append.account(at.slot) {
                account.damage(at.offset, &weight);
            }
        }
        Ok(Some(weight.len))
    }

    /// The record there, if the index names it, is damaged: it counts as that from now on.
    pub(crate) fn note_damage(&self, at: Location) {
        let mut append = self.append.lock();
        let Some(segment) = append.table.of(at).cloned() else { return };
        let weight = match segment.record(u64::from(at.offset)) {
            Ok(record) if record.check_body().is_ok() => return,
            Ok(record) => {
                let tag = self.seed.hash(record.header.incarnation, record.key).tag();
                // A flipped key leads nowhere: then the trailer knows better.
                let told =
                    segment.witness(tag, at.offset).or_else(|| segment.witness_at(at.offset));
                let weight = Weight::of(&record.header);
                told.map_or((weight, tag), |told| (Weight::told(&told), told.tag))
            }
            Err(_) => match segment.witness_at(at.offset) {
                Some(told) => (Weight::told(&told), told.tag),
                None => return,
            },
        };
        let (weight, tag) = weight;
        let named = self.index.peek(tag, |e| Ok::<_, Error>(e.location == at));
        let counts = weight.tombstone || self.keyspaces.is_kept(weight.incarnation);
        if counts
            && matches!(named, Ok(Some(_)))
            && let Some(account) = append.account(at.slot)
        {
            account.damage(at.offset, &weight);
        }
    }

    /// The same for damage that a read met in the segment of this name.
    pub(crate) fn note_read_damage(&self, damage: &Damage, tag: u32) {
        let mut places = Vec::new();
        let _ = self.index.peek(tag, |entry| {
            places.push(entry.location);
            Ok::<_, Error>(false)
        });
        let table = self.segments.load_full();
        for at in places {
            let is_it = |segment: &Arc<Segment>| {
                u64::from(at.offset) == damage.offset && segment.id.to_string() == damage.file
            };
            if table.of(at).is_some_and(is_it) {
                self.note_damage(at);
            }
        }
    }

    /// Files in the store's directories that the manifest does not name and that are not foreign,
    /// with what they take on the device.
    pub(crate) fn orphan_files(&self) -> Result<Vec<(String, u64)>> {
        let known: Vec<String> =
            self.manifest.read(|set| set.files.iter().map(|(&id, state)| state.name(id)).collect());
        let dirs = [&self.dir, &self.archive_dir];
        let count = if self.options.archive_dir.is_some() { 2 } else { 1 };
        let mut orphans = Vec::new();
        for dir in dirs.into_iter().take(count) {
            let entries =
                dir.list().map_err(|error| Error::io("list directory", dir.path(), error))?;
            for entry in entries {
                let ours = crate::tiers::recover::is_unlisted(&entry.name)
                    || known.contains(&entry.name)
                    || self.report.foreign.contains(&entry.name);
                if !ours {
                    let file = dir.open_to_read(&entry.name).and_then(|file| file.allocated_len());
                    orphans.push((entry.name, file.unwrap_or(0)));
                }
            }
        }
        Ok(orphans)
    }
}

fn account_of(append: &Append, slot: Slot) -> SegmentAccount {
    append.accounts.get(slot.0 as usize).cloned().flatten().unwrap_or_default()
}

fn difference(allocated: u64, len: u64) -> i64 {
    i64::try_from(allocated).unwrap_or(0) - i64::try_from(len).unwrap_or(0)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
