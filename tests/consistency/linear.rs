//! Calls on single keys are linearizable, whatever moves: histories of real threads on few keys,
//! judged by the checker. Every value is a number of its own, written out to a length of its own,
//! so that a wrong byte shows as well as a wrong version.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use terrace::{Change, Db, Expect, Keyspace, KeyspaceOptions};
use terrace_tests::linear::{Action, Call, Expected, Made, Stamps, Violation, check};
use terrace_tests::random::Random;

use crate::{Movement, Mover, effort, while_records_move};

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
    keys: u64,
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
    seen: Vec<Option<u64>>,
    calls: Vec<Call>,
}

impl<'a> Client<'a> {
    fn new(world: &'a World, thread: usize, random: Random) -> Self {
        let seen = vec![None; usize::try_from(world.keys).unwrap()];
        Self { world, thread, random, seen, calls: Vec::new() }
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

    fn run(mut self, calls: usize, movement: &Movement) -> Vec<Call> {
        for i in 0..calls {
            if self.world.durable {
                movement.wait_for(i);
            }
            // A window that wanders over the keys: those behind it cool off and go down a tier.
            let number = (i / 60 + self.random.within(0..3)) as u64 % self.world.keys;
            self.step(number);
            if self.random.chance(4) {
                // What is cold and touched again becomes hot.
                let cold = ((i / 60 + 3) as u64 + self.random.below(3)) % self.world.keys;
                (0..4).for_each(|_| self.get(cold));
            }
        }
        self.calls
    }

    /// Reads above all, on keys that went down before: what is read again becomes hot.
    fn run_reads(mut self, calls: usize, movement: &Movement) -> Vec<Call> {
        for i in 0..calls {
            movement.wait_for(1_000 + i / 20);
            let number = (i / 40 + self.random.within(0..4)) as u64 % self.world.keys;
            match self.random.below(20) {
                0 => self.put(number),
                1 => self.update(number),
                _ => self.get(number),
            }
        }
        self.calls
    }

    fn step(&mut self, number: u64) {
        let name = key(number);
        match self.random.below(1000) {
            0..350 => self.get(number),
            350..530 => self.put(number),
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
            997.. => self.clear(),
            _ => {}
        }
    }

    fn get(&mut self, number: u64) {
        self.record(number, |world| {
            Action::Get(world.ks.get(key(number)).unwrap().as_deref().map(id))
        });
    }

    fn put(&mut self, number: u64) {
        let new = self.fresh();
        self.record(number, |world| {
            world.ks.put(key(number), value(new)).unwrap();
            Action::Put(new)
        });
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
        let changes = [(number, self.fresh()), ((number + 1) % self.world.keys, self.fresh())];
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
        self.calls.extend((0..self.world.keys).map(|key| Call { thread, key, start, end, action }));
    }
}

/// What threads do.
#[derive(Debug, Clone, Copy)]
enum Mix {
    /// All kinds of calls on few keys.
    All,
    /// Reads above all, on many keys that went down before.
    Reads,
}

/// What a history is made with.
struct Plan {
    mover: Mover,
    options: KeyspaceOptions,
    keys: u64,
    /// Of each thread.
    calls: usize,
    mix: Mix,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let db = plan.mover.open();
        let durable = plan.options != KeyspaceOptions::new().volatile();
        let ks = db.keyspace_with("registers", plan.options.clone()).unwrap();
        let (stamps, ids) = (Stamps::default(), AtomicU64::new(1));
        Self { db, ks, keys: plan.keys, durable, stamps, ids }
    }

    /// Puts every key once, and waits until they have gone down.
    fn fill(&self, movement: &Movement) -> Vec<Call> {
        let mut client = Client::new(self, THREADS, Random::new(0));
        (0..self.keys).for_each(|number| client.put(number));
        movement.wait_for(1_000);
        client.calls
    }
}

