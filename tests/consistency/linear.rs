//! Calls on single keys are linearizable, whatever moves: histories of real threads on few keys,
//! judged by the checker. Every value is a number of its own, written out to a length of its own, so
//! that a wrong byte shows as well as a wrong version.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use terrace::{Change, Db, Expect, Keyspace, KeyspaceOptions};
use terrace_tests::linear::{Action, Call, Expected, Made, Stamps, Violation, check};
use terrace_tests::random::Random;

use crate::{Mover, effort, while_records_move};

const KEYS: u64 = 12;
const THREADS: usize = 4;

fn key(number: u64) -> Vec<u8> {
    format!("register-{number:02}").into_bytes()
}

fn value(id: u64) -> Vec<u8> {
    let len = usize::try_from(id * 7919 % 2500).unwrap();
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.resize(8 + len, id.to_le_bytes()[0]);
    bytes
}

fn id(bytes: &[u8]) -> u64 {
    let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, value(id), "the bytes of value {id}");
    id
}

/// What the threads of one history share.
struct World {
    db: Db,
    ks: Keyspace,
    /// Sequence numbers and batches; a volatile keyspace has neither.
    durable: bool,
    stamps: Stamps,
    ids: AtomicU64,
}

/// One thread and what it did.
struct Client<'a> {
    world: &'a World,
    thread: usize,
    random: Random,
    seen: [Option<u64>; 12],
    calls: Vec<Call>,
}

impl<'a> Client<'a> {
    fn new(world: &'a World, thread: usize, random: Random) -> Self {
        Self { world, thread, random, seen: [None; 12], calls: Vec::new() }
    }

    fn fresh(&self) -> u64 {
        self.world.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Stamps a call and keeps it.
    fn record(&mut self, key: u64, call: impl FnOnce(&World) -> Action) {
        let start = self.world.stamps.now();
        let action = call(self.world);
        let end = self.world.stamps.now();
        self.calls.push(Call { thread: self.thread, key, start, end, action });
        if let Action::Get(seen) | Action::Update { seen, .. } = action {
            self.seen[usize::try_from(key).unwrap()] = seen;
        }
    }

    fn run(mut self, calls: usize) -> Vec<Call> {
        for i in 0..calls {
            // A window that wanders over the keys: those behind it cool off and go down a tier.
            let number = (i / 60 + self.random.within(0..3)) as u64 % KEYS;
            self.step(number);
        }
        self.calls
    }

    fn step(&mut self, number: u64) {
        let name = key(number);
        match self.random.below(1000) {
            0..350 => self.record(number, |world| {
                Action::Get(world.ks.get(&name).unwrap().as_deref().map(id))
            }),
            350..530 => {
                let new = self.fresh();
                self.record(number, |world| {
                    world.ks.put(&name, value(new)).unwrap();
                    Action::Put(new)
                });
            }
            530..610 => {
                self.record(number, |world| Action::Delete(world.ks.delete(&name).unwrap()));
            }
            610..750 => self.update(number),
            750..900 => self.swap_value(number),
            900..950 if self.world.durable => self.swap_seq(number),
            950..980 if self.world.durable => self.batch(number),
            980..997 => self.record(number, |world| {
                let ttl = std::time::Duration::from_secs(100_000);
                Action::Touch(world.ks.touch(&name, ttl).unwrap())
            }),
            997.. if std::env::var_os("NOCLEAR").is_none() => self.clear(),
            _ => {}
        }
    }

    fn update(&mut self, number: u64) {
        let made = match self.random.below(10) {
            0..7 => Made::Put(self.fresh()),
            7..9 => Made::Delete,
            _ => Made::Keep,
        };
        self.record(number, |world| {
            let mut seen = None;
            let change = |old: Option<&[u8]>| {
                seen = old.map(id);
                match made {
                    Made::Put(new) => Change::Put(value(new)),
                    Made::Delete => Change::Delete,
                    Made::Keep => Change::Keep,
                }
            };
            world.ks.update(key(number), change).unwrap();
            Action::Update { seen, made }
        });
    }

    fn swap_value(&mut self, number: u64) {
        let new = self.random.chance(80).then(|| self.fresh());
        let expected = match self.seen[usize::try_from(number).unwrap()] {
            Some(seen) => Expected::Value(seen),
            None => Expected::Absent,
        };
        self.swap(number, expected, new);
    }

    /// As a program would: look which version it is, then swap that version.
    fn swap_seq(&mut self, number: u64) {
        let name = key(number);
        self.record(number, |world| {
            Action::Info(world.ks.info(&name).unwrap().map(|info| info.seq))
        });
        let Some(Call { action: Action::Info(Some(seq)), .. }) = self.calls.last() else { return };
        let (seq, new) = (*seq, self.fresh());
        self.swap(number, Expected::Seq(seq), Some(new));
    }

    fn swap(&mut self, number: u64, expected: Expected, new: Option<u64>) {
        let new_bytes = new.map(value);
        self.record(number, |world| {
            let expected_bytes;
            let expect = match expected {
                Expected::Absent => Expect::Absent,
                Expected::Value(seen) => {
                    expected_bytes = value(seen);
                    Expect::Value(&expected_bytes)
                }
                Expected::Seq(seq) => Expect::Seq(seq),
            };
            let done = world.ks.compare_and_swap(key(number), expect, new_bytes.as_deref());
            Action::Swap { expected, new, swapped: done.unwrap() }
        });
    }

    /// To each of its keys a batch is a put within the stamps of the batch.
    fn batch(&mut self, number: u64) {
        let changes = [(number, self.fresh()), ((number + 1) % KEYS, self.fresh())];
        let mut batch = self.world.db.batch();
        for (number, new) in changes {
            batch.put(&self.world.ks, key(number), value(new));
        }
        let start = self.world.stamps.now();
        batch.commit().unwrap();
        let end = self.world.stamps.now();
        let thread = self.thread;
        self.calls.extend(changes.map(|(key, new)| {
            let action = Action::Put(new);
            Call { thread, key, start, end, action }
        }));
    }

    fn clear(&mut self) {
        let start = self.world.stamps.now();
        self.world.ks.clear().unwrap();
        let end = self.world.stamps.now();
        let (thread, action) = (self.thread, Action::Clear);
        self.calls.extend((0..KEYS).map(|key| Call { thread, key, start, end, action }));
    }
}

/// Threads on one keyspace; answers the history, and the reads of the three tiers.
fn history(mover: Mover, options: KeyspaceOptions, durable: bool, calls: usize) -> Vec<Call> {
    let db = mover.open();
    let ks = db.keyspace_with("registers", options).unwrap();
    let ids = AtomicU64::new(1);
    let world = World { db: db.clone(), ks, durable, stamps: Stamps::default(), ids };
    let mut random = Random::from_environment(31);
    let history = while_records_move(&db, mover, || {
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..THREADS).map(|i| Client::new(&world, i, random.fork())).collect();
            let threads: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(move || client.run(calls))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    });
    let stats = db.stats();
    println!("{mover:?}: {} calls, hits {:?}, {stats:#?}", history.len(), db.hits());
    history
}

