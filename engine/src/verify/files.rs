//! The manifest against the files, and the dead bitmaps against what is dead.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cold::{ArchiveEntry, ArchiveSet};
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBits;
use crate::manifest::log::{Unreadable, read_file, read_newest};
use crate::manifest::{FileSet, FileState};
use crate::verify::Run;
use crate::warm::segment::Segment;

const DOING: &str = "verify files";
const BITS_LEN_MAX: u64 = 1 << 30;

/// Places of the records whose bit is set in the file of dead bitmaps.
pub(super) fn dead_offsets(segment: &Segment, bits: Option<&DeadBits>) -> HashSet<u32> {
    let bitmap = bits.and_then(|bits| bits.of(segment.id.0));
    let (Some(bitmap), Ok(trailer)) = (bitmap, segment.trailer()) else { return HashSet::new() };
    let entries = (0_u32..).zip(trailer.entries());
    let dead = entries.filter(|(index, _)| bitmap.is_set(*index));
    dead.filter_map(|(_, entry)| Some(entry.ok()?.offset)).collect()
}

impl Run<'_> {
    /// Names the files that are shorter than what will be read of them.
    pub(super) fn lens(&mut self, ends: &[(Arc<Segment>, u64)], archives: &ArchiveSet) {
        for (segment, end) in ends {
            let least = segment.sealed().map_or(*end, |facts| facts.len);
            let Ok(len) = segment.file.len() else { continue };
            self.at_least(&segment.id.to_string(), len, least, segment.file.is_mapped());
        }
        for entry in archives.entries() {
            let archive = &entry.archive;
            let file = self.tiers.archive_dir.open_to_read(archive.name());
            // What was unlinked meanwhile is read to its end all the same.
            let Ok(len) = file.and_then(|file| file.len()) else { continue };
            let is_mapped = archive.view().map().is_some();
            self.at_least(archive.name(), len, archive.file_len(), is_mapped);
        }
    }

    fn at_least(&mut self, name: &str, len: u64, least: u64, is_mapped: bool) {
        if len < least {
            let error = FieldError::new("file length", len, format_args!("at least {least}"));
            self.damage(error.at(DOING, name, 0));
            if is_mapped {
                self.cut.insert(name.to_owned());
            }
        }
    }

    /// Compares the manifest on disk with the one in memory, and both with the directory; answers
    /// the dead bitmaps that count now.
    pub(super) fn files(&mut self) -> Option<DeadBits> {
        let tiers = self.tiers;
        // Nothing is moved meanwhile; a writer may still open a segment for a long record.
        let _moving = tiers.maintenance.lock();
        let set = loop {
            let before = tiers.manifest.read(Clone::clone);
            let read = read_newest(&*tiers.dir, Unreadable::IsError);
            if tiers.manifest.read(|now| now.files == before.files) {
                self.compare_manifest(&before, read.map(|found| found.map(|newest| newest.set)));
                break before;
            }
        };
        for (&id, &state) in &set.files {
            self.compare_file(id, state);
        }
        set.bits()?;
        let bits = self.current_bits();
        if bits.is_none() {
            let error = FieldError::new("dead bitmaps", "not sound", "one listed file");
            self.damage(error.at(DOING, "dead bitmaps", 0));
        }
        bits
    }

    fn compare_manifest(
        &mut self,
        expected: &FileSet,
        read: crate::error::Result<Option<FileSet>>,
    ) {
        let same = |found: &FileSet| {
            (&found.files, &found.facts, found.journal_at)
                == (&expected.files, &expected.facts, expected.journal_at)
        };
        let found = match read {
            Ok(Some(found)) if same(&found) => return,
            Ok(Some(_)) => "another file set".to_owned(),
            Ok(None) => "no manifest".to_owned(),
            Err(error) => error.to_string(),
        };
        let error = FieldError::new("manifest", found, "the file set of this store");
        self.damage(error.at(DOING, "manifest", 0));
    }

    fn compare_file(&mut self, id: u32, state: FileState) {
        let least = match state {
            FileState::SealedSegment(facts) => facts.len,
            FileState::Archive { len } | FileState::Bits { len } => len,
            FileState::OpenSegment(_) => 1,
            _ => return,
        };
        let name = state.name(id);
        let dir = if state.is_archive() { &self.tiers.archive_dir } else { &self.tiers.dir };
        let error = match dir.open_to_read(&name).and_then(|file| file.len()) {
            Ok(len) if len >= least || self.cut.contains(&name) => return,
            Ok(len) => FieldError::new("file length", len, format_args!("at least {least}")),
            Err(error) => FieldError::new("file", error, "what the manifest lists"),
        };
        self.damage(error.at(DOING, &name, 0));
    }

    /// The bitmaps on disk, if they are sound.
    pub(super) fn current_bits(&self) -> Option<DeadBits> {
        let tiers = self.tiers;
        let id = tiers.manifest.read(FileSet::bits)?;
        let bytes = read_file(&*tiers.dir, &format!("{id:010}.bit"), BITS_LEN_MAX).ok()?;
        DeadBits::decode(&bytes, tiers.store, id).ok()
    }

    /// What the bitmaps call dead in an archive is dead.
    pub(super) fn archive_bits(&mut self, entry: &ArchiveEntry, bits: Option<&DeadBits>) {
        let Some(bitmap) = bits.and_then(|bits| bits.of(entry.archive.id().0)) else { return };
        let count = entry.archive.record_count();
        let wrong = (0..bitmap.count).find(|&i| bitmap.is_set(i) && !entry.dead.is_dead(i));
        let error = match wrong {
            _ if bitmap.count != count => FieldError::new("bits", bitmap.count, count),
            Some(ordinal) => FieldError::new("bit", ordinal, "a dead record"),
            None => return,
        };
        self.damage(error.at(DOING, entry.archive.name(), 0));
    }
}
