//! Loads a million small records into a temporary store, reads them back, prints what they take.
use std::time::Instant;

fn main() -> terrace::Result<()> {
    let n: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let db = terrace::Options::new().temporary()?;
    let ks = db.keyspace("default")?;
    let begin = Instant::now();
    for i in 0..n {
        ks.put(format!("key-{i:020}"), [(i % 251) as u8; 100])?;
    }
    let loaded = begin.elapsed();
    let begin = Instant::now();
    let mut at = 1_u64;
    for _ in 0..n {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key-{:020}", (at >> 33) % n);
        assert!(ks.get_with(key, |v| v.len() == 100)?.unwrap_or(false));
    }
    println!("load {loaded:?}, read {:?}, {:#?}", begin.elapsed(), db.stats());
    Ok(())
}
