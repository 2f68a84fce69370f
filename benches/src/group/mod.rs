//! The groups of rows. One process measures one group on one engine: `run` is its whole life.
//! Knows how to measure; knows nothing of other processes, medians or tables.

mod cold;
mod hot;
mod load;
pub(crate) mod opening;
pub(crate) mod reads;
mod space;
mod synced;
mod ycsb;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;
use terrace_benches::workload::{Key, Numbers, fill_value, is_value_of, key};

use crate::cgroup;
use crate::engine::{Config, Engine, Outcome, Pair};
use crate::peers;

/// Records that one batch writes or deletes.
pub(crate) const BATCH_LEN: u64 = 1000;

/// Bytes of values that one batch writes at most, however many records that are.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Slices of a row of reads.
const SLICES: u64 = 50;

/// Rows that are measured together. The first five share a directory, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Bulk load, single puts, memory and disk a key.
    Load,
    /// Open after a close; gets, absent keys, `multi_get`, scans.
    Reads,
    /// YCSB A to F.
    Ycsb,
    /// Opens, writes, says so and waits to be killed.
    Crash,
    /// Open after `kill -9`.
    CrashOpen,
    /// Synced puts by one and by four threads.
    Synced,
    /// Overwrites and deletes, and the space they leave.
    Space,
    /// JSON texts: size and read latency.
    Cold,
    /// Zipf gets where memory is a quarter of the data.
    Limited,
    /// Gets of maps in memory.
    Hot,
}

impl Group {
    /// Whether it goes on with the directory that the group before it left.
    pub(crate) fn shares_directory(self) -> bool {
        matches!(self, Self::Load | Self::Reads | Self::Ycsb | Self::Crash | Self::CrashOpen)
    }
}

/// What one process is to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Job {
    #[arg(long)]
    pub engine: String,
    #[arg(long)]
    pub group: Group,
    #[arg(long)]
    pub dir: PathBuf,
    /// Records of the main rows.
    #[arg(long)]
    pub keys: u64,
    /// Operations of a row.
    #[arg(long)]
    pub ops: u64,
    /// Bytes of a value.
    #[arg(long)]
    pub value_len: usize,
    #[arg(long)]
    pub cache_bytes: u64,
    #[arg(long)]
    pub seed: u64,
    /// The memory cgroup to join before anything else.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
}

impl Job {
    /// How the engine opens for this job.
    fn config(&self) -> Config {
        let cold = self.group == Group::Cold;
        let synced = self.group == Group::Synced;
        Config { dir: self.dir.clone(), cache_bytes: self.cache_bytes, synced, cold }
    }

    fn open(&self) -> Outcome<Box<dyn Engine>> {
        peers::open(&self.engine, &self.config())
    }

    /// Single puts of the load: records beyond the bulk.
    fn put_count(&self) -> u64 {
        self.keys / 5
    }

    /// Records that there are after the load.
    fn loaded(&self) -> u64 {
        self.keys + self.put_count()
    }
}

/// Measures one group; each figure is a line of JSON on standard output.
pub(crate) fn run(job: &Job) -> Outcome<()> {
    if let Some(dir) = &job.cgroup {
        cgroup::join(dir)?;
    }
    std::fs::create_dir_all(&job.dir)?;
    match job.group {
        Group::Load => load::run(job),
        Group::Reads => reads::run(job),
        Group::Ycsb => ycsb::run(job),
        Group::Crash => opening::write_until_killed(job),
        Group::CrashOpen => opening::open_after_kill(job),
        Group::Synced => synced::run(job),
        Group::Space => space::run(job),
        Group::Cold => cold::run(job),
        Group::Limited => reads::run_limited(job),
        Group::Hot => hot::run(job),
    }
}

/// Hands a figure to the parent.
fn emit(row: &str, value: f64) {
    println!("{}", json!({ "row": row, "value": value }));
}

/// A row by several threads: each calls `body` with its number and how many operations are its own.
/// Answers operations a second of all together, from the first begin to the last end.
fn rate(threads: u64, ops: u64, body: impl Fn(u64, u64) -> Outcome<()> + Sync) -> Outcome<f64> {
    let share = (ops / threads).max(1);
    let start = Barrier::new(usize::try_from(threads)?);
    let times = std::thread::scope(|scope| {
        let one = |number| {
            let (start, body) = (&start, &body);
            scope.spawn(move || {
                start.wait();
                let begin = Instant::now();
                body(number, share)?;
                Outcome::Ok((begin, Instant::now()))
            })
        };
        let all: Vec<_> = (0..threads).map(one).collect();
        let join = |thread: ScopedJoinHandle<'_, Outcome<(Instant, Instant)>>| {
            thread.join().map_err(|_| "a thread of the row panicked")?
        };
        all.into_iter().map(join).collect::<Outcome<Vec<_>>>()
    })?;
    let begin = times.iter().map(|time| time.0).min().ok_or("a row without threads")?;
    let end = times.iter().map(|time| time.1).max().ok_or("a row without threads")?;
    Ok(figure(share * threads) / end.duration_since(begin).as_secs_f64())
}

/// A row of reads: cut into slices, and the rate of the median slice. Whoever else uses the machine
/// then disturbs some slices, and not the figure. Each slice and thread has numbers of its own.
fn median_rate(
    job: &Job,
    threads: u64,
    ops: u64,
    body: impl Fn(&mut Numbers, u64) -> Outcome<()> + Sync,
) -> Outcome<f64> {
    let mut rates = Vec::new();
    for slice in 0..SLICES {
        rates.push(rate(threads, ops / SLICES, |thread, ops| {
            body(&mut numbers(job, slice * 64 + thread), ops)
        })?);
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates.get(rates.len() / 2).copied().unwrap_or(0.0))
}

/// Numbers of one thread of one row, the same in each run of a seed.
fn numbers(job: &Job, thread: u64) -> Numbers {
    Numbers::new(job.seed.wrapping_mul(1009).wrapping_add(thread))
}

/// Writes records of the main kind in batches.
fn fill(engine: &dyn Engine, ids: Range<u64>, value_len: usize) -> Outcome<()> {
    let mut pairs: Vec<Pair> = Vec::new();
    let count_max = BATCH_LEN.min((BATCH_BYTES_MAX / value_len.max(1)).max(1) as u64);
    for id in ids.clone() {
        let mut value = vec![0; value_len];
        fill_value(id, 0, &mut value);
        pairs.push((key(id), value));
        if pairs.len() as u64 == count_max || id + 1 == ids.end {
            engine.put_all(&pairs)?;
            pairs.clear();
        }
    }
    Ok(())
}

/// Fails when a read did not answer what was written.
fn check(found: bool, id: u64) -> Outcome<()> {
    if found { Ok(()) } else { Err(format!("record {id} is absent or wrong").into()) }
}

/// A checked get of a record that is there.
fn get(reader: &dyn crate::engine::Reader, id: u64) -> Outcome<()> {
    let mut right = false;
    reader.get(&key(id), &mut |value| right = is_value_of(id, value))?;
    check(right, id)
}

/// Bytes that a directory takes on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = dir.read_dir() else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0, // Unlinked since it was listed.
    });
    sizes.sum()
}

/// A number of bytes or records as a figure.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figure(number: u64) -> f64 {
    number as f64
}

/// Keys of several random records, with their ids.
fn some(numbers: &mut Numbers, count: u64, bound: u64) -> (Vec<u64>, Vec<Key>) {
    let ids: Vec<u64> = (0..count).map(|_| numbers.below(bound)).collect();
    let keys = ids.iter().map(|&id| key(id)).collect();
    (ids, keys)
}
