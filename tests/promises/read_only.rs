//! Opening for reading: no lock, no change of any file, a prefix as of the opening, also while
//! another handle writes, seals, cleans and demotes as fast as it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use terrace::testing::{ManualTime, SimVfs, Survivors};
use terrace::{Db, DemotePolicy, Error, KeyspaceOptions};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, files_of, open_sim, settle, tiny, while_writing};

#[test]
fn a_reader_sees_the_moment_of_its_opening_and_every_write_is_refused() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = Db::open(&path).unwrap();
    let ks = db.keyspace("default").unwrap();
    db.keyspace_with("brief", KeyspaceOptions::new().volatile()).unwrap().put("k", "v").unwrap();
    for i in 0..500_u32 {
        ks.put(i.to_be_bytes(), i.to_le_bytes()).unwrap();
    }
    ks.put("large", vec![7; 3 << 20]).unwrap();
    db.keyspace("gone").unwrap().put("x", "y").unwrap();
    db.drop_keyspace("gone").unwrap();
    let reader = Db::open_read_only(&path).unwrap();
    ks.put(0_u32.to_be_bytes(), "later").unwrap();
    ks.clear().unwrap();
    assert_eq!(reader.keyspaces().unwrap(), ["brief", "default"]);
    let seen = reader.keyspace("default").unwrap();
    assert_eq!(seen.get(0_u32.to_be_bytes()).unwrap().as_deref(), Some(&[0; 4][..]));
    assert_eq!(seen.get("large").unwrap().unwrap().len(), 3 << 20);
    assert_eq!(seen.iter().filter_map(Result::ok).count(), 501);
    assert_eq!(reader.keyspace("brief").unwrap().get("k").unwrap(), None);
    assert!(reader.verify(|_| ()).unwrap().is_sound());
    assert!(reader.settle(std::time::Duration::from_secs(1)).unwrap());
    let refused = |result: terrace::Result<()>| {
        assert!(matches!(result, Err(Error::ReadOnly { .. })), "{result:?}");
    };
    let mut batch = reader.batch();
    batch.put(&seen, "a", "b");
    refused(batch.commit());
    refused(seen.put("a", "b"));
    refused(seen.delete("large").map(drop));
    refused(seen.clear());
    refused(seen.delete_prefix("l").map(drop));
    refused(reader.keyspace("new").map(drop));
    refused(reader.drop_keyspace("default").map(drop));
    refused(reader.keyspace("brief").unwrap().put("k", "w"));
    refused(reader.compact());
    refused(reader.demote(&seen, DemotePolicy::All).map(drop));
    refused(reader.transaction(|tx| tx.put(&seen, "a", "b")));
    reader.close().unwrap();
}

#[test]
fn reading_changes_no_file_and_needs_a_store() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let missing = Db::open_read_only(&path).unwrap_err();
    assert!(matches!(missing, Error::Foreign { .. }) && !path.exists(), "{missing}");
    std::fs::create_dir(&path).unwrap();
    let empty = Db::open_read_only(&path).unwrap_err();
    assert!(matches!(empty, Error::Foreign { .. }), "{empty}");
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    let db = tiny().open(&path).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..900_u32 {
        ks.put(i.to_be_bytes(), vec![9; 10_000]).unwrap();
    }
    assert!(db.settle(std::time::Duration::from_secs(30)).unwrap());
    drop(ks);
    db.close().unwrap();
    std::fs::write(path.join("stranger"), "x").unwrap();
    let before = files_of(&path);
    let reader = tiny().open_read_only(&path).unwrap();
    assert_eq!(reader.keyspace("default").unwrap().len().unwrap(), 900);
    assert_eq!(reader.stats().foreign_files, ["stranger"]);
    drop(reader);
    assert!(files_of(&path) == before, "a reader changed a file");
}

#[test]
fn readers_of_a_store_that_moves_see_whole_batches_and_a_prefix() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().open(&path).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("warm up", "").unwrap();
    let done = AtomicU32::new(0);
    let write = |round: u32| {
        let mut batch = db.batch();
        for key in 0..4_u8 {
            let len = if round.is_multiple_of(50) { 400_000 } else { 900 };
            batch.put(&ks, [b'b', key], vec![round.to_le_bytes()[0]; len]);
        }
        batch.put(&ks, round.to_be_bytes(), round.to_le_bytes());
        batch.commit().unwrap();
        done.store(round, Ordering::Release);
    };
    while_writing(write, || {
        let mut readers = 0;
        while readers < 25 || done.load(Ordering::Acquire) <= 100 {
            readers += 1;
            let before = done.load(Ordering::Acquire);
            let reader = tiny().open_read_only(&path).unwrap();
            let after = done.load(Ordering::Acquire) + 1;
            check_prefix(&reader, before, after);
        }
    });
}

/// Everything up to some round between `before` and `after` is there, and nothing later.
fn check_prefix(reader: &Db, before: u32, after: u32) {
    let ks = reader.keyspace("default").unwrap();
    let rounds = ks.range([0_u8, 0, 0, 0]..[1_u8, 0, 0, 0]);
    let rounds: Vec<_> = rounds.map(|item| item.unwrap()).collect();
    let last = u32::try_from(rounds.len()).unwrap();
    assert!((before..=after).contains(&last), "{before} <= {last} <= {after}");
    for (expected, (key, value)) in (1_u32..).zip(&rounds) {
        assert_eq!(&key[..], expected.to_be_bytes());
        assert_eq!(&value[..], expected.to_le_bytes());
    }
    for key in 0..4_u8 {
        let value = ks.get([b'b', key]).unwrap();
        let found = value.map(|value| value[0]);
        assert_eq!(found, (last > 0).then_some(last.to_le_bytes()[0]), "a batch is whole");
    }
}

#[test]
fn a_store_that_crashed_can_be_read_before_anybody_recovers_it() {
    let (disk, time) = (SimVfs::new(3), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..2000_u32 {
        ks.put(i.to_be_bytes(), vec![1; 500]).unwrap();
    }
    settle(&db);
    db.sync().unwrap();
    let disk = disk.crash(Survivors::None);
    for _ in 0..2 {
        let options = tiny().file_system(Arc::new(disk.clone())).time(time.clone());
        let reader = options.open_read_only(SIM_PATH).unwrap();
        assert_eq!(reader.keyspace("default").unwrap().len().unwrap(), 2000);
    }
    drop((ks, db));
}
