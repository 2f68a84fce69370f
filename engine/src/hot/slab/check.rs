//! What holds of the slabs of a shard at every moment, and a model test of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

impl Slabs {
    /// Walks every slab: blocks end where the next begins, no two neighbours are vacant, lists
    /// hold the vacant blocks and nothing else, and each sum is what it claims.
    pub(crate) fn validate(&self, places: &BTreeSet<u32>) {
        let (mut vacant, mut used, mut mapped) = (0, 0, 0);
        for (index, slab) in self.maps.iter().enumerate() {
            let Some(slab) = slab else { continue };
            mapped += slab.map.charged_len() as u64;
            let base = to_u32(index + 1) << OFFSET_BITS;
            let (mut at, mut was_vacant, mut slab_used) = (0, false, 0);
            let end = if slab.single { self.units_at(base) } else { self.slab_len / UNIT };
            while at < end {
                let place = base + to_u32(at);
                let word = self.word(place, 0);
                if word & VACANT == 0 {
                    let flag = self.first_word(place) & AFTER_VACANT != 0;
                    assert_eq!(flag, was_vacant, "flag of the block at {place:#x}");
                    assert!(places.contains(&place), "nobody knows the record at {place:#x}");
                    was_vacant = false;
                    slab_used += self.units_at(place);
                    at += self.units_at(place);
                } else {
                    assert!(!was_vacant, "two neighbours are vacant at {place:#x}");
                    was_vacant = true;
                    vacant += 1;
                    at += vacant_len(word);
                }
            }
            assert_eq!((at, slab_used), (end, slab.used));
            used += (slab_used * UNIT) as u64;
        }
        assert_eq!((used, mapped), (self.used, self.mapped));
        let mut listed = 0;
        for (list, &head) in self.heads.iter().enumerate() {
            assert_eq!(self.filled >> list & 1 == 1, head != 0);
            let mut place = head;
            while place != 0 {
                assert_eq!(list_of(vacant_len(self.word(place, 0))), list);
                listed += 1;
                place = self.word(place, 4);
            }
        }
        assert_eq!(listed, vacant);
    }
}

fn value_of(number: u32, len: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

proptest! {
    #[test]
    fn records_stay_as_they_were_written_and_no_byte_is_lost(
        ops in proptest::collection::vec((0_u8..8, 0_usize..1500, any::<u16>()), 1..400)
    ) {
        let mut slabs = Slabs::new(16 << 10);
        let mut records: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        for (number, (op, len, pick)) in (0_u32..).zip(ops) {
            let picked = records.keys().nth(usize::from(pick) % records.len().max(1)).copied();
            match (op, picked) {
                (0..=3, _) => {
                    let len = if op == 0 { len * 12 } else { len };
                    let units = units(4, len);
                    let place = if slabs.is_single(units) {
                        slabs.map_single(units).unwrap()
                    } else if let Some(place) = slabs.allocate(units) {
                        place
                    } else {
                        slabs.map_slab().unwrap();
                        slabs.allocate(units).unwrap()
                    };
                    let (key, value) = (number.to_le_bytes(), value_of(number, len));
                    let record = HotRecord { value: &value, seq: Seq(7), deadline_ms: 9 };
                    slabs.write(place, Incarnation(3), &key, &record);
                    prop_assert!(records.insert(place, (number, len)).is_none());
                }
                (4..=6, Some(place)) => {
                    slabs.free(place);
                    records.remove(&place);
                }
                (_, Some(_)) => {
                    if let Some((index, places)) = slabs.emptiest() {
                        slabs.withhold(index);
                        let mut left = Vec::new();
                        for place in places {
                            match slabs.relocate(place) {
                                Some(to) => {
                                    let record = records.remove(&place).unwrap();
                                    records.insert(to, record);
                                }
                                None => left.push(place),
                            }
                        }
                        prop_assert_eq!(slabs.finish(index, &left), left.is_empty());
                    }
                }
                _ => {}
            }
            slabs.validate(&records.keys().copied().collect());
        }
        for (&place, &(number, len)) in &records {
            let stored = slabs.record(place);
            let same = slabs.is(place, Incarnation(3), &number.to_le_bytes());
            prop_assert!(same && stored.record.value == value_of(number, len));
            prop_assert_eq!((stored.record.seq, stored.record.deadline_ms), (Seq(7), 9));
        }
    }
}
