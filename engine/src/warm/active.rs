//! A segment that is being written: reserve, append, publish, seal. Journal, attached and survivor
//! segments all go through here.
//! Knows bytes, space and order in one file; knows nothing of the index, or of liveness.

use std::ops::Range;
use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::error::{Damage, Error, Result};
use crate::format::checksum::crc;
use crate::format::record::{RECORD_HEADER_LEN, Record, RecordHeader, RecordKind, encoded_len};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::trailer::{TrailerBuilder, TrailerEntry};
use crate::hash::HashSeed;
use crate::ids::{Location, Seq, Slot};
use crate::limits::SEGMENT_FILE_LEN_MAX;
use crate::manifest::SealedFacts;
use crate::vfs::Dir;
use crate::vfs::map::MapWriter;
use crate::warm::segment::Segment;

/// Pages are made present this far ahead of the tail, so that a store takes no page fault.
const POPULATE_LEN: u64 = 256 << 10;

/// The one writer of a segment that is not sealed.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub segment: Arc<Segment>,
    map: MapWriter,
    tail: u64,
    records_end: u64,
    allocated: u64,
    populated: u64,
    /// Records end at or before this offset.
    limit: u64,
    chunk: u64,
    /// Trailer and footer, once they are there.
    written: Option<(SealedFacts, SegmentFooter)>,
}

/// Bytes of a segment that are to be allocated before a put needs them.
#[derive(Debug)]
pub(crate) struct RoomAhead {
    pub segment: Arc<Segment>,
    from: u64,
    to: u64,
}

impl RoomAhead {
    /// Allocates them and makes their pages present: what a put would wait for under the append
    /// lock. The segment is not sealed meanwhile.
    pub(crate) fn make(&self) -> Result<()> {
        let allocated = self.segment.file.allocate(self.from, self.to);
        let name = || self.segment.id.to_string();
        allocated.map_err(|error| Error::io("allocate segment", name(), error))?;
        // A page that could not be made present is made present by the store itself.
        drop(self.segment.map.populate(self.from, self.to));
        Ok(())
    }
}

impl SegmentWriter {
    /// Creates the file, allocates its first chunk and writes its header. Nothing is synced.
    ///
    /// `limit` bounds header and records; blocks are allocated `chunk` bytes at a time.
    pub(crate) fn create(
        dir: &dyn Dir,
        header: &SegmentHeader,
        slot: Slot,
        limit: u64,
        chunk: u64,
    ) -> Result<Self> {
        let name = header.id.to_string();
        let io = |error| Error::io("create segment", dir.path().join(&name), error);
        let limit = limit.clamp(4096, SEGMENT_FILE_LEN_MAX);
        let file = dir.create(&name).map_err(io)?;
        let first = chunk.min(limit.next_multiple_of(4096));
        file.allocate(0, first).map_err(io)?;
        // Address space alone: the trailer follows the records and may be as long as they are.
        let map = file.map(limit * 2 + (1 << 20), 0).map_err(io)?;
        map.advise_random();
        let taken = || Error::invalid("map writer", "taken", "a fresh map");
        let mut writer = map.writer().ok_or_else(taken)?;
        writer.set_writable(first);
        writer.store(0, &header.encode());
        writer.publish(SEGMENT_HEADER_LEN as u64);
        let segment = Segment::new(header, slot, file, map);
        let tail = SEGMENT_HEADER_LEN as u64;
        Ok(Self {
            segment,
            map: writer,
            tail,
            records_end: tail,
            allocated: first,
            populated: 0,
            limit,
            chunk,
            written: None,
        })
    }

    /// Whether so many more bytes of records fit.
    pub(crate) fn fits(&self, len: u64) -> bool {
        self.tail + len <= self.limit
    }

    /// Where its records end at the latest.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Where the next record will stand.
    pub(crate) fn next_place(&self) -> Location {
        Location::new(self.segment.slot, 0).behind(self.tail)
    }

    /// Where the records end; behind it stands the trailer, once it is written.
    pub(crate) fn records_end(&self) -> u64 {
        self.records_end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail == SEGMENT_HEADER_LEN as u64
    }

    /// Bytes that are allocated on the device for this segment, as far as it knows.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Makes sure that the next `len` bytes are allocated; a full disk is an error here.
    pub(crate) fn make_room(&mut self, len: u64) -> Result<()> {
        let end = self.tail + len;
        if end > self.allocated {
            let to = end.next_multiple_of(self.chunk.max(4096));
            let allocated = self.segment.file.allocate(self.allocated, to);
            allocated.map_err(|error| self.io("allocate segment", error))?;
            self.allocated = to;
            self.map.set_writable(to);
        }
        if end > self.populated {
            let from = self.populated.max(self.tail);
            let to = end.saturating_add(POPULATE_LEN).min(self.allocated);
            // A page that could not be made present is made present by the store itself.
            if self.map.populate(from, to).is_ok() {
                self.populated = to;
            }
        }
        Ok(())
    }

