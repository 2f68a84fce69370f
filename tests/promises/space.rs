//! Files shrink by themselves, and small stores are small.

use std::time::Duration;

use terrace::{Db, Options};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

use crate::allocated;

#[test]
fn overwriting_the_same_data_ten_times_ends_at_its_own_size_plus_a_third() {
    let scratch = Scratch::new().unwrap();
    let db = Options::new().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    let (keys, len) = (5_000_u32, 4_000);
    for round in 0..10_u8 {
        for key in 0..keys {
            ks.put(key.to_be_bytes(), vec![round; len]).unwrap();
        }
    }
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    let live = u64::from(keys) * 4048;
    let found = allocated(&scratch.join("db"));
    assert!(
        found <= live * 13 / 10 + (4 << 20),
        "{found} bytes for {live} live\n{:#?}",
        db.ledger()
    );
    let audit = db.audit().unwrap();
    assert!(audit.is_exact(), "{audit:#?}");
}

#[test]
fn deleting_most_of_the_data_gives_its_space_back() {
    let scratch = Scratch::new().unwrap();
    let db = Options::new().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    for key in 0..20_000_u32 {
        ks.put(key.to_be_bytes(), vec![3; 1000]).unwrap();
    }
    for key in (0..20_000_u32).filter(|key| key % 10 != 0) {
        assert!(ks.delete(key.to_be_bytes()).unwrap());
    }
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    let live = 2_000 * 1048;
    let found = allocated(&scratch.join("db"));
    assert!(
        found <= live * 13 / 10 + (4 << 20),
        "{found} bytes for {live} live\n{:#?}",
        db.ledger()
    );
    drop(ks);
    db.drop_keyspace("default").unwrap();
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    assert!(db.keyspaces().unwrap().is_empty());
}

#[test]
fn a_store_with_ten_small_keys_takes_less_than_three_mebibytes() {
    let scratch = Scratch::new().unwrap();
    let db = Db::open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..10_u8).for_each(|key| ks.put([key], "small").unwrap());
    assert!(db.settle(Duration::from_secs(10)).unwrap());
    assert!(allocated(&scratch.join("db")) < 3 << 20);
    drop(ks);
    db.close().unwrap();
    assert!(allocated(&scratch.join("db")) < 3 << 20);
}

/// Some hundred words in no order, the same for each key.
fn text(key: u32) -> String {
    let words = "the of and to in is that for it with as was on be by this are from or session \
        memory context model answer question tool call result search file line error value record \
        table index query token budget summary note task plan step agent message reply draft";
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut random = Random::new(u64::from(key));
    let mut word = || {
        let at = random.below(words.len() as u64).min(random.below(words.len() as u64));
        words[usize::try_from(at).unwrap()]
    };
    (0..120).map(|_| word()).collect::<Vec<_>>().join(" ")
}

#[test]
fn compacting_makes_one_smaller_archive_of_several_and_then_leaves_it_alone() {
    let scratch = Scratch::new().unwrap();
    let db = Options::new().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    for keys in [0..3000, 3000..6000_u32] {
        for key in keys {
            ks.put(key.to_be_bytes(), text(key)).unwrap();
        }
        db.archive_all().unwrap();
    }
    let (archives, before) = (db.stats().archives, allocated(&scratch.join("db")));
    db.compact().unwrap();
    let after = allocated(&scratch.join("db"));
    assert_eq!((archives, db.stats().archives), (2, 1));
    assert!(after * 100 <= before * 95, "{after} bytes of {before}");
    let merged = db.stats().archives_merged;
    db.compact().unwrap();
    assert_eq!(db.stats().archives_merged, merged);
    for key in 0..6000_u32 {
        assert_eq!(ks.get(key.to_be_bytes()).unwrap().as_deref(), Some(text(key).as_bytes()));
    }
    let audit = db.audit().unwrap();
    assert!(audit.is_exact(), "{audit:#?}");
}
