//! The journal after an unclean end: where the tail is cut, what is rot, and what survives.
//! Everything that survives is copied to fresh, synced segments, listed together with the cut in
//! one edit; only then does the old tail go. Knows nothing of the index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::error::{Error, Result};
use crate::format::cursor::{FieldError, Fields};
use crate::format::manifest::Op;
use crate::format::record::{Record, RecordKind};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use crate::ids::{SegmentId, Seq, Slot};
use crate::manifest::{FileSet, FileState, seal_op};
use crate::tiers::recover::Opened;
use crate::vfs::os;
use crate::warm::active::{SegmentWriter, walk_range, walk_records};
use crate::warm::recover::{Run, Scan, scan};
use crate::warm::segment::{Segment, open_mapped};

/// An attached segment is read for at most so many attach records: one names it, unless somebody
/// forged others.
const ATTACHED_TRIES_MAX: u32 = 8;

/// Segments of the journal that are kept, each with the ranges that are kept of it.
type Kept<'t> = Vec<(&'t Tail, Vec<Range<u64>>)>;

/// An unsealed journal segment and what a walk over it found.
struct Tail {
    segment: Arc<Segment>,
    scan: Scan,
}

impl Opened {
    /// Brings the unsealed journal to an end. `strict` refuses a hole below the durable watermark.
    pub(crate) fn finish_journal(&mut self, strict: bool, created_ms: u64) -> Result<()> {
        let set = self.manifest.read(Clone::clone);
        let attached = self.open_all(&set, SegmentKind::Attached)?;
        let tails = self.scan_tails(&set, &attached)?;
        let (kept, cut, next) = self.contiguous(&set, &tails, strict)?;
        let mut ops = Vec::new();
        for (tail, ranges) in &kept {
            self.save(&tail.segment, ranges, &attached, created_ms, &mut ops)?;
        }
        for (&id, state) in &set.files {
            if matches!(state, FileState::OpenSegment(_)) {
                ops.push(Op::Doom { id });
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        let synced = self.dir.sync();
        synced.map_err(|error| Error::io("sync directory", self.dir.path(), error))?;
        tracing::info!(cut = cut.0, next = next.0, segments = kept.len(), "journal finished");
        ops.push(Op::JournalAt { seq: next.0 });
        self.manifest.commit(&ops)
    }

    /// Opens the unsealed segments of one kind whose header is sound.
    fn open_all(
        &mut self,
        set: &FileSet,
        kind: SegmentKind,
    ) -> Result<BTreeMap<u32, Arc<Segment>>> {
        let mut opened = BTreeMap::new();
        for (&id, state) in &set.files {
            if *state != FileState::OpenSegment(kind) {
                continue;
            }
            if let Some(segment) = self.open_unsealed(SegmentId(id))? {
                opened.insert(id, segment);
            }
        }
        Ok(opened)
    }

    /// The header and the name were synced before the manifest opened the segment for records, so
    /// whatever is wrong with them now is damage.
    fn open_unsealed(&mut self, id: SegmentId) -> Result<Option<Arc<Segment>>> {
        let name = id.to_string();
        let len = match self.dir.open(&name).and_then(|file| file.len()) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => {
                return Err(Error::io("open segment", self.dir.path().join(&name), error));
            }
        };
        if len < SEGMENT_HEADER_LEN as u64 {
            let error = FieldError::new("file length", len, "a segment that may hold records");
            self.report.damage.push(error.at("finish journal", &name, 0));
            return Ok(None);
        }
        match open_mapped(&*self.dir, self.facts.store, id, len) {
            Ok((header, file, map)) => Ok(Some(Segment::new(&header, Slot(0), file, map))),
            Err(Error::Corrupt(damage)) => {
                self.report.damage.push(*damage);
                Ok(None)
            }
            Err(_) if planted(Canary::CutOnReadError) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn scan_tails(
        &mut self,
        set: &FileSet,
        attached: &BTreeMap<u32, Arc<Segment>>,
    ) -> Result<Vec<Tail>> {
        let journals = self.open_all(set, SegmentKind::Journal)?;
        let mut tries = BTreeMap::new();
        let tail = |segment: Arc<Segment>| {
            let scan = scan(&segment, |record, previous| {
                check_attached(record, previous, attached, &mut tries)
            });
            Tail { segment, scan }
        };
        Ok(journals.into_values().map(tail).collect())
    }

    /// What is kept of the segments; the cut; where the journal goes on. A gap at or below the
    /// durable watermark is damage: it is reported, and the journal goes on behind it. A gap above
    /// it is where the tail is cut.
    fn contiguous<'t>(
        &mut self,
        set: &FileSet,
        tails: &'t [Tail],
        strict: bool,
    ) -> Result<(Kept<'t>, Seq, Seq)> {
        let before = Seq(set.journal_at.0.saturating_sub(1));
        let watermarks = tails.iter().map(|tail| tail.scan.watermark);
        let watermark = watermarks.max().unwrap_or(before).max(set.durable_at);
        let highest = tails.iter().map(|tail| tail.scan.highest_seq).max().unwrap_or(before);
        let mut runs: Vec<(&Tail, Run)> = tails
            .iter()
            .flat_map(|tail| tail.scan.runs.iter().map(move |run| (tail, *run)))
            .collect();
        runs.sort_by_key(|(_, run)| run.first_seq);
        let mut chosen: Vec<(&Tail, Run)> = Vec::new();
        let mut last = before;
        for (tail, run) in runs {
            if run.first_seq <= last {
                // An older copy of what is already sealed.
                continue;
            }
            let is_rot = run.first_seq <= watermark.next();
            if run.first_seq != last.next() {
                if !is_rot && !planted(Canary::AcceptHole) {
                    break;
                }
                if let Some((_, broken)) = chosen.last_mut() {
                    // What is sound of a batch that the gap broke was durable, and is kept.
                    (broken.end, broken.last_seq) = (broken.sound_end, broken.sound_seq);
                    last = last.max(broken.last_seq);
                }
                if is_rot && run.first_seq != last.next() {
                    self.report_gap(tail, &run, last);
                }
            }
            last = last.max(run.last_seq);
            chosen.push((tail, run));
        }
        if last < watermark {
            let name = tails.first().map_or_else(String::new, |tail| tail.segment.id.to_string());
            let error = FieldError::new("records", format_args!("up to seq {last:?}"), watermark.0);
            self.report.damage.push(error.at("finish journal", &name, 0));
        }
        if strict && !self.report.damage.is_empty() {
            let damage = std::mem::take(&mut self.report.damage);
            return Err(Error::Damaged { path: self.dir.path(), damage });
        }
        let kept = by_segment(chosen);
        self.report.tail_bytes_cut += bytes_cut(tails, &kept);
        Ok((kept, last, highest.max(last).next()))
    }

    fn report_gap(&mut self, tail: &Tail, run: &Run, last: Seq) {
        let error = FieldError::new("seq", run.first_seq.0, last.next().0);
        let name = tail.segment.id.to_string();
        self.report.damage.push(error.at("finish journal", &name, run.from));
    }

    /// Copies what is kept of one segment, and of those attached to it, to fresh sealed segments.
    fn save(
        &mut self,
        segment: &Arc<Segment>,
        ranges: &[Range<u64>],
        attached: &BTreeMap<u32, Arc<Segment>>,
        created_ms: u64,
        ops: &mut Vec<Op>,
    ) -> Result<()> {
        let mut others = Vec::new();
        let mut clears = Vec::new();
        for range in ranges {
            walk_range(segment, range, |_, record| {
                match record.header.kind {
                    RecordKind::Attach => others.extend(attach_fields(record)),
                    RecordKind::Clear => clears.push(clear_fields(record)),
                    RecordKind::Put | RecordKind::Tombstone => {}
                }
                Ok(())
            })?;
        }
        self.copy_sealed(segment, ranges, created_ms, ops)?;
        for (id, _, records_end) in others {
            if let Some(other) = attached.get(&id) {
                let all = SEGMENT_HEADER_LEN as u64..records_end;
                self.copy_sealed(other, std::slice::from_ref(&all), created_ms, ops)?;
            }
        }
        let keyspaces = self.manifest.read(|set| set.keyspaces.clone());
        for (ended, next, seq) in clears.into_iter().flatten() {
            let known = keyspaces.values().find(|keyspace| {
                keyspace.incarnation == ended || clears_since(ops, &keyspace.name) == Some(ended)
            });
            let Some(mut facts) = known.cloned() else { continue };
            if next == 0 {
                ops.push(Op::DropKeyspace { name: facts.name, incarnation: ended, seq });
            } else {
                (facts.incarnation, facts.seq) = (next, seq);
                ops.push(Op::SetKeyspace(facts));
            }
        }
        Ok(())
    }

    fn copy_sealed(
        &mut self,
        source: &Arc<Segment>,
        ranges: &[Range<u64>],
        created_ms: u64,
        ops: &mut Vec<Op>,
    ) -> Result<()> {
        let id = self.manifest.next_file();
        self.manifest.commit(&vec![Op::DraftSegment { id }])?;
        let nonce =
            os::random_bytes().map_err(|error| Error::io("draw nonce", self.dir.path(), error))?;
        let header = SegmentHeader {
            store: self.facts.store,
            id: SegmentId(id),
            kind: SegmentKind::Survivor,
            created_ms,
            nonce: u64::from_le_bytes(nonce),
        };
        let len = ranges.iter().map(|range| range.end - range.start).sum::<u64>() + 4096;
        let mut writer = SegmentWriter::create(&*self.dir, &header, Slot(0), len, 1 << 20)?;
        let mut copy = |offset: u32, record: &Record<'_>| {
            if !matches!(record.header.kind, RecordKind::Put | RecordKind::Tombstone) {
                return Ok(());
            }
            source.check_body(u64::from(offset), record)?;
            writer.make_room(record.header.encoded_len())?;
            let header = crate::format::record::RecordHeader {
                more: false,
                batch: false,
                old: false,
                ..record.header
            };
            writer.append(&header, record.key, record.value);
            Ok(())
        };
        for range in ranges {
            walk_range(source, range, &mut copy)?;
        }
        writer.publish();
        if writer.is_empty() {
            ops.push(Op::Doom { id });
            return Ok(());
        }
        let (facts, _) = writer.write_trailer(&self.seed())?;
        ops.push(seal_op(id, &facts));
        Ok(())
    }
}

/// The ranges of each segment together, in the order of the first of them.
fn by_segment(chosen: Vec<(&Tail, Run)>) -> Kept<'_> {
    let mut kept: Kept<'_> = Vec::new();
    for (tail, run) in chosen {
        let range = run.from..run.end;
        match kept.iter_mut().find(|(known, _)| known.segment.id == tail.segment.id) {
            Some((_, ranges)) => ranges.push(range),
            None => kept.push((tail, Vec::from([range]))),
        }
    }
    kept
}

