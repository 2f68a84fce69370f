//! One unsealed segment after an unclean end: which runs of its records are sound.
//! Knows one file; knows nothing of the order of files, of the index, or of what to do about it.

use crate::format::record::{RECORD_HEADER_LEN, Record, RecordHeader, RecordKind};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::ids::Seq;
use crate::warm::segment::Segment;

/// Zeros are passed over in pieces of this length.
const ZEROS: [u8; 512] = [0; 512];
/// Bodies that do not hold are read up to so many times the length of the file. What a crash leaves
/// stays far below; a file made of sound headers over each other's bodies does not.
const IN_VAIN_MAX: u64 = 4;

/// Sound records that follow each other, each `seq` one above the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub from: u64,
    /// Whole batches end here: the same as `from` when the run holds none.
    pub end: u64,
    /// All sound records end here, those of a batch without its end included.
    pub sound_end: u64,
    pub first_seq: Seq,
    /// The `seq` before `end`; below `first_seq` when the run holds no whole batch.
    pub last_seq: Seq,
    /// The `seq` before `sound_end`.
    pub sound_seq: Seq,
}

/// What one walk over a segment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// In file order. Between two of them lies something that is no sound record, or a `seq` is
    /// missing.
    pub runs: Vec<Run>,
    /// The highest durable watermark in any sound record.
    pub watermark: Seq,
    /// The highest `seq` of any sound record.
    pub highest_seq: Seq,
    /// Behind it are zeros alone.
    pub written_end: u64,
    /// Bytes of records that were read and whose bodies did not hold.
    pub in_vain: u64,
}

