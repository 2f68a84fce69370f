//! C2 and C5: whatever moves where, every answer is the model's. The same operations against the
//! store with tiny tiers and against a map, under a clock that the test sets, with reopenings that
//! map files or do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use terrace::testing::{ManualTime, SimVfs};
use terrace::{Change, Db, DemotePolicy, Keyspace, PutOptions};

use crate::{SIM_PATH, assert_exact, settle, sim_options};

const START_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
enum Op {
    Put(u16, u16),
    PutTtl(u16, u16, u32),
    Delete(u16),
    Update(u16),
    Touch(u16, u32),
    Batch(Vec<(u16, Option<u16>)>),
    Clear,
    Advance(u32),
    Step(u8),
    Compact,
    Demote(DemotePolicy),
    Reopen,
    Check,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0_u16..300;
    prop_oneof![
        12 => (key(), any::<u16>()).prop_map(|(k, v)| Op::Put(k, v)),
        4 => (key(), any::<u16>(), 1_u32..40_000).prop_map(|(k, v, t)| Op::PutTtl(k, v, t)),
        4 => key().prop_map(Op::Delete),
        2 => key().prop_map(Op::Update),
        1 => (key(), 1_u32..40_000).prop_map(|(k, t)| Op::Touch(k, t)),
        2 => proptest::collection::vec((key(), any::<Option<u16>>()), 1..20).prop_map(Op::Batch),
        1 => Just(Op::Clear),
        2 => (1_u32..20_000).prop_map(Op::Advance),
        4 => (1_u8..12).prop_map(Op::Step),
        1 => Just(Op::Compact),
        1 => prop_oneof![Just(DemotePolicy::All), Just(DemotePolicy::Unread)].prop_map(Op::Demote),
        1 => Just(Op::Reopen),
        1 => Just(Op::Check),
    ]
}

/// Long enough that a few hundred of them overflow the tiny tiers.
fn value(seed: u16) -> Vec<u8> {
    let len = 1000 + usize::from(seed) % 20_000;
    let mut state = u32::from(seed) | 1;
    let text = (0..len).map(|i| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if i % 3 == 0 { state.to_le_bytes()[0] } else { b'a' + state.to_le_bytes()[1] % 4 }
    });
    text.collect()
}

fn key(number: u16) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

struct World {
    disk: SimVfs,
    time: Arc<ManualTime>,
    now: u64,
    /// Whether the store maps files; every reopening changes it.
    mapped: bool,
    db: Option<Db>,
    ks: Option<Keyspace>,
    model: BTreeMap<u16, (Vec<u8>, u64)>,
}

impl World {
    fn new(mapped: bool) -> Self {
        let (disk, time) = (SimVfs::new(7), Arc::new(ManualTime::new(START_MS)));
        let model = BTreeMap::new();
        let mut world = Self { disk, time, now: START_MS, mapped, db: None, ks: None, model };
        world.open();
        world
    }

    fn open(&mut self) {
        let options = sim_options(&self.disk, &self.time).file_maps(self.mapped);
        let db = options.open(SIM_PATH).unwrap();
        self.ks = Some(db.keyspace("default").unwrap());
        self.db = Some(db);
    }

    fn ks(&self) -> &Keyspace {
        self.ks.as_ref().unwrap()
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn live(&self, number: u16) -> Option<&(Vec<u8>, u64)> {
        self.model.get(&number).filter(|(_, deadline)| *deadline == 0 || *deadline > self.now)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Put(k, v) => {
                self.ks().put(key(k), value(v)).unwrap();
                self.model.insert(k, (value(v), 0));
            }
            Op::PutTtl(k, v, ttl) => {
                let options = PutOptions::new().ttl(Duration::from_millis(ttl.into()));
                self.ks().put_with(key(k), value(v), options).unwrap();
                self.model.insert(k, (value(v), self.now + u64::from(ttl)));
            }
            Op::Delete(k) => {
                let was = self.ks().delete(key(k)).unwrap();
                assert_eq!(was, self.live(k).is_some(), "delete {k}");
                self.model.remove(&k);
            }
            Op::Update(k) => self.update(k),
            Op::Touch(k, ttl) => {
                let was = self.ks().touch(key(k), Duration::from_millis(ttl.into())).unwrap();
                assert_eq!(was, self.live(k).is_some());
                let deadline = self.now + u64::from(ttl);
                if was {
                    self.model.get_mut(&k).unwrap().1 = deadline;
                }
            }
            Op::Batch(changes) => self.batch(&changes),
            Op::Clear => {
                self.ks().clear().unwrap();
                self.model.clear();
            }
            Op::Advance(ms) => {
                self.time.advance(Duration::from_millis(ms.into()));
                self.now += u64::from(ms);
            }
            Op::Step(times) => (0..times).for_each(|_| {
                self.db().step().unwrap();
            }),
            Op::Compact => self.db().compact().unwrap(),
            Op::Demote(policy) => drop(self.db().demote(self.ks(), policy).unwrap()),
            Op::Reopen => {
                self.ks = None;
                self.db.take().unwrap().close().unwrap();
                self.mapped = !self.mapped;
                self.open();
            }
            Op::Check => self.check(),
        }
    }

