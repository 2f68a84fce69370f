//! R11: salvage leaves the source as it is, writes what is sound, and names the rest; a key whose
//! newest record is lost gets no older value under its name.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use terrace::repair::{Salvaged, UNKNOWN_SUFFIX, salvage};
use terrace::{Db, Error, KeyspaceOptions, PutOptions};
use terrace_tests::scratch::Scratch;

use crate::{assert_exact, files_of, tiny};

type Content = BTreeMap<(String, Vec<u8>), (Vec<u8>, Option<u64>)>;

/// Everything that a store answers, with deadlines.
fn content(db: &Db) -> Content {
    let mut all = Content::new();
    for name in db.keyspaces().unwrap() {
        let ks = db.keyspace(&name).unwrap();
        for item in &ks {
            let (key, value) = item.unwrap();
            let deadline = ks.info(&key).unwrap().unwrap().expires_at;
            all.insert((name.clone(), key.to_vec()), (value.to_vec(), deadline));
        }
    }
    all
}

/// A store with every kind of file, deletes, clears, batches, deadlines and long values.
fn fill(path: &Path) -> Db {
    let db = tiny().open(path).unwrap();
    let ks = db.keyspace("default").unwrap();
    let other = db.keyspace_with("other", KeyspaceOptions::new().unordered()).unwrap();
    for i in 0..2200_u32 {
        ks.put(i.to_be_bytes(), vec![i.to_le_bytes()[0]; 4000]).unwrap();
    }
    for i in (0..2200_u32).step_by(7) {
        ks.delete(i.to_be_bytes()).unwrap();
    }
    other.put("before", "the clear").unwrap();
    other.clear().unwrap();
    let hour = PutOptions::new().ttl(Duration::from_hours(1));
    other.put_with("hour", "a deadline", hour).unwrap();
    ks.put("long", vec![3; 2 << 20]).unwrap();
    assert!(db.settle(Duration::from_secs(30)).unwrap());
    assert!(db.stats().archives > 0 && db.stats().segments > 1);
    let gone = db.keyspace("gone").unwrap();
    gone.put("x", "y").unwrap();
    db.drop_keyspace("gone").unwrap();
    let mut batch = db.batch();
    for i in 0..50_u32 {
        batch.put(&ks, i.to_be_bytes(), "of the batch");
        batch.put(&other, i.to_be_bytes(), "of the batch");
    }
    batch.commit().unwrap();
    ks.put("attached", vec![4; 2 << 20]).unwrap();
    db
}

fn check_output(into: &Path) -> Content {
    let db = Db::open(into).unwrap();
    assert!(db.verify(|_| ()).unwrap().is_sound());
    assert_exact(&db);
    content(&db)
}

#[test]
fn a_sound_store_is_saved_whole_open_or_closed_and_the_source_stays_as_it_is() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = fill(&path);
    let expected = content(&db);
    assert!(expected.len() > 1900);
    let mut last = (0, 1);
    let open = salvage(&path, scratch.join("one"), |p| last = (p.done, p.total)).unwrap();
    assert!(open.is_whole() && open.damage.is_empty(), "{open:?}");
    assert_eq!(open.kept, expected.len() as u64);
    assert_eq!(last.0, last.1, "progress ends at the total");
    assert!(check_output(&scratch.join("one")) == expected);
    db.close().unwrap();
    let before = files_of(&path);
    let closed = salvage(&path, scratch.join("two"), |_| ()).unwrap();
    assert!(closed.is_whole() && closed.kept == open.kept, "{closed:?}");
    assert!(check_output(&scratch.join("two")) == expected);
    assert!(files_of(&path) == before, "the source was touched");
}

/// Flips the byte at the first place where `found` stands in a file with this ending.
fn damage(dir: &Path, ending: &str, found: &[u8], at: usize) -> u32 {
    let mut changed = 0;
    for (name, mut bytes) in files_of(dir) {
        let place = bytes.windows(found.len()).position(|window| window == found);
        if let Some(place) = place.filter(|_| name.ends_with(ending)) {
            bytes[place + at] ^= 0x55;
            std::fs::write(dir.join(name), bytes).unwrap();
            changed += 1;
        }
    }
    changed
}

#[test]
fn a_damaged_newest_version_is_named_and_the_older_one_goes_beside() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().open(&path).unwrap();
    let ks = db.keyspace("notes").unwrap();
    ks.put("key", "the first version of it").unwrap();
    for i in 0..300_u32 {
        ks.put(i.to_be_bytes(), vec![1; 5000]).unwrap();
    }
    ks.put("key", "the second version of it").unwrap();
    ks.put("single", "the only version of it").unwrap();
    for i in 300..600_u32 {
        ks.put(i.to_be_bytes(), vec![1; 5000]).unwrap();
    }
    drop(ks);
    db.close().unwrap();
    assert_eq!(damage(&path, ".seg", b"the second version", 4), 1);
    assert_eq!(damage(&path, ".seg", b"the only version", 4), 1);
    let saved = salvage(&path, scratch.join("into"), |_| ()).unwrap();
    assert!(!saved.is_whole() && saved.damage.len() >= 2, "{saved:?}");
    let content = check_output(&scratch.join("into"));
    let value = |keyspace: &str| content.get(&(keyspace.to_owned(), b"key".to_vec()));
    assert_eq!(value("notes"), None);
    let named = |saved: &Salvaged, key: &[u8]| {
        let all = saved.lost_keys.iter().chain(&saved.unknown_keys);
        all.filter(|one| one.key.as_deref() == Some(key)).count()
    };
    if let Some((older, _)) = value(&format!("notes{UNKNOWN_SUFFIX}")) {
        assert_eq!(older, b"the first version of it");
        assert_eq!(named(&saved, b"key"), 1);
    }
    assert_eq!(saved.lost, 2, "{saved:?}");
    assert_eq!(content.keys().filter(|(_, key)| key.len() == 4).count(), 600);
}

#[test]
fn without_any_manifest_the_records_are_saved_under_invented_names() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = fill(&path);
    let expected = content(&db);
    db.close().unwrap();
    for name in files_of(&path).into_keys().filter(|name| name.contains(".man")) {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    let saved = salvage(&path, scratch.join("into"), |_| ()).unwrap();
    assert!(!saved.is_whole());
    let found = check_output(&scratch.join("into"));
    let values = |all: &Content| {
        let values = all.iter().map(|((_, key), value)| (key.clone(), value.clone()));
        values.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(values(&found).is_superset(&values(&expected)));
    assert!(found.keys().all(|(name, _)| name.starts_with("keyspace ")));
}

#[test]
fn what_is_no_store_is_refused_and_nothing_is_written_over() {
    let scratch = Scratch::new().unwrap();
    let missing = salvage(scratch.join("none"), scratch.join("into"), |_| ()).unwrap_err();
    assert!(matches!(missing, Error::Foreign { .. }), "{missing}");
    std::fs::create_dir(scratch.join("photos")).unwrap();
    std::fs::write(scratch.join("photos").join("cat.jpg"), "meow").unwrap();
    let foreign = salvage(scratch.join("photos"), scratch.join("into"), |_| ()).unwrap_err();
    assert!(matches!(foreign, Error::Foreign { .. }), "{foreign}");
    Db::open(scratch.join("db")).unwrap().keyspace("a").unwrap().put("k", "v").unwrap();
    let taken = salvage(scratch.join("db"), scratch.join("photos"), |_| ()).unwrap_err();
    assert!(matches!(taken, Error::Foreign { .. }), "{taken}");
    assert_eq!(std::fs::read_dir(scratch.join("photos")).unwrap().count(), 1);
}
