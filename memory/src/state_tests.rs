//! Session state: snapshots against copies of a map, what is kept and what is not, transfer.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::{EngineStore, MemStore};

fn manager() -> SessionStateManager {
    SessionStateManager::new(Arc::new(MemStore::new()), "s").unwrap()
}

fn rows_of(manager: &SessionStateManager, kind: &[u8]) -> usize {
    manager.store.scan(&manager.ns, Scan::prefix(kind)).unwrap().len()
}

#[test]
fn a_restore_can_itself_be_undone() {
    let manager = manager();
    manager.set("a", &json!({ "deep": [1, 2] })).unwrap();
    manager.set("b", &Json::Null).unwrap();
    let first = manager.snapshot(json!({ "why": "test" })).unwrap();
    manager.set("a", &json!(2)).unwrap();
    assert!(manager.remove("b").unwrap() && !manager.remove("b").unwrap());
    manager.set("c", &json!(3)).unwrap();
    let changed = manager.state().unwrap();
    let restored = manager.restore(first).unwrap();
    assert_eq!(restored.changed, 3);
    assert_eq!(manager.get("a").unwrap(), Some(json!({ "deep": [1, 2] })));
    assert_eq!((manager.get("b").unwrap(), manager.get("c").unwrap()), (Some(Json::Null), None));
    assert_eq!(manager.restore(restored.undo).unwrap().changed, 3);
    assert_eq!(manager.state().unwrap(), changed);
    let history = manager.snapshots().unwrap();
    assert_eq!(history.iter().map(|one| one.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&history[0].metadata, history[1].undoes), (&json!({ "why": "test" }), Some(first)));
    assert!(matches!(manager.restore(SnapshotId(9)), Err(Error::Invalid(_))));
}

#[test]
fn without_a_snapshot_nothing_is_kept_of_what_was() {
    let manager = manager();
    for i in 0..50 {
        manager.set("a", &json!(i)).unwrap();
        manager.set("b", &json!(i)).unwrap();
    }
    manager.remove("b").unwrap();
    assert_eq!((rows_of(&manager, b"v"), rows_of(&manager, b"c")), (1, 1));
    assert!(matches!(manager.restore(SnapshotId(1)), Err(Error::Invalid(_))));
}

#[test]
fn snapshots_are_bounded_and_the_oldest_goes_with_what_only_it_saw() {
    let manager = manager().max_snapshots(10).unwrap();
    for i in 0..200 {
        manager.set("a", &json!(i)).unwrap();
        manager.set("b", &json!(i / 7)).unwrap();
        manager.snapshot(Json::Null).unwrap();
    }
    assert_eq!(manager.snapshots().unwrap().len(), 10);
    assert_eq!(rows_of(&manager, b"v"), 20);
    assert_eq!(manager.compact().unwrap(), 0);
    let oldest = manager.snapshots().unwrap()[0].id;
    let restored = manager.restore(oldest).unwrap();
    assert_eq!(manager.get("a").unwrap(), Some(json!(190)), "the oldest stays while restored");
    manager.restore(restored.undo).unwrap();
    assert_eq!(manager.get("a").unwrap(), Some(json!(199)));
    assert!(manager.max_snapshots(1).is_err());
}

#[test]
fn what_is_too_much_for_one_commit_is_compacted_after_it() {
    let manager = manager().max_snapshots(2).unwrap();
    for round in 0..2 {
        for i in 0..1200 {
            manager.set(&format!("k{i}"), &json!(round)).unwrap();
        }
        manager.snapshot(Json::Null).unwrap();
    }
    manager.snapshot(Json::Null).unwrap();
    assert_eq!(rows_of(&manager, b"v"), 1200);
    assert_eq!(manager.state().unwrap().len(), 1200);
    assert!(!manager.header().unwrap().1.garbage);
}

