//! Walks and snapshots show the moment at which they were made, whatever is written, cleaned,
//! demoted, merged, cleared or expires while they are open: each item is compared with the model as
//! it was then, under a clock that the test sets. One thread, one seed, the same run each time.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{
    Change, Db, DemotePolicy, Iter, Keys, Keyspace, KeyspaceOptions, PutOptions, Snapshot,
};
use terrace_tests::model::{Model, ModelChange};
use terrace_tests::random::Random;

use crate::{START_MS, effort, open_sim};

const SPACES: [&str; 3] = ["ordered", "unordered", "expiring"];
/// The default time to live of the last of them.
const EXPIRING_MS: u64 = 30_000;
const OPEN_MAX: usize = 6;
/// Values from this number on are short: then the log is rewritten in order of its keys.
const SHORT: u64 = 1 << 32;

/// What the store holds for a value of the model, which is a number.
fn expand(value: &[u8]) -> Vec<u8> {
    let number = u64::from_le_bytes(value.try_into().unwrap());
    let mut random = Random::new(number);
    let len = random.within(0..if number < SHORT { 12_000 } else { 600 });
    let mut bytes = random.bytes(len / 2);
    bytes.resize(len, b'x');
    [value, &bytes[..]].concat()
}

/// Keys of many shapes: none, prefixes of each other, equal for long, with the outermost bytes.
fn keys(random: &mut Random) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
    keys.extend((0..80).map(|i| format!("user:{i:04}:name").into_bytes()));
    keys.extend((0..80).map(|i| format!("equal-for-the-first-thirty-bytes:{i}").into_bytes()));
    let alphabet = [0, 1, b'a', b'b', u8::MAX];
    keys.extend((0..160).map(|_| {
        let len = random.within(1..7);
        (0..len).map(|_| *random.pick(&alphabet).unwrap()).collect()
    }));
    keys.sort();
    keys.dedup();
    keys
}

enum Walking {
    Pairs(Iter),
    Keys(Keys),
}

/// A walk that is open, and what it must show.
struct OpenWalk {
    walking: Walking,
    model: Model,
    space: usize,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    given: usize,
}

impl OpenWalk {
    /// One item from one end; answers whether there was one.
    fn advance(&mut self, back: bool, now_ms: u64) -> bool {
        self.model.set_now(now_ms);
        let (from, to) = (self.from.clone(), self.to.clone());
        let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let left = self.model.range(SPACES[self.space], from, to);
        let expected = if back { left.last() } else { left.first() };
        let expected = expected.map(|(key, value)| (key.to_vec(), value.to_vec()));
        let text = |bound: Bound<&[u8]>| bound.map(|key| key.escape_ascii().to_string());
        let (from, to, seq) = (text(from), text(to), self.model.last_seq());
        let place = format!("item {}, {from:?} to {to:?}, seq {seq}, back: {back}", self.given);
        let found = match &mut self.walking {
            Walking::Pairs(iter) => {
                let item = if back { iter.next_back() } else { iter.next() };
                item.map(Result::unwrap).map(|(key, value)| (key.to_vec(), Some(value)))
            }
            Walking::Keys(keys) => {
                let item = if back { keys.next_back() } else { keys.next() };
                item.map(Result::unwrap).map(|key| (key.to_vec(), None))
            }
        };
        let found_key = found.as_ref().map(|(key, _)| key.escape_ascii().to_string());
        let expected_key = expected.as_ref().map(|(key, _)| key.escape_ascii().to_string());
        assert_eq!(found_key, expected_key, "{} {place}", SPACES[self.space]);
        let (Some((key, value)), Some((_, expected))) = (found, expected) else { return false };
        assert!(value.is_none_or(|value| *value == expand(&expected)), "value of {key:?}, {place}");
        self.given += 1;
        if back {
            self.to = Bound::Excluded(key);
        } else {
            self.from = Bound::Excluded(key);
        }
        true
    }
}

struct World {
    time: Arc<ManualTime>,
    db: Db,
    spaces: Vec<Keyspace>,
    model: Model,
    random: Random,
    keys: Vec<Vec<u8>>,
    walks: Vec<OpenWalk>,
    snapshots: Vec<(Snapshot, Model)>,
    values: u64,
    items: usize,
}

impl World {
    fn new(mut random: Random, first: u64) -> Self {
        let time = Arc::new(ManualTime::new(START_MS));
        let db = open_sim(&SimVfs::new(random.bits()), &time);
        let mut model = Model::new(START_MS);
        let ttl = KeyspaceOptions::new().default_ttl(Duration::from_millis(EXPIRING_MS));
        let options = [KeyspaceOptions::new(), KeyspaceOptions::new().unordered(), ttl];
        let ttl_ms = [None, None, Some(EXPIRING_MS)];
        for (name, ttl_ms) in SPACES.iter().zip(ttl_ms) {
            model.keyspace(name, ttl_ms);
        }
        let named = SPACES.iter().zip(options);
        let spaces = named.map(|(name, one)| db.keyspace_with(name, one).unwrap()).collect();
        let keys = keys(&mut random);
        let (walks, snapshots) = (Vec::new(), Vec::new());
        Self { time, db, spaces, model, random, keys, walks, snapshots, values: first, items: 0 }
    }

