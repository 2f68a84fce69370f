//! An archive returns exactly what was put in, never panics on any bytes, and never serves a wrong
//! value. Archives are written to a directory of the test, bent, and read again.

mod damage;
mod example;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::cold::ColdRecord;
use crate::cold::builder::{ArchiveBuilder, NewArchive};
use crate::cold::dictionary::Sampler;
use crate::cold::reader::Archive;
use crate::error::{Error, Result};
use crate::format::record::body_crc;
use crate::hash::HashSeed;
use crate::ids::{ArchiveId, Incarnation, Seq};
use crate::limits::{BLOCK_VALUE_LEN_MAX, KEY_LEN_MAX};
use crate::vfs::os::OsVfs;
use crate::vfs::{Dir, Vfs};

const STORE: [u8; 16] = [9; 16];
const SEED: HashSeed = HashSeed([4; 16]);
const CREATED_MS: u64 = 1_700_000_000_000;

/// Incarnation and key to sequence number, deadline, value.
type Model = BTreeMap<(u32, Vec<u8>), (u64, u64, Vec<u8>)>;

/// A directory that lives as long as the test.
struct Place {
    dir: Arc<dyn Dir>,
    _held: TempDir,
}

fn place() -> Place {
    let held = tempfile::tempdir().unwrap();
    Place { dir: OsVfs.open_dir(held.path()).unwrap(), _held: held }
}

fn new_archive(id: u32, dictionary: Option<Vec<u8>>) -> NewArchive {
    NewArchive {
        id: ArchiveId(id),
        store: STORE,
        nonce: 0x5EED_0000 + u64::from(id),
        created_ms: CREATED_MS,
        level: 3,
        seed: SEED,
        dictionary,
        hashes_max: 1 << 20,
    }
}

fn records(model: &Model) -> impl Iterator<Item = ColdRecord<'_>> {
    model.iter().map(|((incarnation, key), (seq, deadline_ms, value))| ColdRecord {
        incarnation: Incarnation(*incarnation),
        key,
        seq: Seq(*seq),
        deadline_ms: *deadline_ms,
        body_crc: body_crc(Incarnation(*incarnation), key, value),
        value,
    })
}

fn write(place: &Place, id: u32, model: &Model, dictionary: Option<Vec<u8>>) -> u64 {
    let mut builder = ArchiveBuilder::new(&*place.dir, new_archive(id, dictionary)).unwrap();
    for record in records(model) {
        builder.add(&record).unwrap();
    }
    assert_eq!(builder.record_count() as usize, model.len());
    let estimated = builder.estimated_len();
    let len = builder.finish().unwrap();
    assert!(estimated + (64 << 10) >= len, "estimated {estimated}, was {len}");
    len
}

fn open(place: &Place, id: u32) -> Result<Arc<Archive>> {
    Archive::open(&*place.dir, ArchiveId(id), STORE, SEED)
}

fn archive_of(place: &Place, model: &Model) -> Arc<Archive> {
    let len = write(place, 1, model, None);
    let archive = open(place, 1).unwrap();
    assert_eq!(archive.file_len(), len);
    archive
}

fn get(archive: &Archive, incarnation: u32, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let incarnation = Incarnation(incarnation);
    let found = archive.find(SEED.hash(incarnation, key), incarnation, key)?;
    Ok(found.map(|found| found.value.to_vec()))
}

/// Every way to read agrees with the model.
fn assert_holds(archive: &Arc<Archive>, model: &Model) {
    for (ordinal, ((incarnation, key), (seq, deadline_ms, value))) in model.iter().enumerate() {
        let incarnation = Incarnation(*incarnation);
        let hash = SEED.hash(incarnation, key);
        let found = archive.find(hash, incarnation, key).unwrap().unwrap();
        assert_eq!(found.ordinal as usize, ordinal);
        assert_eq!((found.seq, found.deadline_ms), (Seq(*seq), *deadline_ms));
        assert_eq!(&*found.value, value.as_slice());
        let located = archive.locate(hash, incarnation, key).unwrap().unwrap();
        assert_eq!(located.encoded_len, found.encoded_len);
        assert_eq!(found.encoded_len, (40 + key.len() + value.len()).next_multiple_of(8) as u64);
    }
    let mut cursor = archive.cursor();
    for expected in records(model) {
        assert_eq!(cursor.next().unwrap().unwrap().record, expected);
    }
    assert!(cursor.next().unwrap().is_none());
    for expected in records(model).collect::<Vec<_>>().into_iter().rev() {
        assert_eq!(cursor.prev().unwrap().unwrap().record, expected);
    }
    assert!(cursor.prev().unwrap().is_none());
    assert_eq!(archive.lens().sum(), archive.file_len());
    assert_eq!(archive.footer().record_count as usize, model.len());
    let mut seen = 0;
    assert_eq!(archive.verify(&mut |bytes| seen += bytes), Vec::new());
    assert_eq!(seen, archive.file_len());
}

