//! What trailers add up to, from segments that are written here, sound or forged.

use std::path::Path;

use super::*;
use crate::format::checksum::crc;
use crate::format::deadbits::DeadBitmap;
use crate::format::record::{RecordHeader, RecordKind, body_crc, encoded_len};
use crate::format::segment::{SegmentFooter, SegmentHeader, SegmentKind};
use crate::format::trailer::TrailerBuilder;
use crate::ids::{Seq, Slot};
use crate::manifest::SealedFacts;
use crate::vfs::Vfs;
use crate::vfs::sim::SimVfs;

const NONCE: u64 = 0x5EED;
const SEED: HashSeed = HashSeed([3; 16]);

/// A record: key, `seq`, incarnation, and whether it is a tombstone.
type Row = (String, u64, u32, bool);

fn row(key: impl Into<String>, seq: u64) -> Row {
    (key.into(), seq, 1, false)
}

/// A sealed segment of these records, whose trailer tells the tags that `tag_of` gives.
fn sealed(id: u32, slot: u32, rows: &[Row], tag_of: &dyn Fn(&Row) -> u32) -> Arc<Segment> {
    let kind = SegmentKind::Survivor;
    let store = [7; 16];
    let header = SegmentHeader { store, id: SegmentId(id), kind, created_ms: 1, nonce: NONCE };
    let mut bytes = header.encode();
    let mut entries = Vec::new();
    for one in rows {
        let (key, seq, incarnation, tombstone) = one;
        let (key, offset) = (key.as_bytes(), bytes.len());
        let len = encoded_len(key.len(), 3);
        let header = RecordHeader {
            body_crc: body_crc(Incarnation(*incarnation), key, b"abc"),
            seq: Seq(*seq),
            deadline_ms: 0,
            value_len: 3,
            key_len: u16::try_from(key.len()).unwrap(),
            kind: if *tombstone { RecordKind::Tombstone } else { RecordKind::Put },
            more: false,
            batch: false,
            old: false,
            incarnation: Incarnation(*incarnation),
            watermark_lag: 1,
        };
        bytes.extend_from_slice(&header.encode(NONCE, offset as u64));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(b"abc");
        bytes.resize(offset + usize::try_from(len).unwrap(), 0);
        entries.push(TrailerEntry {
            tag: tag_of(one),
            offset: u32::try_from(offset).unwrap(),
            len: u32::try_from(len).unwrap(),
            seq: Seq(*seq),
            deadline_ms: 0,
            incarnation: Incarnation(*incarnation),
            tombstone: *tombstone,
            superseded: false,
        });
    }
    entries.sort_by_key(|entry| (entry.tag, entry.offset));
    let mut trailer = TrailerBuilder::new(Seq(0), 0);
    for entry in &entries {
        trailer.push(entry);
    }
    finish(&header, slot, bytes, &trailer.finish())
}

fn finish(header: &SegmentHeader, slot: u32, mut bytes: Vec<u8>, trailer: &[u8]) -> Arc<Segment> {
    let records_end = bytes.len() as u64;
    let footer = SegmentFooter {
        records_end,
        trailer_offset: records_end,
        trailer_len: u32::try_from(trailer.len()).unwrap(),
        trailer_crc: crc(trailer),
        first_seq: Seq(0),
        last_seq: Seq(1000),
    };
    bytes.extend_from_slice(trailer);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(footer.encode(NONCE, bytes.len() as u64));
    let file = SimVfs::new(1).create_dir(Path::new("/")).unwrap().create("1").unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let len = bytes.len() as u64;
    let segment = Segment::new(header, Slot(slot), Arc::clone(&file), file.map(len, len).unwrap());
    let (kind, trailer_crc) = (header.kind, footer.trailer_crc);
    let (first_seq, last_seq) = (footer.first_seq, footer.last_seq);
    segment.set_sealed(SealedFacts { kind, len, first_seq, last_seq, trailer_crc }, footer);
    segment
}

fn honest((key, _, incarnation, _): &Row) -> u32 {
    SEED.hash(Incarnation(*incarnation), key.as_bytes()).tag()
}

fn rebuilt(segments: impl IntoIterator<Item = Arc<Segment>>, bits: &DeadBits) -> Rebuilt {
    let mut table = SegmentTable::default();
    for segment in segments {
        assert!(table.reserve(segment.slot));
        table.insert(segment);
    }
    rebuild(&table, bits, &HashSet::from([1, 2]), SEED).unwrap()
}