    fn key(&mut self) -> Vec<u8> {
        self.random.pick(&self.keys).unwrap().clone()
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        self.values.to_le_bytes().to_vec()
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0..430 => self.change(),
            430..440 => self.change_many(),
            440..480 => {
                let ms = self.random.below(4_000);
                self.time.advance(Duration::from_millis(ms));
                self.model.set_now(self.model.now_ms() + ms);
            }
            480..650 => drop(self.db.step().unwrap()),
            650 | 651 => self.db.compact().unwrap(),
            652 => drop(self.db.demote(&self.spaces[0], DemotePolicy::All).unwrap()),
            653..700 => self.open_walk(),
            700..930 => self.advance(),
            930..940 => {
                let at = self.random.within(0..self.walks.len());
                if at < self.walks.len() {
                    self.walks.swap_remove(at);
                }
            }
            940..950 => self.open_snapshot(),
            950..980 => self.read_snapshot(),
            980..983 => drop(self.snapshots.pop()),
            _ => self.look(),
        }
    }

    fn change(&mut self) {
        let space = self.random.within(0..SPACES.len());
        let (ks, name) = (self.spaces[space].clone(), SPACES[space]);
        let (key, value) = (self.key(), self.value());
        let ttl_ms = 1 + self.random.below(20_000);
        let ttl = Duration::from_millis(ttl_ms);
        match self.random.below(100) {
            0..50 => {
                ks.put(&key, expand(&value)).unwrap();
                self.model.put(name, &key, &value);
            }
            50..65 => {
                ks.put_with(&key, expand(&value), PutOptions::new().ttl(ttl)).unwrap();
                self.model.put_ttl(name, &key, &value, ttl_ms);
            }
            65..85 => {
                assert_eq!(ks.delete(&key).unwrap(), self.model.delete(name, &key), "delete");
            }
            85..90 => {
                let was = ks.touch(&key, ttl).unwrap();
                assert_eq!(was, self.model.touch(name, &key, ttl_ms), "touch");
            }
            _ => {
                let delete = self.random.chance(30);
                let change = if delete { Change::Delete } else { Change::Put(expand(&value)) };
                ks.update(&key, |_| change.clone()).unwrap();
                let change = if delete { ModelChange::Delete } else { ModelChange::Put(value) };
                self.model.update(name, &key, |_| change);
            }
        }
    }

    fn change_many(&mut self) {
        let space = self.random.within(0..SPACES.len());
        match self.random.below(20) {
            0 => {
                self.spaces[space].clear().unwrap();
                self.model.clear(SPACES[space]);
            }
            1..4 => {
                let mut prefix = self.key();
                prefix.truncate(self.random.within(1..9));
                let deleted = self.spaces[space].delete_prefix(&prefix).unwrap();
                let expected = self.model.delete_prefix(SPACES[space], &prefix);
                assert_eq!(usize::try_from(deleted).unwrap(), expected, "delete {prefix:?}");
            }
            _ => {
                let mut batch = self.db.batch();
                for _ in 0..self.random.within(1..30) {
                    let space = self.random.within(0..SPACES.len());
                    let (key, value) = (self.key(), self.value());
                    if self.random.chance(70) {
                        batch.put(&self.spaces[space], &key, expand(&value));
                        self.model.put(SPACES[space], &key, &value);
                    } else {
                        batch.delete(&self.spaces[space], &key);
                        self.model.delete(SPACES[space], &key);
                    }
                }
                batch.commit().unwrap();
            }
        }
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        let key = self.key();
        match self.random.below(3) {
            0 => Bound::Included(key),
            1 => Bound::Excluded(key),
            _ => Bound::Unbounded,
        }
    }

    fn open_walk(&mut self) {
        if self.walks.len() >= OPEN_MAX {
            self.walks.remove(0);
        }
        let space = self.random.within(0..SPACES.len());
        let ks = self.spaces[space].clone();
        let (from, to) = (self.bound(), self.bound());
        let (walking, from, to) = match self.random.below(5) {
            0 => (Walking::Pairs(ks.iter()), Bound::Unbounded, Bound::Unbounded),
            1 => {
                let mut prefix = self.key();
                prefix.truncate(self.random.within(0..9));
                let walking = Walking::Pairs(ks.prefix(&prefix));
                (walking, Bound::Included(prefix.clone()), prefix_end(prefix))
            }
            2 => (Walking::Keys(ks.keys((from.clone(), to.clone()))), from, to),
            _ => (Walking::Pairs(ks.range((from.clone(), to.clone()))), from, to),
        };
        let model = self.model.clone();
        self.walks.push(OpenWalk { walking, model, space, from, to, given: 0 });
    }

    fn advance(&mut self) {
        let at = self.random.within(0..self.walks.len());
        let most = if self.random.chance(10) { 1_000 } else { self.random.within(1..12) };
        let ends = self.random.below(3);
        let Some(walk) = self.walks.get_mut(at) else { return };
        for _ in 0..most {
            let back = ends == 1 || ends == 2 && self.random.chance(50);
            if !walk.advance(back, self.model.now_ms()) {
                // It stays at its end, from both sides.
                assert!(!walk.advance(!back, self.model.now_ms()));
                assert!(!walk.advance(back, self.model.now_ms()));
                self.walks.swap_remove(at);
                return;
            }
            self.items += 1;
        }
    }

    fn open_snapshot(&mut self) {
        if self.snapshots.len() >= OPEN_MAX / 2 {
            self.snapshots.remove(0);
        }
        let snapshot = self.db.snapshot();
        assert_eq!(snapshot.seq(), self.db.last_seq());
        self.snapshots.push((snapshot, self.model.clone()));
    }

    fn read_snapshot(&mut self) {
        let at = self.random.within(0..self.snapshots.len());
        let space = self.random.within(0..SPACES.len());
        let (key, from, to) = (self.key(), self.bound(), self.bound());
        let whole = self.random.chance(20);
        let Some((snapshot, model)) = self.snapshots.get_mut(at) else { return };
        model.set_now(self.model.now_ms());
        let (ks, name) = (&self.spaces[space], SPACES[space]);
        let found = snapshot.get(ks, &key).unwrap();
        assert_eq!(found.as_deref(), model.get(name, &key).map(expand).as_deref(), "{key:?}");
        let (from, to) = if whole { (Bound::Unbounded, Bound::Unbounded) } else { (from, to) };
        let walking = Walking::Pairs(snapshot.range(ks, (from.clone(), to.clone())));
        let model = model.clone();
        let mut walk = OpenWalk { walking, model, space, from, to, given: 0 };
        let back = self.random.chance(50);
        while walk.advance(back, self.model.now_ms()) {
            self.items += 1;
        }
    }

    /// The calls that walk within one call.
    fn look(&mut self) {
        let space = self.random.within(0..SPACES.len());
        let (ks, name) = (&self.spaces[space], SPACES[space]);
        let expected = self.model.range(name, Bound::Unbounded, Bound::Unbounded);
        let pair = |(key, value): &(&[u8], &[u8])| (key.to_vec(), expand(value));
        let end = |found: Option<(terrace::Key, terrace::Value)>| {
            found.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        assert_eq!(end(ks.first().unwrap()), expected.first().map(pair), "first of {name}");
        assert_eq!(end(ks.last().unwrap()), expected.last().map(pair), "last of {name}");
        assert_eq!(ks.len().unwrap(), expected.len() as u64, "len of {name}");
        let stop = self.random.within(0..expected.len() + 2);
        let mut scanned = Vec::new();
        let scan = |key: &[u8], value: &[u8]| {
            scanned.push((key.to_vec(), value.to_vec()));
            if scanned.len() >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        ks.scan_with::<&[u8]>(.., scan).unwrap();
        let some: Vec<_> = expected.iter().take(stop.max(1)).map(pair).collect();
        assert!(scanned == some, "scan of {name}: {} of {}", scanned.len(), some.len());
        let keys: Vec<_> = (0..5).map(|_| self.random.pick(&self.keys).unwrap().clone()).collect();
        for (key, value) in keys.iter().zip(ks.multi_get(&keys).unwrap()) {
            let expected = self.model.get(name, key).map(expand);
            assert_eq!(value.as_deref(), expected.as_deref(), "{key:?} of {name}");
        }
    }
}

fn prefix_end(mut prefix: Vec<u8>) -> Bound<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Bound::Excluded(prefix);
        }
    }
    Bound::Unbounded
}

#[test]
fn every_walk_and_snapshot_shows_its_moment_whatever_moves_meanwhile() {
    let mut random = Random::from_environment(51);
    let (mut cleaned, mut demoted, mut merged, mut gathered, mut items) = (0, 0, 0, 0, 0);
    for number in 0..3 * effort() {
        let first = if number % 3 == 2 { SHORT } else { 0 };
        let mut world = World::new(random.fork(), first);
        for _ in 0..6_000 {
            world.step();
        }
        while let Some(walk) = world.walks.last_mut() {
            if !walk.advance(false, world.model.now_ms()) {
                world.walks.pop();
            }
        }
        world.snapshots.clear();
        let audit = world.db.audit().unwrap();
        assert!(audit.is_exact(), "{audit:#?}");
        let stats = world.db.stats();
        cleaned += stats.segments_cleaned;
        demoted += stats.records_demoted;
        merged += stats.archives_merged;
        gathered += stats.records_gathered;
        items += world.items;
    }
    println!(
        "{items} items, cleaned {cleaned}, demoted {demoted}, merged {merged}, gathered {gathered}"
    );
    let least = [cleaned, demoted, merged, gathered].into_iter().min();
    assert!(least > Some(0), "nothing moved under the walks");
}
