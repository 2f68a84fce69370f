//! C1, C3, C4, C6, C8: after any crash the state is a prefix of what was written, with everything
//! that was synced, whole batches, and nothing deleted come back.
//!
//! The process dies at a chosen effect on the simulated disk (a write, a sync, a create, an
//! unlink); the disk keeps a subset of what was not synced; the store is opened on it and compared
//! with every prefix of the operations. Then it goes on, and dies again.

use std::collections::BTreeMap;
use std::sync::Arc;

use terrace::testing::{ManualTime, SimVfs, Survivors};
use terrace::{Db, Durability, Options};
use terrace_tests::random::Random;

use crate::{SIM_PATH, assert_exact, tiny};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything that was begun, as the state after each operation, and how much of it was synced.
#[derive(Default)]
struct History {
    states: Vec<State>,
    synced: usize,
}

impl History {
    fn last(&self) -> State {
        self.states.last().cloned().unwrap_or_default()
    }
}

fn options(disk: &SimVfs, time: &Arc<ManualTime>) -> Options {
    let (disk, time) = (Arc::new(disk.clone()), time.clone());
    tiny().without_workers().file_system(disk).time(time)
}

/// Runs operations until the disk says that the process is dead.
fn run(db: &Db, disk: &SimVfs, random: &mut Random, history: &mut History, count: u32) {
    let Ok(ks) = db.keyspace("default") else { return };
    for _ in 0..count {
        let mut next = history.last();
        let key = |n: u64| format!("k{n:03}").into_bytes();
        let value = |random: &mut Random| {
            let len = random_len(random);
            random.bytes(len)
        };
        let done = match random.below(20) {
            0..=9 => {
                let (k, v) = (key(random.below(60)), value(random));
                next.insert(k.clone(), v.clone());
                history.states.push(next);
                ks.put(k, v)
            }
            10..=12 => {
                let k = key(random.below(60));
                next.remove(&k);
                history.states.push(next);
                ks.delete(k).map(|_| ())
            }
            13 | 14 => {
                let mut batch = db.batch();
                for _ in 0..random.below(6) + 2 {
                    let (k, v) = (key(random.below(60)), value(random));
                    next.insert(k.clone(), v.clone());
                    batch.put(&ks, k, v);
                }
                history.states.push(next);
                batch.commit_with(Durability::Buffered)
            }
            15 => {
                next.clear();
                history.states.push(next);
                ks.clear()
            }
            16 => db.sync().map(|()| {
                if !disk.is_dead() {
                    history.synced = history.states.len();
                }
            }),
            17 => db.compact(),
            _ => (0..3).try_for_each(|_| db.step().map(|_| ())),
        };
        // A store through a map cannot fail: death shows on the disk alone.
        if done.is_err() || disk.is_dead() {
            return;
        }
    }
}

fn random_len(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 1_200_000,
        1..=9 => 40_000 + random.within(0..60_000),
        _ => random.within(0..3000),
    }
}

/// The state that a store shows.
fn read(db: &Db) -> State {
    let ks = db.keyspace("default").unwrap();
    ks.iter().map(|item| item.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

/// One chain of generations: write, die, open, compare, go on.
fn chain(seed: u64, power: bool, generations: u32) {
    let mut random = Random::new(seed);
    let time = Arc::new(ManualTime::new(1_700_000_000_000));
    let mut disk = SimVfs::new(seed);
    let mut history = History::default();
    history.states.push(State::new());
    for generation in 0..generations {
        let at = disk.effects() + 1 + random.below(600);
        disk.die_at(at);
        if let Ok(db) = options(&disk, &time).open(SIM_PATH) {
            run(&db, &disk, &mut random, &mut history, 400);
            drop(db);
        }
        disk = if power {
            let survivors = match random.below(4) {
                0 => Survivors::None,
                1 => Survivors::All,
                2 => Survivors::Prefix(usize::try_from(random.below(40)).unwrap()),
                _ => Survivors::Random(random.bits()),
            };
            disk.crash(survivors)
        } else {
            disk.kill()
        };
        // C6: opening is killed as well, and begun again.
        for _ in 0..random.below(3) {
            disk.die_at(disk.effects() + 1 + random.below(30));
            drop(options(&disk, &time).open(SIM_PATH));
            disk = if power { disk.crash(Survivors::Random(random.bits())) } else { disk.kill() };
        }
        let db = options(&disk, &time).open(SIM_PATH).unwrap_or_else(|error| {
            panic!("seed {seed} generation {generation}: open: {error}");
        });
        let state = read(&db);
        let first = if power { history.synced } else { history.states.len() - 1 };
        let found = (first.saturating_sub(1)..history.states.len())
            .rev()
            .find(|&at| history.states[at] == state);
        // A kill may catch the last operation before or after it took effect.
        let found = found.or_else(|| {
            (!power && history.states.len() > 1)
                .then(|| history.states.len() - 2)
                .filter(|&at| history.states[at] == state)
        });
        let Some(found) = found else {
            panic!(
                "seed {seed} generation {generation}: {} keys are no prefix from {first} to {}",
                state.len(),
                history.states.len()
            );
        };
        assert_exact(&db);
        history.states = vec![history.states[found].clone()];
        history.synced = 1;
        db.sync().unwrap();
        drop(db);
    }
}

#[test]
fn after_a_killed_process_every_acknowledged_write_is_there() {
    let first = Random::from_environment(1).seed();
    (first..first + 40).for_each(|seed| chain(seed, false, 4));
    assert!(first > 0, "each seed was compared inside");
}

#[test]
fn after_a_power_cut_the_state_is_a_prefix_with_everything_synced() {
    let first = Random::from_environment(1001).seed();
    (first..first + 60).for_each(|seed| chain(seed, true, 4));
    assert!(first > 0, "each seed was compared inside");
}
