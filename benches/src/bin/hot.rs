//! Reads of records that are in memory: the hot tier beside `quick_cache`, `moka` and `foyer`.
//!
//! `cargo run --release -p terrace-benches --features peers --bin hot [-- RECORDS]`
//! prints nanoseconds a read as Markdown: 24-byte keys, 100-byte values, drawn uniformly, with one
//! and two threads; the median of interleaved rounds. The peers share a value by reference count;
//! `get_with` lends it, `get` copies it.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use terrace::{KeyspaceOptions, Options};

const VALUE: [u8; 100] = [7; 100];
const READS: u32 = 2_000_000;
const ROUNDS: usize = 5;
const NAMES: [&str; 5] = ["quick_cache", "moka", "foyer", "Terrace get_with", "Terrace get"];

type Key = [u8; 24];
type Read<'a> = Box<dyn Fn(&Key) -> bool + Sync + 'a>;

fn key(number: u32) -> Key {
    let mut key = [b'k'; 24];
    key.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    key
}

/// Nanoseconds a read of each thread.
fn measure(read: &Read<'_>, count: u32, threads: u32) -> f64 {
    let work = |seed: u32| {
        let mut random = u64::from(seed) + 0x9E37_79B9_7F4A_7C15;
        let mut hits = 0_u32;
        for _ in 0..READS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = ((random >> 32) * u64::from(count)) >> 32;
            hits += u32::from(read(black_box(&key(u32::try_from(number).unwrap_or(0)))));
        }
        assert!(hits == READS, "{hits} of {READS} reads hit");
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || work(thread));
        }
    });
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let bytes = u64::from(count) * 400 + (64 << 20);
    let db = Options::new().memory_budget(bytes * 2).temporary()?;
    let keyspace = db.keyspace_with("hot", KeyspaceOptions::new().volatile())?;
    let capacity = count as usize * 2;
    let quick = quick_cache::sync::Cache::<Key, Arc<[u8]>>::new(capacity);
    let moka = moka::sync::Cache::<Key, Arc<[u8]>>::new(capacity as u64);
    let foyer: foyer_memory::Cache<Key, Arc<[u8]>> =
        foyer_memory::CacheBuilder::new(capacity).build();
    for number in 0..count {
        keyspace.put(key(number), VALUE)?;
        quick.insert(key(number), Arc::from(VALUE));
        moka.insert(key(number), Arc::from(VALUE));
        foyer.insert(key(number), Arc::from(VALUE));
    }
    moka.run_pending_tasks();
    let reads: [Read<'_>; NAMES.len()] = [
        Box::new(|key| quick.get(key).is_some_and(|value| black_box(value.len()) == 100)),
        Box::new(|key| moka.get(key).is_some_and(|value| black_box(value.len()) == 100)),
        Box::new(|key| foyer.get(key).is_some_and(|entry| black_box(entry.value().len()) == 100)),
        Box::new(|key| {
            let sum = keyspace.get_with(key, |value| black_box(value.len()) == 100);
            sum.is_ok_and(|same| same == Some(true))
        }),
        Box::new(|key| {
            let value = keyspace.get(key);
            value.is_ok_and(|value| value.is_some_and(|value| black_box(value.len()) == 100))
        }),
    ];
    println!("| {count} records, ns a read | {} |", NAMES.join(" | "));
    println!("|---|{}", "---:|".repeat(NAMES.len()));
    for threads in [1, 2] {
        let mut rounds: [Vec<f64>; NAMES.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (figures, read) in rounds.iter_mut().zip(&reads) {
                figures.push(measure(read, count, threads));
            }
        }
        let cells: Vec<String> = rounds.map(|f| format!("{:.0}", median(f))).to_vec();
        println!("| {threads} thread(s) | {} |", cells.join(" | "));
    }
    Ok(())
}