/// Bytes that were written behind what is kept of each segment.
fn bytes_cut(tails: &[Tail], kept: &[(&Tail, Vec<Range<u64>>)]) -> u64 {
    let end_of = |tail: &Tail| {
        let of_tail = kept.iter().filter(|(known, _)| known.segment.id == tail.segment.id);
        let ends = of_tail.flat_map(|(_, ranges)| ranges.iter().map(|range| range.end));
        ends.max().unwrap_or(SEGMENT_HEADER_LEN as u64)
    };
    tails.iter().map(|tail| tail.scan.written_end.saturating_sub(end_of(tail))).sum()
}

/// The incarnation that ops already queued give a name.
fn clears_since(ops: &[Op], name: &str) -> Option<u32> {
    ops.iter().rev().find_map(|op| match op {
        Op::SetKeyspace(facts) if facts.name == name => Some(facts.incarnation),
        _ => None,
    })
}

/// Segment, record count and records end of an attach record.
fn attach_fields(record: &Record<'_>) -> Option<(u32, u32, u64)> {
    let mut fields = Fields::new(record.value);
    let id = fields.u32("segment").ok()?;
    let count = fields.u32("record count").ok()?;
    let records_end = fields.u64("records end").ok()?;
    fields.finish("attach end").ok()?;
    Some((id, count, records_end))
}

