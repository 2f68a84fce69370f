//! The order against a sorted set, with keys that come, go, tie and collide.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// Keys by tag; tags collide on purpose.
#[derive(Default)]
struct Known(Mutex<BTreeMap<u32, BTreeSet<Vec<u8>>>>);

fn tag_of(key: &[u8]) -> u32 {
    crc32fast::hash(key) % 977
}

impl Known {
    fn add(&self, order: &OrderIndex, key: &[u8]) {
        if self.0.lock().entry(tag_of(key)).or_default().insert(key.to_vec()) {
            order.push(tag_of(key));
        }
    }

    fn remove(&self, key: &[u8]) {
        if let Some(keys) = self.0.lock().get_mut(&tag_of(key)) {
            keys.remove(key);
        }
    }

    fn all(&self) -> Vec<Vec<u8>> {
        let all: BTreeSet<_> = self.0.lock().values().flatten().cloned().collect();
        all.into_iter().collect()
    }
}

impl KeySource for Known {
    fn each_key(&self, tag: u32, each: &mut EachKey<'_>) {
        for key in self.0.lock().get(&tag).into_iter().flatten() {
            each(Some((key, Hint::NONE)));
        }
    }

    fn prefetch(&self, _tags: &[u32]) {}

    fn entered(&self) -> u32 {
        0
    }

    fn renew(&self, leaf: &mut Leaf, entered: u32) {
        leaf.renew(entered, |_| true);
    }
}

/// The keys that `tags` mean, inside the bounds, sorted.
fn resolve(known: &Known, tags: &[Tagged], from: &[u8], to: Option<&[u8]>) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for tagged in tags {
        known.each_key(tagged.tag, &mut |key| {
            let key = key.map_or(&[][..], |(key, _)| key);
            if key >= from && to.is_none_or(|to| key < to) {
                keys.insert(key.to_vec());
            }
        });
    }
    keys
}

fn forward(order: &OrderIndex, known: &Known, from: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut at = from.to_vec();
    loop {
        let mut tags = Vec::new();
        let end = order.tags_from(&at, 1 + keys.len() % 3, 2, &mut tags);
        keys.extend(resolve(known, &tags, &at, end.as_deref()));
        let Some(end) = end else { return keys };
        at = end.to_vec();
    }
}

fn backward(order: &OrderIndex, known: &Known, to: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut at = to.map(<[u8]>::to_vec);
    loop {
        let mut tags = Vec::new();
        let start = order.tags_before(at.as_deref().unwrap_or(&[u8::MAX; 16]), &mut tags);
        let from = start.as_deref().unwrap_or(&[]);
        let piece = resolve(known, &tags, from, at.as_deref());
        keys.extend(piece.into_iter().rev());
        let Some(start) = start else { return keys };
        at = Some(start.to_vec());
    }
}

fn check(order: &OrderIndex, known: &Known, seek: &[u8]) {
    let all = known.all();
    assert_eq!(forward(order, known, &[]), all);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(backward(order, known, None), reversed);
    let from = all.partition_point(|key| key.as_slice() < seek);
    assert_eq!(forward(order, known, seek), all[from..]);
    let below: Vec<_> = all[..from].iter().rev().cloned().collect();
    assert_eq!(backward(order, known, Some(seek)), below);
    let tree = order.tree.read();
    let charged: usize = tree
        .leaves
        .iter()
        .map(|(f, leaf)| leaf.charged_len() + f.charged_len() + LEAF_OVERHEAD)
        .sum();
    assert_eq!(order.charged.load(Ordering::Relaxed), charged as u64);
    let entries: usize = tree.leaves.iter().map(|(_, leaf)| leaf.entries().len()).sum();
    assert_eq!(order.entry_count(), entries as u64);
    assert!(tree.leaves.iter().all(|(_, leaf)| leaf.entries().len() <= LEAF_LEN_MAX));
    let nexts = tree.leaves.iter().skip(1).map(|(next, _)| Some(&**next)).chain([None]);
    for ((fence, leaf), next) in tree.leaves.iter().zip(nexts) {
        assert!(is_in_order(known, leaf, |key| **fence <= *key && next.is_none_or(|n| key < n)));
    }
}

