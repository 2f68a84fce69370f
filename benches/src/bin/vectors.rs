//! Vectors beside usearch: exact search, and search by a graph before and after deletes.
//!
//! ```text
//! cargo run --release -p terrace-benches --features peers-vector --bin vectors -- exact
//! cargo run --release -p terrace-benches --features peers-vector --bin vectors -- graph
//! ```
//!
//! One thread. Rows lie in a store on disk; every answer of ours brings content and metadata from
//! there, which the peer does not have. Queries go in turns, a block to each, and the figure is the
//! median block, so that what else the machine does meets both. usearch keeps `f32`, with its own
//! defaults but for what the options here say.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use terrace_memory::store::{Clock, EngineStore};
use terrace_memory::vector::{Filter, VectorEntry, VectorMemory, VectorOptions};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Hits of a query.
const K: usize = 10;
/// Queries of a block.
const BLOCK: usize = 25;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Exact search.
    Exact(Size),
    /// Search by a graph, at several efforts, before and after deletes.
    Graph(Graph),
}

#[derive(Args)]
struct Size {
    /// Vectors.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// Components of each.
    #[arg(long, default_value_t = 768)]
    dim: usize,
    /// Queries.
    #[arg(long, default_value_t = 200)]
    queries: usize,
    /// Directions that the vectors really vary in; as many as components when 0.
    #[arg(long, default_value_t = 0)]
    latent: usize,
}

#[derive(Args)]
struct Graph {
    /// Vectors.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Components of each.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Queries.
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    /// Directions that the vectors really vary in.
    #[arg(long, default_value_t = 32)]
    latent: usize,
    /// Links of a node.
    #[arg(long, default_value_t = 16)]
    links: usize,
    /// Nodes looked at when one is added.
    #[arg(long, default_value_t = 128)]
    effort_build: usize,
    /// Nodes kept in view by a search.
    #[arg(long, value_delimiter = ',', default_value = "32,64,96,128,192")]
    effort: Vec<usize>,
    /// Without the peer.
    #[arg(long)]
    alone: bool,
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Near enough to normal: twelve uniform numbers, their mean taken off.
    #[expect(clippy::cast_precision_loss, reason = "16 bits")]
    fn normal(&mut self) -> f32 {
        let mut sum = 0;
        for _ in 0..3 {
            let word = self.next();
            sum += (0..4).map(|i| (word >> (16 * i)) & 0xFFFF).sum::<u64>();
        }
        sum as f32 / 65_536.0 - 6.0
    }
}

/// Vectors in a thousand clusters of a space of few directions, with a little noise in all of them:
/// what texts become. With `latent` 0 they are normal in all directions: no structure at all.
struct Source {
    dim: usize,
    centres: Vec<Vec<f32>>,
    directions: Vec<Vec<f32>>,
    random: Random,
}

impl Source {
    fn new(dim: usize, latent: usize) -> Self {
        let mut random = Random(7);
        let mut many = |count: usize, len: usize| -> Vec<Vec<f32>> {
            (0..count).map(|_| (0..len).map(|_| random.normal()).collect()).collect()
        };
        let (centres, directions) = (many(1000, latent), many(latent, dim));
        Self { dim, centres, directions, random }
    }

    fn vector(&mut self) -> Vec<f32> {
        let random = &mut self.random;
        if self.directions.is_empty() {
            return (0..self.dim).map(|_| random.normal()).collect();
        }
        let at = usize::try_from(random.next() % 1000).unwrap_or(0);
        let mut vector: Vec<f32> = (0..self.dim).map(|_| 0.3 * random.normal()).collect();
        let centre = self.centres.get(at).map_or(&[][..], Vec::as_slice);
        for (part, direction) in centre.iter().zip(&self.directions) {
            let weight = part + 0.8 * random.normal();
            vector.iter_mut().zip(direction).for_each(|(sum, part)| *sum += weight * part);
        }
        vector
    }

    fn vectors(&mut self, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.vector()).collect()
    }
}

/// Both, over the same vectors.
struct Both {
    ours: VectorMemory,
    peer: Option<Index>,
    db: terrace::Db,
}

fn entry(row: usize, vector: &[f32]) -> VectorEntry {
    VectorEntry::new(&row.to_string(), "a text of some words", vector)
}

