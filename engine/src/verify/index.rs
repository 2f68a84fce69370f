//! The index against the log: each key's newest record is the one that the index names.
//! What moves meanwhile may look wrong for a moment, so what looks wrong is looked at again while
//! nothing moves.

use std::sync::Arc;

use crate::error::Error;
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBits;
use crate::format::record::{Record, RecordKind};
use crate::ids::{Location, Seq};
use crate::verify::Run;
use crate::verify::files::dead_offsets;
use crate::warm::segment::Segment;

/// Homes of the index that are looked at for each time the append lock is taken.
const HOMES_PER_PIECE: u64 = 512;

/// A record of which the index says something that cannot be.
pub(super) struct Suspect {
    pub segment: Arc<Segment>,
    pub at: Location,
}

impl Run<'_> {
    /// Whether the index says of this record what it must: that it is the newest of its key, or
    /// that another one is which is not older.
    pub(super) fn agrees(&self, at: Location, record: &Record<'_>, is_dead: bool) -> bool {
        let tiers = self.tiers;
        let header = &record.header;
        let hash = tiers.seed.hash(header.incarnation, record.key);
        let table = tiers.segments.load();
        let mut other: Option<Option<Seq>> = None;
        let looked = tiers.index.peek(hash.tag(), |entry| {
            if entry.location == at {
                other = Some(Some(header.seq));
                return Ok(true);
            }
            let Some(segment) = table.of(entry.location) else { return Ok(false) };
            if self.is_cut(segment) {
                other = other.or(Some(None));
                return Ok(false);
            }
            let Ok(found) = segment.record(u64::from(entry.location.offset)) else {
                // Damage is reported where it lies; it may be this key's.
                other = other.or(Some(None));
                return Ok(false);
            };
            let same = found.header.incarnation == header.incarnation && found.key == record.key;
            if same {
                other = Some(Some(found.header.seq));
            }
            Ok::<_, Error>(same)
        });
        match (looked, other) {
            (Err(_), _) | (_, Some(None)) => true,
            (Ok(Some(_)), Some(Some(seq))) if seq >= header.seq => true,
            (Ok(Some(_)), _) => header.old,
            (Ok(None), _) => {
                header.old
                    || is_dead
                    || header.kind == RecordKind::Tombstone
                    || !tiers.is_alive(header.deadline_ms)
                    || !tiers.keyspaces.is_kept(header.incarnation)
                    || self.is_archived(record)
            }
        }
    }

    /// Whether an archive has a record of the key that is not older, or may have one.
    fn is_archived(&self, record: &Record<'_>) -> bool {
        let (tiers, header) = (self.tiers, &record.header);
        if !self.cut.is_empty() {
            return true;
        }
        let hash = tiers.seed.hash(header.incarnation, record.key);
        match tiers.cold.load().locate(hash, header.incarnation, record.key) {
            Ok(found) => found.is_some_and(|(located, _)| located.seq >= header.seq),
            Err(_) => true,
        }
    }

    /// Looks again while nothing is written or moved.
    pub(super) fn judge_suspects(&mut self, bits: Option<&DeadBits>) {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() {
            return;
        }
        let tiers = self.tiers;
        let _moving = tiers.maintenance.lock();
        for Suspect { segment, at } in suspects {
            let _writing = tiers.append.lock();
            let table = tiers.segments.load();
            if table.of(at).is_none_or(|now| now.id != segment.id) {
                continue;
            }
            let offset = u64::from(at.offset);
            let Ok(record) = segment.record(offset) else { continue };
            // The bitmaps may have been written anew since they were read.
            let dead = dead_offsets(&segment, bits).contains(&at.offset);
            let dead = dead
                || self
                    .current_bits()
                    .is_some_and(|bits| dead_offsets(&segment, Some(&bits)).contains(&at.offset));
            if !self.agrees(at, &record, dead) {
                let error =
                    FieldError::new("index", "an older record or none", record.header.seq.0);
                self.damage(segment.damage("verify index", offset, error));
            }
        }
    }

    /// Every entry of the index names a record of its tag.
    pub(super) fn index_entries(&mut self) {
        let tiers = self.tiers;
        let mut from = Some(0);
        while let Some(home) = from {
            let append = tiers.append.lock();
            let mut wrong = Vec::new();
            from = tiers.index.walk(&append.index, home, HOMES_PER_PIECE, |entry| {
                let Some(segment) = append.table.of(entry.location) else {
                    let error = FieldError::new("index entry", "in no segment", "a record");
                    wrong.push(error.at("verify index", "index", 0));
                    return;
                };
                if self.is_cut(segment) {
                    return;
                }
                let offset = u64::from(entry.location.offset);
                // A record that cannot be read is reported where it lies.
                let Ok(record) = segment.record(offset) else { return };
                let tag = tiers.seed.hash(record.header.incarnation, record.key).tag();
                let tombstone = record.header.kind == RecordKind::Tombstone;
                if (tag, tombstone) != (entry.tag, entry.tombstone) {
                    let error = FieldError::new("index entry", "of another key", "this record's");
                    wrong.push(segment.damage("verify index", offset, error));
                }
            });
            drop(append);
            self.verified.damage.append(&mut wrong);
        }
    }
}
