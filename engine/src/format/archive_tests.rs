//! Header, footer and tables come back; every flipped bit of them is refused.

use super::*;

fn header() -> ArchiveHeader {
    ArchiveHeader { id: ArchiveId(7), store: [3; 16], nonce: 99, created_ms: 1_000_000 }
}

fn footer() -> (ArchiveFooter, u64) {
    let tables = Tables {
        incarnations: vec![IncarnationSum {
            incarnation: Incarnation(1),
            record_count: 10,
            encoded_len: 800,
            body_len: 350,
        }],
        classes: vec![ClassSum {
            incarnation: Incarnation(1),
            record_count: 4,
            end_ms: 2048,
            encoded_len: 320,
        }],
    };
    let at = |offset, len| Region { offset, len, crc: 0 };
    let footer = ArchiveFooter {
        data_end: 1024,
        dictionary: at(1024, 0),
        filter: at(1024, 45),
        index: at(1072, 40),
        tables: Region::of(&tables.encode(), 99, 1112),
        record_count: 10,
        block_count: 1,
        body_len: 350,
        encoded_len: 800,
        data_padding: 5,
        without_deadline_count: 6,
        ..ArchiveFooter::default()
    };
    (footer, 1112 + 56)
}

#[test]
fn the_header_comes_back_and_every_flipped_bit_is_refused() {
    let bytes = header().encode();
    assert_eq!(bytes.len(), ARCHIVE_HEADER_LEN);
    assert_eq!(ArchiveHeader::decode(&bytes), Ok(header()));
    for bit in crate::format::every_bit(&bytes) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(ArchiveHeader::decode(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(ArchiveHeader::decode(&bytes[..len]).is_err());
    }
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = header().encode();
    bytes[8] = 2;
    let crc = bound_crc(99, 0, &bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(ArchiveHeader::decode(&bytes).unwrap_err().field, FORMAT_VERSION_FIELD);
    assert_eq!(header_version(&bytes), Some(2));
}

#[test]
fn the_footer_comes_back_in_its_own_place_and_every_flipped_bit_is_refused() {
    let (footer, offset) = footer();
    let bytes = footer.encode(ArchiveId(7), 99, offset);
    assert_eq!(bytes.len(), ARCHIVE_FOOTER_LEN);
    assert_eq!(ArchiveFooter::decode(&bytes, &header(), offset), Ok(footer));
    assert_eq!(footer.lens().sum(), offset + ARCHIVE_FOOTER_LEN as u64);
    assert!(ArchiveFooter::decode(&bytes, &header(), offset + 8).is_err());
    for bit in crate::format::every_bit(&bytes) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(ArchiveFooter::decode(&flipped, &header(), offset).is_err(), "bit {bit}");
    }
}

#[test]
fn a_footer_whose_counts_exceed_the_bytes_that_are_there_is_refused() {
    let refused = |change: fn(&mut ArchiveFooter)| {
        let (mut footer, offset) = footer();
        change(&mut footer);
        let bytes = footer.encode(ArchiveId(7), 99, offset);
        ArchiveFooter::decode(&bytes, &header(), offset).is_err()
    };
    assert!(!refused(|_| {}));
    assert!(refused(|footer| footer.record_count = 46));
    assert!(refused(|footer| footer.record_count = 0));
    assert!(refused(|footer| footer.block_count = 11));
    assert!(refused(|footer| footer.raw_count = 1));
    assert!(refused(|footer| footer.raw_len = u64::MAX));
    assert!(refused(|footer| footer.data_end = u64::MAX));
    assert!(refused(|footer| footer.filter.len = u64::MAX));
    assert!(refused(|footer| footer.index.offset = 1080));
    assert!(refused(|footer| footer.tables.len = 8));
}

#[test]
fn tables_come_back_and_must_agree_with_the_footer() {
    let (footer, _) = footer();
    let row = |incarnation, record_count| IncarnationSum {
        incarnation: Incarnation(incarnation),
        record_count,
        encoded_len: 400,
        body_len: 175,
    };
    let class = |end_ms| ClassSum {
        incarnation: Incarnation(2),
        record_count: 2,
        end_ms,
        encoded_len: 100,
    };
    let sound =
        Tables { incarnations: vec![row(1, 5), row(2, 5)], classes: vec![class(1), class(2)] };
    assert_eq!(Tables::decode(&sound.encode(), &footer), Ok(sound.clone()));
    let bytes = sound.encode();
    for len in 0..bytes.len() {
        assert!(Tables::decode(&bytes[..len], &footer).is_err());
    }
    let incarnations = vec![row(2, 5), row(1, 5)];
    assert!(Tables::decode(&Tables { incarnations, ..sound.clone() }.encode(), &footer).is_err());
    let classes = vec![class(2), class(2)];
    assert!(Tables::decode(&Tables { classes, ..sound.clone() }.encode(), &footer).is_err());
    let classes = vec![class(2)];
    assert!(Tables::decode(&Tables { classes, ..sound }.encode(), &footer).is_err());
    assert!(Tables::decode(&[0xFF; 32], &footer).is_err());
}

#[test]
fn a_region_is_read_only_under_its_own_checksum() {
    let region = Region::of(b"the region", 99, 64);
    assert_eq!(region.verified("x", Some(b"the region"), 99), Ok(&b"the region"[..]));
    assert!(region.verified("x", Some(b"the rEgion"), 99).is_err());
    assert!(region.verified("x", Some(b"the region"), 98).is_err());
    assert!(region.verified("x", None, 99).is_err());
}

/// A footer of regions that follow each other behind the data, and where it stands.
fn footer_behind(data_end: u64) -> (ArchiveFooter, u64) {
    let at = |offset, len| Region { offset, len, crc: 0 };
    let footer = ArchiveFooter {
        data_end,
        dictionary: at(data_end, 0),
        filter: at(data_end, 48),
        index: at(data_end + 48, 40),
        tables: at(data_end + 88, 8),
        record_count: 10,
        block_count: 2,
        ..ArchiveFooter::default()
    };
    (footer, data_end + 96)
}

/// The field that a footer is refused for.
fn refused_for(footer: &ArchiveFooter, offset: u64) -> Option<&'static str> {
    let bytes = footer.encode(ArchiveId(7), 99, offset);
    ArchiveFooter::decode(&bytes, &header(), offset).err().map(|error| error.field)
}