    /// The next chunk, when half of one is left: what a worker makes ready ahead of the puts.
    pub(crate) fn room_wanted(&self) -> Option<RoomAhead> {
        let chunk = self.chunk.max(4096);
        let to = (self.allocated + chunk).min(self.limit.next_multiple_of(chunk));
        let wanted = self.is_short(self.tail) && to > self.allocated;
        wanted.then(|| RoomAhead { segment: Arc::clone(&self.segment), from: self.allocated, to })
    }

    /// Whether less than half a chunk is left, and was not before the last `len` bytes.
    pub(crate) fn needs_room_since(&self, len: u64) -> bool {
        self.is_short(self.tail) && !self.is_short(self.tail.saturating_sub(len))
    }

    fn is_short(&self, tail: u64) -> bool {
        tail + self.chunk / 2 > self.allocated
    }

    /// Notes that room was made.
    pub(crate) fn take_room(&mut self, room: &RoomAhead) {
        if room.to > self.allocated && room.segment.id == self.segment.id {
            self.allocated = room.to;
            self.map.set_writable(room.to);
        }
    }

    fn io(&self, doing: &'static str, error: std::io::Error) -> Error {
        Error::io(doing, self.segment.id.to_string(), error)
    }

    /// Appends one record behind the tail; `publish` makes it readable. The caller made room.
    pub(crate) fn append(&mut self, header: &RecordHeader, key: &[u8], value: &[u8]) -> u32 {
        let offset = self.reserve(key, value);
        self.finish(offset, header);
        offset
    }

    /// Stores key and value and leaves the header open: what can be done outside the append lock.
    pub(crate) fn reserve(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let offset = self.tail;
        let body = offset + RECORD_HEADER_LEN as u64;
        self.map.store(body, key);
        self.map.store(body + key.len() as u64, value);
        self.tail += encoded_len(key.len(), value.len());
        self.records_end = self.tail;
        u32::try_from(offset).unwrap_or(u32::MAX)
    }

    /// Stores the header of a record that was reserved.
    pub(crate) fn finish(&mut self, offset: u32, header: &RecordHeader) {
        let at = u64::from(offset);
        self.map.store(at, &header.encode_in(self.segment.begun(), at));
    }

    /// Makes everything up to the tail readable.
    pub(crate) fn publish(&mut self) {
        self.map.publish(self.tail);
    }

    /// Fails when something that was stored did not reach the file.
    pub(crate) fn stored(&self) -> Result<()> {
        self.segment.file.stored().map_err(|error| self.io("write segment", error))
    }

    /// Makes everything that was stored durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.segment.file.sync().map_err(|error| self.io("sync segment", error))
    }

    /// Writes trailer and footer and syncs them. The manifest edit that lists the segment as sealed
    /// is the caller's, and so is `Segment::set_sealed` after it.
    pub(crate) fn write_trailer(
        &mut self,
        seed: &HashSeed,
    ) -> Result<(SealedFacts, SegmentFooter)> {
        if let Some(written) = self.written {
            // It was written before, and listing it failed.
            return Ok(written);
        }
        let records_end = self.records_end;
        let (trailer, first_seq, last_seq) = build_trailer(&self.segment, records_end, seed)?;
        let footer = SegmentFooter {
            records_end,
            trailer_offset: self.tail,
            trailer_len: u32::try_from(trailer.len()).unwrap_or(u32::MAX),
            trailer_crc: crc(&trailer),
            first_seq,
            last_seq,
        };
        let footer_offset = (self.tail + trailer.len() as u64).next_multiple_of(8);
        let encoded = footer.encode(self.segment.nonce, footer_offset);
        let len = footer_offset + encoded.len() as u64;
        self.make_room(len - self.tail)?;
        self.map.store(self.tail, &trailer);
        self.map.store(footer_offset, &encoded);
        self.map.publish(len);
        self.tail = len;
        if !planted(Canary::PublishBeforeBytes) {
            self.sync()?;
        }
        self.segment
            .file
            .punch_to_end(len.next_multiple_of(4096))
            .map_err(|error| self.io("give back the rest of a segment", error))?;
        let trailer_crc = footer.trailer_crc;
        let kind = self.segment.kind;
        let written = (SealedFacts { kind, len, first_seq, last_seq, trailer_crc }, footer);
        self.written = Some(written);
        Ok(written)
    }
}

/// Walks the records of a segment in file order.
pub(crate) fn walk_records(
    segment: &Segment,
    end: u64,
    each: impl FnMut(u32, &Record<'_>) -> Result<()>,
) -> Result<()> {
    walk_range(segment, &(SEGMENT_HEADER_LEN as u64..end), each)
}

/// The same for a part of the file that begins and ends with a record.
pub(crate) fn walk_range(
    segment: &Segment,
    range: &Range<u64>,
    mut each: impl FnMut(u32, &Record<'_>) -> Result<()>,
) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let record = segment.record(offset).map_err(Error::from)?;
        each(u32::try_from(offset).unwrap_or(u32::MAX), &record)?;
        offset += record.header.encoded_len();
    }
    Ok(())
}

