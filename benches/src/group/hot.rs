//! Gets of maps in memory where everything fits.

use terrace_benches::workload::{THETA, VALUE_LEN, Zipf, fill_value, is_value_of, key};

use crate::engine::{Cache, Outcome};
use crate::group::{Job, check, emit, median_rate, rate};
use crate::peers;

pub(crate) fn run(job: &Job) -> Outcome<()> {
    let cache = peers::cache(&job.engine, job.keys * 2, job.cache_bytes)?;
    let cache = &*cache;
    let put = rate(1, job.keys, |_, ops| {
        let mut value = [0; VALUE_LEN];
        for id in 0..ops {
            fill_value(id, 0, &mut value);
            cache.put(&key(id), &value)?;
        }
        Ok(())
    })?;
    emit("hot_put", put);
    let zipf = Zipf::new(job.keys, THETA);
    let uniform = |threads| {
        median_rate(job, threads, job.ops, |numbers, ops| {
            (0..ops).try_for_each(|_| get(cache, numbers.below(job.keys)))
        })
    };
    uniform(1)?;
    emit("hot_get_uniform_1", uniform(1)?);
    emit("hot_get_uniform_2", uniform(2)?);
    let skewed = |threads| {
        median_rate(job, threads, job.ops, |numbers, ops| {
            (0..ops).try_for_each(|_| get(cache, zipf.id(numbers)))
        })
    };
    emit("hot_get_zipf_1", skewed(1)?);
    emit("hot_get_zipf_2", skewed(2)?);
    Ok(())
}

fn get(cache: &dyn Cache, id: u64) -> Outcome<()> {
    let mut right = false;
    cache.get(&key(id), &mut |value| right = is_value_of(id, value))?;
    check(right, id)
}
