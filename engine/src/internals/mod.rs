//! What fuzzers and white-box tests may reach, behind the feature `internals`, and nobody else.
//! Each function takes any bytes and states: no panic, no hang, no allocation above the caps; and
//! what decodes is encoded to bytes that decode to the same.

mod image;
mod mend;
mod seeds;

pub use self::image::{open_image, pack};
pub use self::seeds::seeds;
pub use crate::hot::model::PolicyModel;

use std::path::Path;

use crate::cold::decode::{prepare_dictionary, with_block};
use crate::cold::filter::Filter;
use crate::format::archive::{ArchiveFooter, ArchiveHeader, Tables};
use crate::format::block::{Block, BlockHeader};
use crate::format::block_index::BlockIndex;
use crate::format::cursor::Fields;
use crate::format::deadbits::DeadBits;
use crate::format::image::{ImageHeader, ImageTables, PartKind, leaf};
use crate::format::manifest::{ManifestHeader, decode_frame, encode_frame};
use crate::format::record::Record;
use crate::format::segment::{SegmentFooter, SegmentHeader};
use crate::format::trailer::{TrailerBuilder, TrailerReader};
use crate::hash::KeyHash;
use crate::ids::{ArchiveId, Slot};
use crate::internals::mend::{NONCE, OFFSET};
use crate::vfs::Vfs;
use crate::vfs::map::Map;
use crate::vfs::sim::SimVfs;
use crate::warm::active::walk_range;
use crate::warm::index::table::{BUCKET_LEN, Table};
use crate::warm::recover::scan;
use crate::warm::segment::Segment;

