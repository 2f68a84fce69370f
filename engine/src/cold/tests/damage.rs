//! R1, R3, R4 and S1: damage is an error where it is met, never a panic and never a wrong value.

use super::*;
use crate::cold::ArchiveEntry;
use crate::cold::live::Live;
use crate::error::Damage;
use crate::format::block::{BlockHeader, BlockWriter, Codec, Entry, EntryValue, put_sort_key};
use crate::format::checksum::bound_crc;

/// Keys with values of every kind that an archive stores, in several blocks.
fn small_model() -> Model {
    let mut model = text_model(60);
    for n in 0..4_u8 {
        model.insert((2, vec![n; 3]), (500 + u64::from(n), CREATED_MS + 60_000, vec![n; 2500]));
        model.insert((3, vec![n]), (900, 0, noise(2500, u32::from(n) + 1)));
    }
    model
}

fn index_of(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

pub(super) fn read(place: &Place, id: u32) -> Vec<u8> {
    let file = place.dir.open(&ArchiveId(id).to_string()).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn replace(place: &Place, id: u32, bytes: &[u8]) {
    let name = ArchiveId(id).to_string();
    drop(place.dir.unlink(&name));
    place.dir.create(&name).unwrap().write_all_at(bytes, 0).unwrap();
}

/// Reads everything in every way: each answer is the model's or an error. Returns the errors.
fn errors_of(place: &Place, model: &Model) -> usize {
    let opened = Archive::open_degraded(&*place.dir, ArchiveId(1), STORE, SEED);
    let Ok((archive, damage)) = opened else { return usize::MAX };
    let mut errors = damage.len();
    for ((incarnation, key), (_, _, value)) in model {
        match get(&archive, *incarnation, key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value)),
            Err(_) => errors += 1,
        }
    }
    let mut cursor = archive.cursor();
    let mut seen = 0;
    for _ in 0..=model.len() {
        match cursor.next() {
            Ok(Some(one)) => {
                let key = (one.record.incarnation.0, one.record.key.to_vec());
                assert_eq!(model.get(&key).map(|fields| &fields.2[..]), Some(one.record.value));
                seen += 1;
            }
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert!(seen == model.len() || errors > 0, "records missing without an error");
    let named = archive.verify(&mut |_| {}).len();
    assert_eq!(errors == 0, named == 0, "{errors} errors, {named} places named");
    errors
}

#[test]
fn every_flipped_byte_is_an_error_or_changes_nothing() {
    let place = place();
    let model = small_model();
    let sound = {
        write(&place, 1, &model, None);
        read(&place, 1)
    };
    assert!(sound.len() < 24_000, "{} bytes make the test slow", sound.len());
    let mut unnoticed = 0;
    for at in 0..sound.len() {
        let mut bent = sound.clone();
        bent[at] ^= 0x41;
        replace(&place, 1, &bent);
        if errors_of(&place, &model) == 0 {
            unnoticed += 1;
        }
    }
    replace(&place, 1, &sound);
    let padding = open(&place, 1).unwrap().lens().padding;
    assert_eq!(unnoticed, padding, "only padding may change unnoticed");
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let place = place();
    write(&place, 1, &small_model(), None);
    let sound = read(&place, 1);
    for len in (0..sound.len()).rev().step_by(5).chain(0..400) {
        replace(&place, 1, &sound[..len]);
        assert!(open(&place, 1).is_err(), "cut to {len}");
    }
    replace(&place, 1, &[&sound[..], &[0; 8]].concat());
    assert!(open(&place, 1).is_err());
}

#[test]
fn an_archive_of_another_store_number_or_version_is_named() {
    let place = place();
    write(&place, 1, &small_model(), None);
    let bytes = read(&place, 1);
    let other = Archive::open(&*place.dir, ArchiveId(1), [1; 16], SEED);
    assert!(matches!(other, Err(Error::Foreign { .. })));
    replace(&place, 2, &bytes);
    assert!(matches!(open(&place, 2), Err(Error::Foreign { .. })));
    let mut newer = bytes;
    newer[8] = 2;
    let crc = bound_crc(0x5EED_0001, 0, &newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    replace(&place, 1, &newer);
    assert!(matches!(open(&place, 1), Err(Error::Version { found: 2, supported: 1, .. })));
}

/// Rewrites the first block of an archive with a valid checksum.
fn forge_first_block(place: &Place, forge: impl FnOnce(&mut BlockHeader, &mut Vec<u8>)) {
    let mut bytes = read(place, 1);
    let (mut header, payload) = BlockHeader::decode(&bytes[64..], 0x5EED_0001, 64).unwrap();
    let mut payload = payload.to_vec();
    forge(&mut header, &mut payload);
    let mut block = Vec::new();
    header.encode(0x5EED_0001, 64, &payload, &mut block);
    bytes[64..64 + block.len()].copy_from_slice(&block);
    replace(place, 1, &bytes);
}

fn first_block_error(place: &Place) -> Damage {
    let archive = open(place, 1).unwrap();
    let (_, key) = archive.bounds().unwrap()[0];
    match get(&archive, 1, key) {
        Err(Error::Corrupt(damage)) => *damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_that_declares_another_length_than_it_has_is_damage_and_costs_that_block() {
    let place = place();
    let model = small_model();
    for raw_len in [1 << 20, 100, u32::MAX] {
        write(&place, 1, &model, None);
        forge_first_block(&place, |header, _| {
            assert_eq!(header.codec, Codec::Zstd);
            header.raw_len = raw_len;
        });
        assert_eq!(first_block_error(&place).offset, 64);
        assert_eq!(get(&open(&place, 1).unwrap(), 3, &[1]).unwrap(), Some(noise(2500, 2)));
        place.dir.unlink("0000000001.arc").unwrap();
    }
}

#[test]
fn two_blocks_that_changed_places_are_found_by_their_checksums() {
    let place = place();
    let model: Model = (0..40_u8).map(|n| ((1, vec![n; 4]), (1, 0, vec![n; 3000]))).collect();
    write(&place, 1, &model, None);
    let mut bytes = read(&place, 1);
    let archive = open(&place, 1).unwrap();
    let row = |block| index_of(archive.index().unwrap().row(block).unwrap().offset);
    let (a, b, c) = (row(3), row(4), row(5));
    assert_eq!(b - a, c - b, "the test needs blocks of equal length");
    let first = bytes[a..b].to_vec();
    bytes.copy_within(b..c, a);
    bytes[b..c].copy_from_slice(&first);
    replace(&place, 1, &bytes);
    assert!(errors_of(&place, &model) > 0);
}

fn dictionary_of(salt: u32) -> Vec<u8> {
    noise(6000, salt)[..4 << 10].to_vec()
}

#[test]
fn the_wrong_dictionary_is_damage_and_never_a_wrong_value() {
    let place = place();
    let template = noise(6000, 1);
    let model: Model = (0..60_usize)
        .map(|n| {
            let value = template[n * 80..][..1000].to_vec();
            ((1, format!("{n:03}").into_bytes()), (1, 0, value))
        })
        .collect();
    let (right, wrong) = (dictionary_of(1), dictionary_of(2));
    write(&place, 1, &model, Some(right.clone()));
    let archive = open(&place, 1).unwrap();
    assert_holds(&archive, &model);
    let region = archive.footer().dictionary;
    let mut bytes = read(&place, 1);
    let at = index_of(region.offset);
    assert_eq!(right.len(), wrong.len());
    bytes[at..at + wrong.len()].copy_from_slice(&wrong);
    replace(&place, 1, &bytes);
    assert!(open(&place, 1).is_err());
    assert!(errors_of(&place, &model) > model.len());

    let offset = bytes.len() - 256;
    let mut footer = *archive.footer();
    footer.dictionary.crc = bound_crc(archive.header().nonce, region.offset, &wrong);
    bytes.truncate(offset);
    bytes.extend(footer.encode(ArchiveId(1), archive.header().nonce, offset as u64));
    replace(&place, 1, &bytes);
    assert!(open(&place, 1).is_ok(), "the forged file is consistent");
    assert!(errors_of(&place, &model) > 0);
}

#[test]
fn without_its_filter_an_archive_still_answers() {
    let place = place();
    let model = small_model();
    write(&place, 1, &model, None);
    let region = open(&place, 1).unwrap().footer().filter;
    let mut bytes = read(&place, 1);
    bytes[index_of(region.offset) + 40] ^= 1;
    replace(&place, 1, &bytes);
    let opened = Archive::open_degraded(&*place.dir, ArchiveId(1), STORE, SEED).unwrap();
    assert_eq!(opened.1.len(), 1);
    for ((incarnation, key), (_, _, value)) in &model {
        assert_eq!(get(&opened.0, *incarnation, key).unwrap().as_ref(), Some(value));
    }
    assert_eq!(get(&opened.0, 1, b"absent").unwrap(), None);
}

/// Twenty entries that all name nearly the whole file as their value, checksums sound.
fn archive_whose_entries_share_one_value(place: &Place) -> Arc<Archive> {
    let len = BLOCK_VALUE_LEN_MAX + 1000;
    let model: Model =
        (0..20_u8).map(|n| ((1, vec![n; 3]), (1, 0, noise(len, u32::from(n) + 1)))).collect();
    write(place, 1, &model, None);
    let row = open(place, 1).unwrap().index().unwrap().row(0).unwrap().offset;
    let mut bytes = read(place, 1);
    let shared = bytes[64..index_of(row)].to_vec();
    let mut writer = BlockWriter::new(CREATED_MS);
    for (index, (_, key)) in (0..).zip(model.keys()) {
        let mut sort_key = Vec::new();
        put_sort_key(&mut sort_key, Incarnation(1), key);
        let body_crc = body_crc(Incarnation(1), key, &shared);
        let len = u32::try_from(shared.len()).unwrap();
        let value = EntryValue::Raw { len, index, offset: 64 };
        writer.push(&sort_key, &Entry { seq: Seq(1), deadline_ms: 0, body_crc, value });
    }
    let raw = writer.finish();
    let payload = zstd::bulk::compress(raw, 19).unwrap();
    let (mut header, stored) =
        BlockHeader::decode(&bytes[index_of(row)..], 0x5EED_0001, row).unwrap();
    assert!(payload.len() <= stored.len(), "{} of {}", payload.len(), stored.len());
    header.raw_len = u32::try_from(raw.len()).unwrap();
    (header.stored_len, header.codec) = (u32::try_from(payload.len()).unwrap(), Codec::Zstd);
    let mut block = Vec::new();
    header.encode(0x5EED_0001, row, &payload, &mut block);
    bytes[index_of(row)..][..block.len()].copy_from_slice(&block);
    replace(place, 1, &bytes);
    open(place, 1).unwrap()
}

#[test]
fn entries_that_share_one_value_cost_a_merge_no_more_than_the_file_holds_twice() {
    let place = place();
    let archive = archive_whose_entries_share_one_value(&place);
    let mut cursor = archive.cursor();
    assert!(cursor.next().unwrap().is_some(), "each entry by itself is sound");
    let len = archive.file_len();
    let mut live = Live::of(&ArchiveEntry::new(Arc::clone(&archive)));
    let mut read = 0;
    let error = loop {
        match live.next() {
            Ok(Some(found)) => read += found.raw_len(),
            Ok(None) => panic!("{read} bytes were read of a file of {len}"),
            Err(error) => break error,
        }
    };
    assert!(read > len && read <= 2 * len, "{read} bytes of a file of {len}");
    assert!(matches!(&error, Error::Corrupt(damage) if damage.field == "raw values"), "{error}");
    assert!(archive.verify(&mut |_| {}).iter().any(|damage| damage.field == "raw values"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_forged_block_is_an_error_or_a_value_with_a_sound_checksum(
        payload in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(),
    ) {
        let place = place();
        let model: Model =
            (0..20_u8).map(|n| ((1, vec![n; 9]), (1, 0, noise(90, u32::from(n))))).collect();
        write(&place, 1, &model, None);
        forge_first_block(&place, |_, stored| {
            let start = at.index(stored.len());
            stored.iter_mut().skip(start).zip(&payload).for_each(|(to, from)| *to = *from);
        });
        if let Ok(archive) = open(&place, 1) {
            for ((incarnation, key), (_, _, value)) in &model {
                if let Ok(Some(found)) = get(&archive, *incarnation, key) {
                    prop_assert_eq!(&found, value);
                }
            }
            drop(archive.verify(&mut |_| {}));
            let mut cursor = archive.cursor();
            cursor.seek_to_end();
            while let Ok(Some(_)) = cursor.prev() {}
        }
    }
}
