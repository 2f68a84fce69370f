//! Puts that are on stable storage when they return, by one and by four threads, for a fixed time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use terrace_benches::workload::{VALUE_LEN, fill_value, key};

use crate::engine::Outcome;
use crate::group::{Job, emit, figure, rate};

/// How long each row runs.
const TIME: Duration = Duration::from_millis(1500);

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let engine = job.open()?;
    let next = AtomicU64::new(0);
    for (row, threads) in [("put_synced_1", 1), ("put_synced_4", 4)] {
        let begin = Instant::now();
        let first = next.load(Ordering::Relaxed);
        rate(threads, threads, |_, _| {
            let mut value = [0; VALUE_LEN];
            while begin.elapsed() < TIME {
                let id = next.fetch_add(1, Ordering::Relaxed);
                fill_value(id, 0, &mut value);
                engine.put(&key(id), &value)?;
            }
            Ok(())
        })?;
        let count = next.load(Ordering::Relaxed) - first;
        emit(row, figure(count) / begin.elapsed().as_secs_f64());
    }
    engine.close()
}
