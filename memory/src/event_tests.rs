//! Events: one for each change and in order, whatever listeners do; audit, retention, restarts.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::{Clock, EngineStore, MemStore};

fn manager() -> (Clock, EventDrivenStateManager) {
    let clock = Clock::manual(Millis(1_800_000_000_000));
    let store = Arc::new(MemStore::with_clock(clock.clone()));
    (clock, EventDrivenStateManager::new(store, "s").unwrap())
}

#[test]
fn listeners_hear_after_the_commit_and_a_panic_stops_no_other() {
    let (_, manager) = manager();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let bad = manager.subscribe(Arc::new(|_: &StateChange| panic!("listener")));
    let (inner, log) = (manager.clone(), Arc::clone(&heard));
    let good = manager.subscribe(Arc::new(move |change: &StateChange| {
        assert_eq!(inner.get(&change.key).unwrap(), change.new, "it is committed");
        log.lock().push((change.seq.0, change.old.clone(), change.new.clone()));
    }));
    manager.set("k", &json!(1), "test", Json::Null).unwrap();
    manager.set("k", &json!([2]), "test", json!({ "why": "more" })).unwrap();
    assert_eq!(manager.remove("missing", "test", Json::Null).unwrap(), None);
    manager.remove("k", "test", Json::Null).unwrap().unwrap();
    assert_eq!(manager.listener_panics(), 3);
    let expected = [
        (1, None, Some(json!(1))),
        (2, Some(json!(1)), Some(json!([2]))),
        (3, Some(json!([2])), None),
    ];
    assert_eq!(*heard.lock(), expected);
    drop(good);
    drop(bad);
    manager.set("k", &json!(4), "test", Json::Null).unwrap();
    assert_eq!((heard.lock().len(), manager.listener_panics()), (3, 3));
}

#[test]
fn a_listener_may_subscribe_unsubscribe_and_change_while_it_hears() {
    let (_, manager) = manager();
    let guards = Arc::new(Mutex::new(Vec::new()));
    let (inner, kept) = (manager.clone(), Arc::clone(&guards));
    let guard = manager.subscribe(Arc::new(move |change: &StateChange| {
        if change.seq.0 < 5 {
            inner.set("again", &json!(change.seq.0), "listener", Json::Null).unwrap();
        }
        kept.lock().clear();
        let silent = inner.subscribe(Arc::new(|_: &StateChange| {}));
        kept.lock().push(silent);
    }));
    manager.set("k", &json!(1), "test", Json::Null).unwrap();
    drop(guard);
    let seqs: Vec<u64> = manager.audit(None, None, 10).unwrap().iter().map(|e| e.seq.0).collect();
    assert_eq!(seqs, [5, 4, 3, 2, 1]);
    guards.lock().clear();
}

#[test]
fn the_trail_is_asked_by_key_by_time_and_page_by_page() {
    let (clock, manager) = manager();
    let start = clock.now();
    for i in 0..10_u64 {
        let key = if i % 2 == 0 { "even" } else { "odd\0" };
        manager.set(key, &json!(i), "test", Json::Null).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let seqs = |found: Vec<StateChange>| found.iter().map(|one| one.seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(manager.audit(Some("even"), None, 3).unwrap()), [9, 7, 5]);
    assert_eq!(seqs(manager.audit(Some("even"), Some(Seq(5)), 3).unwrap()), [3, 1]);
    assert_eq!(seqs(manager.audit(Some("odd"), None, 3).unwrap()), [0_u64; 0]);
    assert_eq!(seqs(manager.audit(None, None, 0).unwrap()), [0_u64; 0]);
    let during = start.after(Duration::from_secs(3))..start.after(Duration::from_secs(6));
    assert_eq!(seqs(manager.audit_during(during.clone(), None, None, 9).unwrap()), [6, 5, 4]);
    assert_eq!(seqs(manager.audit_during(during, Some("odd\0"), None, 9).unwrap()), [6, 4]);
    let ids: Vec<String> =
        manager.audit(None, None, 99).unwrap().into_iter().map(|one| one.event_id).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "ids sort by time");
    assert!(matches!(manager.audit(None, None, 10_001), Err(Error::Limit { .. })));
}

#[test]
fn retention_drops_the_oldest_events_and_no_state() {
    let (clock, manager) = manager();
    for i in 0..20_u64 {
        manager.set(&format!("k{}", i % 3), &json!(i), "test", Json::Null).unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(manager.retain(Retention::count(12)).unwrap(), 8);
    assert_eq!(manager.retain(Retention::age(Duration::from_secs(10))).unwrap(), 2);
    let all = manager.audit(None, None, 99).unwrap();
    let seqs: Vec<u64> = all.iter().map(|one| one.seq.0).collect();
    assert_eq!(seqs, (11..=20).rev().collect::<Vec<_>>());
    assert_eq!(manager.audit(Some("k0"), None, 99).unwrap().len(), 3);
    assert!(manager.retain(Retention::size(400)).unwrap() > 0);
    assert_eq!(manager.state(None, 10).unwrap().len(), 3);
    assert_eq!(manager.state(Some("k0"), 1).unwrap(), [("k1".to_owned(), json!(19))]);
}

#[test]
fn threads_make_a_sequence_without_gaps_that_a_restart_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let db = terrace::Db::open(directory.path().join("data")).unwrap();
        EventDrivenStateManager::new(Arc::new(EngineStore::new(&db).unwrap()), "s").unwrap()
    };
    let manager = open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let manager = &manager;
            scope.spawn(move || {
                for i in 0..25 {
                    manager.set("k", &json!([thread, i]), "test", Json::Null).unwrap();
                }
            });
        }
    });
    drop(manager);
    let manager = open();
    assert_eq!(manager.set("k", &json!(0), "test", Json::Null).unwrap().seq, Seq(101));
    let mut all = manager.audit(None, None, 1000).unwrap();
    all.reverse();
    let mut before = None;
    for (i, change) in all.into_iter().enumerate() {
        assert_eq!((change.seq.0, &change.old), (i as u64 + 1, &before));
        before = change.new;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn events_told_again_make_the_state(
        steps in proptest::collection::vec(("[ab\0]{0,2}", proptest::option::of(0_u8..9)), 0..40),
    ) {
        let (_, manager) = manager();
        for (key, value) in steps {
            match value {
                Some(value) => {
                    manager.set(&key, &json!(value), "test", Json::Null).unwrap();
                }
                None => drop(manager.remove(&key, "test", Json::Null).unwrap()),
            }
        }
        let mut told = std::collections::BTreeMap::new();
        for change in manager.audit(None, None, 1000).unwrap().into_iter().rev() {
            prop_assert_eq!(told.get(&change.key), change.old.as_ref());
            match change.new {
                Some(value) => told.insert(change.key, value),
                None => told.remove(&change.key),
            };
        }
        let state: Vec<_> = told.into_iter().collect();
        prop_assert_eq!(manager.state(None, 1000).unwrap(), state);
    }
}