#[test]
fn an_export_loses_nothing_and_an_import_is_whole_or_nothing() {
    let from = manager();
    from.set("k\0/\u{d55c}", &json!({ "f": 0.1, "i": u64::MAX, "n": null })).unwrap();
    from.set("gone", &json!(1)).unwrap();
    let first = from.snapshot(json!("first")).unwrap();
    from.remove("gone").unwrap();
    from.set("null", &Json::Null).unwrap();
    let mut text = Vec::new();
    from.export(&mut text).unwrap();
    let to = manager();
    assert!(matches!(to.import(&mut &b"{}"[..]), Err(Error::Codec(_))));
    to.import(&mut text.as_slice()).unwrap();
    assert_eq!(to.state().unwrap(), from.state().unwrap());
    assert_eq!(to.snapshots().unwrap(), from.snapshots().unwrap());
    let mut again = Vec::new();
    to.export(&mut again).unwrap();
    assert_eq!(again, text);
    assert!(matches!(to.import(&mut text.as_slice()), Err(Error::Invalid(_))));
    to.restore(first).unwrap();
    assert_eq!(to.get("gone").unwrap(), Some(json!(1)));
    assert_eq!(to.set("x", &json!(1)).unwrap().0, from.set("x", &json!(1)).unwrap().0 + 2);
    let broken = String::from_utf8(text).unwrap().replace("\"seq\":2", "\"seq\":1");
    assert!(matches!(manager().import(&mut broken.as_bytes()), Err(Error::Codec(_))));
}

#[test]
fn a_thousand_snapshots_of_a_large_state_take_little() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = Arc::new(EngineStore::new(&db).unwrap());
    let manager = SessionStateManager::new(store, "s").unwrap().max_snapshots(1000).unwrap();
    let value = |i: usize| json!("x".repeat(1000) + &i.to_string());
    for i in 0..1000 {
        manager.set(&format!("k{i}"), &value(i)).unwrap();
    }
    let before = rows_of(&manager, b"v");
    for i in 0..300 {
        manager.set(&format!("k{i}"), &value(i + 1)).unwrap();
        manager.snapshot(Json::Null).unwrap();
    }
    // The first change of each key replaces what no snapshot had seen yet, or adds one version.
    assert!(rows_of(&manager, b"v") <= before + 300);
    assert_eq!(manager.restore(SnapshotId(1)).unwrap().changed, 299);
    assert_eq!(manager.get("k5").unwrap(), Some(value(5)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_snapshot_sees_what_was_there_when_it_was_made(
        steps in proptest::collection::vec((0_u8..12, 0_u8..4, 0_u8..20), 0..120),
    ) {
        let manager = manager().max_snapshots(4).unwrap();
        let mut now: BTreeMap<String, Json> = BTreeMap::new();
        let mut made: BTreeMap<SnapshotId, BTreeMap<String, Json>> = BTreeMap::new();
        for (kind, key, value) in steps {
            let key = format!("k{key}");
            match kind {
                0..5 => {
                    manager.set(&key, &json!(value)).unwrap();
                    now.insert(key, json!(value));
                }
                5..7 => prop_assert_eq!(manager.remove(&key).unwrap(), now.remove(&key).is_some()),
                7..10 => {
                    made.insert(manager.snapshot(Json::Null).unwrap(), now.clone());
                }
                _ => {
                    let kept = manager.snapshots().unwrap();
                    if kept.is_empty() {
                        continue;
                    }
                    let id = kept[usize::from(value) % kept.len()].id;
                    if kind == 10 {
                        prop_assert!(manager.delete_snapshot(id).unwrap());
                    } else {
                        let restored = manager.restore(id).unwrap();
                        made.insert(restored.undo, std::mem::take(&mut now));
                        now = made[&id].clone();
                    }
                }
            }
            prop_assert_eq!(manager.get("k1").unwrap(), now.get("k1").cloned());
        }
        prop_assert_eq!(manager.state().unwrap(), now);
        let kept = manager.snapshots().unwrap();
        prop_assert!(kept.len() <= 4);
        for info in kept {
            prop_assert_eq!(&manager.state_of(info.id).unwrap(), &made[&info.id]);
        }
        prop_assert_eq!(rows_of(&manager, b"v"), rows_of(&manager, b"c"));
        prop_assert_eq!(manager.compact().unwrap(), 0, "nothing is kept that nobody sees");
    }
}
