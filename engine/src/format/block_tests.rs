//! Blocks return what was written, in order, and refuse everything else without a panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::record::body_crc;

type Model = BTreeMap<Vec<u8>, (u64, u64, u32, Vec<u8>)>;

fn encode(model: &Model, created_ms: u64) -> Vec<u8> {
    let mut writer = BlockWriter::new(created_ms);
    for (key, (seq, deadline_ms, body_crc, value)) in model {
        let value = EntryValue::Inline(value);
        let entry = Entry { seq: Seq(*seq), deadline_ms: *deadline_ms, body_crc: *body_crc, value };
        writer.push(key, &entry);
    }
    assert_eq!(writer.count() as usize, model.len());
    let expected = writer.len_bytes();
    let bytes = writer.finish().to_vec();
    assert_eq!(bytes.len(), expected);
    bytes
}

fn decode(bytes: &[u8], count: u32, created_ms: u64) -> Decoded<Model> {
    let block = Block::decode(bytes, count, created_ms)?;
    let mut model = Model::new();
    for group in 0..block.group_count() {
        let mut walk = block.group(group)?;
        while let Some((_, entry)) = walk.next()? {
            let EntryValue::Inline(value) = entry.value else { continue };
            let fields = (entry.seq.0, entry.deadline_ms, entry.body_crc, value.to_vec());
            model.insert(walk.key().to_vec(), fields);
        }
    }
    Ok(model)
}

fn models() -> impl Strategy<Value = Model> {
    let key = prop::collection::vec(0_u8..3, 4..12);
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let fields = (any::<u64>(), any::<u64>(), any::<u32>(), value);
    prop::collection::btree_map(key, fields, 1..80)
}

proptest! {
    #[test]
    fn every_record_of_a_block_comes_back_by_walking_and_by_key(
        model in models(), created_ms in any::<u64>(),
    ) {
        let bytes = encode(&model, created_ms);
        let count = u32::try_from(model.len()).unwrap();
        prop_assert_eq!(&decode(&bytes, count, created_ms).unwrap(), &model);
        let block = Block::decode(&bytes, count, created_ms).unwrap();
        for (index, (key, fields)) in model.iter().enumerate() {
            let (found, entry) = block.find(key).unwrap().unwrap();
            prop_assert_eq!(found as usize, index);
            prop_assert_eq!(entry.seq.0, fields.0);
            let mut other = key.clone();
            other.push(7);
            prop_assert_eq!(block.find(&other).unwrap(), None);
        }
        prop_assert_eq!(block.find(&[0; 4]).unwrap().is_some(), model.contains_key(&[0; 4][..]));
    }

    #[test]
    fn any_bytes_are_an_error_or_a_block_and_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..40,
    ) {
        let records = decode(&bytes, count, 0).map_or(0, |model| model.len());
        prop_assert!(records <= count as usize);
        if let Ok(block) = Block::decode(&bytes, count, 0) {
            drop(block.find(b"\0\0\0\0key"));
        }
        prop_assert!(BlockHeader::decode(&bytes, 1, 64).is_err(), "a checksum by chance");
    }

    #[test]
    fn a_bent_block_is_an_error_or_a_block_and_never_a_panic(
        model in models(), at in any::<prop::sample::Index>(), bits in 1_u8..,
    ) {
        let mut bytes = encode(&model, 0);
        let count = u32::try_from(model.len()).unwrap();
        *at.get_mut(&mut bytes) ^= bits;
        let records = decode(&bytes, count, 0).map_or(0, |model| model.len());
        prop_assert!(records <= count as usize);
        if let Ok(block) = Block::decode(&bytes, count, 0) {
            for key in model.keys() {
                drop(block.find(key));
            }
        }
    }
}

#[test]
fn a_value_outside_of_the_block_keeps_its_place() {
    let mut writer = BlockWriter::new(0);
    let value = EntryValue::Raw { len: 1 << 20, index: 3, offset: 4096 };
    writer.push(b"\0\0\0\x01", &Entry { seq: Seq(9), deadline_ms: 0, body_crc: 7, value });
    let bytes = writer.finish().to_vec();
    let block = Block::decode(&bytes, 1, 0).unwrap();
    let (index, entry) = block.find(b"\0\0\0\x01").unwrap().unwrap();
    assert_eq!((index, entry.value), (0, value));
}

#[test]
fn sort_keys_order_by_incarnation_first_and_split_again() {
    let sort_key = |incarnation, key: &[u8]| {
        let mut out = Vec::new();
        put_sort_key(&mut out, Incarnation(incarnation), key);
        out
    };
    assert!(sort_key(1, b"z") < sort_key(256, b"a"));
    assert!(sort_key(1, b"") < sort_key(1, b"\0"));
    assert_eq!(split_sort_key(&sort_key(258, b"k")), Ok((Incarnation(258), &b"k"[..])));
    assert!(split_sort_key(b"abc").is_err());
}

