//! The ledger of an open store, and its recount from the files.
//! Knows where each class is counted; the classes themselves are `ledger`'s.

use std::sync::Arc;

use crate::cold::ArchiveEntry;
use crate::error::{Error, Result};
use crate::format::record::RecordKind;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::ids::{Location, Slot};
use crate::ledger::{Audit, FileAccount, FileBytes, Ledger, MemoryBytes};
use crate::manifest::FileState;
use crate::tiers::Tiers;
use crate::tiers::append::Append;
use crate::vfs::File;
use crate::warm::account::{SegmentAccount, Weight};
use crate::warm::active::{SegmentWriter, walk_records};
use crate::warm::segment::Segment;

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

    #[expect(clippy::unused_self, reason = "asked of the store, like its other figures")]
    fn warm_files(&self, append: &Append, now: u64) -> Vec<FileAccount> {
        let mut files = Vec::new();
        let open = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
        let open: Vec<&SegmentWriter> = open.chain([&append.active]).chain(&append.spare).collect();
        for writer in &open {
            let segment = &writer.segment;
            let len = writer.allocated();
            let account = account_of(append, segment.slot);
            files.push(warm_file(segment, &account, len, len - writer.tail(), now));
        }
        for segment in append.table.iter() {
            let Some(facts) = segment.sealed() else { continue };
            if open.iter().any(|writer| writer.segment.id == segment.id) {
                continue;
            }
            let account = account_of(append, segment.slot);
            files.push(warm_file(segment, &account, facts.len, 0, now));
        }
        files
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
        let mut recount = SegmentAccount::new(segment.created_ms);
        let writers = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
        let open = writers.chain([&append.active]).find(|w| w.segment.id == segment.id);
        let end = open.map_or_else(|| segment.records_end(), SegmentWriter::records_end);
        walk_records(segment, end, |offset, record| {
            audit.records += 1;
            audit.bytes += record.header.encoded_len();
            let header = &record.header;
            let keyed = matches!(header.kind, RecordKind::Put | RecordKind::Tombstone);
            let at = Location::new(segment.slot, offset);
            let tag = self.seed.hash(header.incarnation, record.key).tag();
            let named = keyed
                && self.index.peek(tag, |entry| Ok::<_, Error>(entry.location == at))?.is_some();
            let current = self.keyspaces.is_kept(header.incarnation);
            if named && (current || header.kind == RecordKind::Tombstone) {
                recount.add(&Weight::of(header));
            } else {
                recount.add_dead(header.encoded_len());
            }
            Ok(())
        })?;
        let end_bytes = end - SEGMENT_HEADER_LEN as u64;
        let known = append.account(segment.slot).cloned().unwrap_or_default();
        let lines = [
            ("records", known.record_bytes, recount.record_bytes),
            ("bytes before the end", end_bytes, recount.record_bytes),
            ("live", known.live_bytes(), recount.live_bytes()),
            ("live records", known.live_count(), recount.live_count()),
            ("tombstone", known.tombstone_bytes, recount.tombstone_bytes),
        ];
        for (line, known, found) in lines {
            if known != found {
                audit
                    .differences
                    .push(format!("{}: {line} {known}, recounted {found}", segment.id));
            }
        }
        Ok(())
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
                let ours = entry.name == crate::tiers::recover::LOCK_NAME
                    || crate::manifest::log::parse_name(&entry.name).is_some()
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

fn warm_file(
    segment: &Arc<Segment>,
    account: &SegmentAccount,
    len: u64,
    reserved: u64,
    now: u64,
) -> FileAccount {
    let expired = account.expired_bytes(now);
    let header = SEGMENT_HEADER_LEN as u64;
    let trailer = len - header - account.record_bytes - reserved;
    let allocated = File::allocated_len(&*segment.file).unwrap_or(len);
    let bytes = FileBytes {
        live: account.live_bytes() - expired,
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
