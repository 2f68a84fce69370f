//! Operations spelled by bytes: against the model of a map, and with crashes between them.
//! What a fuzzer calls, and what a test calls on every seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs, Survivors};
use terrace::{Db, Durability, Error, Keyspace, Options, PutOptions, Result};

const HOME: &str = "/store";
const NOW_MS: u64 = 1_700_000_000_000;
/// Operations of one input.
const COUNT_MAX: usize = 300;

/// Key to value and deadline.
type State = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// Bytes as choices; zeros when they are used up.
struct Choices<'d> {
    rest: &'d [u8],
}

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((&first, rest)) => {
                self.rest = rest;
                first
            }
            None => 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let byte = self.next();
        vec![b'k'; usize::from(byte % 3)].into_iter().chain([byte % 16]).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let (byte, fill) = (self.next(), self.next());
        let len = match byte % 16 {
            0 => 1_100_000,
            1 | 2 => 70_000 + usize::from(fill) * 100,
            3..=6 => 3000 + usize::from(fill),
            _ => usize::from(byte),
        };
        vec![fill; len]
    }
}

fn options(disk: &SimVfs, time: &Arc<ManualTime>) -> Options {
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let options = options.segment_size(1 << 20).without_workers();
    options.file_system(Arc::new(disk.clone())).time(Arc::clone(time) as _)
}

/// One store, its clock, and what it must say.
struct Run {
    disk: SimVfs,
    time: Arc<ManualTime>,
    now_ms: u64,
    state: State,
}

impl Run {
    fn new() -> Self {
        let time = Arc::new(ManualTime::new(NOW_MS));
        Self { disk: SimVfs::new(7), time, now_ms: NOW_MS, state: State::new() }
    }

    fn expire(&mut self) {
        let now = self.now_ms;
        self.state.retain(|_, (_, deadline)| deadline.is_none_or(|deadline| deadline > now));
    }

    /// Does one operation; the state follows before the store is asked.
    fn operation(&mut self, db: &Db, ks: &Keyspace, choices: &mut Choices<'_>) -> Result<()> {
        match choices.next() % 16 {
            0..=4 => {
                let (key, value) = (choices.key(), choices.value());
                self.state.insert(key.clone(), (value.clone(), None));
                ks.put(key, value)
            }
            5 => {
                let (key, value) = (choices.key(), choices.value());
                let ttl_ms = 1 + u64::from(choices.next()) * 40;
                let deadline = self.now_ms + ttl_ms;
                self.state.insert(key.clone(), (value.clone(), Some(deadline)));
                ks.put_with(key, value, PutOptions::new().ttl(Duration::from_millis(ttl_ms)))
            }
            6 | 7 => {
                let key = choices.key();
                self.state.remove(&key);
                ks.delete(key).map(drop)
            }
            8 => {
                let mut batch = db.batch();
                for _ in 0..choices.next() % 5 + 2 {
                    let (key, value) = (choices.key(), choices.value());
                    self.state.insert(key.clone(), (value.clone(), None));
                    batch.put(ks, key, value);
                }
                batch.commit_with(Durability::Buffered)
            }
            9 => {
                self.state.clear();
                ks.clear()
            }
            10 => {
                let ms = u64::from(choices.next()) * 50;
                self.now_ms += ms;
                self.time.advance(Duration::from_millis(ms));
                self.expire();
                Ok(())
            }
            11 => db.compact(),
            12 => db.archive_all(),
            13 => db.sync(),
            _ => (0..4).try_for_each(|_| db.step().map(drop)),
        }
    }

    fn compare(&mut self, ks: &Keyspace) {
        self.expire();
        let found: Vec<_> =
            ks.iter().map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect();
        let found: Result<Vec<_>> = found.into_iter().collect();
        let expected = self.state.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
        assert!(found.is_ok_and(|found| found.into_iter().eq(expected)), "a walk");
        for byte in 0..16 {
            let key = vec![byte];
            let value = ks.get(&key).map(|value| value.map(|value| value.to_vec()));
            let expected = self.state.get(&key).map(|(value, _)| value.clone());
            assert!(value.is_ok_and(|value| value == expected), "key {byte}");
        }
    }
}

