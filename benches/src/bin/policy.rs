//! Judges the hot tier's policy on traces by hit ratio, beside its peers and the optimum.
//!
//! `cargo run --release -p terrace-benches --features peers --bin policy -- DIRECTORY`
//! reads every `*.u64.zst` of the directory and prints Markdown. Capacities are 1, 5, 10, 25 and
//! 50 % of a trace's distinct keys.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a bench reads its input")]

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use terrace::internals::PolicyModel;
use terrace_benches::replay::{self, CACHES, Cache, Trace};

const PERCENTS: [usize; 5] = [1, 5, 10, 25, 50];
const PEERS: usize = 5;
const OURS: usize = 5;
/// How many records the metadata is measured at.
const METADATA_COUNT: u32 = 1_000_000;

/// Hit ratios of all caches on one trace at one capacity.
type Cell = [f64; CACHES.len()];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("name the directory of the traces")?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".u64.zst") {
            paths.push(path);
        }
    }
    paths.sort();
    let traces: Vec<Trace> =
        paths.iter().map(|path| Trace::read(path)).collect::<Result<_, _>>()?;
    if traces.is_empty() {
        return Err("no *.u64.zst there".into());
    }
    let cells = measure(&traces)?;
    print_cells(&traces, &cells);
    print_means(&traces, &cells);
    print_metadata()?;
    Ok(())
}

fn capacity(trace: &Trace, percent: usize) -> usize {
    ((trace.distinct * percent + 50) / 100).max(1)
}

/// Cell, cache, and what it hit.
type Measured = (usize, usize, f64);

/// One job a cache, trace and capacity, on two threads.
fn measure(traces: &[Trace]) -> Result<Vec<Cell>, Box<dyn Error>> {
    let count = traces.len() * PERCENTS.len();
    let jobs: Vec<(usize, usize)> =
        (0..count).flat_map(|cell| (0..CACHES.len()).map(move |cache| (cell, cache))).collect();
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<Vec<Measured>> {
        let mut measured = Vec::new();
        while let Some(&(cell, index)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let trace = traces.get(cell / PERCENTS.len()).ok_or(io::ErrorKind::NotFound)?;
            let percent = PERCENTS.get(cell % PERCENTS.len()).copied().unwrap_or(1);
            let mut cache = replay::cache(index, capacity(trace, percent), trace)?;
            measured.push((cell, index, trace.hit_percent(&mut *cache)?));
        }
        Ok(measured)
    };
    let measured = std::thread::scope(|scope| -> io::Result<Vec<Measured>> {
        let other = scope.spawn(work);
        let mut measured = work()?;
        measured.extend(other.join().map_err(|_| io::Error::other("a thread panicked"))??);
        Ok(measured)
    })?;
    let mut cells = vec![[0.0; CACHES.len()]; count];
    for (cell, index, hits) in measured {
        if let Some(place) = cells.get_mut(cell).and_then(|cell| cell.get_mut(index)) {
            *place = hits;
        }
    }
    Ok(cells)
}

fn print_head(first: &str) {
    println!("| {first} | {} |", CACHES.join(" | "));
    println!("|---|{}", "---:|".repeat(CACHES.len()));
}

fn row(name: &str, cell: &Cell) {
    let figures: Vec<String> = cell.iter().map(|hits| format!("{hits:.2}")).collect();
    println!("| {name} | {} |", figures.join(" | "));
}

fn print_cells(traces: &[Trace], cells: &[Cell]) {
    print_head("trace, % of keys");
    for (index, cell) in cells.iter().enumerate() {
        let name = traces.get(index / PERCENTS.len()).map_or("", |trace| &trace.name);
        row(&format!("{name} {}", PERCENTS.get(index % PERCENTS.len()).unwrap_or(&0)), cell);
    }
    println!();
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred cells")]
fn mean<'a>(cells: impl Iterator<Item = &'a Cell>) -> Cell {
    let (mut sum, mut count) = ([0.0; CACHES.len()], 0_usize);
    for cell in cells {
        sum.iter_mut().zip(cell).for_each(|(sum, hits)| *sum += hits);
        count += 1;
    }
    sum.map(|sum| sum / count.max(1) as f64)
}

fn print_means(traces: &[Trace], cells: &[Cell]) {
    print_head("mean hit ratio");
    for (index, percent) in PERCENTS.iter().enumerate() {
        let of = cells.iter().skip(index).step_by(PERCENTS.len());
        row(&format!("at {percent} %"), &mean(of));
    }
    row("all", &mean(cells.iter()));
    println!();
    for (index, cell) in cells.iter().enumerate() {
        let (Some(ours), Some(lru)) = (cell.get(OURS), cell.first()) else { continue };
        let best = cell.iter().take(PEERS).copied().fold(0.0, f64::max);
        if *ours < best - 3.0 || *ours < lru - 1.0 {
            let name = traces.get(index / PERCENTS.len()).map_or("", |trace| &trace.name);
            let percent = PERCENTS.get(index % PERCENTS.len()).unwrap_or(&0);
            println!("behind: {name} at {percent} %: {ours:.2}, LRU {lru:.2}, best peer {best:.2}");
        }
    }
}

/// What the policy takes besides the records' bytes, filled and then driven round several times.
fn print_metadata() -> Result<(), Box<dyn Error>> {
    let mut model = PolicyModel::new(METADATA_COUNT as usize)?;
    for key in 0..METADATA_COUNT * 3 {
        Cache::touch(&mut model, key)?;
    }
    let each = f64::from(u32::try_from(model.metadata_len())?) / f64::from(METADATA_COUNT);
    println!("metadata: {each:.1} bytes a record at {METADATA_COUNT}, and 6 in its block");
    Ok(())
}
