//! What puts wait for while movement is in full debt, and what deleting and overwriting leave on
//! the disk and write in all. `cargo run --release -p terrace-benches --bin loads -- debt`

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a bench reads clocks itself")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use terrace::{Db, Keyspace, Options, Stats};
use terrace_benches::histogram::Histogram;
use terrace_benches::process::anonymous_bytes;
use terrace_benches::workload::{Numbers, THETA, Texts, Zipf, fill_value, key};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What is done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// Four times the sum of the memory and warm budgets, read back: memory beside the budget
    Budget,
    /// Uniform overwrites of eight times the warm budget, as fast as they go
    Debt,
    /// Nine keys of ten are deleted
    Delete,
    /// Three times as many overwrites as keys, zipf 0.99
    Zipf,
    /// Three times as many overwrites as keys, uniform
    Uniform,
}

/// Latency of puts, write and space amplification.
#[derive(Debug, Parser)]
struct Args {
    /// What is done; all of them when none is named
    loads: Vec<Load>,
    /// Bytes of each value
    #[arg(long, default_value_t = 1000)]
    value_len: usize,
    /// MiB of records that are loaded first
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Threads that put, for `debt`
    #[arg(long, default_value_t = 1)]
    writers: u64,
    /// Seconds of puts, for `debt`
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// MiB of memory budget, for `debt` and `budget`
    #[arg(long, default_value_t = 64)]
    memory_mib: u64,
    /// MiB of log kept warm, for `debt` and `budget`
    #[arg(long, default_value_t = 32)]
    warm_mib: u64,
}

impl Args {
    /// Bytes that one record takes in the log.
    fn encoded_len(&self) -> u64 {
        (40 + 24 + self.value_len as u64).next_multiple_of(8)
    }

