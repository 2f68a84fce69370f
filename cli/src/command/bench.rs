//! `bench`: load a temporary store, read it back, print what it took.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;
use terrace::{Db, KeyspaceOptions, Options};

use crate::args::BenchArgs;
use crate::command::top::{self, Frame};
use crate::output::{bytes, progress, time};
use crate::{Answer, Failure};

/// One phase: how long in all, and how long single calls took.
struct Phase {
    name: &'static str,
    elapsed: Duration,
    calls: u64,
    p50: Duration,
    p99: Duration,
}

/// Keys of 24 bytes.
fn key(i: u64) -> [u8; 24] {
    let mut key = *b"key-00000000000000000000";
    let mut rest = i;
    for digit in key.iter_mut().rev().take(20) {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// Calls `call` for each number; every sixteenth call is timed by itself.
fn phase(
    name: &'static str,
    calls: u64,
    mut call: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<Phase, Failure> {
    let bar = progress(calls, name);
    let mut samples = Vec::new();
    let begin = Instant::now();
    for i in 0..calls {
        if i % 16 == 0 {
            let begin = Instant::now();
            call(i)?;
            samples.push(begin.elapsed());
        } else {
            call(i)?;
        }
        if i % 65_536 == 0 {
            bar.set_position(i);
        }
    }
    let elapsed = begin.elapsed();
    bar.finish_and_clear();
    samples.sort_unstable();
    let at = |part: usize| samples.get(samples.len() * part / 100).copied().unwrap_or_default();
    Ok(Phase { name, elapsed, calls, p50: at(50), p99: at(99) })
}

/// Anonymous memory of this process.
pub(crate) fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Numbers that look random, the same ones in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }
}

/// The place of `i` in an order of arrival that looks random: every number below `count` once.
fn scattered(i: u64, count: u64) -> u64 {
    // A prime beyond any count that fits a disk steps through all residues.
    let product = u128::from(i) * 0xFFFF_FFFF_FFC5 % u128::from(count);
    u64::try_from(product).unwrap_or(0)
}

/// Time between two frames of `--top`.
const FRAME_EVERY: Duration = Duration::from_secs(1);

/// Rows of one scan.
const SCAN_ROWS: u64 = 50;

pub(crate) fn run(args: &BenchArgs, json: bool) -> Result<Answer, Failure> {
    let before = anonymous_memory();
    let db = Options::new()
        .memory_budget(args.memory_mib << 20)
        .warm_budget((args.keys * (args.value_len as u64 + 80) * 2).max(1 << 30))
        .temporary()?;
    if args.top {
        watched(&db, || measure(args, json, &db, before))?;
    } else {
        measure(args, json, &db, before)?;
    }
    db.close()?;
    Ok(Answer::Done)
}

/// Runs `body` while frames of the store at work are shown.
fn watched(db: &Db, body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (done, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut before: Option<Frame> = None;
            while wait.recv_timeout(FRAME_EVERY) == Err(RecvTimeoutError::Timeout) {
                let frame = Frame::parse(&db.statistics());
                if top::show(&top::render(&frame, before.as_ref(), top::wall_ms())).is_err() {
                    return;
                }
                before = Some(frame);
            }
        });
        let result = body();
        drop(done);
        result
    })
}

fn measure(args: &BenchArgs, json: bool, db: &Db, before: u64) -> Result<(), Failure> {
    let options = KeyspaceOptions::new();
    let options = if args.unordered { options.unordered() } else { options };
    let keyspace = db.keyspace_with("default", options)?;
    let value = vec![b'v'; args.value_len];
    let number = |i| if args.random { scattered(i, args.keys) } else { i };
    let mut phases = vec![phase("put", args.keys, |i| Ok(keyspace.put(key(number(i)), &value)?))?];
    db.sync()?;
    let mut numbers = Numbers(1);
    phases.push(phase("get", args.keys, |_| {
        let found = keyspace.get_with(key(numbers.below(args.keys)), <[u8]>::len)?;
        match found {
            Some(len) if len == args.value_len => Ok(()),
            other => Err(Failure::Io(format!("a record that was put answers {other:?}"))),
        }
    })?);
    phases.push(phase("multi_get of 32", args.keys / 32, |_| {
        let keys: Vec<_> = (0..32).map(|_| key(numbers.below(args.keys))).collect();
        let found = keyspace.multi_get(&keys)?.iter().flatten().count();
        if found == 32 { Ok(()) } else { Err(Failure::Io(format!("{found} of 32 records"))) }
    })?);
    if !args.unordered {
        phases.push(phase("first scan", 1, |_| keyspace.first().map(drop).map_err(Failure::from))?);
        let rows = SCAN_ROWS.min(args.keys);
        phases.push(phase("scan of 50", args.keys / SCAN_ROWS, |_| {
            let from = numbers.below(args.keys - rows + 1);
            let (mut count, mut len) = (0, 0);
            keyspace.scan_with(&key(from)[..].., |_, value| {
                (count, len) = (count + 1, len + value.len());
                if count == rows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if count == rows { Ok(()) } else { Err(Failure::Io(format!("{count} of {rows} rows"))) }
        })?);
    }
    let anonymous = anonymous_memory().saturating_sub(before);
    report(args, json, db, &phases, anonymous);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(args: &BenchArgs, json: bool, db: &Db, phases: &[Phase], anonymous: u64) {
    let stats = db.stats();
    let memory = db.ledger().memory;
    let a_key = |bytes: u64| bytes as f64 / args.keys.max(1) as f64;
    let (index, order) = (a_key(memory.index), a_key(memory.order));
    if json {
        let phases: Vec<_> = phases
            .iter()
            .map(|phase| {
                json!({
                    "phase": phase.name,
                    "seconds": phase.elapsed.as_secs_f64(),
                    "calls": phase.calls,
                    "p50_ns": u64::try_from(phase.p50.as_nanos()).unwrap_or(0),
                    "p99_ns": u64::try_from(phase.p99.as_nanos()).unwrap_or(0),
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "keys": args.keys,
                "value_len": args.value_len,
                "phases": phases,
                "anonymous_bytes": anonymous,
                "index_bytes_per_key": index,
                "order_bytes_per_key": order,
                "disk_bytes": stats.disk_bytes,
                "record_bytes": stats.user_bytes,
            })
        );
        return;
    }
    println!("{} keys of 24 bytes, values of {} bytes", args.keys, args.value_len);
    for phase in phases {
        let rate = phase.calls as f64 / phase.elapsed.as_secs_f64();
        println!(
            "{:<16}{:>10}{:>14.0} a second   p50 {:>9}   p99 {:>9}",
            phase.name,
            time(phase.elapsed),
            rate,
            time(phase.p50),
            time(phase.p99)
        );
    }
    println!(
        "memory {} anonymous; a key takes {index:.1} bytes of index and {order:.1} of order",
        bytes(anonymous)
    );
    println!("disk   {} for {} of records", bytes(stats.disk_bytes), bytes(stats.user_bytes));
}