    fn update(&mut self, k: u16) {
        let old = self.live(k).cloned();
        let made = self.ks().update(key(k), |found| {
            assert_eq!(found, old.as_ref().map(|(value, _)| &value[..]));
            match found {
                Some(value) if value.len() % 2 == 0 => Change::Delete,
                Some(value) => Change::Put([value, b"!"].concat()),
                None => Change::Put(b"new".to_vec()),
            }
        });
        match (made.unwrap(), old) {
            (Change::Delete, _) => {
                self.model.remove(&k);
            }
            (Change::Put(value), old) => {
                self.model.insert(k, (value, old.map_or(0, |(_, deadline)| deadline)));
            }
            (other, _) => panic!("unexpected {other:?}"),
        }
    }

    fn batch(&mut self, changes: &[(u16, Option<u16>)]) {
        let mut batch = self.db().batch();
        for (k, v) in changes {
            match v {
                Some(v) => batch.put(self.ks(), key(*k), value(*v)),
                None => batch.delete(self.ks(), key(*k)),
            }
        }
        batch.commit().unwrap();
        for (k, v) in changes {
            match v {
                Some(v) => self.model.insert(*k, (value(*v), 0)),
                None => self.model.remove(k),
            };
        }
    }

    fn check(&self) {
        for number in 0..300 {
            let found = self.ks().get(key(number)).unwrap();
            let expected = self.live(number).map(|(value, _)| &value[..]);
            assert_eq!(found.as_deref(), expected, "key {number}");
        }
        let walked: Vec<_> = self.ks().iter().map(|item| item.unwrap().0.to_vec()).collect();
        let live = self.model.keys().filter(|k| self.live(**k).is_some());
        assert_eq!(walked, live.map(|k| key(*k)).collect::<Vec<_>>());
        assert_exact(self.db());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models_whatever_moves(ops in proptest::collection::vec(op(), 1..400)) {
        let mut world = World::new(ops.len() % 2 == 0);
        for op in ops {
            world.run(op);
        }
        world.check();
        settle(world.db());
        world.check();
        world.run(Op::Reopen);
        world.check();
    }
}

#[test]
fn every_tier_answers_after_a_load_of_four_times_the_budgets() {
    load(true);
}

#[test]
fn without_maps_every_tier_answers_as_well() {
    load(false);
}

fn load(mapped: bool) {
    let mut world = World::new(mapped);
    for number in 0..3000_u16 {
        world.ks().put(key(number), value(number)).unwrap();
        settle(world.db());
    }
    let stats = world.db().stats();
    assert!(stats.archives > 0 && stats.cold_records > 1000, "{stats:#?}");
    for number in 0..3000_u16 {
        let found = world.ks().get(key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(number)[..]), "key {number}");
    }
    for _ in 0..4 {
        world.ks().get(key(1)).unwrap();
    }
    assert!(world.db().stats().hot_hits > 0, "a cold record that is touched twice becomes hot");
    assert_exact(world.db());
    world.run(Op::Reopen);
    for number in 0..3000_u16 {
        assert!(world.ks().get(key(number)).unwrap().is_some(), "key {number} after reopening");
    }
    assert!(world.db().verify(|_| ()).unwrap().is_sound());
}
