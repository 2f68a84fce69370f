//! One segment: every record's checksums, and header, footer and trailer against the records.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Error;
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBits;
use crate::format::record::{Record, RecordKind};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::trailer::TrailerEntry;
use crate::ids::Location;
use crate::tiers::Tiers;
use crate::verify::Run;
use crate::verify::files::dead_offsets;
use crate::verify::index::Suspect;
use crate::warm::active::{SegmentWriter, walk_records};
use crate::warm::segment::Segment;

const DOING: &str = "verify segment";

/// All segments with the ends of their records, as of one moment at which none is being sealed.
pub(super) fn ends(tiers: &Tiers) -> Vec<(Arc<Segment>, u64)> {
    let _moving = tiers.maintenance.lock();
    let append = tiers.append.lock();
    let open = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
    let open: Vec<&SegmentWriter> = open.chain([&append.active]).collect();
    let end = |segment: &Arc<Segment>| {
        let writer = open.iter().find(|writer| writer.segment.id == segment.id);
        writer.map_or_else(|| segment.records_end(), |writer| writer.records_end())
    };
    let spare = append.spares.iter().map(|writer| &writer.segment);
    let spare = spare.map(|segment| (Arc::clone(segment), SEGMENT_HEADER_LEN as u64));
    let all = append.table.iter().map(|segment| (Arc::clone(segment), end(segment)));
    all.chain(spare).collect()
}

impl Run<'_> {
    /// Verifies one segment whose records end at `end`.
    pub(super) fn segment(&mut self, segment: &Arc<Segment>, end: u64, bits: Option<&DeadBits>) {
        if self.is_cut(segment) {
            return;
        }
        self.verified.files += 1;
        // Sealed since its end was noted, it may have taken more records before.
        let is_sealed = segment.sealed().is_some();
        let end = if is_sealed { segment.records_end() } else { end };
        self.header(segment);
        self.read(SEGMENT_HEADER_LEN as u64);
        let dead = dead_offsets(segment, bits);
        let mut keyed = 0_u64;
        let walked = walk_records(segment, end, |offset, record| {
            if let Err(error) = record.check_body() {
                self.damage(segment.damage("verify record", u64::from(offset), error));
            } else {
                keyed += u64::from(self.record(segment, offset, record, &dead));
            }
            self.verified.records += 1;
            self.read(record.header.encoded_len());
            Ok(())
        });
        match walked {
            Err(Error::Corrupt(damage)) => self.damage(*damage),
            _ if is_sealed => self.trailer(segment, keyed, bits),
            _ => {}
        }
    }

    pub(super) fn is_cut(&self, segment: &Segment) -> bool {
        !self.cut.is_empty() && self.cut.contains(&segment.id.to_string())
    }

    fn header(&mut self, segment: &Segment) {
        let bytes = segment.bytes_at(0, SEGMENT_HEADER_LEN as u64).unwrap_or(&[]);
        let checked = SegmentHeader::decode(bytes).and_then(|header| {
            let same = (header.id, header.nonce) == (segment.id, segment.nonce);
            same.then_some(()).ok_or_else(|| FieldError::new("header", "another", "the opened one"))
        });
        if let Err(error) = checked {
            self.damage(segment.damage(DOING, 0, error));
        }
    }

    /// A sound record against the index; answers whether a trailer lists it.
    fn record(
        &mut self,
        segment: &Arc<Segment>,
        offset: u32,
        record: &Record<'_>,
        dead: &HashSet<u32>,
    ) -> bool {
        let header = &record.header;
        if !matches!(header.kind, RecordKind::Put | RecordKind::Tombstone) {
            return false;
        }
        let at = Location::new(segment.slot, offset);
        if !self.agrees(at, record, dead.contains(&offset)) {
            self.suspects.push(Suspect { segment: Arc::clone(segment), at });
        }
        true
    }

    /// The trailer lists the records that are there, as they are, in the order of their tags.
    fn trailer(&mut self, segment: &Arc<Segment>, keyed: u64, bits: Option<&DeadBits>) {
        let trailer = match segment.trailer() {
            Ok(trailer) => trailer,
            Err(damage) => return self.damage(damage),
        };
        let note = |run: &mut Self, error| run.damage(segment.damage("verify trailer", 0, error));
        let mut last = (0, 0);
        for entry in trailer.entries() {
            let checked = entry.and_then(|entry| {
                let rises = (entry.tag, entry.offset) > last || last == (0, 0);
                last = (entry.tag, entry.offset);
                self.entry(segment, &entry, rises)
            });
            if let Err(error) = checked {
                note(self, error);
            }
        }
        if u64::from(trailer.count()) != keyed {
            note(self, FieldError::new("entry count", trailer.count(), keyed));
        }
        let bitmap = bits.and_then(|bits| bits.of(segment.id.0));
        if let Some(bitmap) = bitmap
            && bitmap.count != trailer.count()
        {
            note(self, FieldError::new("bits", bitmap.count, trailer.count()));
        }
    }

    fn entry(
        &self,
        segment: &Segment,
        entry: &TrailerEntry,
        rises: bool,
    ) -> Result<(), FieldError> {
        if !rises {
            return Err(FieldError::new("entry", "not above the one before", "rising tags"));
        }
        let Ok(record) = segment.record(u64::from(entry.offset)) else {
            return Err(FieldError::new("record", "none that is sound", entry.seq.0));
        };
        let header = &record.header;
        let told = TrailerEntry {
            tag: self.tiers.seed.hash(header.incarnation, record.key).tag(),
            offset: entry.offset,
            len: u32::try_from(header.encoded_len()).unwrap_or(u32::MAX),
            seq: header.seq,
            deadline_ms: header.deadline_ms,
            incarnation: header.incarnation,
            tombstone: header.kind == RecordKind::Tombstone,
            superseded: entry.superseded,
        };
        if told != *entry {
            return Err(FieldError::new("entry", "another record", format_args!("{:?}", told.seq)));
        }
        Ok(())
    }
}