#[test]
fn a_block_holds_in_its_own_place_only_and_every_flipped_bit_is_refused() {
    let payload = b"sixteen bytes, 2";
    let header = BlockHeader {
        stored_len: 16,
        raw_len: 16,
        first_ordinal: 5,
        record_count: 2,
        codec: Codec::Raw,
    };
    let mut bytes = Vec::new();
    header.encode(1, 64, payload, &mut bytes);
    assert_eq!(bytes.len(), BLOCK_HEADER_LEN + 16);
    assert_eq!(BlockHeader::decode(&bytes, 1, 64), Ok((header, &payload[..])));
    assert!(BlockHeader::decode(&bytes, 1, 128).is_err());
    assert!(BlockHeader::decode(&bytes, 2, 64).is_err());
    for bit in crate::format::every_bit(&bytes) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(BlockHeader::decode(&flipped, 1, 64).is_err(), "bit {bit}");
    }
}

#[test]
fn a_declared_length_above_the_cap_is_refused_before_anything_is_allocated() {
    for (stored_len, raw_len) in [(16, u32::MAX), (u32::MAX, 16), (16, 1 << 21)] {
        let header = BlockHeader {
            stored_len,
            raw_len,
            first_ordinal: 0,
            record_count: 1,
            codec: Codec::Zstd,
        };
        let mut bytes = Vec::new();
        header.encode(1, 64, &[0; 16], &mut bytes);
        assert!(BlockHeader::decode(&bytes, 1, 64).unwrap_err().expected.starts_with("at most"));
    }
}

#[test]
fn zigzag_keeps_small_numbers_of_either_sign_small() {
    for value in [0, 1, u64::MAX, 1 << 63, u64::MAX >> 1] {
        assert_eq!(unzigzag(zigzag(value)), value);
    }
    assert_eq!((zigzag(1), zigzag(u64::MAX)), (2, 1));
}

#[test]
fn the_worked_example_of_the_document_is_what_is_written() {
    let mut writer = BlockWriter::new(0);
    for (key, seq, deadline_ms, value) in [(b"ab", 5, 0, &b"v"[..]), (b"ac", 7, 1000, b"")] {
        let mut sort_key = Vec::new();
        put_sort_key(&mut sort_key, Incarnation(1), key);
        let body_crc = body_crc(Incarnation(1), key, value);
        let value = EntryValue::Inline(value);
        writer.push(&sort_key, &Entry { seq: Seq(seq), deadline_ms, body_crc, value });
    }
    let payload = writer.finish();
    let len = u32::try_from(payload.len()).unwrap();
    let codec = Codec::Raw;
    let header =
        BlockHeader { stored_len: len, raw_len: len, first_ordinal: 0, record_count: 2, codec };
    let mut bytes = Vec::new();
    header.encode(1, 64, payload, &mut bytes);
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let expected = "c1 a0 1b e2 1e 00 00 00 1e 00 00 00 00 00 00 00 02 00 00 00 01 00 00 00 \
                    00 06 04 00 00 00 01 61 62 0a f1 a8 a3 9c 76 05 \
                    01 02 63 04 d0 0f 02 18 c3 d2 00 00 00 00";
    assert_eq!(hex, expected);
}

/// The field that a header of these lengths is refused for.
fn refused_for(
    stored_len: u32,
    raw_len: u32,
    record_count: u32,
    codec: Codec,
) -> Option<&'static str> {
    let header = BlockHeader { stored_len, raw_len, first_ordinal: 0, record_count, codec };
    let (mut bytes, payload) = (Vec::new(), vec![7; stored_len as usize]);
    header.encode(1, 64, &payload, &mut bytes);
    match BlockHeader::decode(&bytes, 1, 64) {
        Ok(decoded) => {
            assert_eq!(decoded, (header, &payload[..]));
            None
        }
        Err(error) => Some(error.field),
    }
}

