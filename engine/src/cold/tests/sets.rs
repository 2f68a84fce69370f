//! Of several archives the one live record of a key answers, whatever their order.

use super::*;
use crate::cold::{ArchiveEntry, ArchiveSet};
use crate::error::Result;

fn entry(place: &Place, id: u32, model: &Model) -> Arc<ArchiveEntry> {
    write(place, id, model, None);
    ArchiveEntry::new(open(place, id).unwrap())
}

fn find(set: &ArchiveSet, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let found = set.find(SEED.hash(Incarnation(1), key), Incarnation(1), key)?;
    Ok(found.map(|(found, _)| found.value.to_vec()))
}

fn mark(set: &ArchiveSet, key: &[u8], below: u64) -> Option<u64> {
    let hash = SEED.hash(Incarnation(1), key);
    let marked = set.mark_dead(hash, Incarnation(1), key, Seq(below)).unwrap();
    marked.map(|marked| marked.located.seq.0)
}

fn two(place: &Place) -> ArchiveSet {
    let old = text_model(300);
    let mut new = Model::new();
    for (n, key) in old.keys().enumerate().filter(|(n, _)| n % 3 == 0) {
        new.insert(key.clone(), (1000 + n as u64, CREATED_MS + 5000, b"new".to_vec()));
    }
    ArchiveSet::new(vec![entry(place, 1, &old), entry(place, 2, &new)])
}

#[test]
fn a_superseded_record_does_not_come_back_from_either_side_of_the_order() {
    let place = place();
    let set = two(&place);
    let keys: Vec<_> = text_model(300).into_keys().map(|(_, key)| key).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        assert_eq!(mark(&set, key, 500), Some(n as u64 + 1));
        assert_eq!(mark(&set, key, 500), None);
        assert_eq!(find(&set, key).unwrap(), Some(b"new".to_vec()));
    }
    let turned = ArchiveSet::new(set.entries().iter().rev().cloned().collect());
    assert_eq!(find(&turned, &keys[3]).unwrap(), Some(b"new".to_vec()));
    assert!(find(&turned, &keys[1]).unwrap().unwrap().starts_with(b"{\"turn\":1,"));
    assert_eq!(set.entries()[0].dead.total().record_count, 100);
}

#[test]
fn dead_sums_follow_the_marks_and_survive_as_bits() {
    let place = place();
    let set = two(&place);
    let keys: Vec<_> = text_model(300).into_keys().map(|(_, key)| key).collect();
    let mut expected = 0;
    for key in &keys[..90] {
        let hash = SEED.hash(Incarnation(1), key);
        while let Some(marked) = set.mark_dead(hash, Incarnation(1), key, Seq(u64::MAX)).unwrap() {
            expected += marked.located.encoded_len;
        }
        assert_eq!(find(&set, key).unwrap(), None);
    }
    let totals: Vec<_> = set.entries().iter().map(|entry| entry.dead.total()).collect();
    assert_eq!(totals.iter().map(|sum| sum.encoded_len).sum::<u64>(), expected);
    assert_eq!((totals[0].record_count, totals[1].record_count), (90, 30));
    assert_eq!(set.entries()[1].dead.of_class(0), totals[1]);
    for entry in set.entries() {
        let bits = entry.dead.to_bits();
        let (back, damage) = ArchiveEntry::restore(Arc::clone(&entry.archive), &bits);
        assert_eq!(damage, Vec::new());
        assert_eq!((back.dead.total(), back.dead.to_bits()), (entry.dead.total(), bits));
        let incarnation = back.dead.of_incarnation(Incarnation(1));
        assert_eq!(incarnation, entry.dead.total());
    }
}

#[test]
fn a_cursor_skips_the_records_that_nobody_wants() {
    let place = place();
    let set = two(&place);
    let keys: Vec<_> = text_model(300).into_keys().map(|(_, key)| key).collect();
    for key in &keys[10..290] {
        mark(&set, key, 500);
    }
    let entry = &set.entries()[0];
    let mut cursor = entry.archive.cursor();
    let mut seen = Vec::new();
    while let Some(one) = cursor.next_if(|ordinal| !entry.dead.is_dead(ordinal)).unwrap() {
        seen.push(one.record.key.to_vec());
    }
    assert_eq!(seen, [&keys[..10], &keys[290..]].concat());
    let mut back = Vec::new();
    while let Some(one) = cursor.prev_if(|ordinal| !entry.dead.is_dead(ordinal)).unwrap() {
        back.push(one.record.key.to_vec());
    }
    back.reverse();
    assert_eq!(back, seen);
}

#[test]
fn a_damaged_block_is_an_error_only_while_no_archive_holds_the_live_record() {
    let place = place();
    let set = two(&place);
    let name = ArchiveId(1).to_string();
    place.dir.open(&name).unwrap().write_all_at(&[0xAA; 8], 96).unwrap();
    let keys: Vec<_> = text_model(300).into_keys().map(|(_, key)| key).collect();
    assert_eq!(find(&set, &keys[0]).unwrap(), Some(b"new".to_vec()));
    assert!(matches!(find(&set, &keys[1]), Err(Error::Corrupt(_))));
    assert!(find(&set, &keys[299]).unwrap().is_some());
}

#[test]
fn merged_archives_take_the_place_of_their_sources() {
    let place = place();
    let model = text_model(3);
    let entries: Vec<_> = (1..=5).map(|id| entry(&place, id, &model)).collect();
    let set = ArchiveSet::new(entries[..4].to_vec());
    let merged = set.replaced(&[ArchiveId(2), ArchiveId(3)], vec![Arc::clone(&entries[4])]);
    let ids: Vec<_> = merged.entries().iter().map(|entry| entry.archive.id().0).collect();
    assert_eq!(ids, [1, 5, 4]);
    assert!(merged.get(ArchiveId(3)).is_none() && set.get(ArchiveId(3)).is_some());
    assert!(merged.anonymous_len() > 0);
}

#[test]
fn many_threads_read_one_archive_at_once() {
    let place = place();
    let model = text_model(2000);
    let archive = archive_of(&place, &model);
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (archive, model) = (&archive, &model);
            scope.spawn(move || {
                for ((incarnation, key), (_, _, value)) in model.iter().skip(start).step_by(3) {
                    assert_eq!(get(archive, *incarnation, key).unwrap().as_ref(), Some(value));
                }
            });
        }
    });
}
