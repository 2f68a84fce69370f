//! An expired key is never returned, in any tier, before or after a reopening; its bytes come back.

use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{KeyspaceOptions, PutOptions};

use crate::{assert_exact, open_sim, settle};

#[test]
fn an_expired_key_is_absent_in_every_tier_before_and_after_reopening() {
    let (disk, time) = (SimVfs::new(3), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    let soon = PutOptions::new().ttl(Duration::from_secs(100));
    for i in 0..400_u32 {
        let options = if i % 2 == 0 { soon } else { PutOptions::new() };
        ks.put_with(i.to_be_bytes(), vec![7; 20_000], options).unwrap();
        settle(&db);
    }
    assert!(db.stats().archives > 0);
    time.advance(Duration::from_millis(99_999));
    assert!((0..400_u32).all(|i| ks.contains(i.to_be_bytes()).unwrap()));
    time.advance(Duration::from_millis(1));
    assert!((0..400_u32).all(|i| ks.contains(i.to_be_bytes()).unwrap() == (i % 2 == 1)));
    assert_eq!(ks.len().unwrap(), 200);
    drop(ks);
    db.close().unwrap();
    // The wall clock is set back between two opens: nothing comes back.
    time.set_wall_ms(1_600_000_000_000);
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert!((0..400_u32).all(|i| ks.contains(i.to_be_bytes()).unwrap() == (i % 2 == 1)));
    settle(&db);
    assert_exact(&db);
}

#[test]
fn the_bytes_of_expired_records_come_back_unasked() {
    let (disk, time) = (SimVfs::new(4), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let short = KeyspaceOptions::new().default_ttl(Duration::from_mins(1));
    let ks = db.keyspace_with("sessions", short).unwrap();
    for i in 0..300_u32 {
        ks.put(i.to_be_bytes(), vec![1; 10_000]).unwrap();
    }
    settle(&db);
    assert!(db.stats().disk_bytes > 2 << 20);
    time.advance(Duration::from_mins(2));
    settle(&db);
    assert!(db.stats().disk_bytes < 2 << 20, "{:#?}", db.ledger());
    assert_eq!(ks.len().unwrap(), 0);
    assert_exact(&db);
}

#[test]
fn a_volatile_keyspace_keeps_its_ttl_and_is_empty_after_reopening() {
    let (disk, time) = (SimVfs::new(5), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace_with("scratch", KeyspaceOptions::new().volatile()).unwrap();
    ks.put_with("a", "1", PutOptions::new().ttl(Duration::from_secs(1))).unwrap();
    ks.put("b", "2").unwrap();
    assert_eq!(db.last_seq(), 0, "volatile records take no seq");
    assert_eq!(ks.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    time.advance(Duration::from_secs(1));
    assert_eq!(ks.get("a").unwrap(), None);
    assert_eq!(ks.len().unwrap(), 1);
    drop(ks);
    db.close().unwrap();
    let db = open_sim(&disk, &time).unwrap();
    assert_eq!(db.keyspace("scratch").unwrap().len().unwrap(), 0);
}