/// A decoder and the name of its target; it answers whether the input decoded.
pub type Body = (&'static str, fn(&[u8]) -> bool);

/// Every decoder of the format; the first byte of the input says whether checksums are set right
/// before it is decoded, as whoever wrote a hostile file would have done.
pub const DECODERS: &[Body] = &[
    ("record", record),
    ("segment_header", segment_header),
    ("segment_footer", segment_footer),
    ("segment_scan", segment_scan),
    ("trailer", trailer),
    ("dead_bits", dead_bits),
    ("manifest", manifest),
    ("index_image", index_image),
    ("archive_header", archive_header),
    ("archive_footer", archive_footer),
    ("block", block),
    ("block_index", block_index),
    ("filter", filter),
    ("dictionary", dictionary),
    ("tables", tables),
];

/// The input without its first byte, checksums set right where that byte is odd.
fn input(data: &[u8], mend: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let Some((first, rest)) = data.split_first() else { return Vec::new() };
    let mut bytes = rest.to_vec();
    if first % 2 == 1 {
        mend(&mut bytes);
    }
    bytes
}

fn record(data: &[u8]) -> bool {
    let bytes = input(data, |bytes| mend::record(bytes, NONCE, OFFSET));
    let Ok(record) = Record::decode(&bytes, NONCE, OFFSET) else { return false };
    let mut again = record.header.encode(NONCE, OFFSET).to_vec();
    again.extend_from_slice(record.key);
    again.extend_from_slice(record.value);
    let second = Record::decode(&again, NONCE, OFFSET).map(|record| record.header);
    assert_eq!(second, Ok(record.header));
    let len = record.header.encoded_len();
    assert!(len >= 40 && len.is_multiple_of(8));
    true
}

fn segment_header(data: &[u8]) -> bool {
    let bytes = input(data, |bytes| mend::bound(bytes, 60, 0, 0));
    let Ok(header) = SegmentHeader::decode(&bytes) else { return false };
    assert_eq!(SegmentHeader::decode(&header.encode()).as_ref(), Ok(&header));
    true
}

fn segment_footer(data: &[u8]) -> bool {
    let bytes = input(data, |bytes| mend::bound(bytes, 60, NONCE, OFFSET));
    let Ok(footer) = SegmentFooter::decode(&bytes, NONCE, OFFSET) else { return false };
    let again = footer.encode(NONCE, OFFSET);
    assert_eq!(SegmentFooter::decode(&again, NONCE, OFFSET).as_ref(), Ok(&footer));
    true
}

/// A whole segment as the tail of a journal: what recovery would take of it.
fn segment_scan(data: &[u8]) -> bool {
    let bytes = input(data, mend::segment);
    let Ok(header) = SegmentHeader::decode(&bytes) else { return false };
    let dir = SimVfs::new(1).create_dir(Path::new("/"));
    let Ok(file) = dir.and_then(|dir| dir.create("segment")) else { return false };
    let len = bytes.len() as u64;
    let Ok(map) = Map::anonymous(len, &bytes, None) else { return false };
    let segment = Segment::new(&header, Slot(0), file, map);
    let scan = scan(&segment, |record, _| Some(record.header.seq));
    assert!(scan.in_vain <= 6 * len && scan.watermark <= scan.highest_seq);
    let mut last_end = 0;
    for run in &scan.runs {
        assert!(last_end <= run.from && run.from <= run.end && run.end <= run.sound_end);
        let mut seq = run.first_seq;
        let walked = walk_range(&segment, &(run.from..run.sound_end), |_, record| {
            assert!(record.header.seq == seq && record.check_body().is_ok());
            seq = seq.next();
            Ok(())
        });
        assert!(walked.is_ok() && seq == run.sound_seq.next());
        last_end = run.sound_end;
    }
    // The padding of the last record may be cut off.
    assert!(last_end <= len.next_multiple_of(8));
    !scan.runs.is_empty()
}

fn trailer(data: &[u8]) -> bool {
    let bytes = input(data, |_| ());
    let Ok(reader) = TrailerReader::decode(&bytes) else { return false };
    let entries: Vec<_> = reader.entries().map_while(Result::ok).collect();
    assert!(entries.len() <= bytes.len());
    for entry in entries.iter().take(64) {
        if let Ok(Some(found)) = reader.find(entry.tag, entry.offset) {
            assert_eq!((found.tag, found.offset), (entry.tag, entry.offset));
        }
    }
    let sorted = entries.is_sorted_by_key(|entry| (entry.tag, entry.offset));
    if sorted && entries.len() == reader.count() as usize {
        let seq = entries.iter().map(|entry| entry.seq).min().unwrap_or_default();
        let deadlines = entries.iter().map(|entry| entry.deadline_ms).filter(|&ms| ms != 0);
        let mut builder = TrailerBuilder::new(seq, deadlines.min().unwrap_or(0));
        for entry in &entries {
            builder.push(entry);
        }
        let again = builder.finish();
        let again: Option<Vec<_>> =
            TrailerReader::decode(&again).ok().map(|r| r.entries().map_while(Result::ok).collect());
        assert_eq!(again.as_deref(), Some(&entries[..]));
    }
    !entries.is_empty()
}

fn dead_bits(data: &[u8]) -> bool {
    let store = [7; 16];
    let bytes = input(data, |bytes| mend::own_dead_bits(bytes, store, 3));
    let Ok(bits) = DeadBits::decode(&bytes, store, 3) else { return false };
    let held: usize = bits.bitmaps.iter().map(|bitmap| bitmap.bits.len()).sum();
    assert!(held <= bytes.len());
    let again = bits.encode(store, 3);
    assert_eq!(DeadBits::decode(&again, store, 3).as_ref(), Ok(&bits));
    true
}

fn index_image(data: &[u8]) -> bool {
    let bytes = input(data, mend::index_image);
    let Ok((header, _)) = ImageHeader::decode(&bytes) else { return false };
    assert_eq!(ImageHeader::decode(&header.encode()).map(|(header, _)| header), Ok(header));
    let tables = usize::try_from(header.tables_offset).ok().and_then(|at| bytes.get(at..));
    let tables = tables.and_then(|rest| rest.get(..header.tables_len as usize));
    let Ok(tables) = ImageTables::decode(&header, tables.unwrap_or_default()) else { return false };
    for part in &tables.parts {
        let rest = usize::try_from(part.offset).ok().and_then(|at| bytes.get(at..));
        let bytes = rest.and_then(|rest| rest.get(..part.len as usize)).unwrap_or_default();
        let mut fields = Fields::new(bytes);
        if part.kind == PartKind::Leaves {
            while let Ok(leaf) = leaf(&mut fields) {
                assert!(leaf.entries().len() <= bytes.len() && !bytes.is_empty());
            }
        } else if let Ok(table) = Table::new(u64::from(part.count).clamp(64, 1 << 16)) {
            let (buckets, _) = bytes.as_chunks::<BUCKET_LEN>();
            let count = table.restore(0, buckets, |at| at.slot.0 < 9).unwrap_or(0);
            assert!(count <= bytes.len() as u64);
        }
    }
    true
}

fn manifest(data: &[u8]) -> bool {
    let bytes = input(data, mend::manifest);
    let Ok(header) = ManifestHeader::decode(&bytes) else { return false };
    let mut edits = 0;
    assert_eq!(ManifestHeader::decode(&header.encode()).as_ref(), Ok(&header));
    let mut offset = 64_u64;
    while let Some(rest) = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)) {
        let Ok(Some((ops, len))) = decode_frame(rest, header.nonce, offset) else { break };
        let Some(again) = encode_frame(&ops, header.nonce, offset) else { break };
        let again = decode_frame(&again, header.nonce, offset).ok().flatten();
        assert_eq!(again.map(|(ops, _)| ops), Some(ops));
        offset += len;
        edits += 1;
    }
    edits > 0
}

