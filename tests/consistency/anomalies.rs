//! The anomalies that have names, each forced: a closure holds no lock, so another transaction or a
//! plain write runs inside it at the very moment that would do the harm. And sums that must hold
//! while threads move money about.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use terrace::{Change, Db, Error, Keyspace, Transaction};
use terrace_tests::random::Random;

use crate::{Movement, Mover, SetOnDrop, effort, while_records_move};

fn open() -> (Db, Keyspace) {
    let db = Mover::Steps.open();
    let ks = db.keyspace("accounts").unwrap();
    (db, ks)
}

fn amount(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// Padded, so that accounts fill segments and move.
fn bytes(amount: i64) -> Vec<u8> {
    let mut bytes = amount.to_le_bytes().to_vec();
    bytes.resize(600, 0);
    bytes
}

fn read(tx: &Transaction, ks: &Keyspace, key: &str) -> terrace::Result<i64> {
    Ok(tx.get(ks, key)?.map_or(0, |value| amount(&value)))
}

fn stored(ks: &Keyspace, key: &str) -> i64 {
    ks.get(key).unwrap().map_or(0, |value| amount(&value))
}

/// True the first time.
fn once(done: &Cell<bool>) -> bool {
    !done.replace(true)
}

#[test]
fn write_skew_does_not_happen() {
    let (db, ks) = open();
    // Two are on call; each may leave if the other stays.
    ks.put("ann", bytes(1)).unwrap();
    ks.put("bob", bytes(1)).unwrap();
    let leave = |who: &str, meanwhile: &dyn Fn()| {
        let done = Cell::new(false);
        db.transaction(|tx| {
            let on_call = read(tx, &ks, "ann")? + read(tx, &ks, "bob")?;
            if once(&done) {
                meanwhile();
            }
            if on_call == 2 {
                tx.put(&ks, who, bytes(0))?;
            }
            Ok(on_call)
        })
        .unwrap()
    };
    let seen = leave("ann", &|| assert_eq!(leave("bob", &|| ()), 2));
    assert_eq!(seen, 1, "it ran again and saw that the other had left");
    assert_eq!((stored(&ks, "ann"), stored(&ks, "bob")), (1, 0));
}

#[test]
fn phantoms_do_not_happen_by_a_new_key_or_by_a_deleted_one() {
    for new_key in [true, false] {
        let (db, ks) = open();
        for key in ["a", "job-1", "job-3", "k"] {
            ks.put(key, bytes(1)).unwrap();
        }
        let (done, runs) = (Cell::new(false), Cell::new(0));
        let counted = db.transaction(|tx| {
            runs.set(runs.get() + 1);
            let found: terrace::Result<Vec<_>> = tx.range(&ks, "job-".."job-9").collect();
            let count = i64::try_from(found?.len()).unwrap();
            if once(&done) {
                if new_key {
                    ks.put("job-2", bytes(1)).unwrap();
                } else {
                    assert!(ks.delete("job-3").unwrap());
                }
            }
            tx.put(&ks, "count", bytes(count))?;
            Ok(count)
        });
        assert_eq!(counted.unwrap(), if new_key { 3 } else { 1 });
        assert_eq!(runs.get(), 2, "what changed inside of the range was seen");
    }
}

#[test]
fn what_changes_outside_of_what_was_walked_over_is_no_conflict() {
    let (db, ks) = open();
    for key in ["a", "job-1", "job-3", "job-5", "k"] {
        ks.put(key, bytes(1)).unwrap();
    }
    let (done, runs) = (Cell::new(false), Cell::new(0));
    db.transaction(|tx| {
        runs.set(runs.get() + 1);
        let first = tx.prefix(&ks, "job-").next().transpose()?;
        assert_eq!(first.map(|(key, _)| key.to_vec()), Some(b"job-1".to_vec()));
        if once(&done) {
            ks.put("a", bytes(2)).unwrap();
            ks.put("job-2", bytes(2)).unwrap();
            ks.put("k", bytes(2)).unwrap();
            db.keyspace("others").unwrap().put("job-1", bytes(2)).unwrap();
        }
        tx.put(&ks, "b", bytes(9))
    })
    .unwrap();
    assert_eq!(runs.get(), 1);
}

/// Fekete, O'Neil and O'Neil (2004): the balance is x + y; a charge that makes it negative costs 1
/// more. A reader that saw the deposit and no charge proves that the deposit came first.
#[test]
fn the_anomaly_that_only_a_reader_sees_does_not_happen() {
    let (db, ks) = open();
    let (done, saw) = (Cell::new(false), Cell::new((0, 0)));
    db.transaction(|tx| {
        let balance = read(tx, &ks, "x")? + read(tx, &ks, "y")?;
        if once(&done) {
            db.transaction(|deposit| deposit.put(&ks, "y", bytes(20))).unwrap();
            let both = db.transaction(|tx| Ok((read(tx, &ks, "x")?, read(tx, &ks, "y")?)));
            saw.set(both.unwrap());
        }
        let fee = i64::from(balance < 10);
        tx.put(&ks, "x", bytes(-10 - fee))
    })
    .unwrap();
    assert_eq!(saw.get(), (0, 20), "the reader saw the deposit and no charge");
    assert_eq!(stored(&ks, "x"), -10, "so the charge came after the deposit, and costs nothing");
}

#[test]
fn an_update_between_read_and_write_is_not_lost_whoever_makes_it() {
    type Between<'a> = &'a dyn Fn(&Db, &Keyspace);
    let between: [Between<'_>; 5] = [
        &|_, ks| ks.put("x", bytes(5)).unwrap(),
        &|_, ks| drop(ks.update("x", |_| Change::Put(bytes(5))).unwrap()),
        &|_, ks| {
            assert!(ks.delete("x").unwrap());
            ks.put("x", bytes(5)).unwrap();
        },
        &|db, ks| {
            let mut batch = db.batch();
            batch.put(ks, "x", bytes(5));
            batch.put(ks, "y", bytes(5));
            batch.commit().unwrap();
        },
        &|_, ks| {
            ks.clear().unwrap();
            ks.put("x", bytes(5)).unwrap();
        },
    ];
    for (number, meanwhile) in between.into_iter().enumerate() {
        let (db, ks) = open();
        ks.put("x", bytes(1)).unwrap();
        let done = Cell::new(false);
        db.transaction(|tx| {
            let old = read(tx, &ks, "x")?;
            if once(&done) {
                meanwhile(&db, &ks);
            }
            tx.put(&ks, "x", bytes(old + 1))
        })
        .unwrap();
        assert_eq!(stored(&ks, "x"), 6, "change {number}");
    }
}

#[test]
fn a_transaction_reads_one_moment_however_long_it_takes() {
    let (db, ks) = open();
    ks.put("x", bytes(1)).unwrap();
    let seen = db.transaction(|tx| {
        let first = read(tx, &ks, "x")?;
        for amount in 2..50 {
            let mut batch = db.batch();
            batch.put(&ks, "x", bytes(amount));
            batch.put(&ks, "y", bytes(amount));
            batch.commit().unwrap();
        }
        db.compact()?;
        Ok((first, read(tx, &ks, "x")?, read(tx, &ks, "y")?))
    });
    assert_eq!(seen.unwrap(), (1, 1, 0), "a transaction that writes nothing has no conflicts");
}

#[test]
fn a_transaction_sees_its_own_writes_in_point_reads_and_in_walks() {
    let (db, ks) = open();
    for key in ["b", "d", "f"] {
        ks.put(key, bytes(1)).unwrap();
    }
    db.transaction(|tx| {
        tx.put(&ks, "a", bytes(2))?;
        tx.put(&ks, "d", bytes(3))?;
        tx.delete(&ks, "f")?;
        tx.put(&ks, "g", bytes(4))?;
        tx.put(&ks, "e", bytes(5))?;
        tx.delete(&ks, "e")?;
        assert_eq!((read(tx, &ks, "d")?, tx.get(&ks, "f")?), (3, None));
        let walked: terrace::Result<Vec<_>> = tx.iter(&ks).collect();
        let walked: Vec<_> = walked?
            .into_iter()
            .map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), amount(&value)))
            .collect();
        let expected = [("a", 2), ("b", 1), ("d", 3), ("g", 4)].map(|(k, v)| (k.to_owned(), v));
        assert_eq!(walked, expected);
        assert_eq!(stored(&ks, "d"), 1, "nobody else sees them before the commit");
        Ok(())
    })
    .unwrap();
    assert_eq!((stored(&ks, "d"), ks.len().unwrap()), (3, 4));
}

