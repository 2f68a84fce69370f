//! Hours of work in minutes: the audit stays exact, and nothing of the process grows with time.
//!
//! The test runs itself as a child, which works, snapshots, walks, closes and opens again, and is
//! asked for its descriptors, maps, threads and anonymous memory all along. Between two rounds
//! another process works on the store and is killed in the middle of it; what it acknowledged is
//! there afterwards. `TERRACE_SOAK_SECONDS` says how long: 15 by default, 120 before a merge, 600
//! and more by hand.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use terrace::{Db, Keyspace, Options, PutOptions, Snapshot};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

const DIR: &str = "TERRACE_SOAK_DIR";
const SECONDS: &str = "TERRACE_SOAK_SECONDS";
const KEYS: u64 = 20_000;

/// What the kernel says of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    anonymous_len: u64,
    descriptors: u64,
    maps: u64,
    threads: u64,
}

impl Taken {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let count = |dir: &str| std::fs::read_dir(dir).unwrap().count() as u64;
        Self {
            anonymous_len: line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024,
            descriptors: count("/proc/self/fd"),
            maps: maps.lines().count() as u64,
            threads: count("/proc/self/task"),
        }
    }
}

struct Soak {
    random: Random,
    db: Db,
    spaces: [Keyspace; 2],
    snapshots: VecDeque<Snapshot>,
}

impl Soak {
    fn open(dir: &str, random: Random) -> Self {
        let options = Options::new().memory_budget(16 << 20).warm_budget(8 << 20);
        let db = options.segment_size(1 << 20).open(dir).unwrap();
        let spaces = [db.keyspace("one").unwrap(), db.keyspace("two").unwrap()];
        Self { random, db, spaces, snapshots: VecDeque::new() }
    }

    fn key(&mut self) -> String {
        format!("key/{:06}", self.random.below(KEYS))
    }

    fn act(&mut self) {
        let key = self.key();
        let len = self.random.within(0..2000);
        let value = self.random.bytes(len);
        let ks = self.spaces[usize::from(self.random.chance(30))].clone();
        match self.random.below(100) {
            0..50 => ks.put(&key, value).unwrap(),
            50..60 => {
                let ttl = Duration::from_millis(1 + self.random.below(3000));
                ks.put_with(&key, value, PutOptions::new().ttl(ttl)).unwrap();
            }
            60..70 => drop(ks.delete(&key).unwrap()),
            70..96 => drop(ks.get(&key).unwrap()),
            96 => {
                let walked = ks.range(&*key..).take(100).filter(Result::is_err).count();
                assert_eq!(walked, 0, "a walk meets no damage");
            }
            97 => {
                self.snapshots.push_back(self.db.snapshot());
                self.snapshots.truncate(4);
            }
            98 => drop(self.snapshots.pop_front()),
            _ => drop(self.db.transaction(|tx| {
                let old = tx.get(&ks, &key)?.map_or(0, |value| value.len());
                tx.put(&ks, &key, vec![1; old / 2])
            })),
        }
    }

    /// Works until the time is over, then makes sure that the account is exact.
    fn work(mut self, until: Instant, seen: &mut Vec<Taken>) -> Random {
        while Instant::now() < until {
            for _ in 0..500 {
                self.act();
            }
            seen.push(Taken::now());
        }
        self.snapshots.clear();
        assert!(self.db.settle(Duration::from_mins(1)).unwrap());
        let audit = self.db.audit().unwrap();
        assert!(audit.is_exact(), "{audit:#?}");
        let Self { db, random, .. } = self;
        db.close().unwrap();
        random
    }
}

/// The counter that a process to be killed writes and acknowledges.
fn acknowledged(db: &Db) -> u64 {
    let value = db.keyspace("marks").unwrap().get("last").unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()))
}

#[test]
#[ignore = "a child of the next test; it works until it is killed"]
fn child_that_works_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut soak = Soak::open(&dir, Random::from_environment(37));
    let marks = soak.db.keyspace("marks").unwrap();
    let from = acknowledged(&soak.db) + 1;
    let mut out = std::io::stdout().lock();
    for number in from.. {
        (0..20).for_each(|_| soak.act());
        marks.put("last", number.to_le_bytes()).unwrap();
        writeln!(out, "ack {number}").unwrap();
        assert!(number < from + 1_000_000, "nobody killed it");
    }
}

/// Lets another process work on the store and kills it. Returns the last number it acknowledged.
fn kill_one(dir: &str, random: &mut Random) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "soak::child_that_works_until_it_is_killed"])
        .args(["--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut left = 1 + random.below(200);
    let mut last = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = line.rsplit_once("ack ").and_then(|(_, number)| number.parse::<u64>().ok());
        last = number.or(last);
        left -= u64::from(number.is_some() && left > 0);
        if left == 0 {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    last.unwrap()
}

#[test]
#[ignore = "the child of the next test"]
fn child_that_soaks() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let seconds: u64 = std::env::var(SECONDS).unwrap().parse().unwrap();
    let mut random = Random::from_environment(31);
    let mut rounds = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let mut seen = Vec::new();
        let until = Instant::now() + Duration::from_secs(seconds.div_ceil(8).min(60));
        random = Soak::open(&dir, random).work(until, &mut seen);
        let last = kill_one(&dir, &mut random);
        let soak = Soak::open(&dir, random);
        assert!(acknowledged(&soak.db) >= last, "number {last} was acknowledged");
        random = soak.work(Instant::now(), &mut Vec::new());
        assert!(!seen.is_empty(), "a round has work");
        let most = |of: fn(&Taken) -> u64| seen.iter().map(of).max().unwrap();
        let (memory, descriptors) = (most(|t| t.anonymous_len), most(|t| t.descriptors));
        let (maps, threads) = (most(|t| t.maps), most(|t| t.threads));
        println!("round {memory} {descriptors} {maps} {threads}");
        rounds.push(Taken { anonymous_len: memory, descriptors, maps, threads });
    }
    assert!(rounds.len() > 2, "{} rounds", rounds.len());
}

/// The highest of the last rounds is hardly above the highest of the first: rounds alike, no slope.
fn assert_level(what: &str, rounds: &[u64], slack: u64) {
    let (early, late) = rounds.split_at(rounds.len() / 2);
    let (early, late) = (early.iter().max().unwrap(), late.iter().max().unwrap());
    assert!(*late <= early + early / 4 + slack, "{what} grows: {rounds:?}");
}

#[test]
fn nothing_grows_while_a_store_is_worked_on_closed_and_opened() {
    let scratch = Scratch::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "soak::child_that_soaks", "--nocapture"])
        .env(DIR, scratch.join("db"))
        .env(SECONDS, std::env::var(SECONDS).unwrap_or_else(|_| "15".to_owned()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let rounds: Vec<Vec<u64>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("round "))
        .map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect())
        .collect();
    let slacks = [("anonymous memory", 4 << 20), ("descriptors", 8), ("maps", 16), ("threads", 1)];
    for (place, (what, slack)) in slacks.into_iter().enumerate() {
        let figures: Vec<u64> = rounds.iter().map(|round| round[place]).collect();
        println!("{what}: {figures:?}");
        assert_level(what, &figures, slack);
    }
}

#[test]
#[should_panic(expected = "descriptors grows")]
fn a_slope_is_seen() {
    assert_level("descriptors", &[10, 20, 30, 40, 50, 60, 70, 80], 8);
}
