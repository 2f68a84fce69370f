//! A close leaves an index image, and the next opening is quick; whatever becomes of the image, the
//! store says the same.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs, Vfs};
use terrace::{Db, Keyspace, KeyspaceOptions, Options, PutOptions};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, allocated, assert_exact, open_sim};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> Options {
    Options::new().memory_budget(8 << 20).warm_budget(64 << 20).segment_size(1 << 20)
}

fn open(path: &Path) -> (Db, Keyspace) {
    let db = options().open(path).unwrap();
    let ks = db.keyspace("default").unwrap();
    (db, ks)
}

/// Some hundred changes, some of them of the same keys, with TTLs, deletes and large values.
fn change(ks: &Keyspace, model: &mut Model, random: &mut Random) {
    for _ in 0..600 {
        let key = format!("key/{:04}", random.below(900)).into_bytes();
        if random.chance(20) {
            ks.delete(&key).unwrap();
            model.remove(&key);
            continue;
        }
        let len = if random.chance(1) { 1_200_000 } else { random.within(0..3000) };
        let value = random.bytes(len);
        let long = PutOptions::new().ttl(Duration::from_secs(100_000));
        let options = if random.chance(30) { long } else { PutOptions::new() };
        ks.put_with(&key, &value, options).unwrap();
        model.insert(key, value);
    }
}

fn assert_same(ks: &Keyspace, model: &Model) {
    let owned = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let walked: Vec<_> =
        ks.iter().map(|row| row.map(|(key, value)| owned(&key, &value)).unwrap()).collect();
    assert_eq!(walked.len(), model.len());
    let right: Vec<_> = model.iter().map(|(key, value)| owned(key, value)).collect();
    assert!(walked == right, "a walk shows what was put, in order");
    let mut scanned = Vec::new();
    let all = |key: &[u8], value: &[u8]| {
        scanned.push(owned(key, value));
        ControlFlow::Continue(())
    };
    ks.scan_with::<&[u8]>(.., all).unwrap();
    assert!(scanned == right, "a scan shows what was put, in order");
    let back = ks.keys::<&[u8]>(..).rev().map(|key| key.unwrap().to_vec());
    assert!(back.eq(model.keys().rev().cloned()), "a walk from the end shows the same keys");
    for (key, value) in model {
        assert_eq!(ks.get(key).unwrap().as_deref(), Some(&value[..]));
    }
}

fn image_of(path: &Path) -> Option<PathBuf> {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "idx")).max()
}

#[test]
fn a_store_that_was_closed_opens_from_its_image_and_one_that_was_not_does_without() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let (mut model, mut random) = (Model::new(), Random::from_environment(61));
    for round in 0..12 {
        let (db, ks) = open(&path);
        assert_eq!(db.stats().index_image, round > 0, "round {round}");
        if round % 3 == 0 {
            // Not asked for its order in this life: the next image has it all the same.
            change(&ks, &mut model, &mut random);
        } else {
            assert_same(&ks, &model);
            change(&ks, &mut model, &mut random);
            assert_same(&ks, &model);
        }
        assert_exact(&db);
        assert!(db.settle(Duration::from_mins(1)).unwrap());
        assert_exact(&db);
        assert_eq!(image_of(&path), None, "an image goes when it has been read");
        assert!(db.ledger().disk_len() <= allocated(&path));
        drop(ks);
        db.close().unwrap();
        assert!(image_of(&path).is_some());
    }
    let copy = scratch.join("copy");
    std::fs::create_dir(&copy).unwrap();
    let db = options().without_workers().open(&path).unwrap();
    change(&db.keyspace("default").unwrap(), &mut model, &mut random);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    db.close().unwrap();
    // What a kill leaves: the image that was consumed does not count any more.
    let (db, _) = open(&copy);
    assert!(!db.stats().index_image);
    assert_exact(&db);
}

#[test]
fn an_image_that_is_missing_damaged_or_of_another_time_changes_nothing_but_the_time() {
    let scratch = Scratch::new().unwrap();
    let (path, mut random) = (scratch.join("db"), Random::from_environment(62));
    let mut model = Model::new();
    let mut older = Vec::new();
    for _ in 0..2 {
        let (db, ks) = open(&path);
        change(&ks, &mut model, &mut random);
        assert!(db.settle(Duration::from_mins(1)).unwrap());
        drop(ks);
        db.close().unwrap();
        older.push(std::fs::read(image_of(&path).unwrap()).unwrap());
    }
    let sound = older.pop().unwrap();
    let mut others: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), older.pop()];
    others.push(sound.get(..sound.len() - 1).map(<[u8]>::to_vec));
    for _ in 0..40 {
        let mut flipped = sound.clone();
        let at = usize::try_from(random.below(sound.len() as u64)).unwrap();
        flipped[at] ^= 1 << random.below(8);
        others.push(Some(flipped));
    }
    for (number, other) in others.into_iter().enumerate() {
        let copy = scratch.join(&format!("copy {number}"));
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let image = image_of(&copy).unwrap();
        match other {
            None => std::fs::remove_file(&image).unwrap(),
            Some(bytes) => std::fs::write(&image, bytes).unwrap(),
        }
        let (db, ks) = open(&copy);
        assert_same(&ks, &model);
        assert_exact(&db);
        drop(ks);
        db.close().unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn what_a_snapshot_kept_of_a_cleared_keyspace_is_dead_when_the_image_is_opened() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let (db, ks) = open(&path);
    let mut random = Random::from_environment(23);
    change(&ks, &mut Model::new(), &mut random);
    let snapshot = db.snapshot();
    ks.clear().unwrap();
    let mut model = Model::new();
    change(&ks, &mut model, &mut random);
    assert_exact(&db);
    db.close().unwrap();
    drop((snapshot, ks));
    assert!(image_of(&path).is_some());
    let (db, ks) = open(&path);
    assert!(db.stats().index_image);
    assert_exact(&db);
    assert_same(&ks, &model);
}