#[test]
fn a_transaction_that_fails_or_unwinds_writes_nothing_and_locks_nothing() {
    let (db, ks) = open();
    let refused: terrace::Result<()> = db.transaction(|tx| {
        tx.put(&ks, "x", bytes(1))?;
        Err(Error::Closed)
    });
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        db.transaction(|tx| -> terrace::Result<()> {
            tx.put(&ks, "x", bytes(1))?;
            panic!("planted");
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(ks.get("x").unwrap(), None);
    db.transaction(|tx| tx.put(&ks, "x", bytes(2))).unwrap();
    assert_eq!(stored(&ks, "x"), 2);
}

#[test]
fn a_transaction_that_always_meets_a_change_gives_up_and_says_so() {
    let (db, ks) = open();
    let mut runs = 0;
    let refused = db.transaction(|tx| {
        runs += 1;
        let old = read(tx, &ks, "x")?;
        ks.put("x", bytes(runs)).unwrap();
        tx.put(&ks, "x", bytes(old))
    });
    let Err(Error::Conflict { attempts, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(i64::from(attempts), runs);
    assert_eq!(stored(&ks, "x"), runs, "nothing of it was written");
}

#[test]
fn movement_alone_is_no_conflict() {
    let (db, ks) = open();
    for number in 0..200 {
        ks.put(format!("{number:03}"), bytes(number)).unwrap();
    }
    let mut runs = 0;
    db.transaction(|tx| {
        runs += 1;
        let sum: i64 = tx.iter(&ks).map(|item| amount(&item.unwrap().1)).sum();
        let others = db.keyspace("others").unwrap();
        for number in 0..600 {
            others.put(format!("{number}"), Random::new(number).bytes(16_000)).unwrap();
            db.step().unwrap();
        }
        db.compact().unwrap();
        tx.put(&ks, "sum", bytes(sum))
    })
    .unwrap();
    assert_eq!((runs, stored(&ks, "sum")), (1, (0..200).sum()));
    assert!(db.stats().records_demoted > 0, "nothing moved");
}

const ACCOUNTS: u64 = 16;
const EACH: i64 = 1_000;

fn account(number: u64) -> String {
    format!("account-{number:02}")
}

/// Money moves within a keyspace, between two, by transactions and by batches of one thread.
struct Bank {
    db: Db,
    here: Keyspace,
    there: Keyspace,
    stop: AtomicBool,
    looks: AtomicUsize,
}

impl Bank {
    fn new(mover: Mover) -> Self {
        let db = mover.open();
        let (here, there) = (db.keyspace("here").unwrap(), db.keyspace("there").unwrap());
        let mut batch = db.batch();
        for number in 0..ACCOUNTS {
            batch.put(&here, account(number), bytes(EACH));
            batch.put(&there, account(number), bytes(EACH));
        }
        batch.commit().unwrap();
        Self { db, here, there, stop: AtomicBool::new(false), looks: AtomicUsize::new(0) }
    }

    fn total() -> i64 {
        EACH * i64::try_from(ACCOUNTS).unwrap() * 2
    }

    fn transfer(&self, random: &mut Random) {
        let sides = [&self.here, &self.there];
        let mut draw = || (sides[random.within(0..2)], account(random.below(ACCOUNTS)));
        let ((from_ks, from), (to_ks, to)) = (draw(), draw());
        let sum = i64::try_from(random.below(200)).unwrap();
        let done = self.db.transaction(|tx| {
            let old = read(tx, from_ks, &from)?;
            if old < sum {
                return Ok(());
            }
            std::thread::yield_now();
            // An account that is empty is closed: ranges gain and lose keys.
            match old - sum {
                0 => tx.delete(from_ks, &from)?,
                rest => tx.put(from_ks, &from, bytes(rest))?,
            }
            let old = read(tx, to_ks, &to)?;
            tx.put(to_ks, &to, bytes(old + sum))
        });
        assert!(matches!(done, Ok(()) | Err(Error::Conflict { .. })), "{done:?}");
    }

    /// The sum as a transaction, or a snapshot from both ends, sees it.
    fn look(&self, random: &mut Random) -> i64 {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let pair = |item: terrace::Result<(terrace::Key, terrace::Value)>| {
            std::thread::yield_now();
            amount(&item.unwrap().1)
        };
        if random.chance(40) {
            let sum = |tx: &mut Transaction| {
                let here: i64 = tx.range(&self.here, account(0)..).map(pair).sum();
                Ok(here + tx.iter(&self.there).map(pair).sum::<i64>())
            };
            return self.db.transaction(sum).unwrap();
        }
        let snapshot = self.db.snapshot();
        let here: i64 = snapshot.iter(&self.here).map(pair).sum();
        if random.chance(50) {
            return here + snapshot.iter(&self.there).rev().map(pair).sum::<i64>();
        }
        let points = (0..ACCOUNTS).map(|number| {
            std::thread::yield_now();
            let value = snapshot.get(&self.there, account(number)).unwrap();
            value.map_or(0, |value| amount(&value))
        });
        here + points.sum::<i64>()
    }

    fn watch_sums(&self, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            assert_eq!(self.look(&mut random), Self::total());
        }
    }

    fn run(&self, movement: &Movement, transfers: usize) {
        let mut random = Random::from_environment(43);
        let (one, two) = (random.fork(), random.fork());
        std::thread::scope(|scope| {
            scope.spawn(|| self.watch_sums(one));
            let _stop = SetOnDrop(&self.stop);
            let other = scope.spawn(|| {
                let mut random = two;
                (0..transfers).for_each(|_| self.transfer(&mut random));
            });
            for i in 0..transfers {
                movement.wait_for(i);
                self.transfer(&mut random);
            }
            other.join().unwrap();
        });
    }
}

#[test]
fn money_is_neither_made_nor_lost_while_it_moves_and_its_records_move() {
    for mover in [Mover::Workers, Mover::Steps] {
        let bank = Bank::new(mover);
        let run = |movement: &Movement| bank.run(movement, 500 * effort());
        while_records_move(&bank.db, mover, run);
        println!("{mover:?}: {} looks", bank.looks.load(Ordering::Relaxed));
        assert_eq!(bank.look(&mut Random::new(1)), Bank::total());
        assert!(bank.db.stats().segments_cleaned > 0, "nothing moved");
    }
}
