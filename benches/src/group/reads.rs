//! Reads of a store that is not written to: one view a thread and row.

use std::time::{Duration, Instant};

use terrace_benches::workload::{Numbers, THETA, Zipf, fill_value, is_value_of, key};

use crate::engine::{Engine, Outcome, Pair};
use crate::group::{BATCH_LEN, Job, check, emit, figure, get, median_rate, numbers, some};

/// Keys of one `multi_get`.
const KEYS: u64 = 32;
/// Records of one scan.
const ROWS: u64 = 50;
/// Most records of the limited row.
const LIMITED_KEYS_MAX: u64 = 1_000_000;
/// Microseconds a record that scans go on before they are measured: stores that learn from them
/// have learnt then.
const SCAN_WARM_UP_US: u64 = 8;
const SCAN_WARM_UP_MIN: Duration = Duration::from_secs(2);
/// How long each pass of the limited row takes.
const LIMITED_TIME: Duration = Duration::from_secs(3);
/// Bytes of a value where memory is limited: the data shall be larger than what a process needs.
pub(crate) const LIMITED_VALUE_LEN: usize = 1000;

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let begin = Instant::now();
    let engine = job.open()?;
    get(&*engine.reader()?, 0)?;
    emit("open_after_close", begin.elapsed().as_secs_f64() * 1000.0);
    let engine = &*engine;
    let reader = engine.reader()?;
    (0..job.loaded()).try_for_each(|id| get(&*reader, id))?; // Warm-up: everything once.
    drop(reader);
    emit("get_uniform_1", uniform(job, engine, 1)?);
    emit("get_uniform_2", uniform(job, engine, 2)?);
    let zipf = Zipf::new(job.loaded(), THETA);
    emit("get_zipf_1", skewed(job, engine, &zipf, 1)?);
    emit("get_zipf_2", skewed(job, engine, &zipf, 2)?);
    emit("get_absent", absent(job, engine)?);
    emit("multi_get_32", multi_get(job, engine)?);
    if engine.ordered() {
        emit("scan_50", scan(job, engine, job.ops / ROWS * 2)?);
    }
    Ok(())
}

fn uniform(job: &Job, engine: &dyn Engine, threads: u64) -> Outcome<f64> {
    median_rate(job, threads, job.ops, |numbers, ops| {
        let reader = engine.reader()?;
        (0..ops).try_for_each(|_| get(&*reader, numbers.below(job.loaded())))
    })
}

fn skewed(job: &Job, engine: &dyn Engine, zipf: &Zipf, threads: u64) -> Outcome<f64> {
    median_rate(job, threads, job.ops, |numbers, ops| {
        let reader = engine.reader()?;
        (0..ops).try_for_each(|_| get(&*reader, zipf.id(numbers)))
    })
}

fn absent(job: &Job, engine: &dyn Engine) -> Outcome<f64> {
    median_rate(job, 1, job.ops, |numbers, ops| {
        let reader = engine.reader()?;
        for _ in 0..ops {
            let id = job.loaded() * 8 + numbers.below(job.loaded());
            check(!reader.get(&key(id), &mut |_| ())?, id)?;
        }
        Ok(())
    })
}

/// Keys a second.
fn multi_get(job: &Job, engine: &dyn Engine) -> Outcome<f64> {
    let calls = median_rate(job, 1, job.ops / KEYS, |numbers, calls| {
        let reader = engine.reader()?;
        for _ in 0..calls {
            let (ids, keys) = some(numbers, KEYS, job.loaded());
            let mut right = 0;
            reader.multi_get(&keys, &mut |i, value| {
                right += u64::from(ids.get(i).is_some_and(|&id| is_value_of(id, value)));
            })?;
            check(right == KEYS, 0)?;
        }
        Ok(())
    })?;
    Ok(calls * figure(KEYS))
}

/// Scans a second, after some seconds of them.
fn scan(job: &Job, engine: &dyn Engine, scans: u64) -> Outcome<f64> {
    let (begin, mut numbers) = (Instant::now(), numbers(job, 3));
    let warm_up = Duration::from_micros(job.keys * SCAN_WARM_UP_US).max(SCAN_WARM_UP_MIN);
    while begin.elapsed() < warm_up {
        some_scans(job, engine, &mut numbers, 1000)?;
    }
    median_rate(job, 1, scans, |numbers, scans| some_scans(job, engine, numbers, scans))
}

fn some_scans(job: &Job, engine: &dyn Engine, numbers: &mut Numbers, scans: u64) -> Outcome<()> {
    let reader = engine.reader()?;
    let mut bytes = 0;
    for _ in 0..scans {
        let from = key(numbers.below(job.loaded()));
        let add = &mut |key: &[u8], value: &[u8]| bytes += key.len() + value.len();
        reader.scan(&from, ROWS, add)?;
    }
    check(bytes > 0, 0)
}

/// Zipf gets where the data is four times the memory that the process may have.
pub(crate) fn run_limited(job: &Job) -> Outcome<()> {
    let job = &Job { keys: limited_keys(job.keys), ..job.clone() };
    let engine = job.open()?;
    let mut pairs: Vec<Pair> = Vec::new();
    for id in 0..job.keys {
        let mut value = vec![0; LIMITED_VALUE_LEN];
        fill_value(id, 0, &mut value);
        pairs.push((key(id), value));
        if pairs.len() as u64 == BATCH_LEN || id + 1 == job.keys {
            engine.put_all(&pairs)?;
            pairs.clear();
        }
    }
    engine.sync()?;
    engine.close()?;
    let engine = job.open()?;
    let zipf = Zipf::new(job.keys, THETA);
    for_a_while(job, &*engine, &zipf, 1)?;
    emit("limited_zipf", for_a_while(job, &*engine, &zipf, 2)?);
    if let Some(share) = engine.hot_share() {
        emit("limited_hot", share);
    }
    Ok(())
}

/// Zipf gets for a fixed time: what reads the disk may be a thousand times slower than memory.
fn for_a_while(job: &Job, engine: &dyn Engine, zipf: &Zipf, pass: u64) -> Outcome<f64> {
    let (reader, mut numbers) = (engine.reader()?, numbers(job, pass));
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < LIMITED_TIME {
        for _ in 0..16 {
            get(&*reader, zipf.id(&mut numbers))?;
        }
        count += 16;
    }
    Ok(figure(count) / begin.elapsed().as_secs_f64())
}

/// Records of the limited row: the data is ten times as long as that of the others.
fn limited_keys(keys: u64) -> u64 {
    keys.min(LIMITED_KEYS_MAX)
}

/// Bytes of data that `run_limited` writes.
pub(crate) fn limited_data_bytes(keys: u64) -> u64 {
    limited_keys(keys) * (24 + LIMITED_VALUE_LEN as u64)
}