fn models() -> impl Strategy<Value = Model> {
    let short = prop::collection::vec(0_u8..4, 0..6);
    let any_key = prop::collection::vec(any::<u8>(), 0..40);
    let long_key = (0..=KEY_LEN_MAX, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    let key = prop_oneof![6 => short, 6 => any_key, 1 => long_key];
    let random = prop::collection::vec(any::<u8>(), 0..200);
    let repeated = (0_usize..20_000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    let mixed = (0..2_usize << 20, any::<u32>()).prop_map(|(len, salt)| noise(len, salt));
    let value = prop_oneof![20 => random, 6 => repeated, 1 => mixed];
    let deadline_ms = prop_oneof![Just(0_u64), CREATED_MS..CREATED_MS * 2, any::<u64>()];
    let fields = (any::<u64>(), deadline_ms, value);
    prop::collection::btree_map((prop_oneof![0_u32..3, any::<u32>()], key), fields, 1..120)
}

/// Bytes that do not compress.
fn noise(len: usize, salt: u32) -> Vec<u8> {
    let mut state = u64::from(salt) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Records like an agent's memory: short texts with common words.
fn text_model(count: u32) -> Model {
    let words = ["the user asked", "about", "weather", "in Lisbon", "tool call", "result", "ok"];
    let line = |n: u32| {
        let parts = (0..12).map(|i| words[(n.wrapping_mul(2_654_435_761) >> i) as usize % 7]);
        format!("{{\"turn\":{n},\"text\":\"{}\"}}", parts.collect::<Vec<_>>().join(" "))
    };
    (0..count)
        .map(|n| {
            let key = format!("session/{:04}/turn/{n:08}", n / 100).into_bytes();
            ((1, key), (u64::from(n) + 1, 0, line(n).into_bytes()))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_archive_returns_exactly_what_was_put_in(model in models()) {
        let place = place();
        let archive = archive_of(&place, &model);
        assert_holds(&archive, &model);
        prop_assert_eq!(get(&archive, 77, b"absent").unwrap(), None);
    }

    #[test]
    fn a_cursor_lands_in_front_of_the_first_key_that_is_not_below(
        model in models(), incarnation in 0_u32..3, key in prop::collection::vec(0_u8..5, 0..6),
    ) {
        let place = place();
        let mut cursor = archive_of(&place, &model).cursor();
        cursor.seek(Incarnation(incarnation), &key).unwrap();
        let above = model.range((incarnation, key.clone())..).next();
        let expected = above.map(|((incarnation, key), _)| (Incarnation(*incarnation), &key[..]));
        let next = cursor.next().unwrap();
        prop_assert_eq!(next.map(|one| (one.record.incarnation, one.record.key)), expected);
        cursor.seek(Incarnation(incarnation), &key).unwrap();
        let below = model.range(..(incarnation, key)).next_back();
        let expected = below.map(|((incarnation, key), _)| (Incarnation(*incarnation), &key[..]));
        let prev = cursor.prev().unwrap();
        prop_assert_eq!(prev.map(|one| (one.record.incarnation, one.record.key)), expected);
    }
}

#[test]
fn empty_longest_and_large_records_come_back() {
    let place = place();
    let mut model = Model::new();
    model.insert((0, Vec::new()), (1, 0, Vec::new()));
    model.insert((0, vec![7; KEY_LEN_MAX]), (u64::MAX, u64::MAX, vec![1; BLOCK_VALUE_LEN_MAX]));
    model.insert((0, vec![8; KEY_LEN_MAX]), (2, 1, noise(BLOCK_VALUE_LEN_MAX + 1, 5)));
    model.insert((u32::MAX, Vec::new()), (3, 9, noise(1 << 20, 6)));
    let archive = archive_of(&place, &model);
    assert_holds(&archive, &model);
    assert_eq!(archive.footer().raw_count, 2);
    let bounds = archive.bounds().unwrap();
    assert_eq!(bounds, [(Incarnation(0), &b""[..]), (Incarnation(u32::MAX), &b""[..])]);
    let found = archive.find(SEED.hash(Incarnation(u32::MAX), b""), Incarnation(u32::MAX), b"");
    assert!(format!("{:?}", found.unwrap().unwrap().value).contains("mapped"));
}

#[test]
fn a_mapped_value_outlives_its_archive_and_its_name() {
    let place = place();
    let bytes = noise(1 << 20, 3);
    let model = Model::from([((1, b"k".to_vec()), (1, 0, bytes.clone()))]);
    let archive = archive_of(&place, &model);
    let found = archive.find(SEED.hash(Incarnation(1), b"k"), Incarnation(1), b"k").unwrap();
    drop(archive);
    place.dir.unlink("0000000001.arc").unwrap();
    assert_eq!(&*found.unwrap().value, bytes.as_slice());
}

#[test]
#[should_panic(expected = "in the order of their keys")]
fn records_out_of_order_stop_the_builder() {
    let place = place();
    let mut builder = ArchiveBuilder::new(&*place.dir, new_archive(1, None)).unwrap();
    let model = Model::from([((1, b"b".to_vec()), (1, 0, Vec::new()))]);
    let twice = records(&model).chain(records(&model));
    for record in twice {
        builder.add(&record).unwrap();
    }
}

#[test]
fn rot_is_not_copied_into_an_archive() {
    let place = place();
    let mut builder = ArchiveBuilder::new(&*place.dir, new_archive(1, None)).unwrap();
    let record = ColdRecord {
        incarnation: Incarnation(1),
        key: b"k",
        seq: Seq(1),
        deadline_ms: 0,
        body_crc: body_crc(Incarnation(1), b"k", b"value"),
        value: b"valuE",
    };
    assert!(matches!(builder.add(&record), Err(Error::Corrupt(_))));
    builder.abandon(&*place.dir).unwrap();
    assert_eq!(place.dir.list().unwrap(), Vec::new());
}

#[test]
fn text_takes_at_most_half_of_its_bytes_and_a_dictionary_makes_it_less() {
    let place = place();
    let model = text_model(30_000);
    let body_len: usize = model.iter().map(|((_, key), fields)| key.len() + fields.2.len()).sum();
    let mut sampler = Sampler::new(body_len as u64, 1 << 20, CREATED_MS, 1);
    records(&model).for_each(|record| sampler.add(&record));
    let plain = write(&place, 1, &model, None);
    assert!(plain * 2 <= body_len as u64, "{plain} of {body_len} bytes");
    if let Some(dictionary) = sampler.finish(3) {
        let with = write(&place, 2, &model, Some(dictionary));
        assert!(with < plain, "{with} with a dictionary, {plain} without");
        assert_holds(&open(&place, 2).unwrap(), &model);
    }
}

#[test]
fn a_filter_whose_hashes_did_not_fit_into_memory_is_the_same_byte_for_byte() {
    let place = place();
    let record = |number: u32| {
        let long = if number.is_multiple_of(40_000) { 70_000 } else { 0 };
        ((number % 3, number.to_be_bytes().to_vec()), (1, 0, vec![7; long]))
    };
    let model: Model = (0..140_000).map(record).collect();
    let dictionary: Vec<u8> = (0..2000_u32).flat_map(u32::to_be_bytes).collect();
    let files = [1 << 20, 70_000, 1].map(|hashes_max| {
        let new = NewArchive { hashes_max, ..new_archive(1, Some(dictionary.clone())) };
        let mut builder = ArchiveBuilder::new(&*place.dir, new).unwrap();
        records(&model).for_each(|record| builder.add(&record).unwrap());
        builder.finish().unwrap();
        let bytes = damage::read(&place, 1);
        assert_eq!(open(&place, 1).unwrap().verify(&mut |_| ()), Vec::new());
        place.dir.unlink(&ArchiveId(1).to_string()).unwrap();
        bytes
    });
    assert!(files[0] == files[1] && files[1] == files[2]);
}

#[test]
fn a_dictionary_that_saves_too_little_is_dropped_and_one_that_saves_is_kept() {
    let sample = |value: &dyn Fn(u32) -> Vec<u8>| {
        let mut sampler = Sampler::new(4 << 20, 1 << 20, CREATED_MS, 1);
        for n in 0..3000_u32 {
            let (key, value) = (n.to_be_bytes(), value(n));
            let crc = body_crc(Incarnation(1), &key, &value);
            sampler.add(&ColdRecord {
                incarnation: Incarnation(1),
                key: &key,
                seq: Seq(1),
                deadline_ms: 0,
                body_crc: crc,
                value: &value,
            });
        }
        sampler.finish(3)
    };
    assert_eq!(sample(&|n| noise(1400, n * 7 + 1)), None);
    let template = noise(6000, 99);
    let dictionary = sample(&|n| {
        let at = (n as usize * 37) % 4600;
        template[at..at + 1400].to_vec()
    });
    assert!(dictionary.is_some_and(|bytes| bytes.len() <= 16 << 10));
}

#[test]
fn bytes_that_do_not_compress_are_stored_raw_with_little_on_top() {
    let place = place();
    let model: Model = (0..500_u32)
        .map(|n| ((1, n.to_be_bytes().to_vec()), (u64::from(n), 0, noise(1000, n + 1))))
        .collect();
    let archive = archive_of(&place, &model);
    assert_holds(&archive, &model);
    assert!(archive.file_len() < 500 * 1004 * 104 / 100, "{} bytes", archive.file_len());
}

#[test]
fn filters_take_at_most_ten_bits_a_key_in_memory() {
    let place = place();
    let archive = archive_of(&place, &text_model(70_000));
    let per_key = archive.lens().filter * 100 / 70_000;
    assert!(per_key <= 125, "{per_key} hundredths of a byte a key");
    let passed = (0..20_000_u32)
        .filter(|n| archive.may_contain(SEED.hash(Incarnation(2), &n.to_le_bytes())))
        .count();
    assert!(passed < 160, "{passed} of 20000 absent keys pass");
}
