//! Transactions are serializable, together with everything else that reads or changes a record.
//!
//! Histories of real threads: a key's value is the list of all who changed it, so that what was
//! read says which version it was, and the list at the end is the order. Snapshots, walks, updates
//! and several reads at one moment count as transactions of their own. Then the anomalies that have
//! names, each forced by running one transaction inside the closure of another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use terrace::{Change, Db, Error, Key, Keyspace, Value};
use terrace_tests::linear::Stamps;
use terrace_tests::random::Random;
use terrace_tests::serial::{ABSENT, RealTime, Transaction, check, version_of_list};

use crate::{Movement, Mover, effort, while_records_move};

/// Keys 0 to 15 are in one keyspace, the rest in another.
const KEYS: u64 = 24;
const FIRST_KEYS: u64 = 16;
/// These are there from the start, may be deleted, never come back: an absent one has one reason.
const MORTAL: u64 = 4;
const THREADS: usize = 4;

fn key(number: u64) -> Vec<u8> {
    format!("list-{number:02}").into_bytes()
}

fn number(key: &[u8]) -> u64 {
    std::str::from_utf8(&key[5..]).unwrap().parse().unwrap()
}

fn encode(list: &[u64]) -> Vec<u8> {
    let mut bytes = (list.len() as u64).to_le_bytes().to_vec();
    bytes.extend(list.iter().flat_map(|id| id.to_le_bytes()));
    bytes.resize(bytes.len() + 500, 0);
    bytes
}

fn decode(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let words: Vec<u64> = words.collect();
    let count = usize::try_from(words[0]).unwrap();
    words[1..=count].to_vec()
}

type Lists = BTreeMap<u64, Option<Vec<u64>>>;

/// A transaction as its thread saw it; lists become versions when all is over.
#[derive(Debug, Clone, Default)]
struct Seen {
    id: u64,
    start: u64,
    end: u64,
    reads: Lists,
    writes: Vec<u64>,
}

impl Seen {
    fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    fn read(&mut self, number: u64, bytes: Option<&[u8]>) {
        self.reads.insert(number, bytes.map(decode));
    }

    /// What a walk over the keys `from` to `to - 1` found; what it did not find was absent.
    fn walked(&mut self, from: u64, to: u64, found: impl Iterator<Item = (Key, Value)>) {
        let mut last = None;
        for (key, value) in found {
            let number = number(&key);
            assert!((from..to).contains(&number), "key {number} of a walk from {from} to {to}");
            assert!(last < Some(number), "key {number} behind {last:?}");
            last = Some(number);
            self.read(number, Some(&value));
        }
        for number in from..to {
            self.reads.entry(number).or_insert(None);
        }
    }
}

struct World {
    db: Db,
    first: Keyspace,
    second: Keyspace,
    stamps: Stamps,
    ids: AtomicU64,
}

impl World {
    fn new(mover: Mover) -> Self {
        let db = mover.open();
        let (first, second) = (db.keyspace("first").unwrap(), db.keyspace("second").unwrap());
        Self { db, first, second, stamps: Stamps::default(), ids: AtomicU64::new(1) }
    }

    fn ks(&self, number: u64) -> &Keyspace {
        if number < FIRST_KEYS { &self.first } else { &self.second }
    }

    /// Takes stamps around a call; `None` when it did nothing.
    fn stamped(&self, call: impl FnOnce(u64) -> Option<Seen>) -> Option<Seen> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let start = self.stamps.now();
        let seen = call(id)?;
        Some(Seen { start, end: self.stamps.now(), ..seen })
    }

    /// The keys that are mortal, each with a first version.
    fn fill(&self) -> Seen {
        let fill = |id| {
            let mut batch = self.db.batch();
            let writes: Vec<u64> = (0..MORTAL).collect();
            for number in &writes {
                batch.put(self.ks(*number), key(*number), encode(&[id]));
            }
            batch.commit().unwrap();
            Some(Seen { writes, ..Seen::new(id) })
        };
        self.stamped(fill).unwrap()
    }
}

/// One thread.
struct Client<'a> {
    world: &'a World,
    random: Random,
    conflicts: usize,
}