/// Runs threads on one keyspace and judges what they did.
fn assert_linearizable(plan: &Plan) -> [u64; 3] {
    let world = World::new(plan);
    let mut random = Random::from_environment(31);
    let history = while_records_move(&world.db, plan.mover, |movement| {
        let mut history = if plan.keys > 100 { world.fill(movement) } else { Vec::new() };
        std::thread::scope(|scope| {
            let run = |client: Client<'_>| match plan.mix {
                Mix::All => client.run(plan.calls, movement),
                Mix::Reads => client.run_reads(plan.calls, movement),
            };
            let clients: Vec<_> =
                (0..THREADS).map(|i| Client::new(&world, i, random.fork())).collect();
            let threads: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(move || run(client))).collect();
            history.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
        history
    });
    let (stats, hits) = (world.db.stats(), world.db.hits());
    let (cleaned, demoted) = (stats.segments_cleaned, stats.records_demoted);
    println!("{} calls, hits {hits:?}, cleaned {cleaned}, demoted {demoted}", history.len());
    if let Err(refusal) = check(&history) {
        explain(&history, &refusal);
    }
    hits
}

/// Prints what else was done with the key at that time, and stops the test.
fn explain(history: &[Call], refusal: &Violation) {
    if let Violation::NotLinearizable { key, before, next, .. } = refusal {
        let from = before.first().map_or(0, |call| call.start);
        let to = next.first().map_or(u64::MAX, |call| call.end);
        let mut around: Vec<&Call> = history.iter().filter(|call| call.key == *key).collect();
        around.retain(|call| call.end >= from && call.start <= to);
        around.sort_by_key(|call| call.start);
        for call in around {
            println!("{call}");
        }
    }
    panic!("{refusal}");
}

fn mixed(mover: Mover, options: KeyspaceOptions, calls: usize) -> [u64; 3] {
    assert_linearizable(&Plan { mover, options, keys: 12, calls, mix: Mix::All })
}

#[test]
fn calls_of_threads_are_linearizable_while_workers_move_records() {
    let [_, warm, cold] = mixed(Mover::Workers, KeyspaceOptions::new(), 2_500 * effort());
    assert!(warm > 0 && cold > 0, "nothing moved under the calls");
}

#[test]
fn calls_of_threads_are_linearizable_while_steps_move_records() {
    let [_, warm, cold] = mixed(Mover::Steps, KeyspaceOptions::new(), 2_000 * effort());
    assert!(warm > 0 && cold > 0, "nothing moved under the calls");
}

#[test]
fn calls_of_threads_are_linearizable_in_an_unordered_keyspace() {
    mixed(Mover::Steps, KeyspaceOptions::new().unordered(), 1_200 * effort());
}

#[test]
fn calls_of_threads_are_linearizable_in_a_volatile_keyspace() {
    mixed(Mover::Steps, KeyspaceOptions::new().volatile(), 20_000 * effort());
}

/// A reader that admits to the hot tier what a writer has just replaced would be seen here.
#[test]
fn calls_of_threads_are_linearizable_while_cold_records_become_hot() {
    for mover in [Mover::Workers, Mover::Steps] {
        let (options, calls, mix) = (KeyspaceOptions::new(), 4_000 * effort(), Mix::Reads);
        let [hot, _, cold] = assert_linearizable(&Plan { mover, options, keys: 400, calls, mix });
        assert!(hot > 0 && cold > 0, "nothing became hot under the calls");
    }
}

/// An update saw a value; before it writes, the keyspace is cleared. It must see that.
#[test]
fn an_update_runs_again_when_the_keyspace_was_cleared_under_it() {
    for options in [KeyspaceOptions::new(), KeyspaceOptions::new().volatile()] {
        let ks = Mover::Steps.open().keyspace_with("registers", options).unwrap();
        ks.put(key(1), value(1)).unwrap();
        let mut saw = Vec::new();
        ks.update(key(1), |old| {
            saw.push(old.map(id));
            if saw.len() == 1 {
                ks.clear().unwrap();
            }
            Change::Put(value(2))
        })
        .unwrap();
        assert_eq!(saw, [Some(1), None]);
        assert_eq!(ks.get(key(1)).unwrap().as_deref().map(id), Some(2));
        assert_eq!(ks.approximate_len(), 1);
    }
}

/// The recorder and the checker together: two real threads, an update that is not one step.
#[test]
fn an_update_that_is_a_get_and_a_put_is_caught_in_a_history_of_real_threads() {
    let options = KeyspaceOptions::new();
    let (mover, mix) = (Mover::Steps, Mix::All);
    let world = World::new(&Plan { mover, options, keys: 12, calls: 1, mix });
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
