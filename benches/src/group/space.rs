//! What overwriting and deleting leave on the disk, unasked, within a minute.

use std::time::{Duration, Instant};

use terrace_benches::workload::{KEY_LEN, Key, THETA, VALUE_LEN, Zipf, fill_value, key};

use crate::engine::{Engine, Outcome, Pair};
use crate::group::{BATCH_LEN, Job, disk_bytes, emit, figure, fill, numbers};

/// Space counts when it has not changed for this long, or at the end of a minute.
const QUIET: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Bytes that a store may take before its records count.
const CONSTANT: u64 = 4 << 20;
/// Most records of these rows.
const KEYS_MAX: u64 = 500_000;
/// Times that everything is overwritten.
const FOLD: u64 = 3;

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let keys = (job.keys / 2).clamp(10, KEYS_MAX);
    let live = |count: u64| figure(count * (KEY_LEN + VALUE_LEN) as u64);
    let engine = job.open()?;
    fill(&*engine, 0..keys, VALUE_LEN)?;
    overwrite(job, &*engine, keys)?;
    engine.sync()?;
    emit("space_overwritten", figure(settled_bytes(job).saturating_sub(CONSTANT)) / live(keys));
    let begin = Instant::now();
    let kept = keys / 10;
    let gone: Vec<Key> = (kept..keys).map(key).collect();
    for some in gone.chunks(usize::try_from(BATCH_LEN)?) {
        engine.delete_all(some)?;
    }
    emit("delete", figure(keys - kept) / begin.elapsed().as_secs_f64());
    engine.sync()?;
    emit("space_deleted", figure(settled_bytes(job).saturating_sub(CONSTANT)) / live(kept));
    engine.close()
}

fn overwrite(job: &Job, engine: &dyn Engine, keys: u64) -> Outcome<()> {
    let zipf = Zipf::new(keys, THETA);
    let mut numbers = numbers(job, 0);
    let mut pairs: Vec<Pair> = Vec::new();
    for version in 1..=FOLD * keys {
        let id = zipf.id(&mut numbers);
        let mut value = vec![0; VALUE_LEN];
        fill_value(id, version, &mut value);
        pairs.push((key(id), value));
        if pairs.len() as u64 == BATCH_LEN || version == FOLD * keys {
            engine.put_all(&pairs)?;
            pairs.clear();
        }
    }
    Ok(())
}

/// Bytes on the disk once they stay the same.
fn settled_bytes(job: &Job) -> u64 {
    let begin = Instant::now();
    let (mut bytes, mut since) = (disk_bytes(&job.dir), Instant::now());
    while begin.elapsed() < WAIT_MAX && since.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(250));
        let now = disk_bytes(&job.dir);
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    bytes
}