impl Client<'_> {
    fn run(mut self, count: usize, movement: &Movement) -> Vec<Seen> {
        let mut history = Vec::new();
        for i in 0..count {
            movement.wait_for(2 * i);
            history.extend(match self.random.below(100) {
                0..60 => self.transaction(),
                60..70 => self.snapshot(),
                70..80 => self.walk(),
                80..95 => self.update(),
                _ => self.multi_get(),
            });
        }
        assert!(self.conflicts * 10 <= count, "{} conflicts of {count}", self.conflicts);
        history
    }

    fn writes(&mut self) -> Vec<u64> {
        if !self.random.chance(75) {
            return Vec::new();
        }
        let mut writes: Vec<u64> =
            (0..=self.random.below(3)).map(|_| self.random.below(KEYS)).collect();
        writes.sort_unstable();
        writes.dedup();
        writes
    }

    /// Reads points and ranges, then adds itself to some lists or deletes a mortal key.
    fn transaction(&mut self) -> Option<Seen> {
        let world = self.world;
        let points: Vec<u64> = (0..self.random.below(4)).map(|_| self.random.below(KEYS)).collect();
        let range = self.random.chance(40).then(|| {
            let from = self.random.below(FIRST_KEYS);
            (from, from + 1 + self.random.below(FIRST_KEYS - from))
        });
        let writes = self.writes();
        let delete = self.random.chance(2).then(|| self.random.below(MORTAL));
        let mut conflict = false;
        let seen = world.stamped(|id| {
            let done = world.db.transaction(|tx| {
                let mut seen = Seen::new(id);
                for number in &points {
                    seen.read(*number, tx.get(world.ks(*number), key(*number))?.as_deref());
                }
                if let Some((from, to)) = range {
                    let found: Result<Vec<_>, _> =
                        tx.range(&world.first, key(from)..key(to)).collect();
                    seen.walked(from, to, found?.into_iter());
                }
                // Others come between what was read and what is written.
                std::thread::yield_now();
                for number in writes.iter().chain(&delete).copied() {
                    if seen.writes.contains(&number) {
                        continue;
                    }
                    let ks = world.ks(number);
                    let old = tx.get(ks, key(number))?;
                    seen.read(number, old.as_deref());
                    let mut list = old.as_deref().map(decode);
                    if list.is_none() && number < MORTAL {
                        continue;
                    }
                    if delete == Some(number) {
                        tx.delete(ks, key(number))?;
                        assert_eq!(tx.get(ks, key(number))?, None, "it reads its own delete");
                    } else {
                        let list = list.get_or_insert_default();
                        list.push(id);
                        tx.put(ks, key(number), encode(list))?;
                        let own = tx.get(ks, key(number))?;
                        assert_eq!(own.as_deref(), Some(&encode(list)[..]), "and its own put");
                    }
                    seen.writes.push(number);
                }
                Ok(seen)
            });
            match done {
                Ok(seen) => Some(seen),
                Err(Error::Conflict { .. }) => {
                    conflict = true;
                    None
                }
                Err(error) => panic!("{error}"),
            }
        });
        self.conflicts += usize::from(conflict);
        seen
    }

    fn snapshot(&mut self) -> Option<Seen> {
        let mut held = None;
        let world = self.world;
        let mut seen = world.stamped(|id| {
            held = Some(world.db.snapshot());
            Some(Seen::new(id))
        })?;
        // Read when its moment has long passed.
        let snapshot = held?;
        for number in FIRST_KEYS..KEYS {
            std::thread::yield_now();
            let value = snapshot.get(&world.second, key(number)).unwrap();
            seen.read(number, value.as_deref());
        }
        let all = snapshot.range(&world.first, key(0)..key(FIRST_KEYS));
        seen.walked(0, FIRST_KEYS, all.map(Result::unwrap));
        Some(seen)
    }

    fn walk(&mut self) -> Option<Seen> {
        let mut held = None;
        let world = self.world;
        let mut seen = world.stamped(|id| {
            held = Some(world.first.iter());
            Some(Seen::new(id))
        })?;
        let slowly = held?.map(|item| {
            std::thread::yield_now();
            item.unwrap()
        });
        if self.random.chance(50) {
            seen.walked(0, FIRST_KEYS, slowly);
        } else {
            let mut found: Vec<_> = slowly.rev().collect();
            found.reverse();
            seen.walked(0, FIRST_KEYS, found.into_iter());
        }
        Some(seen)
    }

    fn update(&mut self) -> Option<Seen> {
        let number = MORTAL + self.random.below(KEYS - MORTAL);
        self.world.stamped(|id| {
            let mut seen = Seen::new(id);
            let change = |old: Option<&[u8]>| {
                seen.read(number, old);
                let mut list = old.map(decode).unwrap_or_default();
                list.push(id);
                Change::Put(encode(&list))
            };
            self.world.ks(number).update(key(number), change).unwrap();
            Some(Seen { writes: vec![number], ..seen })
        })
    }

    fn multi_get(&mut self) -> Option<Seen> {
        let numbers: Vec<u64> = (0..5).map(|_| self.random.below(FIRST_KEYS)).collect();
        let keys: Vec<Vec<u8>> = numbers.iter().copied().map(key).collect();
        self.world.stamped(|id| {
            let mut seen = Seen::new(id);
            for (number, value) in numbers.iter().zip(self.world.first.multi_get(&keys).unwrap()) {
                seen.read(*number, value.as_deref());
            }
            Some(seen)
        })
    }
}

