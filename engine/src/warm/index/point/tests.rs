//! The index against a map: every entry found once, through growth and shrinking, by any thread.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::ids::Slot;

fn location(i: u64) -> Location {
    let slot = Slot(u32::try_from(i >> 20).unwrap());
    Location::new(slot, (u32::try_from(i & 0xF_FFFF).unwrap() + 8) * 8)
}

fn tag(i: u64) -> u32 {
    u32::try_from((i.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32).unwrap()
}

fn find(index: &PointIndex, tag: u32, at: Location) -> Option<IndexEntry> {
    index.find(tag, |entry| Ok::<_, ()>(entry.location == at)).unwrap()
}

fn find_mut(index: &PointIndex, writer: &IndexWriter, i: u64) -> IndexFound {
    let at = location(i);
    index
        .find_for_change(writer, tag(i), |entry| Ok::<_, ()>(entry.location == at))
        .unwrap()
        .unwrap()
}

#[test]
fn every_key_is_found_through_growth_and_shrinking_within_fourteen_bytes_a_key() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    let total = if cfg!(miri) { 600 } else { 200_000 };
    for i in 0..total {
        index.insert(&mut writer, tag(i), location(i), i % 7 == 0).unwrap();
    }
    assert_eq!(index.count(), total);
    for i in 0..total {
        assert_eq!(find(&index, tag(i), location(i)).map(|e| e.tombstone), Some(i % 7 == 0));
    }
    if !cfg!(miri) {
        // Between two growths both tables stand side by side; given-back pages are not counted.
        assert!(index.charged_len() <= total * 28, "{} bytes", index.charged_len());
    }
    for i in 0..total {
        if i % 10 != 0 {
            let found = find_mut(&index, &writer, i);
            index.remove(&mut writer, &found).unwrap();
        }
    }
    for i in 0..total {
        assert_eq!(find(&index, tag(i), location(i)).is_some(), i % 10 == 0, "key {i}");
    }
    assert!(index.charged_len() < total * 8, "shrunk to {} bytes", index.charged_len());
}

#[test]
fn a_table_made_for_many_entries_takes_few_then_loses_one_then_takes_many() {
    let many = if cfg!(miri) { 2000 } else { 200_000 };
    let (index, mut writer) = PointIndex::new(many).unwrap();
    for i in 0..5 {
        index.insert(&mut writer, tag(i), location(i), false).unwrap();
    }
    assert!(index.charged_len() > many * 10, "it waits for what it was made for");
    let found = find_mut(&index, &writer, 0);
    index.remove(&mut writer, &found).unwrap();
    for i in 5..many {
        index.insert(&mut writer, tag(i), location(i), false).unwrap();
    }
    for i in 1..many {
        assert!(find(&index, tag(i), location(i)).is_some(), "{i}");
    }
    index.fit(&mut writer).unwrap();
    for i in 105..many {
        let found = find_mut(&index, &writer, i);
        index.remove(&mut writer, &found).unwrap();
    }
    index.fit(&mut writer).unwrap();
    assert!(index.charged_len() < 32 << 10, "{} bytes", index.charged_len());
}

#[test]
fn a_walk_sees_every_entry_once_while_the_table_is_changing_its_size() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    for total in [1, 100, 317, 330, 345, if cfg!(miri) { 400 } else { 5000 }] {
        while index.count() < total {
            let i = index.count();
            index.insert(&mut writer, tag(i), location(i), false).unwrap();
        }
        let mut seen = HashMap::new();
        let mut from = Some(0);
        while let Some(tag) = from {
            from = index.walk(&writer, tag, 7, |entry| {
                *seen.entry(entry.location).or_insert(0) += 1;
            });
        }
        assert_eq!(seen.len() as u64, total);
        assert!(seen.values().all(|&times| times == 1));
    }
}

#[test]
fn replacing_an_entry_clears_its_touch_and_finds_the_new_place_only() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    index.insert(&mut writer, 9, location(1), false).unwrap();
    assert!(find(&index, 9, location(1)).is_some());
    assert!(find(&index, 9, location(1)).unwrap().touched);
    let found = index
        .find_for_change(&writer, 9, |entry| Ok::<_, ()>(entry.location == location(1)))
        .unwrap()
        .unwrap();
    index.replace(&mut writer, &found, location(2), true);
    assert!(find(&index, 9, location(1)).is_none());
    let entry = find(&index, 9, location(2)).unwrap();
    assert!(entry.tombstone && !entry.touched);
}

#[test]
fn keys_that_share_one_tag_all_find_a_place() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    let total = if cfg!(miri) { 20 } else { 380 };
    for i in 0..total {
        index.insert(&mut writer, u32::MAX, location(i), false).unwrap();
    }
    for i in 0..total {
        assert!(find(&index, u32::MAX, location(i)).is_some());
    }
}

#[test]
fn readers_never_miss_a_stable_key_while_a_writer_grows_the_table() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    let stable = 500;
    for i in 0..stable {
        index.insert(&mut writer, tag(i), location(i), false).unwrap();
    }
    let done = AtomicBool::new(false);
    let total = if cfg!(miri) { 700 } else { 100_000 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut rounds = 0_u64;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    for i in 0..stable {
                        assert!(find(&index, tag(i), location(i)).is_some(), "key {i}");
                    }
                    rounds += 1;
                }
            });
        }
        for i in stable..total {
            index.insert(&mut writer, tag(i), location(i), false).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(index.count(), total);
}

#[test]
fn entries_that_leave_in_the_order_of_their_tags_leave_a_table_that_holds_the_rest() {
    let (index, mut writer) = PointIndex::new(0).unwrap();
    let total = if cfg!(miri) { 600 } else { 200_000 };
    for i in 0..total {
        index.insert(&mut writer, tag(i), location(i), false).unwrap();
    }
    let mut order: Vec<u64> = (0..total).collect();
    order.sort_by_key(|&i| tag(i));
    for (gone, &i) in (0..).zip(&order) {
        let found = find_mut(&index, &writer, i);
        index.remove(&mut writer, &found).unwrap();
        if gone % (total / 10) == 0 {
            let rest = order.iter().skip(usize::try_from(gone + 1).unwrap());
            assert!(rest.clone().all(|&i| find(&index, tag(i), location(i)).is_some()));
            let mut walked = 0;
            let mut from = Some(0);
            while let Some(at) = from {
                from = index.walk(&writer, at, 1000, |_| walked += 1);
            }
            assert_eq!(walked, index.count());
        }
    }
    assert_eq!(index.count(), 0);
}