/// Whether the keys of a leaf stand in order, as far as tags tell which key stands where.
fn is_in_order(known: &Known, leaf: &Leaf, is_inside: impl Fn(&[u8]) -> bool) -> bool {
    let (known, entries) = (known.0.lock(), leaf.entries());
    let stands_once = |tag| entries.iter().filter(|entry| entry.tag == tag).count() == 1;
    let tags = entries.iter().map(|entry| entry.tag).filter(|&tag| stands_once(tag));
    let keys = tags.filter_map(|tag| known.get(&tag).filter(|keys| keys.len() == 1)?.first());
    keys.filter(|key| is_inside(key)).is_sorted()
}

#[test]
fn a_key_that_comes_back_stands_in_order_among_keys_that_tie_with_it() {
    let (order, known) = (OrderIndex::default(), Known::default());
    let (before, after) = (b"abb", b"abb\0");
    known.add(&order, after);
    order.merge_all(&known);
    known.remove(after);
    known.add(&order, before);
    order.merge_all(&known);
    known.add(&order, after);
    order.merge_all(&known);
    let mut tags = Vec::new();
    order.tags_from(b"", 1, 0, &mut tags);
    let tags: Vec<_> = tags.iter().map(|tagged| tagged.tag).collect();
    assert_eq!(tags, [tag_of(before), tag_of(after)]);
}

#[test]
fn keys_in_order_of_arrival_fill_leaves_and_take_few_bytes() {
    let (order, known) = (OrderIndex::default(), Known::default());
    for number in 0..20_000_u32 {
        let key = format!("user{number:020}");
        known.0.lock().entry(number).or_default().insert(key.into_bytes());
        order.push(number);
        if number % 1000 == 0 {
            order.merge_all(&known);
        }
    }
    order.merge_all(&known);
    assert_eq!(forward(&order, &known, b"user").len(), 20_000);
    let each = order.charged_len() / 20_000;
    assert!(each <= 17, "{each} bytes a key");
}

#[test]
fn a_walk_over_everything_deleted_but_a_few_leaves_few_leaves() {
    let (order, known) = (OrderIndex::default(), Known::default());
    let keys: Vec<_> =
        (0..5000_u32).map(|n| crc32fast::hash(&n.to_le_bytes()).to_be_bytes()).collect();
    for key in &keys {
        known.add(&order, key);
    }
    order.merge_all(&known);
    let before = order.charged_len();
    for key in keys.iter().skip(100) {
        known.remove(key);
    }
    let mut at: Option<Fence> = Some(Fence::default());
    while let Some(from) = at {
        at = order.sweep(&from, 16, &known);
    }
    check(&order, &known, &keys[7]);
    assert!(order.charged_len() < before / 10, "{} of {before}", order.charged_len());
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<u8>),
    Remove(usize),
    Merge,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let word = proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()], 0..12);
    let long = (0_u32..3000).prop_map(|n| format!("a-long-shared-start/{n:05}").into_bytes());
    prop_oneof![
        4 => word.prop_map(Step::Add),
        20 => long.prop_map(Step::Add),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Merge),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_order_holds_every_key_once(
        steps in proptest::collection::vec(step(), 1..600),
        seek in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let (order, known) = (OrderIndex::default(), Known::default());
        for step in steps {
            match step {
                Step::Add(key) => known.add(&order, &key),
                Step::Remove(at) => {
                    let all = known.all();
                    if let Some(key) = all.get(at % all.len().max(1)) {
                        known.remove(key);
                    }
                }
                Step::Merge => order.merge(MERGE_PIECE, &known),
                Step::Sweep => {
                    order.sweep(&[], 4, &known);
                }
            }
        }
        order.merge_all(&known);
        check(&order, &known, &seek);
        check(&order, &known, b"a-long-shared-start/01500");
    }
}
