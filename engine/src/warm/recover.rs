//! One unsealed segment after an unclean end: how far its records are sound, and what lies behind.
//! Knows one file; knows nothing of the order of files, of the index, or of what to do about it.

use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::ids::Seq;
use crate::warm::segment::Segment;

/// What one walk over a segment found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Records before this offset are sound, whole batches, each `seq` one above the last.
    pub end: u64,
    pub first_seq: Option<Seq>,
    pub last_seq: Seq,
    /// The highest durable watermark in any sound record, also behind a hole.
    pub watermark: Seq,
    /// The highest `seq` of any sound record, also behind a hole.
    pub highest_seq: Seq,
    /// A sound record lies behind the first unsound one.
    pub hole: bool,
}

/// Walks the records of a journal segment. `attached` answers whether the segment that an attach
/// record names holds exactly the records before it, beginning after the given `seq`.
pub(crate) fn scan(
    segment: &Segment,
    mut attached: impl FnMut(&crate::format::record::Record<'_>, Option<Seq>) -> Option<Seq>,
) -> Scan {
    let mut scan = Scan {
        end: SEGMENT_HEADER_LEN as u64,
        first_seq: None,
        last_seq: Seq::ZERO,
        watermark: Seq::ZERO,
        highest_seq: Seq::ZERO,
        hole: false,
    };
    let mut offset = scan.end;
    let mut previous: Option<Seq> = None;
    let mut first: Option<Seq> = None;
    while let Ok(record) = segment.record(offset) {
        if record.check_body().is_err() {
            break;
        }
        let header = record.header;
        let begins = if header.kind == RecordKind::Attach {
            attached(&record, previous)
        } else {
            Some(header.seq)
        };
        let Some(begins) = begins else { break };
        if previous.is_some_and(|previous| begins != previous.next()) {
            break;
        }
        first = first.or(Some(begins));
        previous = Some(header.seq);
        note(&mut scan, &header);
        offset += header.encoded_len();
        if !header.more {
            (scan.end, scan.first_seq, scan.last_seq) = (offset, first, header.seq);
        }
    }
    look_behind(segment, offset, &mut scan);
    scan
}

fn note(scan: &mut Scan, header: &RecordHeader) {
    scan.watermark = scan.watermark.max(header.watermark());
    scan.highest_seq = scan.highest_seq.max(header.seq);
}

/// Looks for sound headers behind the first unsound record, at every multiple of 8.
fn look_behind(segment: &Segment, from: u64, scan: &mut Scan) {
    let end = segment.records_end();
    let mut offset = from;
    while offset + RECORD_HEADER_LEN as u64 <= end {
        let zeros = segment
            .bytes_at(offset, RECORD_HEADER_LEN as u64)
            .is_none_or(|bytes| bytes.iter().all(|&byte| byte == 0));
        let record = if zeros { None } else { segment.record(offset).ok() };
        match record {
            Some(record) if record.check_body().is_ok() => {
                scan.hole |= offset > from;
                note(scan, &record.header);
                offset += record.header.encoded_len();
            }
            _ => offset += 8,
        }
    }
}
