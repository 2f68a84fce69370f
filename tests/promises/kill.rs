//! C1, C3, C6, C8 with real processes: after `kill -9` at any moment every acknowledged write is
//! there, with its TTL, whole batches, nothing deleted.
//!
//! The test runs itself as a child that works and acknowledges each operation on its standard
//! output; the parent kills it at a random moment, or strace does at the k-th system call, then
//! opens the store and compares all of it. Chains of ten generations go on from what was left.
//! `TERRACE_KILLS` says how many kills, `TERRACE_KILL_STEP` every how manieth system call.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use terrace::{Db, Keyspace, PutOptions, Result};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

use crate::tiny;

const DIR: &str = "TERRACE_KILL_DIR";
const FROM: &str = "TERRACE_KILL_FROM";
const COUNT: &str = "TERRACE_KILL_COUNT";
/// What the child had acknowledged when `.ci/power_cut` cut the power.
const ACKED: &str = "TERRACE_KILL_ACKED";
const GENERATIONS: u64 = 10;
/// System calls that change the world or wait for it.
const CALLS: &str = "pwrite64,write,fallocate,fdatasync,fsync,msync,unlinkat,openat,mmap,munmap";

/// Key to the operation that wrote it, and whether it has a deadline.
type State = BTreeMap<Vec<u8>, (u64, bool)>;

fn key(i: u64) -> Vec<u8> {
    format!("k{:03}", Random::new(i).below(300)).into_bytes()
}

fn value(i: u64) -> Vec<u8> {
    let len = if i % 211 == 210 { 1_100_000 } else { usize::try_from(i * 7919 % 3000).unwrap() };
    vec![i.to_le_bytes()[0]; len]
}

/// Operation `i` and what it leads to; without a store the latter alone.
fn operation(i: u64, state: &mut State, store: Option<(&Db, &Keyspace)>) -> Result<()> {
    let ttl = PutOptions::new().ttl(Duration::from_secs(100_000));
    match (i % 20, store) {
        (0, Some((db, _))) if i.is_multiple_of(100) => db.compact(),
        (0, Some((db, _))) if i % 100 == 40 => db.archive_all(),
        (0, Some((db, _))) if i % 100 == 80 => db.sync(),
        (0, Some((db, _))) => (0..3).try_for_each(|_| db.step().map(drop)),
        (0, None) => Ok(()),
        (1..=3, store) => {
            state.remove(&key(i));
            store.map_or(Ok(()), |(_, ks)| ks.delete(key(i)).map(drop))
        }
        (4 | 5, store) => {
            let of = |j: u64| i + j * 1_000_000;
            state.extend((0..4).map(|j| (key(of(j)), (of(j), false))));
            store.map_or(Ok(()), |(db, ks)| {
                let mut batch = db.batch();
                (0..4).for_each(|j| batch.put(ks, key(of(j)), value(of(j))));
                batch.commit()
            })
        }
        (6, store) if i % 600 == 306 => {
            state.clear();
            store.map_or(Ok(()), |(_, ks)| ks.clear())
        }
        (6..=9, store) => {
            state.insert(key(i), (i, true));
            store.map_or(Ok(()), |(_, ks)| ks.put_with(key(i), value(i), ttl))
        }
        (_, store) => {
            state.insert(key(i), (i, false));
            store.map_or(Ok(()), |(_, ks)| ks.put(key(i), value(i)))
        }
    }
}

#[test]
#[ignore = "the child of the next tests; it works until it is killed"]
fn child_that_works_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (from, count) = (number(FROM), number(COUNT));
    let mut out = std::io::stdout().lock();
    writeln!(out, "opening").unwrap();
    // Counted system calls need one thread; else the workers are at work too.
    let options = if count < u64::MAX { tiny().without_workers() } else { tiny() };
    let db = options.open(dir).unwrap();
    let ks = db.keyspace("default").unwrap();
    let mut state = State::new();
    for i in from..from.saturating_add(count) {
        operation(i, &mut state, Some((&db, &ks))).unwrap();
        writeln!(out, "ack {i}").unwrap();
    }
    drop(ks);
    db.close().unwrap();
    assert!(count < u64::MAX, "nobody killed it");
}