fn peer(dim: usize, links: usize, effort: usize, rows: usize) -> Outcome<Index> {
    let options = IndexOptions {
        dimensions: dim,
        metric: MetricKind::Cos,
        quantization: ScalarKind::F32,
        connectivity: links,
        expansion_add: effort,
        ..IndexOptions::default()
    };
    let index = Index::new(&options)?;
    index.reserve(rows)?;
    Ok(index)
}

fn ours(options: VectorOptions) -> Outcome<(VectorMemory, terrace::Db)> {
    let db = terrace::Options::new().warm_budget(4 << 30).temporary()?;
    let store = Arc::new(EngineStore::with(&db, "vectors", Clock::system())?);
    Ok((VectorMemory::open(store, "bench", options)?, db))
}

fn add(memory: &VectorMemory, rows: &[(usize, &[f32])]) -> Outcome<()> {
    for rows in rows.chunks(500) {
        memory.add_all(rows.iter().map(|(row, vector)| entry(*row, vector)).collect())?;
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default() / u32::try_from(BLOCK).unwrap_or(1)
}

type Answers = Vec<Vec<u64>>;

/// Median time of a query of each, and what they answered.
fn race(
    both: &Both,
    queries: &[Vec<f32>],
    ours: impl Fn(&[f32]) -> Outcome<Vec<u64>>,
    peer: impl Fn(&Index, &[f32]) -> Outcome<Vec<u64>>,
) -> Outcome<[(Duration, Answers); 2]> {
    let (mut times, mut answers) = ([vec![], vec![]], [vec![], vec![]]);
    for block in queries.chunks_exact(BLOCK) {
        let begin = Instant::now();
        for query in block {
            answers[0].push(ours(query)?);
        }
        times[0].push(begin.elapsed());
        let begin = Instant::now();
        if let Some(index) = &both.peer {
            for query in block {
                answers[1].push(peer(index, query)?);
            }
        }
        times[1].push(begin.elapsed());
    }
    let [a, b] = times.map(median);
    let [first, second] = answers;
    Ok([(a, first), (b, second)])
}

fn ids(hits: &[terrace_memory::vector::Hit]) -> Outcome<Vec<u64>> {
    Ok(hits.iter().map(|hit| hit.id.parse()).collect::<Result<_, _>>()?)
}

#[expect(clippy::cast_precision_loss, reason = "hits are few")]
fn recall(found: &Answers, truth: &Answers) -> f64 {
    let same = |(found, truth): (&Vec<u64>, &Vec<u64>)| {
        let truth: HashSet<_> = truth.iter().collect();
        found.iter().filter(|id| truth.contains(id)).count()
    };
    let all = truth.iter().map(Vec::len).sum::<usize>().max(1);
    found.iter().zip(truth).map(same).sum::<usize>() as f64 / all as f64
}

/// The nearest by comparing with every vector in `f64`.
fn brute(rows: &[Vec<f32>], query: &[f32]) -> Vec<u64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let score = |row: &Vec<f32>| dot(row, query) / dot(row, row).sqrt();
    let mut all: Vec<(f64, u64)> = rows.iter().map(score).zip(0..).collect();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().take(K).map(|(_, id)| id).collect()
}

fn exact(size: &Size) -> Outcome<()> {
    let mut source = Source::new(size.dim, size.latent);
    let rows = source.vectors(size.rows);
    let queries = source.vectors(size.queries);
    let (memory, db) = ours(VectorOptions::new(size.dim).exact_up_to(usize::MAX))?;
    let begin = Instant::now();
    add(&memory, &rows.iter().map(Vec::as_slice).enumerate().collect::<Vec<_>>())?;
    println!("ours: {} rows added in {:.1?}", size.rows, begin.elapsed());
    // Exact search needs no graph: the smallest that the peer makes.
    let index = peer(size.dim, 2, 2, size.rows)?;
    for (key, row) in (0..).zip(&rows) {
        index.add(key, row)?;
    }
    println!("peer: {}", index.hardware_acceleration());
    let both = Both { ours: memory, peer: Some(index), db };
    let [(a, found), (b, theirs)] = race(
        &both,
        &queries,
        |query| ids(&both.ours.search(query, K, &Filter::All)?),
        |index, query| Ok(index.exact_search(query, K)?.keys),
    )?;
    let checked = queries.len().min(20);
    let truth: Answers = queries.iter().take(checked).map(|query| brute(&rows, query)).collect();
    println!("\n| exact, {} x {} | a query | recall@{K} |\n|---|---|---|", size.rows, size.dim);
    println!("| terrace-memory | {a:.2?} | {:.3} |", recall(&found[..checked].to_vec(), &truth));
    println!("| usearch f32 | {b:.2?} | {:.3} |", recall(&theirs[..checked].to_vec(), &truth));
    println!("| ratio | {:.2} | |", a.as_secs_f64() / b.as_secs_f64());
    println!("\nours in memory: {} MiB", both.ours.stats().memory_bytes >> 20);
    Ok(())
}

