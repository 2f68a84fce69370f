//! YCSB A to F (Cooper et al., `SoCC` 2010), one thread, its default mixes and distributions.
//! A read sees all writes before it: each takes a view of its own.

use terrace_benches::workload::{Numbers, THETA, VALUE_LEN, Zipf, fill_value, key};

use crate::engine::{Engine, Outcome};
use crate::group::{Job, emit, get, numbers, rate};

/// One workload: its row, and of 100 operations how many read, scan or read, change and write;
/// the rest update, or insert where `inserts`.
struct Mix {
    row: &'static str,
    reads: u64,
    scans: u64,
    changes: u64,
    inserts: bool,
}

const MIXES: &[Mix] = &[
    Mix { row: "ycsb_a", reads: 50, scans: 0, changes: 0, inserts: false },
    Mix { row: "ycsb_b", reads: 95, scans: 0, changes: 0, inserts: false },
    Mix { row: "ycsb_c", reads: 100, scans: 0, changes: 0, inserts: false },
    Mix { row: "ycsb_f", reads: 50, scans: 0, changes: 50, inserts: false },
    Mix { row: "ycsb_d", reads: 95, scans: 0, changes: 0, inserts: true },
    Mix { row: "ycsb_e", reads: 0, scans: 95, changes: 0, inserts: true },
];
/// The longest scan of workload E.
const ROWS_MAX: u64 = 100;

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let engine = job.open()?;
    let zipf = Zipf::new(job.loaded(), THETA);
    let warm_up = Mix { row: "", reads: 100, scans: 0, changes: 0, inserts: false };
    let mut count = job.loaded();
    run_mix(job, &*engine, &zipf, &warm_up, &mut count)?;
    for mix in MIXES.iter().filter(|mix| mix.scans == 0 || engine.ordered()) {
        emit(mix.row, run_mix(job, &*engine, &zipf, mix, &mut count)?);
    }
    engine.close()
}

/// Operations a second. `count` is how many records there are, before and after.
fn run_mix(
    job: &Job,
    engine: &dyn Engine,
    zipf: &Zipf,
    mix: &Mix,
    count: &mut u64,
) -> Outcome<f64> {
    let ops = if mix.scans > 0 { job.ops / 20 } else { job.ops / 2 };
    let begin = *count;
    let inserted = std::sync::atomic::AtomicU64::new(begin);
    let rate = rate(1, ops, |_, ops| {
        let mut numbers = numbers(job, begin);
        let mut value = [0; VALUE_LEN];
        let mut end = begin;
        for version in 0..ops {
            end += u64::from(step(engine, zipf, mix, end, version, &mut numbers, &mut value)?);
        }
        inserted.store(end, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    })?;
    *count = inserted.into_inner();
    Ok(rate)
}

/// One operation; answers whether it inserted record `end`.
fn step(
    engine: &dyn Engine,
    zipf: &Zipf,
    mix: &Mix,
    end: u64,
    version: u64,
    numbers: &mut Numbers,
    value: &mut [u8],
) -> Outcome<bool> {
    let dice = numbers.below(100);
    if dice < mix.reads {
        // Workload D reads the latest records most: the rank counts from the end.
        let id = if mix.inserts { end - 1 - zipf.rank(numbers) } else { zipf.id(numbers) };
        get(&*engine.reader()?, id)?;
    } else if dice < mix.reads + mix.scans {
        let rows = 1 + numbers.below(ROWS_MAX);
        engine.reader()?.scan(&key(zipf.id(numbers)), rows, &mut |_, _| ())?;
    } else if mix.inserts {
        fill_value(end, 0, value);
        engine.put(&key(end), value)?;
        return Ok(true);
    } else {
        let id = zipf.id(numbers);
        if mix.changes > 0 {
            get(&*engine.reader()?, id)?;
        }
        fill_value(id, version + 1, value);
        engine.put(&key(id), value)?;
    }
    Ok(false)
}
