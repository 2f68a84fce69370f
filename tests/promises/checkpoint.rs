//! A checkpoint is one moment: whole batches, everything before it, nothing after it; it opens by
//! itself, verifies, and shares no byte that either store changes later.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs, Survivors};
use terrace::{Db, Error};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, assert_exact, open_sim, settle, tiny, while_writing};

#[test]
fn checkpoints_taken_while_batches_are_written_hold_whole_batches_and_verify() {
    let scratch = Scratch::new().unwrap();
    let db = tiny().archive_dir(scratch.join("cold")).open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..1500_u32 {
        ks.put(i.to_be_bytes(), vec![1; 5000]).unwrap();
    }
    let names = ["one", "two", "three", "four"];
    let write = |round: u32| {
        let mut batch = db.batch();
        for key in 0..8_u32 {
            let len = if round.is_multiple_of(40) { 300_000 } else { 4000 };
            batch.put(&ks, key.to_be_bytes(), vec![round.to_le_bytes()[0]; len]);
        }
        batch.commit().unwrap();
    };
    while_writing(write, || {
        for name in names {
            db.checkpoint(scratch.join(name)).unwrap();
        }
    });
    for name in names {
        let copy = tiny().open(scratch.join(name)).unwrap();
        let verified = copy.verify(|_| ()).unwrap();
        assert!(verified.is_sound(), "{:?}", verified.damage);
        assert_exact(&copy);
        let seen = copy.keyspace("default").unwrap();
        assert_eq!(seen.len().unwrap(), 1500);
        let batch: Vec<u8> =
            (0..8_u32).map(|key| seen.get(key.to_be_bytes()).unwrap().unwrap()[0]).collect();
        assert!(batch.iter().all(|&round| round == batch[0]), "{batch:?}");
    }
}

#[test]
fn a_checkpoint_shares_sealed_files_and_neither_store_changes_the_other() {
    let scratch = Scratch::new().unwrap();
    let db = tiny().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..1500_u32 {
        ks.put(i.to_be_bytes(), vec![1; 5000]).unwrap();
    }
    assert!(db.settle(Duration::from_secs(30)).unwrap());
    let path = scratch.join("copy");
    db.checkpoint(&path).unwrap();
    let refused = db.checkpoint(&path).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
    let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap());
    let linked = entries.filter(|entry| entry.metadata().unwrap().nlink() == 2).count();
    assert!(linked > 3, "{linked} files are shared");
    let copy = tiny().open(&path).unwrap();
    let other = copy.keyspace("default").unwrap();
    for i in 0..1500_u32 {
        ks.put(i.to_be_bytes(), "here").unwrap();
        other.put(i.to_be_bytes(), "there").unwrap();
    }
    for store in [&db, &copy] {
        store.compact().unwrap();
        assert!(store.verify(|_| ()).unwrap().is_sound());
        assert_exact(store);
    }
    assert!((0..1500_u32).all(|i| &*ks.get(i.to_be_bytes()).unwrap().unwrap() == b"here"));
    assert!((0..1500_u32).all(|i| &*other.get(i.to_be_bytes()).unwrap().unwrap() == b"there"));
}

#[test]
fn a_checkpoint_of_a_reader_is_the_moment_that_it_reads() {
    let scratch = Scratch::new().unwrap();
    let db = Db::open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("a", "1").unwrap();
    let reader = Db::open_read_only(scratch.join("db")).unwrap();
    ks.put("a", "2").unwrap();
    ks.put("b", "2").unwrap();
    reader.checkpoint(scratch.join("copy")).unwrap();
    let copy = Db::open(scratch.join("copy")).unwrap();
    let seen = copy.keyspace("default").unwrap();
    assert_eq!(seen.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(seen.len().unwrap(), 1);
}

#[test]
fn a_checkpoint_is_on_stable_storage_when_it_returns_and_no_store_before() {
    let (disk, time) = (SimVfs::new(5), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..1000_u32 {
        ks.put(i.to_be_bytes(), vec![2; 3000]).unwrap();
    }
    settle(&db);
    db.checkpoint("/copy").unwrap();
    let open = |disk: &SimVfs| {
        let options = tiny().without_workers().file_system(Arc::new(disk.clone()));
        options.time(time.clone()).open("/copy")
    };
    let copy = open(&disk.crash(Survivors::None)).unwrap();
    assert_eq!(copy.keyspace("default").unwrap().len().unwrap(), 1000);
    assert!(copy.verify(|_| ()).unwrap().is_sound());
    drop(copy);
    let (disk, time_again) = (SimVfs::new(6), Arc::clone(&time));
    let db = open_sim(&disk, &time_again).unwrap();
    db.keyspace("default").unwrap().put("a", "1").unwrap();
    disk.fail_sync_at(2);
    assert!(matches!(db.checkpoint("/copy"), Err(Error::Io { .. })));
    let again = open(&disk).unwrap();
    assert_eq!(again.keyspaces().unwrap(), [""; 0], "nothing was left of it");
    assert_eq!(SIM_PATH, "/store");
}