/// The trailer's bytes, and the first and last `seq` of the segment.
fn build_trailer(segment: &Segment, end: u64, seed: &HashSeed) -> Result<(Vec<u8>, Seq, Seq)> {
    let mut order: Vec<(u32, u32)> = Vec::new();
    let (mut first, mut last) = (Seq(u64::MAX), Seq::ZERO);
    let mut deadline_base = u64::MAX;
    walk_records(segment, end, |offset, record| {
        let header = &record.header;
        (first, last) = (first.min(header.seq), last.max(header.seq));
        if matches!(header.kind, RecordKind::Put | RecordKind::Tombstone) {
            order.push((seed.hash(header.incarnation, record.key).tag(), offset));
            if header.deadline_ms != 0 {
                deadline_base = deadline_base.min(header.deadline_ms);
            }
        }
        Ok(())
    })?;
    order.sort_unstable();
    let first = first.min(last);
    let base = if deadline_base == u64::MAX { 0 } else { deadline_base };
    let mut builder = TrailerBuilder::new(first, base);
    for run in order.chunk_by(|a, b| a.0 == b.0) {
        push_run(&mut builder, segment, run)?;
    }
    Ok((builder.finish(), first, last))
}

fn trailer_entry(segment: &Segment, tag: u32, offset: u32) -> Result<TrailerEntry, Damage> {
    let header = segment.record(u64::from(offset))?.header;
    Ok(TrailerEntry {
        tag,
        offset,
        len: u32::try_from(header.encoded_len()).unwrap_or(u32::MAX),
        seq: header.seq,
        deadline_ms: header.deadline_ms,
        incarnation: header.incarnation,
        tombstone: header.kind == RecordKind::Tombstone,
        superseded: header.old,
    })
}

/// Adds the records of one tag. Nearly always there is one.
fn push_run(
    builder: &mut TrailerBuilder,
    segment: &Segment,
    run: &[(u32, u32)],
) -> Result<(), Damage> {
    let entry = |&(tag, offset): &(u32, u32)| trailer_entry(segment, tag, offset);
    if let [one] = run {
        builder.push(&entry(one)?);
        return Ok(());
    }
    let entries = run.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let key = |at: usize| {
        let record = segment.record(u64::from(entries.get(at)?.offset)).ok()?;
        Some((record.header.incarnation, record.key))
    };
    let seqs: Vec<Seq> = entries.iter().map(|entry| entry.seq).collect();
    let superseded = superseded(&seqs, |a, b| key(a).is_some() && key(a) == key(b));
    for (entry, superseded) in entries.iter().zip(superseded) {
        builder.push(&TrailerEntry { superseded: entry.superseded || superseded, ..*entry });
    }
    Ok(())
}

/// Which of some records with these `seq`s have a newer one of the same key among them.
///
/// Each is compared with the newest of every key that was seen: among the records of one tag there
/// is one key, rarely two, but it may have been written hundreds of thousands of times.
fn superseded(seqs: &[Seq], mut same_key: impl FnMut(usize, usize) -> bool) -> Vec<bool> {
    let mut by_age: Vec<(Seq, usize)> = seqs.iter().copied().zip(0..).collect();
    by_age.sort_unstable_by_key(|&(seq, _)| std::cmp::Reverse(seq));
    let mut superseded = vec![false; seqs.len()];
    let mut newest: Vec<(Seq, usize)> = Vec::new();
    for (seq, at) in by_age {
        let newer = newest.iter().find(|(_, other)| same_key(at, *other));
        match (newer, superseded.get_mut(at)) {
            (Some(newer), Some(is_superseded)) => *is_superseded = newer.0 > seq,
            _ => newest.push((seq, at)),
        }
    }
    superseded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule itself, without thought for what it costs.
    fn by_pairs(records: &[(Seq, u32)]) -> Vec<bool> {
        let newer = |one: &(Seq, u32)| records.iter().any(|o| o.1 == one.1 && o.0 > one.0);
        records.iter().map(newer).collect()
    }

    #[test]
    fn a_newer_record_of_the_same_key_supersedes_and_a_copy_does_not() {
        let cases: [&[(u64, u32)]; 4] = [
            &[(5, 1), (6, 1), (9, 1)],
            &[(9, 1), (6, 2), (5, 1), (8, 2), (7, 3)],
            &[(4, 1), (4, 1), (3, 1)],
            &[],
        ];
        for case in cases {
            let records: Vec<_> = case.iter().map(|&(seq, key)| (Seq(seq), key)).collect();
            let seqs: Vec<_> = records.iter().map(|one| one.0).collect();
            let found = superseded(&seqs, |a, b| records[a].1 == records[b].1);
            assert_eq!(found, by_pairs(&records), "{case:?}");
        }
    }

    #[test]
    fn a_key_that_fills_a_segment_costs_one_comparison_a_record() {
        let seqs: Vec<Seq> = (1..=200_000).map(Seq).collect();
        let mut compared = 0_u32;
        let found = superseded(&seqs, |_, _| {
            compared += 1;
            true
        });
        assert_eq!(found.iter().filter(|is| !**is).count(), 1);
        assert!(compared < 200_000, "{compared} comparisons");
    }
}
