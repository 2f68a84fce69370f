//! When an attach record is believed: all that it names is there, sound, and in its place.

use std::path::Path;

use super::*;
use crate::format::record::{RecordHeader, body_crc, encoded_len};
use crate::ids::Incarnation;
use crate::vfs::Vfs;
use crate::vfs::sim::SimVfs;

const NONCE: u64 = 0x5EED;
const ID: u32 = 3;

fn header(kind: RecordKind, seq: u64, value: &[u8]) -> RecordHeader {
    RecordHeader {
        body_crc: body_crc(Incarnation(1), b"k", value),
        seq: Seq(seq),
        deadline_ms: 0,
        value_len: u32::try_from(value.len()).unwrap(),
        key_len: 1,
        kind,
        more: false,
        batch: false,
        old: false,
        incarnation: Incarnation(1),
        watermark_lag: 1,
    }
}

/// A segment of records of one key, and where they end.
fn segment(records: &[(RecordKind, u64, &[u8])]) -> (Arc<Segment>, u64) {
    let header = SegmentHeader {
        store: [7; 16],
        id: SegmentId(ID),
        kind: SegmentKind::Attached,
        created_ms: 1,
        nonce: NONCE,
    };
    let mut bytes = header.encode();
    for &(kind, seq, value) in records {
        let at = bytes.len();
        bytes.extend_from_slice(&self::header(kind, seq, value).encode(NONCE, at as u64));
        bytes.extend_from_slice(b"k");
        bytes.extend_from_slice(value);
        bytes.resize(at + usize::try_from(encoded_len(1, value.len())).unwrap(), 0);
    }
    let len = bytes.len() as u64;
    let file = SimVfs::new(1).create_dir(Path::new("/")).unwrap().create("3").unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let map = file.map(len, len).unwrap();
    (Segment::new(&header, Slot(0), file, map), len)
}

/// Whether an attach record with this `seq` is believed that names so many records up to an end.
fn believed(
    seqs: &[u64],
    (seq, count, end): (u64, u32, i64),
    previous: Option<u64>,
    tries: &mut BTreeMap<u32, u32>,
) -> Option<u64> {
    let records: Vec<_> = seqs.iter().map(|&seq| (RecordKind::Put, seq, &b"abc"[..])).collect();
    let (segment, records_end) = self::segment(&records);
    let records_end = records_end.checked_add_signed(end).unwrap();
    let value = [&ID.to_le_bytes()[..], &count.to_le_bytes(), &records_end.to_le_bytes()].concat();
    let (journal, _) = self::segment(&[(RecordKind::Attach, seq, &value)]);
    let record = journal.record(SEGMENT_HEADER_LEN as u64).unwrap();
    let attached = BTreeMap::from([(ID, segment)]);
    check_attached(&record, previous.map(Seq), &attached, tries).map(|seq| seq.0)
}

#[test]
fn an_attach_record_is_believed_when_all_that_it_names_is_there_in_order() {
    let check =
        |seqs: &[u64], named, previous| believed(seqs, named, previous, &mut BTreeMap::new());
    assert_eq!(check(&[5, 6, 7], (7, 3, 0), Some(4)), Some(5));
    assert_eq!(check(&[5, 6, 7], (7, 3, 0), None), Some(5));
    for (what, seqs, named, previous) in [
        ("another place", &[5, 6, 7][..], (7, 3, 0), Some(5)),
        ("a record too few", &[5, 6], (7, 3, 0), None),
        ("a record too many", &[5, 6, 7, 8], (7, 3, 0), None),
        ("out of order", &[5, 7, 6], (7, 3, 0), None),
        ("a gap", &[5, 7], (7, 3, 0), None),
        ("an end inside a record", &[5, 6, 7], (7, 3, 8), None),
        ("an end before the last record", &[5, 6, 7], (7, 3, -48), None),
        ("more records than there were ever", &[5, 6, 7], (7, 9, 0), None),
    ] {
        assert_eq!(check(seqs, named, previous), None, "{what}");
    }
}

#[test]
fn a_segment_that_many_records_name_is_read_a_few_times_and_no_more() {
    let mut tries = BTreeMap::new();
    for tried in 0..ATTACHED_TRIES_MAX - 1 {
        assert_eq!(believed(&[5, 6], (7, 3, 0), None, &mut tries), None, "try {tried}");
    }
    assert_eq!(believed(&[5, 6, 7], (7, 3, 0), None, &mut tries), Some(5));
    assert_eq!(believed(&[5, 6, 7], (7, 3, 0), None, &mut tries), None);
    // What is in another place is not read, and counts for nothing.
    let mut fresh = BTreeMap::new();
    assert_eq!(believed(&[5, 6, 7], (7, 3, 0), Some(9), &mut fresh), None);
    assert!(fresh.is_empty());
}

#[test]
fn a_clear_record_names_the_incarnation_that_ended_and_the_next_and_nothing_else() {
    fn read<T>(value: &[u8], read: impl Fn(&Record<'_>) -> T) -> T {
        let (segment, _) = segment(&[(RecordKind::Clear, 9, value)]);
        read(&segment.record(SEGMENT_HEADER_LEN as u64).unwrap())
    }
    assert_eq!(read(&[2, 0, 0, 0], clear_fields), Some((1, 2, 9)));
    assert_eq!(read(&[2, 0, 0], clear_fields), None);
    assert_eq!(read(&[0; 16], attach_fields), Some((0, 0, 0)));
    assert_eq!(read(&[0; 15], attach_fields), None);
    assert_eq!(read(&[0; 17], attach_fields), None);
}