/// The paths of the files of the simulated store.
fn names_of(disk: &SimVfs) -> Vec<String> {
    let entries = disk.open_dir(Path::new(SIM_PATH)).unwrap().list().unwrap();
    entries.into_iter().map(|entry| format!("{SIM_PATH}/{}", entry.name)).collect()
}

/// A closed store on the simulated disk: three segments, TTLs, deletes, a keyspace without order.
fn closed(disk: &SimVfs, time: &Arc<ManualTime>) {
    for round in 0..3_u32 {
        let db = open_sim(disk, time).unwrap();
        let ks = db.keyspace("default").unwrap();
        let loose = db.keyspace_with("loose", KeyspaceOptions::new().unordered()).unwrap();
        for i in (round * 50)..(round * 50 + 120) {
            let ttl = Duration::from_secs(u64::from(1000 * (1 + i % 3)));
            let options = if i % 4 == 0 { PutOptions::new().ttl(ttl) } else { PutOptions::new() };
            ks.put_with(format!("key/{i:04}"), vec![7; 20 + i as usize % 50], options).unwrap();
            loose.put(i.to_be_bytes(), "loose").unwrap();
        }
        (0..20).for_each(|i| assert!(ks.delete(format!("key/{:04}", round * 50 + i)).unwrap()));
        assert_eq!(ks.iter().count() as u64, ks.len().unwrap());
        db.close().unwrap();
    }
}

type Shown = (Vec<(Vec<u8>, Vec<u8>)>, Vec<terrace::KeyspaceBytes>, [u64; 3]);

/// Everything that a store tells: its records, its ledger, its counts.
fn shown(db: &Db) -> Shown {
    let ks = db.keyspace("default").unwrap();
    let rows: Vec<_> =
        ks.iter().map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    let loose = db.keyspace("loose").unwrap();
    assert!((0..220_u32).all(|i| loose.contains(i.to_be_bytes()).unwrap()));
    assert_exact(db);
    let stats = db.stats();
    (rows, db.ledger().keyspaces, [stats.warm_records, ks.approximate_len(), stats.segments])
}

#[test]
fn an_image_tells_what_the_trailers_tell() {
    let (disk, time) = (SimVfs::new(1), Arc::new(ManualTime::new(1_700_000_000_000)));
    closed(&disk, &time);
    let bare = disk.clone_image();
    let name = names_of(&disk).into_iter().find(|name| name.contains(".idx")).unwrap();
    bare.lose(&name);
    let (with, without) = (open_sim(&disk, &time).unwrap(), open_sim(&bare, &time).unwrap());
    assert_eq!((with.stats().index_image, without.stats().index_image), (true, false));
    let files = with.ledger().files;
    let len = files.iter().find(|file| name.ends_with(&file.name)).map(|file| file.bytes.index);
    assert_eq!(len, disk.read(&name).map(|bytes| bytes.len() as u64), "counted while it lasts");
    let (told, rebuilt) = (shown(&with), shown(&without));
    assert_eq!(told.0.len(), 160);
    assert!(told.0.is_sorted(), "in order of keys");
    assert_eq!(told, rebuilt);
}

#[test]
fn a_bit_of_an_image_changes_nothing_but_whether_it_is_used() {
    let (disk, time) = (SimVfs::new(2), Arc::new(ManualTime::new(1_700_000_000_000)));
    closed(&disk, &time);
    let right = shown(&open_sim(&disk.clone_image(), &time).unwrap());
    let name = names_of(&disk).into_iter().find(|name| name.contains(".idx")).unwrap();
    let len = disk.read(&name).unwrap().len();
    let mut refused = 0;
    for at in (0..len).step_by(1 + len / 150) {
        let image = disk.clone_image();
        image.edit(&name, |bytes: &mut Vec<u8>| bytes[at] ^= 4);
        let db = open_sim(&image, &time).unwrap();
        refused += u32::from(!db.stats().index_image);
        assert_eq!(shown(&db), right, "byte {at} of {len}");
    }
    assert!(refused > 50, "{refused} were not used");
}

#[test]
fn an_image_of_several_parts_holds_every_key_in_order() {
    const COUNT: u32 = 60_000;
    let (disk, time) = (SimVfs::new(3), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..COUNT).for_each(|i| ks.put((i * 7919 % COUNT).to_be_bytes(), "v").unwrap());
    assert_eq!(ks.iter().count(), COUNT as usize);
    drop(ks);
    db.close().unwrap();
    let name = names_of(&disk).into_iter().find(|name| name.contains(".idx")).unwrap();
    assert!(disk.read(name).unwrap().len() > 1 << 20, "more than two parts");
    let db = open_sim(&disk, &time).unwrap();
    assert!(db.stats().index_image);
    let ks = db.keyspace("default").unwrap();
    let keys: Vec<_> = ks.keys::<&[u8]>(..).map(|key| key.unwrap().to_vec()).collect();
    let all: Vec<_> = (0..COUNT).map(|i| i.to_be_bytes().to_vec()).collect();
    assert!(keys == all, "{} keys", keys.len());
    assert!((0..COUNT).step_by(97).all(|i| ks.contains(i.to_be_bytes()).unwrap()));
}
