//! What moves, in order of its keys: what a walk reads together lies together then.
//! Knows items and the keys of their records; knows nothing of why they move, or where to.

use crate::format::block::put_sort_key;
use crate::ids::Incarnation;
use crate::tiering::switch::Item;
use crate::tiers::Tiers;
use crate::warm::index::leaf::common_len;
use crate::warm::table::SegmentTable;

/// The key of an item's record, unchecked: whoever copies the record finds what is damaged.
fn key_of<'t>(table: &'t SegmentTable, item: &Item) -> Option<(Incarnation, &'t [u8])> {
    table.of(item.from)?.peek_key(u64::from(item.from.offset))
}

/// Eight bytes of a sort key from `from` on, zeros where it ends.
fn eight_bytes(key: &[u8], from: usize) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(key.get(from..).unwrap_or(&[])) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

impl Tiers {
    /// Sorts items by incarnation and key: by eight bytes behind what all keys share, and only
    /// where these tie by the records themselves.
    pub(crate) fn sort_items(&self, items: &mut Vec<Item>) {
        let table = self.segments.load_full();
        let (mut key, mut shared) = (Vec::new(), None::<Vec<u8>>);
        let read = |item: &Item, key: &mut Vec<u8>| {
            key.clear();
            if let Some((incarnation, bytes)) = key_of(&table, item) {
                put_sort_key(key, incarnation, bytes);
            }
        };
        for item in items.iter() {
            read(item, &mut key);
            match &mut shared {
                Some(shared) => shared.truncate(common_len(shared, &key)),
                None => shared = Some(key.clone()),
            }
        }
        let from = shared.map_or(0, |shared| shared.len());
        let ranked = items.iter().map(|item| {
            read(item, &mut key);
            (eight_bytes(&key, from), *item)
        });
        let mut ranked: Vec<(u64, Item)> = ranked.collect();
        ranked.sort_unstable_by(|(a, one), (b, other)| {
            a.cmp(b).then_with(|| key_of(&table, one).cmp(&key_of(&table, other)))
        });
        items.clear();
        items.extend(ranked.into_iter().map(|(_, item)| item));
    }
}

#[cfg(test)]
mod tests {
    use crate::format::segment::SegmentKind;
    use crate::options::Options;
    use crate::warm::active::walk_records;

    #[test]
    fn what_survives_cleaning_lies_in_order_of_its_keys() {
        let db = Options::new().temporary().unwrap();
        let names = ["first", "second"].map(|name| db.keyspace(name).unwrap());
        let key = |number: u32| match number % 3 {
            0 => format!("a key that begins like many others {:05}", number * 7919 % 9973),
            1 => format!("{}", number * 7919 % 9973),
            _ => "k".repeat(usize::try_from(number % 40).unwrap()),
        };
        for number in 0..6000 {
            names[usize::try_from(number % 2).unwrap()].put(key(number), "value").unwrap();
        }
        for number in (0..6000).filter(|number| number % 5 < 2) {
            names[usize::try_from(number % 2).unwrap()].delete(key(number)).unwrap();
        }
        let kept: Vec<_> = names.iter().map(|name| name.len().unwrap()).collect();
        db.compact().unwrap();
        let mut sorted = 0;
        for segment in names[0].tiers().segments.load().iter() {
            if segment.kind != SegmentKind::Survivor {
                continue;
            }
            let mut last = None;
            walk_records(segment, segment.records_end(), |_, record| {
                let next = Some((record.header.incarnation, record.key.to_vec()));
                assert!(next > last, "{next:?} behind {last:?}");
                last = next;
                sorted += 1;
                Ok(())
            })
            .unwrap();
        }
        assert!(sorted > 500, "only {sorted} records survived");
        assert_eq!(kept, names.each_ref().map(|name| name.len().unwrap()));
    }
}
