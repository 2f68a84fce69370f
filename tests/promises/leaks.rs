//! Every byte has an owner, and what is forgotten is named: values, snapshots, watchers, keys.

use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Db, HandleKind, LeakPolicy, LeakReport, Options, PutOptions};
use terrace_tests::random::Random;

use crate::{open_sim, settle};

/// A minute passes, and movement does what it does.
fn pass_a_minute(db: &Db, time: &ManualTime) {
    time.advance(Duration::from_secs(61));
    settle(db);
}

fn store() -> (Db, Arc<ManualTime>) {
    let time = Arc::new(ManualTime::new(1_700_000_000_000));
    let db = open_sim(&SimVfs::new(7), &time).unwrap();
    (db, time)
}

fn suspect(report: &LeakReport) -> &terrace::LiveHandle {
    let suspects: Vec<_> = report.handles.iter().filter(|handle| handle.suspect).collect();
    assert_eq!(suspects.len(), 1, "{report:#?}");
    suspects[0]
}

#[test]
fn a_forgotten_value_is_named_by_its_place_with_what_it_pins() {
    let (db, time) = store();
    let ks = db.keyspace("notes").unwrap();
    for key in 0..400_u32 {
        ks.put(key.to_be_bytes(), vec![7; 4000]).unwrap();
    }
    let line = line!() + 1;
    let forgotten = [ks.get(5_u32.to_be_bytes()).unwrap(), None];
    assert!(db.leaks(LeakPolicy::new()).is_clean());
    pass_a_minute(&db, &time);
    drop(ks.get(6_u32.to_be_bytes()).unwrap());
    let report = db.leaks(LeakPolicy::new());
    let handle = suspect(&report);
    assert_eq!((handle.kind, handle.count, handle.pinned_bytes), (HandleKind::Value, 1, 0));
    assert!(handle.created_at.contains(&format!("leaks.rs:{line}:")), "{handle}");
    assert!(handle.mapped_bytes > 0 && handle.age_ms >= 60_000, "{handle}");

    // Its segment is cleaned, and stays on the device for the value's sake alone.
    for key in 0..400_u32 {
        ks.delete(key.to_be_bytes()).unwrap();
    }
    db.compact().unwrap();
    let report = db.leaks(LeakPolicy::new());
    assert!(suspect(&report).pinned_bytes > 1 << 20, "{report}");
    assert_eq!(db.ledger().unlinked, suspect(&report).pinned_bytes);
    assert_eq!(forgotten[0].as_deref(), Some(&[7; 4000][..]));
    drop(forgotten);
    assert!(db.leaks(LeakPolicy::new()).handles.is_empty());
    assert_eq!(db.ledger().unlinked, 0);
}

#[test]
fn a_value_that_outlives_its_store_stays_valid() {
    let (db, _) = store();
    let ks = db.keyspace("notes").unwrap();
    ks.put("a", "kept").unwrap();
    let value = ks.get("a").unwrap().unwrap();
    let clone = value.clone();
    assert_eq!(db.leaks(LeakPolicy::new()).handles[0].count, 2);
    drop((ks, value));
    db.close().unwrap();
    assert_eq!(&*clone, b"kept");
}

#[test]
fn values_of_a_walk_are_counted_where_the_walk_began() {
    let (db, _) = store();
    let ks = db.keyspace("notes").unwrap();
    (0..10_u8).for_each(|key| ks.put([key], [key; 9]).unwrap());
    let line = line!() + 1;
    let rows: Vec<_> = ks.iter().map(Result::unwrap).collect();
    let report = db.leaks(LeakPolicy::new().handle_age(Duration::ZERO));
    let handle = suspect(&report);
    assert_eq!((handle.kind, handle.count), (HandleKind::Value, rows.len() as u64));
    assert!(handle.created_at.contains(&format!("leaks.rs:{line}:")), "{handle}");
}

#[test]
fn a_forgotten_snapshot_is_named_with_the_versions_it_pins() {
    let (db, time) = store();
    let ks = db.keyspace("notes").unwrap();
    (0..100_u8).for_each(|key| ks.put([key], [1; 500]).unwrap());
    let options = terrace::SnapshotOptions::new().name("nightly");
    let line = line!() + 1;
    let snapshot = db.snapshot_with(options);
    (0..100_u8).for_each(|key| ks.put([key], [2; 500]).unwrap());
    pass_a_minute(&db, &time);
    let report = db.leaks(LeakPolicy::new());
    let handle = suspect(&report);
    assert_eq!((handle.kind, handle.name.as_deref()), (HandleKind::Snapshot, Some("nightly")));
    assert!(handle.pinned_bytes >= 100 * 500, "{handle}");
    assert!(handle.created_at.contains(&format!("leaks.rs:{line}:")), "{handle}");
    drop(snapshot);
    settle(&db);
    assert!(db.leaks(LeakPolicy::new()).is_clean());
}

#[test]
fn an_iterator_that_nobody_finishes_is_named() {
    let (db, time) = store();
    let ks = db.keyspace("notes").unwrap();
    ks.put("a", "1").unwrap();
    let walk = ks.iter();
    pass_a_minute(&db, &time);
    let report = db.leaks(LeakPolicy::new());
    assert_eq!(suspect(&report).kind, HandleKind::Iterator);
    drop(walk);
    assert!(db.leaks(LeakPolicy::new()).is_clean());
}