fn table(both: &Both, options: &Graph, queries: &[Vec<f32>], what: &str) -> Outcome<()> {
    let mut truth = Answers::new();
    for query in queries {
        truth.push(ids(&both.ours.search_exact(query, K, &Filter::All)?)?);
    }
    println!("\n| {what}: effort | ours, a second | recall | usearch, a second | recall |");
    println!("|---|---|---|---|---|");
    for effort in &options.effort {
        let memory = both.ours.clone().effort_search(*effort);
        if let Some(index) = &both.peer {
            index.change_expansion_search(*effort);
        }
        let [(a, found), (b, theirs)] = race(
            both,
            queries,
            |query| ids(&memory.search(query, K, &Filter::All)?),
            |index, query| Ok(index.search(query, K)?.keys),
        )?;
        let rate = |time: Duration| 1.0 / time.as_secs_f64().max(1e-9);
        let (ours, peer) = (recall(&found, &truth), recall(&theirs, &truth));
        println!("| {effort} | {:.0} | {ours:.4} | {:.0} | {peer:.4} |", rate(a), rate(b));
    }
    Ok(())
}

fn graph(options: &Graph) -> Outcome<()> {
    let mut source = Source::new(options.dim, options.latent);
    let (rows, queries) = (source.vectors(options.rows), source.vectors(options.queries));
    let shape = VectorOptions::new(options.dim).links(options.links);
    let shape = shape.effort_build(options.effort_build);
    let (memory, db) = ours(shape)?;
    let begin = Instant::now();
    add(&memory, &rows.iter().map(Vec::as_slice).enumerate().collect::<Vec<_>>())?;
    let added = begin.elapsed();
    memory.settle()?;
    println!("ours: added in {added:.1?}, settled after {:.1?}", begin.elapsed());
    println!("ours: {:?}", memory.stats());
    let mut index = None;
    if !options.alone {
        let made = peer(options.dim, options.links, options.effort_build, options.rows)?;
        let begin = Instant::now();
        for (key, row) in (0..).zip(&rows) {
            made.add(key, row)?;
        }
        println!("peer: added in {:.1?}, {} MiB", begin.elapsed(), made.memory_usage() >> 20);
        index = Some(made);
    }
    let both = Both { ours: memory, peer: index, db };
    table(&both, options, &queries, "built")?;
    // Every fifth leaves, and comes back.
    let fifth: Vec<(usize, &[f32])> =
        rows.iter().map(Vec::as_slice).enumerate().step_by(5).collect();
    let begin = Instant::now();
    for (row, _) in &fifth {
        both.ours.remove(&row.to_string())?;
    }
    println!("\nours: a fifth removed in {:.1?}", begin.elapsed());
    let begin = Instant::now();
    add(&both.ours, &fifth)?;
    println!("ours: added again in {:.1?}", begin.elapsed());
    if let Some(index) = &both.peer {
        for (row, _) in &fifth {
            index.remove(*row as u64)?;
        }
        for (row, vector) in &fifth {
            index.add(*row as u64, vector)?;
        }
    }
    table(&both, options, &queries, "a fifth deleted and added again")?;
    println!("\nours: {:?}", both.ours.stats());
    both.ours.settle()?;
    let Both { ours, peer: _, db } = both;
    drop(ours);
    let begin = Instant::now();
    let store = Arc::new(EngineStore::with(&db, "vectors", Clock::system())?);
    let opened = VectorMemory::open(store, "bench", shape)?;
    println!("ours: opened again in {:.1?}, {:?}", begin.elapsed(), opened.stats());
    Ok(())
}

fn main() -> Outcome<()> {
    match Cli::parse().what {
        What::Exact(size) => exact(&size),
        What::Graph(options) => graph(&options),
    }
}
