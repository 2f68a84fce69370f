//! JSON texts of 1 KiB in the coldest form that an engine has: bytes on the disk, and a read.

use terrace_benches::workload::{KEY_LEN, TEXT_LEN, Texts, key};

use crate::engine::{Outcome, Pair};
use crate::group::{BATCH_LEN, Job, check, disk_bytes, emit, figure, median_rate};

/// Most texts.
const COUNT_MAX: u64 = 200_000;

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let texts = Texts::default();
    let count = (job.keys / 5).clamp(10, COUNT_MAX);
    let job = &Job { cache_bytes: count * TEXT_LEN as u64 / 8 + (4 << 20), ..job.clone() };
    let engine = job.open()?;
    let mut pairs: Vec<Pair> = Vec::new();
    for id in 0..count {
        pairs.push((key(id), texts.text(id)));
        if pairs.len() as u64 == BATCH_LEN || id + 1 == count {
            engine.put_all(&pairs)?;
            pairs.clear();
        }
    }
    engine.sync()?;
    engine.settle()?;
    engine.compact()?;
    engine.settle()?;
    engine.close()?;
    let raw = figure(count * (KEY_LEN + TEXT_LEN) as u64);
    emit("cold_size", figure(disk_bytes(&job.dir)) / raw);
    let engine = job.open()?;
    let reads = |ops: u64| {
        median_rate(job, 1, ops, |numbers, ops| {
            let reader = engine.reader()?;
            for _ in 0..ops {
                let id = numbers.below(count);
                let mut right = false;
                reader.get(&key(id), &mut |text| right = text.len() == TEXT_LEN)?;
                check(right, id)?;
            }
            Ok(())
        })
    };
    reads(job.ops / 20)?;
    emit("cold_get", 1e6 / reads(job.ops / 5)?);
    Ok(())
}