#[test]
fn a_watcher_that_never_reads_is_named_and_one_that_reads_is_not() {
    let (db, time) = store();
    let ks = db.keyspace("notes").unwrap();
    let line = line!() + 1;
    let mut forgotten = ks.watch("jobs/");
    let mut read = ks.watch("");
    ks.put("jobs/1", "x").unwrap();
    pass_a_minute(&db, &time);
    assert!(read.next_timeout(Duration::ZERO).unwrap().is_some());
    let report = db.leaks(LeakPolicy::new());
    let handle = suspect(&report);
    assert_eq!((handle.kind, handle.name.as_deref()), (HandleKind::Watcher, Some("notes: jobs/")));
    assert!(handle.created_at.contains(&format!("leaks.rs:{line}:")), "{handle}");
    assert!(forgotten.next_timeout(Duration::ZERO).unwrap().is_some());
    assert!(db.leaks(LeakPolicy::new()).is_clean());
}

#[test]
fn keys_without_a_deadline_under_a_growing_prefix_are_named() {
    let (db, time) = store();
    let ks = db.keyspace("agents").unwrap();
    (0..500_u32).for_each(|key| ks.put(format!("config/{key}"), [1; 500]).unwrap());
    db.baseline();
    let ttl = PutOptions::new().ttl(Duration::from_secs(20));
    for round in 0..12_u32 {
        for key in 0..200_u32 {
            ks.put(format!("session/{round}/{key}"), [2; 500]).unwrap();
            ks.put(format!("config/{key}"), [3; 500]).unwrap();
            ks.put_with(format!("lock/{round}/{key}"), [4; 100], ttl).unwrap();
        }
        time.advance(Duration::from_secs(10));
        settle(&db);
    }
    let report = db.leaks(LeakPolicy::new().growth_bytes(100_000));
    let growth = report.growth.iter().find(|one| one.suspect && one.keyspace.is_some()).unwrap();
    assert_eq!(
        (growth.class, growth.keyspace.as_deref()),
        ("live without deadline", Some("agents"))
    );
    let prefix = &growth.prefixes[0];
    assert_eq!((&prefix.prefix[..], prefix.lasting_percent), (&b"session/"[..], 100), "{report}");
    assert!((1200..=4800).contains(&prefix.keys), "{report}");
    let rate = 200 * 552 / 10;
    assert!((rate / 2..=rate * 2).contains(&growth.slope), "{report}");
    assert!(growth.prefixes.iter().all(|one| one.prefix != b"config/"), "{report}");
}

#[test]
fn growth_that_was_demoted_is_named_as_well() {
    let (db, time) = store();
    let ks = db.keyspace("agents").unwrap();
    ks.put("first", "1").unwrap();
    db.baseline();
    for round in 0..6_u32 {
        for key in 0..800_u32 {
            ks.put(format!("trace/{round}/{key}"), [2; 500]).unwrap();
        }
        time.advance(Duration::from_secs(10));
        settle(&db);
    }
    db.archive_all().unwrap();
    let report = db.leaks(LeakPolicy::new());
    let growth = report.growth.iter().find(|one| one.suspect && one.keyspace.is_some()).unwrap();
    assert_eq!(growth.prefixes[0].prefix, b"trace/", "{report}");
}

#[test]
fn a_soak_without_leaks_reports_none() {
    let (db, time) = store();
    let ks = db.keyspace("agents").unwrap();
    let mut random = Random::from_environment(23);
    let mut work = |rounds: u32| {
        for _ in 0..rounds {
            for _ in 0..300 {
                let key = format!("key/{:04}", random.below(2000));
                match random.below(10) {
                    0 => drop(ks.delete(&key).unwrap()),
                    1 => drop(ks.get(&key).unwrap()),
                    2 => assert!(ks.prefix("key/1").take(20).all(|row| row.is_ok())),
                    3 => {
                        let ttl = PutOptions::new().ttl(Duration::from_secs(5));
                        ks.put_with(&key, [5; 300], ttl).unwrap();
                    }
                    _ => ks.put(&key, [6; 600]).unwrap(),
                }
            }
            let snapshot = db.snapshot();
            assert!(snapshot.seq() > 0);
            time.advance(Duration::from_secs(1));
            settle(&db);
        }
    };
    work(40);
    db.baseline();
    work(40);
    let report = db.leaks(LeakPolicy::new().growth_bytes(64 << 10).handle_age(Duration::ZERO));
    assert!(report.is_clean(), "{report}");
    assert!(report.since_ms.is_some_and(|ms| ms >= 40_000));
    assert!(db.audit().unwrap().is_exact());
}

#[test]
fn a_handle_that_outlives_its_bound_is_warned_of() {
    let options = Options::new().without_workers().handle_age_warning(Duration::ZERO);
    let db = options.temporary().unwrap();
    let ks = db.keyspace("notes").unwrap();
    ks.put("a", "1").unwrap();
    let seen = crate::events::collect(|| {
        let held = (db.snapshot(), ks.get("a").unwrap());
        assert!(db.settle(Duration::from_secs(10)).unwrap());
        held
    });
    let (_held, lines) = seen;
    for what in ["a handle is held for long", "values are held for long"] {
        let times = lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(times, 1, "{what}: {lines:#?}");
    }
}

#[test]
fn background_work_runs_in_spans() {
    let (db, _) = store();
    let ks = db.keyspace("notes").unwrap();
    let ((), lines) = crate::events::collect(|| {
        for round in 0..3_u8 {
            (0..200_u8).for_each(|key| ks.put([key], [round; 4000]).unwrap());
            db.archive_all().unwrap();
        }
        db.compact().unwrap();
    });
    for span in ["span seal", "span reclaim aim=Demote"] {
        assert!(lines.iter().any(|line| line.starts_with(span)), "{span}: {lines:#?}");
    }
}