/// Walks the records of a journal segment, and looks for more behind each one that is unsound:
/// headers are bound to the segment's nonce and their place. `attached` answers the first `seq` of
/// the records that an attach record names when all of them are sound and follow the given `seq`.
pub(crate) fn scan(
    segment: &Segment,
    mut attached: impl FnMut(&Record<'_>, Option<Seq>) -> Option<Seq>,
) -> Scan {
    let (watermark, highest_seq) = (Seq::ZERO, Seq::ZERO);
    let mut offset = SEGMENT_HEADER_LEN as u64;
    let mut scan =
        Scan { runs: Vec::new(), watermark, highest_seq, written_end: offset, in_vain: 0 };
    let patience = segment.records_end().saturating_mul(IN_VAIN_MAX);
    let mut run: Option<Run> = None;
    while let Some(at) = next_candidate(segment, offset) {
        let Ok(record) = segment.record(at) else {
            offset = at + 8;
            continue;
        };
        let header = record.header;
        if record.check_body().is_err() {
            scan.in_vain += header.encoded_len();
            let patient = scan.in_vain <= patience;
            offset = at + if patient { 8 } else { header.encoded_len() };
            continue;
        }
        scan.watermark = scan.watermark.max(header.watermark());
        scan.highest_seq = scan.highest_seq.max(header.seq);
        let follows = run.filter(|run| run.sound_end == at).map(|run| run.sound_seq);
        let mut begins_at = |previous| match header.kind {
            RecordKind::Attach => attached(&record, previous),
            _ => Some(header.seq),
        };
        let begins = begins_at(follows).or_else(|| begins_at(None));
        offset = at + header.encoded_len();
        let Some(begins) = begins else { continue };
        let goes_on = follows.is_some_and(|last| begins == last.next());
        if !goes_on {
            scan.runs.extend(run.take());
        }
        run = Some(extended(run, at, begins, &header));
    }
    scan.runs.extend(run);
    scan.written_end = offset;
    scan
}

/// The run with one more record, or a new one that begins with it.
fn extended(run: Option<Run>, at: u64, begins: Seq, header: &RecordHeader) -> Run {
    let before = Seq(begins.0.saturating_sub(1));
    let fresh = Run {
        from: at,
        end: at,
        sound_end: at,
        first_seq: begins,
        last_seq: before,
        sound_seq: before,
    };
    let mut run = run.unwrap_or(fresh);
    (run.sound_end, run.sound_seq) = (at + header.encoded_len(), header.seq);
    if !header.more {
        (run.end, run.last_seq) = (run.sound_end, run.sound_seq);
    }
    run
}

/// The first place at or behind `from`, a multiple of 8, where a header may stand: it is not all
/// zeros.
fn next_candidate(segment: &Segment, from: u64) -> Option<u64> {
    let end = segment.records_end();
    let mut at = from;
    while at + RECORD_HEADER_LEN as u64 <= end {
        let piece = segment.bytes_at(at, (end - at).min(ZEROS.len() as u64))?;
        if ZEROS.get(..piece.len()) == Some(piece) {
            // A header may begin in these zeros and end behind them.
            at += (piece.len() as u64 - 32).max(8);
            continue;
        }
        let zeros = piece.iter().take_while(|&&byte| byte == 0).count() as u64;
        return Some(at + zeros.saturating_sub(RECORD_HEADER_LEN as u64 - 1).next_multiple_of(8));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::record::encoded_len;
    use crate::format::segment::{SegmentHeader, SegmentKind};
    use crate::ids::{Incarnation, SegmentId, Slot};
    use crate::vfs::Vfs;
    use crate::vfs::sim::SimVfs;

    const NONCE: u64 = 0x5EED;

    /// A segment of these bytes behind its header.
    fn segment(records: &[u8]) -> std::sync::Arc<Segment> {
        let header = SegmentHeader {
            store: [7; 16],
            id: SegmentId(3),
            kind: SegmentKind::Journal,
            created_ms: 1,
            nonce: NONCE,
        };
        let bytes = [&header.encode()[..], records].concat();
        let file = SimVfs::new(1).create_dir(Path::new("/")).unwrap().create("3").unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let len = bytes.len() as u64;
        let map = file.map(len, len).unwrap();
        Segment::new(&header, Slot(0), file, map)
    }

    fn header(seq: u64, value_len: usize) -> RecordHeader {
        RecordHeader {
            body_crc: 0,
            seq: Seq(seq),
            deadline_ms: 0,
            value_len: u32::try_from(value_len).unwrap(),
            key_len: 1,
            kind: RecordKind::Put,
            more: false,
            batch: false,
            old: false,
            incarnation: Incarnation(1),
            watermark_lag: 1,
        }
    }

    /// Puts a sound record behind what is there.
    fn put(records: &mut Vec<u8>, header: RecordHeader, value: &[u8]) {
        let offset = (SEGMENT_HEADER_LEN + records.len()) as u64;
        let body_crc = crate::format::record::body_crc(header.incarnation, b"k", value);
        let header = RecordHeader { body_crc, ..header };
        let end = records.len() + usize::try_from(encoded_len(1, value.len())).unwrap();
        records.extend_from_slice(&header.encode(NONCE, offset));
        records.extend_from_slice(b"k");
        records.extend_from_slice(value);
        records.resize(end, 0);
    }

    #[test]
    fn runs_end_at_a_hole_at_a_gap_and_before_a_batch_without_its_end() {
        let mut records = Vec::new();
        for seq in [5, 6] {
            put(&mut records, header(seq, 3), b"abc");
        }
        let first_end = (SEGMENT_HEADER_LEN + records.len()) as u64;
        records.extend_from_slice(&[0xAA; 48]);
        put(&mut records, header(8, 3), b"abc");
        let begun = (SEGMENT_HEADER_LEN + records.len()) as u64;
        put(&mut records, RecordHeader { more: true, batch: true, ..header(9, 3) }, b"abc");
        let end = (SEGMENT_HEADER_LEN + records.len()) as u64;
        records.extend_from_slice(&[0; 4096]);
        let scan = scan(&segment(&records), |_, _| None);
        let told: Vec<_> = scan
            .runs
            .iter()
            .map(|run| (run.end, run.sound_end, run.first_seq.0, run.last_seq.0, run.sound_seq.0))
            .collect();
        assert_eq!(told, [(first_end, first_end, 5, 6, 6), (begun, end, 8, 8, 9)]);
        assert_eq!((scan.watermark, scan.highest_seq, scan.in_vain), (Seq(8), Seq(9), 0));
        assert_eq!(scan.written_end, end, "zeros alone lie behind the last record");
    }

    #[test]
    fn a_record_inside_what_a_broken_one_claims_is_found() {
        let mut records = Vec::new();
        // Its body is the record behind it, whose bytes are not what was summed.
        let claims = header(1, 100).encode(NONCE, SEGMENT_HEADER_LEN as u64);
        records.extend_from_slice(&claims);
        put(&mut records, header(5, 3), b"abc");
        put(&mut records, header(6, 3), b"abc");
        records.resize(records.len() + 100, 0);
        let scan = scan(&segment(&records), |_, _| None);
        let from = (SEGMENT_HEADER_LEN + RECORD_HEADER_LEN) as u64;
        let run = scan.runs[0];
        assert_eq!(
            (scan.runs.len(), run.from, run.first_seq, run.last_seq),
            (1, from, Seq(5), Seq(6))
        );
        assert_eq!(scan.in_vain, header(1, 100).encoded_len());
    }

    #[test]
    fn what_was_written_ends_at_its_last_byte_whatever_it_is() {
        let mut records = Vec::new();
        put(&mut records, header(5, 3), b"abc");
        records.resize(8000, 0);
        for at in [100, 101, 600, 7000] {
            let mut torn = records.clone();
            torn[at] = 1;
            let scan = scan(&segment(&torn), |_, _| None);
            let end = (SEGMENT_HEADER_LEN + at + 1).next_multiple_of(8) as u64;
            assert_eq!((scan.written_end, scan.runs.len()), (end, 1), "a byte at {at}");
        }
    }

    #[test]
    fn an_attach_record_stands_for_the_records_that_it_names_or_for_nothing() {
        let mut records = Vec::new();
        put(&mut records, header(4, 3), b"abc");
        put(&mut records, RecordHeader { kind: RecordKind::Attach, ..header(7, 3) }, b"abc");
        put(&mut records, header(8, 3), b"abc");
        let segment = segment(&records);
        let mut asked = Vec::new();
        let named = scan(&segment, |record, previous| {
            asked.push((record.header.seq, previous));
            Some(Seq(5))
        });
        assert_eq!(asked, [(Seq(7), Some(Seq(4)))]);
        let seqs = |run: &Run| (run.first_seq, run.last_seq);
        assert_eq!(named.runs.iter().map(seqs).collect::<Vec<_>>(), [(Seq(4), Seq(8))]);
        let mut asked = Vec::new();
        let unsound = scan(&segment, |_, previous| {
            asked.push(previous);
            None
        });
        assert_eq!(asked, [Some(Seq(4)), None]);
        let told = unsound.runs.iter().map(seqs).collect::<Vec<_>>();
        assert_eq!(told, [(Seq(4), Seq(4)), (Seq(8), Seq(8))]);
    }

    #[test]
    fn a_record_is_found_behind_zeros_of_any_length() {
        for zeros in (0..1600).step_by(8) {
            let mut records = vec![0; zeros];
            put(&mut records, header(0x0100, 3), b"abc");
            records.extend_from_slice(&[0; 40]);
            let scan = scan(&segment(&records), |_, _| None);
            let found: Vec<_> = scan.runs.iter().map(|run| (run.from, run.last_seq)).collect();
            let at = (SEGMENT_HEADER_LEN + zeros) as u64;
            assert_eq!(found, [(at, Seq(0x0100))], "behind {zeros} zeros");
        }
    }

    #[test]
    fn sound_headers_over_each_others_bodies_cost_no_more_than_a_few_readings_of_the_file() {
        const COUNT: usize = 2000;
        let len = COUNT * RECORD_HEADER_LEN;
        let mut records = vec![0; len];
        for at in (0..len).step_by(RECORD_HEADER_LEN) {
            // Each claims everything behind it.
            let room = (len - at - RECORD_HEADER_LEN).saturating_sub(1);
            let encoded = header(1, room).encode(NONCE, (SEGMENT_HEADER_LEN + at) as u64);
            records[at..at + RECORD_HEADER_LEN].copy_from_slice(&encoded);
        }
        let scan = scan(&segment(&records), |_, _| None);
        assert!(scan.runs.is_empty() && scan.highest_seq == Seq::ZERO);
        let file_len = (SEGMENT_HEADER_LEN + len) as u64;
        assert!(scan.in_vain > 0 && scan.in_vain <= 5 * file_len, "{} bytes", scan.in_vain);
    }
}