/// The place that the index names for a key.
fn named(index: &PointIndex, key: &str) -> Option<(u32, bool)> {
    let mut found = None;
    let tag = honest(&row(key, 0));
    index
        .peek(tag, |entry| {
            found = Some((entry.location.slot.0, entry.tombstone));
            Ok::<_, crate::error::Error>(true)
        })
        .unwrap();
    found
}

fn live(rebuilt: &Rebuilt) -> Vec<(u64, u64, u64)> {
    let accounts = rebuilt.accounts.iter().flatten();
    accounts.map(|a| (a.live_count(), a.live_bytes(), a.record_bytes)).collect()
}

#[test]
fn the_newest_record_of_each_key_counts_and_the_others_are_dead() {
    let first: Vec<Row> = (0..300).map(|n| row(format!("k{n:03}"), 1 + n)).collect();
    let second: Vec<Row> = (100..200).map(|n| row(format!("k{n:03}"), 901 + n)).collect();
    let gone = (String::from("k000"), 1500, 1, true);
    let ended = (String::from("x"), 1600, 9, false);
    let third = vec![gone, ended];
    let found = rebuilt(
        [
            sealed(11, 0, &second, &honest),
            sealed(12, 3, &first, &honest),
            sealed(13, 1, &third, &honest),
        ],
        &DeadBits::default(),
    );
    assert_eq!(found.damage, []);
    assert_eq!(found.index.count(), 300);
    for n in 1..300 {
        let slot = if (100..200).contains(&n) { 0 } else { 3 };
        assert_eq!(named(&found.index, &format!("k{n:03}")), Some((slot, false)), "k{n:03}");
    }
    assert_eq!(named(&found.index, "k000"), Some((1, true)));
    // A record of four bytes of key and three of value takes 48.
    assert_eq!(live(&found), [(100, 4800, 4800), (0, 0, 96), (199, 199 * 48, 14_400)]);
}

#[test]
fn what_a_bitmap_calls_dead_does_not_come_back() {
    let rows: Vec<Row> = (0..9).map(|n| row(format!("k{n:03}"), 1 + n)).collect();
    let mut by_tag: Vec<&Row> = rows.iter().collect();
    by_tag.sort_by_key(|row| honest(row));
    let mut bitmap = DeadBitmap::new(11, 9);
    bitmap.set(0);
    bitmap.set(8);
    let bits = DeadBits { bitmaps: vec![bitmap], ..DeadBits::default() };
    let found = rebuilt([sealed(11, 0, &rows, &honest)], &bits);
    assert_eq!(found.index.count(), 7);
    for (n, row) in by_tag.iter().enumerate() {
        assert_eq!(named(&found.index, &row.0).is_some(), n != 0 && n != 8, "{n}");
    }
    assert_eq!(live(&found), [(7, 7 * 48, 9 * 48)]);
}

#[test]
fn one_tag_for_every_key_is_named_once_and_fills_no_bucket() {
    let rows: Vec<Row> = (0..3000).map(|n| row(format!("k{n:04}"), 1 + n)).collect();
    let sound = vec![row("other", 5000)];
    let found = rebuilt(
        [sealed(11, 0, &rows, &|_| 7), sealed(12, 1, &sound, &honest)],
        &DeadBits::default(),
    );
    assert_eq!(found.index.count(), SAME_TAG_MAX as u64 + 1);
    assert_eq!(found.damage.len(), 1);
    assert_eq!(found.damage[0].field, "trailer tag");
    assert_eq!(named(&found.index, "other"), Some((1, false)));
}

#[test]
fn a_trailer_that_does_not_hold_is_damage_and_the_others_count() {
    let header = SegmentHeader {
        store: [7; 16],
        id: SegmentId(11),
        kind: SegmentKind::Survivor,
        created_ms: 1,
        nonce: NONCE,
    };
    let broken = finish(&header, 0, header.encode(), b"no trailer");
    let sound = sealed(12, 1, &[row("k123", 5)], &honest);
    let found = rebuilt([broken, sound], &DeadBits::default());
    assert_eq!((found.damage.len(), found.index.count()), (1, 1));
    assert_eq!(live(&found), [(0, 0, 0), (1, 48, 48)]);
}
