//! One unsealed segment after an unclean end: which runs of its records are sound.
//! Knows one file; knows nothing of the order of files, of the index, or of what to do about it.

use crate::format::record::{RECORD_HEADER_LEN, Record, RecordHeader, RecordKind};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::ids::Seq;
use crate::warm::segment::Segment;

/// Zeros are passed over in pieces of this length.
const ZEROS: [u8; 512] = [0; 512];

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
}

/// Walks the records of a journal segment, and looks for more behind each one that is unsound:
/// headers are bound to the segment's nonce and their place. `attached` answers the first `seq` of
/// the records that an attach record names when all of them are sound and follow the given `seq`.
pub(crate) fn scan(
    segment: &Segment,
    mut attached: impl FnMut(&Record<'_>, Option<Seq>) -> Option<Seq>,
) -> Scan {
    let mut scan = Scan { runs: Vec::new(), watermark: Seq::ZERO, highest_seq: Seq::ZERO };
    let mut run: Option<Run> = None;
    let mut offset = SEGMENT_HEADER_LEN as u64;
    while let Some(at) = next_candidate(segment, offset) {
        let sound = segment.record(at).ok().filter(|record| record.check_body().is_ok());
        let Some(record) = sound else {
            offset = at + 8;
            continue;
        };
        let header = record.header;
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