    fn keys(&self) -> u64 {
        (self.mib << 20) / self.encoded_len()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let all = [Load::Budget, Load::Debt, Load::Delete, Load::Zipf, Load::Uniform];
    let loads = if args.loads.is_empty() { &all[..] } else { &args.loads[..] };
    for load in loads {
        let outcome = match load {
            Load::Budget => budget(&args),
            Load::Debt => debt(&args),
            _ => space(&args, *load),
        };
        if let Err(error) = outcome {
            eprintln!("loads: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn put(ks: &Keyspace, id: u64, version: u64, value: &mut [u8]) -> Outcome<()> {
    fill_value(id, version, value);
    Ok(ks.put(key(id), value)?)
}

/// Puts into a store whose log is an eighth of its data: demotion, cleaning and merging never rest.
fn debt(args: &Args) -> Outcome<()> {
    let warm = args.warm_mib << 20;
    let db = Options::new().memory_budget(args.memory_mib << 20).warm_budget(warm).temporary()?;
    let ks = db.keyspace("default")?;
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let whole = std::thread::scope(|scope| -> Outcome<Histogram> {
        let writers = (0..args.writers).map(|writer| {
            let ks = ks.clone();
            scope.spawn(move || put_until(&ks, args, writer, until).map_err(|e| e.to_string()))
        });
        let mut whole = Histogram::default();
        for writer in writers.collect::<Vec<_>>() {
            whole.add(&writer.join().map_err(|_| "a writer panicked")??);
        }
        Ok(whole)
    })?;
    let stats = db.stats();
    println!(
        "debt: {} puts in {} s by {} writers, {} MiB of log of {} allowed",
        whole.count(),
        args.seconds,
        args.writers,
        stats.warm_bytes >> 20,
        args.warm_mib
    );
    let [p50, p99, p999, p9999] = [0.5, 0.99, 0.999, 0.9999].map(|share| whole.at(share));
    println!("  put us: p50 {p50:.1} p99 {p99:.1} p99.9 {p999:.1} p99.99 {p9999:.1}");
    println!("  put ms: max {:.2}", whole.max() / 1000.0);
    amplification(&stats);
    Ok(())
}

fn put_until(ks: &Keyspace, args: &Args, writer: u64, until: Instant) -> Outcome<Histogram> {
    let (keys, mut numbers) = (args.keys(), Numbers::new(writer));
    let mut value = vec![0; args.value_len];
    let mut latencies = Histogram::default();
    for version in 0.. {
        let id = numbers.below(keys);
        fill_value(id, version, &mut value);
        let begin = Instant::now();
        ks.put(key(id), &value)?;
        let end = Instant::now();
        latencies.note(end - begin);
        if end >= until {
            break;
        }
    }
    Ok(latencies)
}

/// Loads text, four times what both budgets hold, reads all of it twice, most of it by skew, and
/// looks at the memory of this process every 2 ms.
fn budget(args: &Args) -> Outcome<()> {
    let (memory, warm) = (args.memory_mib << 20, args.warm_mib << 20);
    let before = anonymous_bytes();
    let (loading, done) = (AtomicBool::new(true), AtomicBool::new(false));
    let (loaded, read) = std::thread::scope(|scope| -> Outcome<(u64, u64)> {
        let watch = scope.spawn(|| {
            let (mut loaded, mut read) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let peak = if loading.load(Ordering::Relaxed) { &mut loaded } else { &mut read };
                *peak = anonymous_bytes().saturating_sub(before).max(*peak);
                std::thread::sleep(Duration::from_millis(2));
            }
            (loaded, read)
        });
        let outcome = fill_and_read(args, &loading);
        done.store(true, Ordering::Relaxed);
        let peaks = watch.join().map_err(|_| "the watch panicked")?;
        outcome.map(|()| peaks)
    })?;
    println!(
        "budget: {} MiB of memory and {} of log, values of {} bytes: anonymous memory at most {} \
         KiB while it loaded ({:.3} of the budget), {} KiB while it was read ({:.3})",
        memory >> 20,
        warm >> 20,
        args.value_len,
        loaded >> 10,
        ratio(loaded, memory),
        read >> 10,
        ratio(read, memory)
    );
    Ok(())
}

fn fill_and_read(args: &Args, loading: &AtomicBool) -> Outcome<()> {
    let (memory, warm) = (args.memory_mib << 20, args.warm_mib << 20);
    let db = Options::new().memory_budget(memory).warm_budget(warm).temporary()?;
    let ks = db.keyspace("default")?;
    let keys = 4 * (memory + warm) / args.encoded_len();
    let texts = Texts::default();
    let text = |id| {
        let mut text = texts.text(id);
        text.truncate(args.value_len);
        text
    };
    for id in 0..keys {
        ks.put(key(id), text(id))?;
    }
    while !db.settle(Duration::from_mins(1))? {}
    loading.store(false, Ordering::Relaxed);
    let (zipf, mut numbers) = (Zipf::new(keys, THETA), Numbers::new(1));
    for id in 0..keys {
        for id in [id, zipf.id(&mut numbers)] {
            let value = ks.get(key(id))?.ok_or("a key is missing")?;
            if value[..] != text(id) {
                return Err(format!("record {id} is wrong").into());
            }
        }
    }
    let memory = db.ledger().memory;
    println!("  the store's own account: {memory:?}");
    Ok(())
}

/// Loads, changes, and waits until the store is quiet; what it takes then, and what it wrote.
fn space(args: &Args, load: Load) -> Outcome<()> {
    let db = Options::new().temporary()?;
    let ks = db.keyspace("default")?;
    let (keys, mut value) = (args.keys(), vec![0; args.value_len]);
    for id in 0..keys {
        put(&ks, id, 0, &mut value)?;
    }
    let loaded = db.stats();
    change(&ks, args, load, keys, &mut value)?;
    let at_once = db.stats().disk_bytes;
    let begin = Instant::now();
    while !db.settle(Duration::from_mins(1))? {}
    let live = ks.approximate_len() * args.encoded_len();
    println!("{load:?}: {keys} keys of {} encoded bytes", args.encoded_len());
    println!(
        "  disk: {} MiB at once, {} MiB after {:.1} s, {:.3} a live byte without 4 MiB",
        at_once >> 20,
        db.stats().disk_bytes >> 20,
        begin.elapsed().as_secs_f64(),
        ratio(db.stats().disk_bytes.saturating_sub(4 << 20), live)
    );
    amplification(&since(&loaded, &db));
    if load == Load::Delete {
        println!("  live: {} MiB", live >> 20);
    }
    Ok(())
}

fn change(ks: &Keyspace, args: &Args, load: Load, keys: u64, value: &mut [u8]) -> Outcome<()> {
    let mut numbers = Numbers::new(args.mib);
    if load == Load::Delete {
        for id in (0..keys).filter(|id| id % 10 != 0) {
            ks.delete(key(id))?;
        }
        return Ok(());
    }
    let zipf = Zipf::new(keys, THETA);
    for version in 1..=3 * keys {
        let uniform = load == Load::Uniform;
        let id = if uniform { numbers.below(keys) } else { zipf.id(&mut numbers) };
        put(ks, id, version, value)?;
    }
    Ok(())
}

/// The counters since an earlier look.
fn since(before: &Stats, db: &Db) -> Stats {
    let mut stats = db.stats();
    stats.user_bytes -= before.user_bytes;
    stats.journal_bytes -= before.journal_bytes;
    stats.survivor_bytes -= before.survivor_bytes;
    stats.archive_bytes -= before.archive_bytes;
    stats
}

fn amplification(stats: &Stats) {
    let moved = stats.survivor_bytes + stats.archive_bytes;
    println!(
        "  written: {:.3} an encoded byte put (journal {:.3}, survivors {:.3}, archives {:.3})",
        ratio(stats.journal_bytes + moved, stats.user_bytes),
        ratio(stats.journal_bytes, stats.user_bytes),
        ratio(stats.survivor_bytes, stats.user_bytes),
        ratio(stats.archive_bytes, stats.user_bytes)
    );
    let waited = Duration::from_micros(stats.put_wait_us).as_secs_f64();
    println!(
        "  puts that waited: {}, {waited:.2} s in all; {} KiB owed",
        stats.put_waits,
        stats.debt_bytes >> 10
    );
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}