/// Ended and next incarnation of a clear record.
fn clear_fields(record: &Record<'_>) -> Option<(u32, u32, u64)> {
    let next = Fields::new(record.value).u32("next incarnation").ok()?;
    Some((record.header.incarnation.0, next, record.header.seq.0))
}

/// The first `seq` of the attached records when all of them are sound and end at the record's own.
fn check_attached(
    record: &Record<'_>,
    previous: Option<Seq>,
    attached: &BTreeMap<u32, Arc<Segment>>,
    tries: &mut BTreeMap<u32, u32>,
) -> Option<Seq> {
    let (id, count, records_end) = attach_fields(record)?;
    let segment = attached.get(&id)?;
    let first = Seq(record.header.seq.0.checked_sub(u64::from(count))?.checked_add(1)?);
    if previous.is_some_and(|previous| previous.next() != first) {
        return None;
    }
    if planted(Canary::NoLengthCheck) {
        return Some(first);
    }
    let tried = tries.entry(id).or_default();
    *tried += 1;
    if *tried > ATTACHED_TRIES_MAX {
        return None;
    }
    let mut expected = first;
    let walked = walk_records(segment, records_end, |offset, record| {
        if record.header.seq != expected {
            let found = record.header.seq.0;
            let error = FieldError::new("seq", found, expected.0);
            return Err(segment.damage("read attached record", u64::from(offset), error).into());
        }
        expected = expected.next();
        Ok(segment.check_body(u64::from(offset), record)?)
    });
    (walked.is_ok() && expected == record.header.seq.next()).then_some(first)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
