//! Opening after `kill -9`: one process writes until it is killed, the next opens what it left.

use std::time::{Duration, Instant};

use terrace_benches::workload::{fill_value, key};

use crate::engine::Outcome;
use crate::group::{Job, emit, get};

/// Longer than the parent takes to kill.
const WAIT: Duration = Duration::from_mins(1);
/// The row that tells the parent that the writes have returned.
pub(crate) const READY: &str = "ready";

pub(crate) fn write_until_killed(job: &Job) -> Outcome<()> {
    let engine = job.open()?;
    let mut value = vec![0; job.value_len];
    for id in 0..job.keys / 10 {
        fill_value(id, 1, &mut value);
        engine.put(&key(id), &value)?;
    }
    emit(READY, 0.0);
    std::thread::sleep(WAIT);
    Err("nobody killed the writer".into())
}

pub(crate) fn open_after_kill(job: &Job) -> Outcome<()> {
    let begin = Instant::now();
    let engine = job.open()?;
    get(&*engine.reader()?, 0)?;
    emit("open_after_kill", begin.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}
