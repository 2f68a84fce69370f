//! Bulk load in batches, single puts of new keys, and what a key takes in memory and on disk.

use std::time::Instant;

use terrace_benches::workload::{fill_value, key};

use crate::engine::Outcome;
use terrace_benches::process::anonymous_bytes;

use crate::group::{Job, disk_bytes, emit, figure, fill, rate};

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let before = anonymous_bytes();
    let engine = job.open()?;
    let begin = Instant::now();
    fill(&*engine, 0..job.keys, job.value_len)?;
    emit("load", figure(job.keys) / begin.elapsed().as_secs_f64());
    let puts = rate(1, job.put_count(), |_, ops| {
        let mut value = vec![0; job.value_len];
        for id in job.keys..job.keys + ops {
            fill_value(id, 0, &mut value);
            engine.put(&key(id), &value)?;
        }
        Ok(())
    })?;
    emit("put", puts);
    engine.sync()?;
    engine.settle()?;
    let anonymous = anonymous_bytes().saturating_sub(before);
    emit("memory_per_key", figure(anonymous) / figure(job.loaded()));
    for (name, bytes) in engine.report() {
        emit(&format!("{name}_per_key"), figure(bytes) / figure(job.loaded()));
    }
    engine.close()?;
    emit("disk_per_key", figure(disk_bytes(&job.dir)) / figure(job.loaded()));
    Ok(())
}