fn assert_linearizable(history: &[Call]) {
    if let Err(refusal) = check(history) {
        panic!("{refusal}");
    }
}

#[test]
fn calls_of_threads_are_linearizable_while_workers_move_records() {
    let history = history(Mover::Workers, KeyspaceOptions::new(), true, 6_000 * effort());
    assert_linearizable(&history);
}

#[test]
fn calls_of_threads_are_linearizable_while_steps_move_records() {
    let history = history(Mover::Steps, KeyspaceOptions::new(), true, 3_000 * effort());
    assert_linearizable(&history);
}

#[test]
fn calls_of_threads_are_linearizable_in_an_unordered_keyspace() {
    let options = KeyspaceOptions::new().unordered();
    let history = history(Mover::Steps, options, true, 2_000 * effort());
    assert_linearizable(&history);
}

#[test]
fn calls_of_threads_are_linearizable_in_a_volatile_keyspace() {
    let options = KeyspaceOptions::new().volatile();
    let history = history(Mover::Steps, options, false, 20_000 * effort());
    assert_linearizable(&history);
}

/// The recorder and the checker together: two real threads, an update that is not one step.
#[test]
fn an_update_that_is_a_get_and_a_put_is_caught_in_a_history_of_real_threads() {
    let world = World {
        db: Mover::Steps.open(),
        ks: Mover::Steps.open().keyspace("registers").unwrap(),
        durable: true,
        stamps: Stamps::default(),
        ids: AtomicU64::new(1),
    };
    let (both, mut random) = (Barrier::new(2), Random::new(1));
    let mut clients = [0, 1].map(|i| Client::new(&world, i, random.fork()));
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                let new = client.fresh();
                client.record(3, |world| {
                    let seen = world.ks.get(key(3)).unwrap().as_deref().map(id);
                    both.wait();
                    world.ks.put(key(3), value(new)).unwrap();
                    Action::Update { seen, made: Made::Put(new) }
                });
            });
        }
    });
    let history: Vec<Call> = clients.into_iter().flat_map(|client| client.calls).collect();
    let refusal = check(&history);
    assert!(matches!(refusal, Err(Violation::NotLinearizable { key: 3, .. })), "{refusal:?}");
}
