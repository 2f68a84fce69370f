//! The classes of the ledger that a put or a flipped bit moves bytes into, and that sum exactly.

use std::sync::Arc;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Db, Error, KeyspaceBytes, OpenPolicy, Options, PutOptions};
use terrace_tests::scratch::Scratch;

use crate::{assert_exact, open_sim, settle, tiny};

fn of<'l>(ledger: &'l terrace::Ledger, name: &str) -> &'l KeyspaceBytes {
    ledger.keyspaces.iter().find(|one| one.name == name).unwrap()
}

#[test]
fn what_may_shadow_an_archived_record_is_unresolved_until_it_was_looked_up() {
    let time = Arc::new(ManualTime::new(1_700_000_000_000));
    let db = open_sim(&SimVfs::new(3), &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..200_u8).for_each(|key| ks.put([key], [1; 1000]).unwrap());
    assert_eq!(db.ledger().warm.unresolved, 0, "there is no archive");
    db.archive_all().unwrap();
    let live = db.ledger().cold.live;
    assert_eq!(live, 200 * 1048);
    (0..100_u8).for_each(|key| ks.put([key], [2; 1000]).unwrap());
    let ledger = db.ledger();
    assert_eq!((ledger.warm.live, ledger.warm.unresolved), (0, 100 * 1048));
    assert_eq!(ledger.cold.live, live, "the archive was not read");
    assert_exact(&db);
    db.compact().unwrap();
    settle(&db);
    let ledger = db.ledger();
    assert_eq!((ledger.warm.live, ledger.warm.unresolved), (100 * 1048, 0));
    assert_eq!(ledger.cold.live, 100 * 1048);
    assert_exact(&db);
}

#[test]
fn a_damaged_record_is_counted_as_that_and_a_put_over_it_heals_the_account() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("db");
    let db = tiny().open(&dir).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..100_u8).for_each(|key| ks.put([key], [key; 500]).unwrap());
    drop(ks);
    db.compact().unwrap();
    db.close().unwrap();
    flip_in_value(&dir, 7);
    let db = tiny().open_policy(OpenPolicy::Degraded).open(&dir).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert_eq!(db.ledger().warm.damaged, 0, "nobody has looked yet");
    assert!(matches!(ks.get([7]), Err(Error::Corrupt(_))));
    assert_eq!(db.ledger().warm.damaged, 544);
    assert_eq!(db.ledger().warm.live + db.ledger().warm.unresolved, 99 * 544);
    assert_exact(&db);
    ks.put([7], [8; 500]).unwrap();
    assert_eq!(db.ledger().warm.damaged, 0);
    assert_eq!(db.ledger().warm.live, 100 * 544);
    assert_exact(&db);
}

/// Flips a bit in the value of the record whose value is 500 times this byte.
fn flip_in_value(dir: &std::path::Path, byte: u8) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(500).position(|window| window == [byte; 500]) {
            bytes[at + 250] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("no segment holds it");
}

#[test]
fn the_bytes_of_each_keyspace_are_told_over_all_tiers() {
    let time = Arc::new(ManualTime::new(1_700_000_000_000));
    let db: Db = open_sim(&SimVfs::new(4), &time).unwrap();
    let (one, two) = (db.keyspace("one").unwrap(), db.keyspace("two").unwrap());
    (0..50_u8).for_each(|key| one.put([key], [1; 1000]).unwrap());
    db.archive_all().unwrap();
    let ttl = PutOptions::new().ttl(std::time::Duration::from_secs(30));
    (0..20_u8).for_each(|key| two.put_with([key], [1; 1000], ttl).unwrap());
    (0..10_u8).for_each(|key| two.put([100 + key], [1; 1000]).unwrap());
    let ledger = db.ledger();
    let (a, b) = (of(&ledger, "one"), of(&ledger, "two"));
    assert_eq!((a.warm, a.cold, a.lasting, a.expired), (0, 50 * 1048, 50 * 1048, 0));
    assert_eq!((b.warm, b.cold, b.lasting, b.expired), (30 * 1048, 0, 10 * 1048, 0));
    time.advance(std::time::Duration::from_mins(10));
    let ledger = db.ledger();
    let b = of(&ledger, "two");
    assert_eq!((b.warm, b.lasting, b.expired), (10 * 1048, 10 * 1048, 20 * 1048));
    one.clear().unwrap();
    assert!(db.ledger().keyspaces.iter().all(|one| one.name != "one"));
    assert!(Options::new().temporary().unwrap().ledger().keyspaces.is_empty());
}

#[test]
fn the_statistics_file_has_its_account_and_goes_with_the_store() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("db");
    let every = std::time::Duration::from_millis(10);
    let db = Options::new().statistics_every(every).open(&dir).unwrap();
    db.keyspace("default").unwrap().put("a", "1").unwrap();
    let told = |db: &Db| db.ledger().other.statistics;
    while told(&db) == 0 {
        assert!(db.settle(every).is_ok());
    }
    assert_exact(&db);
    let text = std::fs::read_to_string(dir.join("STATISTICS")).unwrap();
    assert!(text.starts_with("terrace_statistics 1\n") && text.contains("\nputs "), "{text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&dir.join("STATISTICS").metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // A copy of the directory, as a kill would leave it.
    let copy = scratch.join("copy");
    db.checkpoint(&copy).unwrap();
    std::fs::write(copy.join("STATISTICS"), "anything").unwrap();
    db.close().unwrap();
    assert!(!dir.join("STATISTICS").exists() && !dir.join("NEW").exists());
    let again = Db::open(&copy).unwrap();
    assert!(again.stats().foreign_files.is_empty());
    assert_exact(&again);
    let too_often = Options::new().statistics_every(std::time::Duration::from_millis(1));
    assert!(matches!(too_often.temporary(), Err(Error::Invalid { .. })));
}
