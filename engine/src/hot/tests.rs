//! The hot tier against a map, with every sum checked after every run.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const HERE: Incarnation = Incarnation(1);

const SEED: HashSeed = HashSeed([9; 16]);

fn tier(budget: u64) -> HotTier {
    HotTier::new(SEED, budget).unwrap()
}

fn of(incarnation: Incarnation, key: &[u8]) -> HotKey<'_> {
    HotKey { hash: SEED.hash(incarnation, key), incarnation, key }
}

fn record(value: &[u8]) -> HotRecord<'_> {
    HotRecord { value, seq: Seq(1), deadline_ms: 0 }
}

fn admit(hot: &HotTier, key: u16, value: &[u8]) -> bool {
    hot.admit(&of(HERE, &key.to_le_bytes()), &record(value), || true)
}

fn get_of(hot: &HotTier, incarnation: Incarnation, key: &[u8]) -> Option<Vec<u8>> {
    hot.get(&of(incarnation, key), || 100, |record| record.value.to_vec())
}

fn get(hot: &HotTier, key: u16) -> Option<Vec<u8>> {
    get_of(hot, HERE, &key.to_le_bytes())
}

proptest! {
    #[test]
    fn what_is_resident_is_what_was_put_last_and_every_sum_holds(
        ops in proptest::collection::vec((0_u16..60, 0_u8..6, 0_usize..3000), 0..300)
    ) {
        let hot = tier(80 << 10);
        let mut clean: HashMap<u16, Vec<u8>> = HashMap::new();
        let mut volatile: HashMap<u16, Vec<u8>> = HashMap::new();
        for (key, op, len) in ops {
            let value = vec![op; len];
            let name = [key.to_le_bytes(), [7, 7]].concat();
            match op {
                0 | 1 => {
                    admit(&hot, key, &value);
                    clean.insert(key, value);
                }
                2 => {
                    hot.replace_with(&of(HERE, &key.to_le_bytes()), || ());
                    clean.remove(&key);
                }
                3 => {
                    let put = hot.put_volatile(&of(Incarnation(2), &name), &value, 0);
                    if put.is_ok() {
                        volatile.insert(key, value);
                    }
                }
                4 => {
                    let was = hot.remove_volatile(&of(Incarnation(2), &name), 100);
                    prop_assert_eq!(was, volatile.remove(&key).is_some());
                }
                _ => {
                    let found = get(&hot, key);
                    prop_assert!(found.is_none_or(|found| Some(&found) == clean.get(&key)));
                }
            }
            hot.validate();
        }
        for (key, value) in volatile {
            let name = [key.to_le_bytes(), [7, 7]].concat();
            let found = get_of(&hot, Incarnation(2), &name);
            prop_assert_eq!(found, Some(value));
        }
    }
}

#[test]
fn a_scan_of_ten_times_the_budget_leaves_the_working_set() {
    let hot = tier(256 << 10);
    for key in 0..500 {
        admit(&hot, key, &[1; 100]);
        get(&hot, key);
    }
    for key in 1000..11_000 {
        admit(&hot, key, &[2; 100]);
        if key % 20 == 0 {
            for warm in 0..500 {
                get(&hot, warm);
            }
        }
    }
    let kept = (0..500).filter(|&key| get(&hot, key).is_some()).count();
    assert!(kept >= 490, "{kept} of 500 kept");
    hot.validate();
}

#[test]
fn a_stale_admission_is_refused() {
    let hot = tier(64 << 10);
    assert!(!hot.admit(&of(HERE, &[1, 0]), &record(b"old"), || false));
    assert_eq!(get(&hot, 1), None);
}

#[test]
fn volatile_records_are_never_evicted_and_full_is_an_error() {
    let hot = tier(64 << 10);
    let mut put = 0_u16;
    let error = loop {
        match hot.put_volatile(&of(HERE, &put.to_le_bytes()), &[3; 500], 0) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!((0..put).all(|key| get(&hot, key).is_some()));
    hot.set_budget(1 << 10);
    assert!((0..put).all(|key| get(&hot, key).is_some()));
}

#[test]
fn an_expired_record_is_absent_and_swept() {
    let hot = tier(64 << 10);
    hot.put_volatile(&of(HERE, &[1, 0]), b"soon", 100).unwrap();
    hot.put_volatile(&of(HERE, &[2, 0]), b"later", 101).unwrap();
    assert_eq!((get(&hot, 1), get(&hot, 2)), (None, Some(b"later".to_vec())));
    assert_eq!(hot.sweep_expired(100, 10), 1);
    assert_eq!(hot.record_count(), 1);
}

#[test]
fn memory_goes_back_when_the_budget_falls_and_volatile_records_stay() {
    let hot = tier(8 << 20);
    for key in 0..3000_u16 {
        admit(&hot, key, &vec![1; usize::from(key % 1999)]);
        let name = [key.to_le_bytes(), [7, 7]].concat();
        if key % 10 == 0 {
            hot.put_volatile(&of(Incarnation(2), &name), &[5; 300], 0).unwrap();
        }
    }
    let before = hot.charged_bytes();
    hot.set_budget(2 << 20);
    hot.validate();
    assert!(before > 3 << 20 && hot.charged_bytes() <= 2 << 20, "{before} before");
    for key in (0..3000_u16).step_by(10) {
        let name = [key.to_le_bytes(), [7, 7]].concat();
        assert_eq!(get_of(&hot, Incarnation(2), &name), Some(vec![5; 300]));
    }
    hot.purge_incarnation(Incarnation(2));
    hot.purge_incarnation(HERE);
    assert_eq!(hot.record_count(), 0);
    hot.validate();
}

#[test]
fn an_entry_costs_at_most_24_bytes_besides_its_record() {
    let mut model = model::PolicyModel::new(200_000).unwrap();
    for key in 0..400_000 {
        model.touch(key).unwrap();
    }
    // Six bytes of deadline and flags lie in the record's block.
    let each = model.metadata_len() / 200_000 + 6;
    assert!(each <= 24, "{each} bytes an entry");
}
