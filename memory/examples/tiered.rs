//! Facts that move between memory, log and archive by how they are used, and stay what they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use terrace_memory::store::Ttl;
use terrace_memory::tiered::{DemotePolicy, TieredMemory};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Fact {
    text: String,
    year: u16,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let facts = TieredMemory::open(&db, "facts")?;
    for year in 1900..2000 {
        let text = format!("what happened in {year}");
        facts.put(&format!("year/{year}"), &Fact { text, year }, Ttl::Never)?;
    }
    facts.put("today", &Fact { text: "soup".to_owned(), year: 2026 }, Ttl::For(day()))?;
    let moved = facts.demote(DemotePolicy::Settle(Duration::from_secs(10)))?;
    println!("{moved:?}");

    let read: Option<Fact> = facts.get("year/1969")?;
    assert_eq!(read.map(|fact| fact.year), Some(1969));
    assert!(facts.delete("year/1900")?);
    assert_eq!(facts.get::<Fact>("year/1900")?, None);
    let stats = facts.stats();
    assert_eq!(stats.entries, 100);
    println!("{stats:?}");
    Ok(())
}

fn day() -> Duration {
    Duration::from_hours(24)
}
