//! After `kill -9` at any moment no record is without its vector and no vector without its record.
//!
//! The test runs itself as a child that adds, replaces and removes vectors and acknowledges each on
//! its standard output; the parent kills it at a random moment, opens the memory, and compares what
//! is stored with what is found. The graph is at work: it begins at 100 vectors.
//! `TERRACE_VECTOR_KILLS=200` kills as often as the promise says.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::json;
use terrace_memory::store::{EngineStore, Ns, Scan, Store};
use terrace_memory::vector::{Filter, VectorEntry, VectorMemory, VectorOptions};

const DIR: &str = "TERRACE_VECTOR_KILL_DIR";
const FROM: &str = "TERRACE_VECTOR_KILL_FROM";
const DIM: usize = 8;

/// The vector of this number, the same in every process.
fn vector(i: u64) -> Vec<f32> {
    let mut state = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut number = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(state.to_le_bytes()[3]) - 127.5
    };
    (0..DIM).map(|_| number()).collect()
}

fn open(dir: &std::path::Path) -> (VectorMemory, Arc<dyn Store>) {
    let db = terrace::Options::new().open(dir).unwrap();
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db).unwrap());
    let options = VectorOptions::new(DIM).exact_up_to(200).links(8).effort_build(32);
    (VectorMemory::open(Arc::clone(&store), "kill", options).unwrap(), store)
}

/// Each seventh is removed again, each fifth replaced by another vector.
fn step(memory: &VectorMemory, i: u64) {
    let add = |of: u64| {
        let entry = VectorEntry::new(&i.to_string(), &of.to_string(), vector(of));
        memory.add(entry.metadata(json!({ "of": of }))).unwrap();
    };
    add(i);
    if i.is_multiple_of(5) {
        add(i + 1_000_000_000);
    }
    if i.is_multiple_of(7) {
        assert!(memory.remove(&i.to_string()).unwrap());
    }
}

#[test]
#[ignore = "the child of the next test; it adds until it is killed"]
fn child_that_adds_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let (memory, _store) = open(dir.as_ref());
    let mut out = std::io::stdout().lock();
    for i in from.. {
        step(&memory, i);
        if i % 400 == 399 {
            memory.settle().unwrap();
        }
        writeln!(out, "ack {i}").unwrap();
        assert!(i < from + 10_000_000, "nobody killed it");
    }
}

/// Runs the child until it has acknowledged so many more, and kills it; the last it acknowledged.
fn kill_after(dir: &std::path::Path, from: u64, count: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child_that_adds_until_it_is_killed", "--nocapture"])
        .env(DIR, dir)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acked = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = line.rsplit_once("ack ").and_then(|(_, number)| number.parse::<u64>().ok());
        acked = number.or(acked);
        if number == Some(from + count) {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acked
}

/// What is stored is found, what is found is stored, and all that was acknowledged is there.
fn check(dir: &std::path::Path, acked: u64, round: u64) {
    let (memory, store) = open(dir);
    let ns = Ns::within("vectors", "kill").unwrap();
    let mut scan = Scan::prefix(b"r").limit(1000);
    let mut stored = 0_u64;
    loop {
        let page = store.scan(&ns, scan.clone()).unwrap();
        let Some((last, _)) = page.last() else { break };
        scan = scan.after(last.clone());
        for (key, _) in &page {
            let id = std::str::from_utf8(&key[1..]).unwrap();
            let entry = memory.get(id).unwrap().unwrap();
            let of: u64 = entry.content.parse().unwrap();
            assert_eq!(entry.metadata["of"], of, "round {round}: {id}");
            // Each search looks at all vectors; so of the old ones some in each round.
            let number: u64 = id.parse().unwrap();
            if number + 200 > acked || number % 16 == round % 16 {
                let hits = memory.search_exact(&vector(of), 3, &Filter::All).unwrap();
                let own = hits.iter().find(|hit| hit.id == id);
                assert!(own.is_some_and(|hit| hit.score > 0.9999), "round {round}: {id} {hits:?}");
            }
        }
        stored += page.len() as u64;
    }
    let stats = memory.stats();
    assert_eq!((memory.len().unwrap(), stats.vectors), (stored, stored), "round {round}");
    for i in 0..=acked {
        let found = memory.get(&i.to_string()).unwrap().map(|entry| entry.content);
        let of = if i.is_multiple_of(5) { i + 1_000_000_000 } else { i };
        let expected = (!i.is_multiple_of(7)).then(|| of.to_string());
        assert_eq!(found, expected, "round {round}: {i} was acknowledged");
    }
    // By the graph and by comparing with all, mostly the same.
    let same = (0..50).filter(|i| {
        let query = vector(i + 2_000_000_000);
        let exact = memory.search_exact(&query, 1, &Filter::All).unwrap();
        memory.search(&query, 1, &Filter::All).unwrap() == exact
    });
    assert!(same.count() >= 40, "round {round}: {stats:?}");
}

#[test]
fn no_kill_parts_a_record_from_its_vector() {
    let rounds = std::env::var("TERRACE_VECTOR_KILLS").map_or(8, |count| count.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("db");
    let (mut next, mut random) = (0, 11_u64);
    for round in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = (random >> 33) % if rounds > 20 { 60 } else { 300 };
        let acked = kill_after(&dir, next, count).unwrap();
        check(&dir, acked, round);
        next = acked + 1;
    }
}