#[test]
fn data_ends_behind_the_header_before_the_footer_and_at_a_multiple_of_eight() {
    let (footer, offset) = footer_behind(1024);
    assert_eq!(refused_for(&footer, offset), None);
    for data_end in [0, 56, 1020] {
        let (footer, offset) = footer_behind(data_end);
        assert_eq!(refused_for(&footer, offset), Some("data end"), "{data_end}");
    }
    let (bare, offset) = footer_behind(64);
    assert_eq!(refused_for(&bare, offset), Some("footer counts"), "no room for a block");
    let empty = |data_end| {
        let region = Region { offset: data_end, len: 0, crc: 0 };
        let (dictionary, filter, index, tables) = (region, region, region, region);
        ArchiveFooter { data_end, dictionary, filter, index, tables, ..footer }
    };
    assert_eq!(refused_for(&empty(2048), 1024), Some("data end"));
    assert_eq!(refused_for(&empty(1032), 1024), Some("data end"));
    assert_eq!(refused_for(&empty(1024), 1024), Some("footer counts"));
}

#[test]
fn what_lies_outside_of_blocks_leaves_room_for_one() {
    let (footer, offset) = footer_behind(1024);
    let with = |raw_len, data_padding| ArchiveFooter { raw_len, data_padding, ..footer };
    assert_eq!(refused_for(&with(900, 59), offset), None);
    assert_eq!(refused_for(&with(900, 60), offset), Some("footer counts"));
    let without_blocks = ArchiveFooter { block_count: 0, ..footer };
    assert_eq!(refused_for(&without_blocks, offset), Some("footer counts"));
}

#[test]
fn tables_of_more_rows_than_bytes_are_refused_before_any_is_read() {
    let (footer, _) = footer();
    let declared = |incarnations: u32, classes: u32| {
        let mut bytes = Vec::new();
        bytes.put_u32(incarnations);
        bytes.put_u32(classes);
        bytes.put_bytes(&[0; 4 * TABLE_ROW_LEN]);
        Tables::decode(&bytes, &footer).unwrap_err().field
    };
    assert_eq!(declared(3, 2), "table rows");
    assert_eq!(declared(u32::MAX, u32::MAX), "table rows");
    assert_eq!(declared(1, 2), "tables end");
    let row = IncarnationSum {
        incarnation: Incarnation(1),
        record_count: 5,
        encoded_len: 400,
        body_len: 175,
    };
    let class =
        ClassSum { incarnation: Incarnation(1), record_count: 4, end_ms: 2048, encoded_len: 320 };
    let twice = Tables { incarnations: vec![row, row], classes: vec![class] };
    assert_eq!(Tables::decode(&twice.encode(), &footer).unwrap_err().field, "tables");
}
