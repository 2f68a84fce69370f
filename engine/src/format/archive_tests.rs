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
    for bit in 0..bytes.len() * 8 {
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
    for bit in 0..bytes.len() * 8 {
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