/// Starts the child, under strace where `inject` says what strace does to it.
fn child(dir: &Path, from: u64, count: u64, inject: Option<&str>) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut command = match inject {
        Some(inject) => {
            let mut command = Command::new("strace");
            command
                .args(["-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", inject])
                .arg(this);
            command
        }
        None => Command::new(this),
    };
    command
        .args(["--ignored", "--exact", "kill::child_that_works_until_it_is_killed"])
        .args(["--nocapture", "--test-threads=1"])
        .envs([(DIR, dir.display().to_string()), (FROM, from.to_string())])
        .env(COUNT, count.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child says until it is dead; `hear` may kill it. The last acknowledged operation.
fn listen(mut child: Child, mut hear: impl FnMut(&mut Child, &str)) -> (Option<u64>, bool) {
    let mut acked = None;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map_while(std::result::Result::ok) {
        if let Some(number) = line.rsplit_once("ack ").and_then(|(_, n)| n.parse::<u64>().ok()) {
            acked = Some(number);
        }
        hear(&mut child, &line);
    }
    (acked, child.wait().unwrap().success())
}

/// What was written, up to the last operation that took effect.
struct Chain {
    state: State,
    next: u64,
}

impl Chain {
    /// Opens the store and compares it: with everything acknowledged, and perhaps the operation
    /// that was under way.
    fn check(&mut self, dir: &Path, acked: Option<u64>, what: &str) {
        let end = acked.map_or(self.next, |acked| acked + 1);
        (self.next..end).for_each(|i| operation(i, &mut self.state, None).unwrap());
        let mut under_way = self.state.clone();
        operation(end, &mut under_way, None).unwrap();
        let db = tiny().open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        let ks = db.keyspace("default").unwrap();
        let found: BTreeMap<Vec<u8>, Vec<u8>> =
            ks.iter().map(|item| item.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let shows = |state: &State| {
            found.len() == state.len()
                && state.iter().all(|(key, (i, _))| found.get(key) == Some(&value(*i)))
        };
        self.next = end;
        if !shows(&self.state) {
            assert!(shows(&under_way), "{what}: {} keys are not those of {end}", found.len());
            (self.state, self.next) = (under_way, end + 1);
        }
        for (key, (_, has_ttl)) in &self.state {
            let info = ks.info(key).unwrap();
            assert_eq!(info.is_some_and(|info| info.expires_at.is_some()), *has_ttl, "{what}");
        }
        let audit = db.audit().unwrap();
        assert!(audit.is_exact(), "{what}: {audit:#?}");
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The state that a store shows after a power cut: the last one between the synced operations and
/// the one under way that has these keys and values.
fn state_shown(found: &BTreeMap<Vec<u8>, Vec<u8>>, acked: u64, synced: u64) -> Option<u64> {
    let mut state = State::new();
    let mut shown = None;
    for end in 0..=acked + 2 {
        let same = found.len() == state.len()
            && state.iter().all(|(key, (i, _))| found.get(key) == Some(&value(*i)));
        if same && end >= synced {
            shown = Some(end);
        }
        operation(end, &mut state, None).unwrap();
    }
    shown
}

#[test]
fn the_checkers_see_a_lost_write_a_changed_value_a_lost_deadline_and_a_lost_sync() {
    const COUNT: u64 = 120;
    type Plant = fn(&Db, &Keyspace) -> Result<()>;
    let plants: [(bool, Plant); 5] = [
        (true, |_, _| Ok(())),
        (false, |_, ks| ks.delete(key(112)).map(drop)),
        (false, |_, ks| ks.put(key(112), "another")),
        (false, |_, ks| ks.put("extra", "one")),
        // Operation 107 gave its key a deadline.
        (false, |_, ks| ks.put(key(107), value(107))),
    ];
    for (at, (is_sound, plant)) in plants.into_iter().enumerate() {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("db");
        let db = tiny().without_workers().open(&dir).unwrap();
        let ks = db.keyspace("default").unwrap();
        let mut state = State::new();
        (0..COUNT).for_each(|i| operation(i, &mut state, Some((&db, &ks))).unwrap());
        let walk = || ks.iter().map(|item| item.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec()));
        // Operation 120 changes nothing.
        assert_eq!(state_shown(&walk().collect(), COUNT - 1, 81), Some(COUNT + 1));
        assert_eq!(state_shown(&walk().collect(), 150, 140), None, "what was synced is lost");
        plant(&db, &ks).unwrap();
        assert_eq!(state_shown(&walk().collect(), COUNT - 1, 81).is_some(), is_sound || at == 4);
        drop(ks);
        db.close().unwrap();
        let check = || {
            let mut chain = Chain { state: State::new(), next: 0 };
            chain.check(&dir, Some(COUNT - 1), "planted");
        };
        assert_eq!(std::panic::catch_unwind(check).is_ok(), is_sound, "plant {at}");
    }
}

#[test]
#[ignore = "the second half of .ci/power_cut"]
fn what_a_power_cut_left_is_a_prefix_with_everything_synced() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let acked: u64 = std::env::var(ACKED).unwrap().parse().unwrap();
    let synced = (0..=acked).rev().find(|i| i % 100 == 80).map_or(0, |at| at + 1);
    let db = tiny().open(dir).unwrap();
    let ks = db.keyspace("default").unwrap();
    let found: BTreeMap<Vec<u8>, Vec<u8>> =
        ks.iter().map(|item| item.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    let shown = state_shown(&found, acked, synced);
    println!("{acked} acknowledged, {synced} synced: the state of {shown:?}");
    let (keys, audit) = (found.len(), db.audit().unwrap());
    assert!(shown.is_some(), "{keys} keys are no state from {synced} to {acked}");
    assert!(audit.is_exact(), "{audit:#?}");
}

#[test]
fn every_acknowledged_write_survives_kills_in_chains_of_ten_generations() {
    let kills = from_environment("TERRACE_KILLS", 40);
    let mut random = Random::from_environment(11);
    let (mut killed, mut in_opening) = (0, 0);
    while killed < kills {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("db");
        let mut chain = Chain { state: State::new(), next: 0 };
        for generation in 0..GENERATIONS.min(kills - killed) {
            let at_opening = random.below(4) == 0;
            let (mut left, wait_us) = (1 + random.below(400), random.below(4000));
            let child = child(&dir, chain.next, u64::MAX, None);
            let mut is_killed = false;
            let (acked, _) = listen(child, |child, line| {
                left -= u64::from(left > 0 && line.contains("ack "));
                if !is_killed && (left == 0 || at_opening && line.contains("opening")) {
                    is_killed = true;
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_micros(wait_us) {
                        std::hint::spin_loop();
                    }
                    child.kill().unwrap();
                }
            });
            killed += 1;
            in_opening += u64::from(acked.is_none());
            chain.check(&dir, acked, &format!("kill {killed}, generation {generation}"));
        }
    }
    println!("{killed} kills, {in_opening} of them before the first acknowledgement");
    assert!(killed >= kills && in_opening < killed);
}

#[test]
fn every_acknowledged_write_survives_a_kill_at_each_system_call() {
    const OPERATIONS: u64 = 130;
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("strace is not there: left out");
        return;
    }
    // From the second operation of a hundred on, so that sealing and archiving are among them.
    let step = usize::try_from(from_environment("TERRACE_KILL_STEP", 7)).unwrap();
    let mut killed = 0;
    for at in (1..).step_by(step.max(1)) {
        let scratch = Scratch::new().unwrap();
        let dir = scratch.join("db");
        let inject = format!("inject={CALLS}:signal=SIGKILL:when={at}");
        let child = child(&dir, 0, OPERATIONS, Some(&inject));
        let (acked, finished) = listen(child, |_, _| ());
        if finished {
            assert_eq!(acked, Some(OPERATIONS - 1));
            break;
        }
        if dir.exists() {
            let mut chain = Chain { state: State::new(), next: 0 };
            chain.check(&dir, acked, &format!("killed at call {at}"));
        }
        killed += 1;
        assert!(killed < 20_000, "it never ends");
    }
    println!("{killed} kills, each at the next {step}th of {CALLS}");
    assert!(killed > 3, "{killed} kills: does strace inject?");
}