/// Lists become versions: the order of each key is its list at the end, and its delete if any.
fn judge(world: &World, history: &[Seen]) {
    let mut orders: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut deleted: BTreeMap<u64, u64> = BTreeMap::new();
    for number in 0..KEYS {
        let last = world.ks(number).get(key(number)).unwrap();
        let mut order = last.as_deref().map(decode).unwrap_or_default();
        if last.is_none() && number < MORTAL {
            // Only its delete writes a mortal key without adding itself to a list that was read.
            let took = |one: &&Seen| one.writes.contains(&number);
            let longest = history.iter().filter(took).max_by_key(|one| {
                one.reads.get(&number).and_then(Option::as_ref).map_or(0, Vec::len)
            });
            let longest = longest.unwrap();
            order = longest.reads[&number].clone().unwrap();
            order.push(longest.id);
            deleted.insert(number, longest.id);
        }
        orders.insert(number, order);
    }
    let version = |number: u64, list: &Option<Vec<u64>>| match list {
        Some(list) => version_of_list(&orders[&number], list).unwrap(),
        None if number < MORTAL => deleted[&number],
        None => ABSENT,
    };
    let transactions: Vec<Transaction> = history
        .iter()
        .map(|one| Transaction {
            start: one.start,
            end: one.end,
            reads: one
                .reads
                .iter()
                .map(|(number, list)| (*number, version(*number, list)))
                .collect(),
            writes: one.writes.iter().map(|number| (*number, one.id)).collect(),
        })
        .collect();
    if let Err(refusal) = check(&transactions, &orders, RealTime::Counts) {
        panic!("{refusal}");
    }
}

fn history(mover: Mover, count: usize) {
    let world = World::new(mover);
    let mut random = Random::from_environment(41);
    let mut history = vec![world.fill()];
    while_records_move(&world.db, mover, |movement| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..THREADS)
                .map(|_| Client { world: &world, random: random.fork(), conflicts: 0 })
                .collect();
            let run = |client: Client<'_>| client.run(count, movement);
            let threads: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(move || run(client))).collect();
            history.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
    });
    let stats = world.db.stats();
    let (cleaned, demoted) = (stats.segments_cleaned, stats.records_demoted);
    println!("{} transactions, cleaned {cleaned}, demoted {demoted}", history.len());
    judge(&world, &history);
}

#[test]
fn transactions_of_threads_are_serializable_while_workers_move_records() {
    history(Mover::Workers, 500 * effort());
}

#[test]
fn transactions_of_threads_are_serializable_while_steps_move_records() {
    history(Mover::Steps, 400 * effort());
}