fn archive_header(data: &[u8]) -> bool {
    let bytes = input(data, mend::archive_header);
    let Ok(header) = ArchiveHeader::decode(&bytes) else { return false };
    assert_eq!(ArchiveHeader::decode(&header.encode()).as_ref(), Ok(&header));
    true
}

fn a_header() -> ArchiveHeader {
    ArchiveHeader { id: ArchiveId(3), store: [7; 16], nonce: NONCE, created_ms: 1_700_000_000_000 }
}

fn archive_footer(data: &[u8]) -> bool {
    let mut offset = 1 << 20;
    let bytes = input(data, |bytes| offset = mend::archive_footer(bytes, 3, NONCE));
    let Ok(footer) = ArchiveFooter::decode(&bytes, &a_header(), offset) else { return false };
    let again = footer.encode(ArchiveId(3), NONCE, offset);
    assert_eq!(ArchiveFooter::decode(&again, &a_header(), offset).as_ref(), Ok(&footer));
    assert!(footer.lens().sum() >= 64);
    true
}

/// A block as it is stored, through every codec.
fn block(data: &[u8]) -> bool {
    let bytes = input(data, |bytes| mend::block(bytes, NONCE, OFFSET));
    let Ok((header, payload)) = BlockHeader::decode(&bytes, NONCE, OFFSET) else { return false };
    let walked = with_block(&header, payload, None, |bytes| {
        assert_eq!(bytes.len(), header.raw_len as usize);
        let Ok(block) = Block::decode(bytes, header.record_count, 1_700_000_000_000) else {
            return false;
        };
        let (mut keys, mut is_sound) = (Vec::new(), true);
        for group in 0..block.group_count() {
            let Ok(mut walk) = block.group(group) else { return false };
            let ended = loop {
                match walk.next() {
                    Ok(Some(_)) => keys.push(walk.key().to_vec()),
                    ended => break ended,
                }
            };
            is_sound &= ended.is_ok();
        }
        // A search may meet the group that is damaged.
        is_sound &= keys.is_sorted();
        for key in keys.iter().take(32) {
            assert!(!is_sound || block.find(key).is_ok_and(|found| found.is_some()));
        }
        !keys.is_empty()
    });
    walked == Ok(true)
}

fn block_index(data: &[u8]) -> bool {
    let bytes = input(data, |_| ());
    let mut sound = false;
    for count in 1..=8 {
        let Ok(index) = BlockIndex::decode(&bytes, count) else { return sound };
        let end = index.row(count).map_or((0, 0), |row| (row.offset, row.first_ordinal));
        if index.check(64, end.0, end.1).is_ok() {
            sound = true;
            for row in 0..=count {
                let Ok(row) = index.row(row) else { continue };
                assert!(index.find(row.key).is_ok() && index.floor(row.key).is_ok());
            }
        }
        drop(index.find(&bytes));
    }
    sound
}

fn filter(data: &[u8]) -> bool {
    let bytes = input(data, |_| ());
    let count = mend::filter_record_count(&bytes);
    let Ok(filter) = Filter::decode(&bytes, count) else { return false };
    for hash in [0, 1, u64::MAX, u64::from(count) << 32] {
        std::hint::black_box(filter.may_contain(KeyHash(hash)));
    }
    assert!(filter.charged_len() <= 4 * bytes.len() + 4096);
    true
}

fn dictionary(data: &[u8]) -> bool {
    let bytes = input(data, |_| ());
    let prepared = prepare_dictionary(&bytes);
    assert!(prepared.is_err() || bytes.len() <= crate::limits::DICTIONARY_LEN_MAX);
    prepared.is_ok()
}

fn tables(data: &[u8]) -> bool {
    let bytes = input(data, |_| ());
    let footer = mend::footer_of_tables(&bytes);
    let Ok(tables) = Tables::decode(&bytes, &footer) else { return false };
    assert_eq!(Tables::decode(&tables.encode(), &footer).as_ref(), Ok(&tables));
    true
}