#[test]
fn every_codec_comes_back_and_counts_and_lengths_must_fit_it() {
    for codec in [Codec::Zstd, Codec::ZstdDictionary] {
        assert_eq!(refused_for(16, 64, 8, codec), None);
        assert_eq!(refused_for(64, 64, 8, codec), Some("block lengths"));
    }
    assert_eq!(refused_for(64, 64, 8, Codec::Raw), None);
    assert_eq!(refused_for(16, 64, 8, Codec::Raw), Some("block lengths"));
    assert_eq!(refused_for(64, 64, 9, Codec::Raw), Some("block records"));
    assert_eq!(refused_for(64, 64, 0, Codec::Raw), Some("block lengths"));
    assert!(Block::decode(&[], 0, 0).is_err());
    let mut bytes = Vec::new();
    let header = BlockHeader {
        stored_len: 8,
        raw_len: 8,
        first_ordinal: 0,
        record_count: 1,
        codec: Codec::Raw,
    };
    header.encode(1, 64, &[0; 8], &mut bytes);
    for codec in [0, 4, 255] {
        bytes[20] = codec;
        let crc = bound_crc(1, 64, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(BlockHeader::decode(&bytes, 1, 64).unwrap_err().field, "codec");
    }
}

#[test]
fn a_writer_that_was_cleared_writes_as_a_fresh_one_does() {
    let entry = |value| Entry {
        seq: Seq(3),
        deadline_ms: 0,
        body_crc: 1,
        value: EntryValue::Inline(value),
    };
    let mut used = BlockWriter::new(5);
    (0..20).for_each(|key| used.push(&[0, 0, 0, 1, key], &entry(b"before")));
    used.finish();
    used.clear();
    let mut fresh = BlockWriter::new(5);
    for writer in [&mut used, &mut fresh] {
        (0..20).for_each(|key| writer.push(&[0, 0, 0, 2, key], &entry(b"after")));
    }
    assert_eq!(used.count(), fresh.count());
    assert_eq!(used.finish(), fresh.finish());
}

#[test]
fn the_longest_key_comes_back_and_a_record_ends_where_its_value_does() {
    let mut writer = BlockWriter::new(0);
    assert_eq!(SORT_KEY_LEN_MAX, 65_535 + 4);
    let key = vec![9; SORT_KEY_LEN_MAX];
    for (key, value) in [(&[0, 0, 0, 1][..], &b"first"[..]), (&key, b"second")] {
        let value = EntryValue::Inline(value);
        writer.push(key, &Entry { seq: Seq(1), deadline_ms: 0, body_crc: 0, value });
    }
    let bytes = writer.finish().to_vec();
    let mut walk = Block::decode(&bytes, 2, 0).unwrap().group(0).unwrap();
    for expected in [&b"first"[..], b"second"] {
        let entry = walk.next().unwrap().unwrap().1;
        assert_eq!(entry.value, EntryValue::Inline(expected));
        let end = walk.position();
        assert_eq!(&bytes[end - expected.len()..end], expected);
    }
    assert_eq!(walk.key(), key);
    assert!(walk.next().unwrap().is_none());
}

/// A block of one group from entries of (shared, further bytes of the key, tag, value).
fn group_of(entries: &[(u64, &[u8], u64, &[u8])], restart: u32) -> Result<usize, &'static str> {
    let mut bytes = Vec::new();
    for (shared, unshared, tag, value) in entries {
        bytes.put_varint(*shared);
        bytes.put_varint(unshared.len() as u64);
        bytes.put_varint(*tag);
        bytes.put_bytes(unshared);
        bytes.put_varint(0);
        bytes.put_u32(0);
        bytes.put_bytes(value);
    }
    bytes.put_u32(restart);
    let count = u32::try_from(entries.len()).unwrap();
    let block = Block::decode(&bytes, count, 0).map_err(|error| error.field)?;
    let mut walk = block.group(0).map_err(|error| error.field)?;
    let mut walked = 0;
    while walk.next().map_err(|error| error.field)?.is_some() {
        walked += 1;
    }
    Ok(walked)
}

#[test]
fn keys_rise_share_what_is_there_and_are_neither_too_short_nor_too_long() {
    let first = (0, &b"\0\0\0\x01m"[..], 0, &b""[..]);
    let then = |shared, unshared| group_of(&[first, (shared, unshared, 0, b"")], 0);
    assert_eq!(then(5, b"a"), Ok(2));
    assert_eq!(then(4, b"n"), Ok(2));
    for (shared, unshared) in [(5, &b""[..]), (4, b"m"), (4, b"a"), (4, b""), (0, b"\0\0\0\x01")] {
        assert_eq!(then(shared, unshared), Err("key"), "{shared} {unshared:?}");
    }
    assert_eq!(then(6, b"a"), Err("key lengths"));
    assert_eq!(then(2, b"a"), Err("key lengths"));
    assert_eq!(group_of(&[(0, b"abc", 0, b"")], 0), Err("key lengths"));
    let long = vec![1; SORT_KEY_LEN_MAX + 1];
    assert_eq!(group_of(&[(0, &long[1..], 0, b"")], 0), Ok(1));
    assert_eq!(group_of(&[(0, &long, 0, b"")], 0), Err("key lengths"));
    assert_eq!(group_of(&[first], 1), Err("restart"));
}

#[test]
fn a_value_is_as_long_as_values_may_be_and_no_longer() {
    let raw = |len: usize| {
        let tag = (len as u64) << TAG_BITS | TAG_RAW;
        group_of(&[(0, b"\0\0\0\x01", tag, b"\x03\x08")], 0)
    };
    assert_eq!(raw(VALUE_LEN_MAX), Ok(1));
    assert_eq!(raw(VALUE_LEN_MAX + 1), Err("value length"));
    assert_eq!(raw(VALUE_LEN_MAX + 5), Err("value length"));
}