fn must<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Every answer is the model's, whatever moves; the store audits, verifies, and opens again.
pub fn operations(data: &[u8]) {
    let mut choices = Choices { rest: data };
    let mut run = Run::new();
    let mut db = must(options(&run.disk, &run.time).open(HOME));
    let mut ks = must(db.keyspace("default"));
    for round in 0..COUNT_MAX {
        if choices.rest.is_empty() {
            break;
        }
        must(run.operation(&db, &ks, &mut choices));
        if round % 16 == 15 {
            run.compare(&ks);
        }
        if round % 64 == 63 {
            drop(ks);
            must(db.close());
            // Every other life of the store maps no file.
            let mapped = round % 128 != 63;
            db = must(options(&run.disk, &run.time).file_maps(mapped).open(HOME));
            ks = must(db.keyspace("default"));
        }
    }
    run.compare(&ks);
    let verified = must(db.verify(|_| ()));
    assert!(verified.is_sound(), "{:?}", verified.damage);
    let audit = must(db.audit());
    assert!(audit.is_exact(), "{audit:?}");
}

/// After each crash the state is one that held since the last sync.
pub fn crashes(data: &[u8]) {
    let mut choices = Choices { rest: data };
    let mut run = Run::new();
    for _ in 0..6 {
        if choices.rest.is_empty() {
            break;
        }
        run.disk.die_at(u64::from(choices.next()) * 3 + 1);
        let (states, synced) = live(&mut run, &mut choices);
        let survivors = match choices.next() % 4 {
            0 => Survivors::None,
            1 => Survivors::All,
            2 => Survivors::Prefix(usize::from(choices.next())),
            _ => Survivors::Random(u64::from(choices.next())),
        };
        run.disk = run.disk.crash(survivors);
        run.disk.die_at(u64::from(choices.next()) + 1);
        drop(options(&run.disk, &run.time).open(HOME));
        run.disk = run.disk.crash(Survivors::Random(u64::from(choices.next())));
        let db = must(options(&run.disk, &run.time).open(HOME));
        let ks = must(db.keyspace("default"));
        let found: Result<Vec<_>> = ks.iter().collect();
        let found: Vec<_> = must(found);
        let held =
            states.iter().skip(synced).rev().find(|state| is_shown(state, &found, run.now_ms));
        let Some(held) = held else { panic!("{} keys are no prefix", found.len()) };
        run.state = held.clone();
        let audit = must(db.audit());
        assert!(audit.is_exact(), "{audit:?}");
        must(db.sync());
    }
}

fn is_shown(state: &State, found: &[(terrace::Key, terrace::Value)], now_ms: u64) -> bool {
    let alive = state.iter().filter(|(_, (_, deadline))| deadline.is_none_or(|at| at > now_ms));
    alive
        .map(|(key, (value, _))| (&key[..], &value[..]))
        .eq(found.iter().map(|(key, value)| (&key[..], &value[..])))
}

/// Runs until the process dies; all states since the opening, and which was synced last.
fn live(run: &mut Run, choices: &mut Choices<'_>) -> (Vec<State>, usize) {
    let mut states = vec![run.state.clone()];
    let mut synced = 0;
    let Ok(db) = options(&run.disk, &run.time).open(HOME) else { return (states, synced) };
    let Ok(ks) = db.keyspace("default") else { return (states, synced) };
    for _ in 0..COUNT_MAX {
        if choices.rest.is_empty() {
            break;
        }
        let before = run.state.clone();
        let done = run.operation(&db, &ks, choices);
        if run.state != before {
            states.push(run.state.clone());
        }
        if run.disk.is_dead() {
            break;
        }
        match done {
            Err(Error::Io { .. } | Error::Poisoned { .. }) => break,
            other => must(other),
        }
        if must(db.sync().map(|()| !run.disk.is_dead()).or(Ok(false))) {
            synced = states.len() - 1;
        }
    }
    (states, synced)
}
