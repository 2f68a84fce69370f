//! A moment stays as it was: snapshots and iterators against maps copied at their making, while
//! records are overwritten, deleted, expired, cleared, cleaned, demoted and merged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{
    Db, DemotePolicy, Error, Iter, Key, Keyspace, KeyspaceOptions, PutOptions, Result, Snapshot,
    SnapshotOptions, Value, WatchKind,
};
use terrace_tests::random::Random;

use crate::{assert_exact, open_sim, settle};

const START_MS: u64 = 1_700_000_000_000;
const KEYS: u64 = 400;
const NAMES: [&str; 2] = ["ordered", "unordered"];

/// What a key holds, and its deadline.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

struct Held {
    snapshot: Snapshot,
    models: [Model; 2],
}

struct Walker {
    iter: Iter,
    model: Model,
    front: bool,
}

struct World {
    random: Random,
    time: Arc<ManualTime>,
    now: u64,
    db: Db,
    spaces: [Keyspace; 2],
    models: [Model; 2],
    held: Vec<Held>,
    walkers: Vec<Walker>,
}

fn key(number: u64) -> Vec<u8> {
    // Some keys are starts of others, some differ behind a long common start only.
    match number % 4 {
        0 => vec![b'k'; usize::try_from(number / 4).unwrap()],
        1 => format!("common/start/of/many/keys/{number:06}").into_bytes(),
        2 => number.to_be_bytes().to_vec(),
        _ => format!("{:x}", number * 2_654_435_761).into_bytes(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let (disk, time) = (SimVfs::new(seed), Arc::new(ManualTime::new(START_MS)));
        let db = open_sim(&disk, &time).unwrap();
        let spaces = [
            db.keyspace(NAMES[0]).unwrap(),
            db.keyspace_with(NAMES[1], KeyspaceOptions::new().unordered()).unwrap(),
        ];
        Self {
            random: Random::new(seed),
            time,
            now: START_MS,
            db,
            spaces,
            models: Default::default(),
            held: Vec::new(),
            walkers: Vec::new(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = self.random.within(1..9000);
        let mut value = self.random.bytes(8);
        value.resize(len, b'v');
        value
    }

    fn live(&self, model: &Model) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let alive = |deadline: u64| deadline == 0 || deadline > self.now;
        let live = model.iter().filter(|(_, (_, deadline))| alive(*deadline));
        live.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    fn step(&mut self) {
        let space = self.random.within(0..2);
        let number = self.random.below(KEYS);
        match self.random.below(100) {
            0..45 => {
                let value = self.value();
                self.spaces[space].put(key(number), &value).unwrap();
                self.models[space].insert(key(number), (value, 0));
            }
            45..50 => {
                let (value, ttl) = (self.value(), self.random.below(60_000) + 1);
                let options = PutOptions::new().ttl(Duration::from_millis(ttl));
                self.spaces[space].put_with(key(number), &value, options).unwrap();
                self.models[space].insert(key(number), (value, self.now + ttl));
            }
            50..60 => {
                self.spaces[space].delete(key(number)).unwrap();
                self.models[space].remove(&key(number));
            }
            60..65 => self.batch(),
            65..70 => {
                let elapsed = self.random.below(9000);
                self.now += elapsed;
                self.time.advance(Duration::from_millis(elapsed));
            }
            70..85 => {
                for _ in 0..self.random.below(8) {
                    self.db.step().unwrap();
                }
            }
            85 if self.random.chance(50) => self.db.compact().unwrap(),
            85 => drop(self.db.demote(&self.spaces[space], DemotePolicy::Unread).unwrap()),
            86 if self.random.chance(20) => {
                self.spaces[space].clear().unwrap();
                self.models[space].clear();
            }
            87..90 if self.held.len() < 4 => {
                let snapshot = self.db.snapshot();
                self.held.push(Held { snapshot, models: self.models.clone() });
            }
            90..92 if !self.held.is_empty() => {
                let at = self.random.within(0..self.held.len());
                self.check_held(at);
                self.held.swap_remove(at);
            }
            92..95 if self.walkers.len() < 4 => {
                let (iter, model) = (self.spaces[space].iter(), self.models[space].clone());
                self.walkers.push(Walker { iter, model, front: false });
            }
            _ => self.walk(),
        }
    }

    fn batch(&mut self) {
        let mut batch = self.db.batch();
        for _ in 0..self.random.within(1..12) {
            let (space, number) = (self.random.within(0..2), self.random.below(KEYS));
            if self.random.chance(30) {
                batch.delete(&self.spaces[space], key(number));
                self.models[space].remove(&key(number));
            } else {
                let value = self.value();
                batch.put(&self.spaces[space], key(number), &value);
                self.models[space].insert(key(number), (value, 0));
            }
        }
        batch.commit().unwrap();
    }

    /// Takes some records from either end of an iterator and looks each up in its model.
    fn walk(&mut self) {
        let now = self.now;
        let Some(walker) = self.walkers.first_mut() else { return };
        for _ in 0..self.random.below(20) {
            walker.front = self.random.chance(50);
            let end = walker.front;
            let next = if end { walker.iter.next() } else { walker.iter.next_back() };
            let given = next.map(|item| item.unwrap());
            // What expired was not given, and goes from the model on the way.
            let (key, (value, _)) = loop {
                let expected = if end { walker.model.pop_first() } else { walker.model.pop_last() };
                let Some(expected) = expected else {
                    assert!(given.is_none(), "a record that the model does not have: {given:?}");
                    self.walkers.remove(0);
                    return;
                };
                let deadline = expected.1.1;
                if deadline == 0 || deadline > now {
                    break expected;
                }
            };
            let given = given.unwrap_or_else(|| panic!("{:?} is missing", key.escape_ascii()));
            assert_eq!(key.escape_ascii().to_string(), given.0.escape_ascii().to_string());
            assert!(value == *given.1, "the value of {}", key.escape_ascii());
        }
    }

    fn check_held(&self, at: usize) {
        let held = &self.held[at];
        for (space, model) in self.spaces.iter().zip(&held.models) {
            let live = self.live(model);
            for number in 0..KEYS {
                let found = held.snapshot.get(space, key(number)).unwrap();
                let expected = live.get(&key(number));
                assert!(found.as_deref() == expected.map(|v| &v[..]), "key {number} at {at}");
            }
            let forward: Vec<_> = held.snapshot.iter(space).map(Result::unwrap).collect();
            same(&forward, &live);
            let mut backward: Vec<_> =
                held.snapshot.iter(space).rev().map(Result::unwrap).collect();
            backward.reverse();
            same(&backward, &live);
            let keys: Vec<_> =
                held.snapshot.keys::<&[u8]>(space, ..).map(|key| key.unwrap().to_vec()).collect();
            assert!(keys.iter().eq(live.keys()), "keys alone");
        }
    }

    fn check_now(&mut self) {
        let snapshot = self.db.snapshot();
        self.held.push(Held { snapshot, models: self.models.clone() });
        self.check_held(self.held.len() - 1);
        self.held.pop();
        assert_exact(&self.db);
    }
}

fn same(found: &[(terrace::Key, terrace::Value)], expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let found_keys: Vec<_> = found.iter().map(|(key, _)| key.escape_ascii().to_string()).collect();
    let keys: Vec<_> = expected.keys().map(|key| key.escape_ascii().to_string()).collect();
    assert_eq!(found_keys, keys);
    assert!(found.iter().zip(expected.values()).all(|((_, found), value)| **found == **value));
}

fn run(seed: u64, steps: u64) {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step();
        if step % 500 == 499 {
            world.check_now();
        }
    }
    while !world.held.is_empty() {
        world.check_held(0);
        world.held.swap_remove(0);
    }
    world.walkers.clear();
    settle(&world.db);
    let stats = world.db.stats();
    assert_eq!((stats.kept_versions, stats.pinned_bytes), (0, 0), "nothing is kept for nobody");
    assert!(stats.archives_merged > 0 && stats.segments_cleaned > 0, "{stats:?}");
    world.check_now();
}

#[test]
fn snapshots_and_iterators_stay_as_they_were_whatever_moves() {
    let seed = Random::from_environment(1).seed();
    for seed in seed..seed + 3 {
        run(seed, 2500);
    }
}

#[test]
fn a_snapshot_beyond_its_age_or_its_share_is_ended_and_says_so() {
    let (disk, time) = (SimVfs::new(3), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("a", "old").unwrap();
    let aged =
        db.snapshot_with(SnapshotOptions::new().name("aged").max_age(Duration::from_mins(1)));
    let kept = db.snapshot();
    ks.put("a", "new").unwrap();
    time.advance(Duration::from_secs(61));
    db.step().unwrap();
    let answer = aged.get(&ks, "a");
    assert!(matches!(answer, Err(Error::SnapshotExpired { seq: 1 })), "{answer:?}");
    assert!(matches!(aged.iter(&ks).next(), Some(Err(Error::SnapshotExpired { .. }))));
    assert_eq!(kept.get(&ks, "a").unwrap().as_deref(), Some(&b"old"[..]));
    let holders = db.stats().holders;
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert!(holders[0].created_at.contains("moments.rs"), "{holders:?}");
    assert_eq!((holders[0].kept_versions, db.stats().kept_versions), (1, 1));
    // An eighth of 4 MiB holds some 8700 versions.
    for round in 0..2_u32 {
        for number in 0..20_000_u32 {
            ks.put(number.to_be_bytes(), round.to_be_bytes()).unwrap();
        }
    }
    let mark = db.snapshot();
    for number in 0..20_000_u32 {
        ks.put(number.to_be_bytes(), "x").unwrap();
    }
    assert!(matches!(mark.get(&ks, "a"), Err(Error::SnapshotExpired { .. })));
    settle(&db);
    assert_eq!(db.stats().kept_versions, 0);
}

#[test]
fn a_snapshot_does_not_stop_the_cleaning_of_what_it_does_not_see() {
    let (disk, time) = (SimVfs::new(4), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    let write = |round: u8| {
        for number in 0..100_u32 {
            ks.put(number.to_be_bytes(), vec![round; 10_000]).unwrap();
        }
        settle(&db);
    };
    write(0);
    let snapshot = db.snapshot();
    (1..20).for_each(write);
    let stats = db.stats();
    assert_eq!(stats.kept_versions, 100);
    assert!(stats.disk_bytes < 2 * 1_300_000 + (4 << 20), "{stats:?}");
    for number in 0..100_u32 {
        let value = snapshot.get(&ks, number.to_be_bytes()).unwrap();
        assert!(value.is_some_and(|value| value.iter().all(|byte| *byte == 0)));
    }
    drop(snapshot);
    write(20);
    settle(&db);
    let stats = db.stats();
    assert_eq!((stats.kept_versions, stats.pinned_bytes), (0, 0));
    assert!(stats.disk_bytes < 1_300_000 + (4 << 20), "{stats:?}");
    assert_exact(&db);
}

#[test]
fn a_watcher_that_falls_behind_is_told_where_the_changes_go_on() {
    let (disk, time) = (SimVfs::new(5), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    let mut watch = ks.watch("a");
    for number in 0..2000 {
        ks.put(format!("a{number:04}"), "v").unwrap();
        ks.put(format!("b{number:04}"), "v").unwrap();
    }
    let lag = watch.next_timeout(Duration::ZERO);
    let Err(Error::Lagged { first_available }) = lag else { panic!("{lag:?}") };
    let mut last = first_available - 1;
    while let Some(event) = watch.next_timeout(Duration::ZERO).unwrap() {
        assert!(event.seq > last && event.key.starts_with(b"a"), "{event:?}");
        assert_eq!(event.kind, WatchKind::Put);
        assert!(event.seq <= last + 2, "a change was left out before {event:?}");
        last = event.seq;
    }
    assert_eq!(last, db.last_seq() - 1);
    ks.clear().unwrap();
    let event = watch.next_timeout(Duration::ZERO).unwrap();
    assert_eq!(event.map(|event| event.kind), Some(WatchKind::Clear));
    ks.put("a", "after").unwrap();
    let event = watch.next_timeout(Duration::ZERO).unwrap();
    assert_eq!(event.map(|event| event.seq), Some(db.last_seq()));
}

#[test]
fn a_transaction_that_always_loses_is_a_conflict_and_writes_nothing() {
    let (disk, time) = (SimVfs::new(6), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let (read, written) = (db.keyspace("read").unwrap(), db.keyspace("written").unwrap());
    let mut runs = 0_u32;
    let result = db.transaction(|tx| {
        runs += 1;
        let range = tx.range(&read, "a".."z").collect::<terrace::Result<Vec<_>>>()?;
        // Somebody else puts a key into the range that was found without it.
        read.put(format!("k{runs}"), "v")?;
        tx.put(&written, "sum", range.len().to_string())
    });
    assert!(matches!(result, Err(Error::Conflict { attempts, .. }) if attempts == runs));
    assert_eq!(written.get("sum").unwrap(), None);
    // What was not walked over may change.
    db.transaction(|tx| {
        let first = tx.range(&read, "a".."z").next().transpose()?;
        read.put("zz", "v")?;
        read.put("k9999", "v")?;
        tx.put(&written, "first", first.map_or(Vec::new(), |(key, _)| key.to_vec()))
    })
    .unwrap();
    assert_eq!(written.get("first").unwrap().as_deref(), Some(&b"k1"[..]));
}

#[test]
fn what_was_deleted_before_a_walk_stays_away_when_its_tombstone_leaves_meanwhile() {
    let (disk, time) = (SimVfs::new(12), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let notes = db.keyspace("notes").unwrap();
    let mut random = Random::new(12);
    for number in 0..300 {
        notes.put(format!("m{number:03}"), random.bytes(500)).unwrap();
    }
    db.demote(&notes, DemotePolicy::All).unwrap();
    for number in 0..200 {
        notes.put(format!("a{number:03}"), "in the log").unwrap();
        notes.put(format!("z{number:03}"), "in the log").unwrap();
    }
    notes.delete("m000").unwrap();
    notes.delete("m299").unwrap();
    let (mut forward, mut backward) = (notes.iter(), notes.iter());
    let key = |item: Option<Result<(Key, Value)>>| item.unwrap().unwrap().0;
    assert_eq!(&*key(forward.next()), b"a000");
    assert_eq!(&*key(backward.next_back()), b"z199");
    // The log is cleaned, and of the archive two records are dead.
    db.compact().unwrap();
    let of_archive = |key: &Key| key.starts_with(b"m");
    let forward: Vec<_> = forward.map(|item| key(Some(item))).filter(of_archive).collect();
    let backward = backward.rev().map(|item| key(Some(item))).filter(of_archive);
    let mut backward: Vec<_> = backward.collect();
    backward.reverse();
    assert_eq!((forward.len(), &*forward[0], &*forward[297]), (298, &b"m001"[..], &b"m298"[..]));
    assert_eq!(forward, backward);
}

#[test]
fn a_walk_gives_each_record_once_where_few_new_records_lie_among_many_archived_ones() {
    let (disk, time) = (SimVfs::new(11), Arc::new(ManualTime::new(START_MS)));
    let db = open_sim(&disk, &time).unwrap();
    let notes = db.keyspace("notes").unwrap();
    let mut model = BTreeMap::new();
    let mut put = |notes: &Keyspace, number: u32, text: &str| {
        let key = number.to_be_bytes().to_vec();
        notes.put(&key, text).unwrap();
        model.insert(key, text.as_bytes().to_vec());
    };
    for number in 0..6000 {
        put(&notes, number, &"archived ".repeat(60));
    }
    settle(&db);
    assert!(db.stats().archives > 0, "most of them are archived");
    for number in (7..6000).step_by(8) {
        put(&notes, number, "new");
    }
    drop(notes);
    db.close().unwrap();
    // Opened anew, the order knows the new keys alone.
    let db = open_sim(&disk, &time).unwrap();
    let notes = db.keyspace("notes").unwrap();
    let forward: Vec<_> = notes.iter().map(Result::unwrap).collect();
    same(&forward, &model);
    let mut backward: Vec<_> = notes.iter().rev().map(Result::unwrap).collect();
    backward.reverse();
    same(&backward, &model);
}
