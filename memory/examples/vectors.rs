//! Notes found by what they say: texts, vectors, filters, and an exact answer.
//! The embedder here hashes words; with a key, `HttpEmbedder` takes its place.

use std::sync::Arc;

use serde_json::json;
use terrace_memory::embed::{CachedEmbedder, HashingEmbedder};
use terrace_memory::store::{EngineStore, Store, Ttl};
use terrace_memory::vector::{Filter, VectorMemory, VectorOptions};

const NOTES: [(&str, &str, u64); 5] = [
    ("tiers", "Hot records are answered from memory, cold ones from an archive.", 2024),
    ("kill", "A kill of the process loses nothing that was acknowledged.", 2025),
    ("space", "Deleted and expired bytes go back to the operating system.", 2025),
    ("order", "Range and prefix walk the keys in order over all tiers.", 2026),
    ("lunch", "The canteen has soup on Fridays.", 2026),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let embedder = CachedEmbedder::new(HashingEmbedder::new(512)?, Arc::clone(&store), Ttl::Never)?;
    let notes = VectorMemory::open_with_embedder(
        store,
        "notes",
        VectorOptions::new(512),
        Arc::new(embedder),
    )?;
    for (id, text, year) in NOTES {
        notes.add_text(id, text, json!({ "year": year }))?;
    }

    let hits = notes.search_text("which records come from an archive?", 2, &Filter::All)?;
    for hit in &hits {
        println!("{:.3} {}: {}", hit.score, hit.id, hit.content);
    }
    assert_eq!(hits.first().map(|hit| hit.id.as_str()), Some("tiers"));

    let recent = Filter::at_least("year", 2026.0);
    let hits = notes.search_text("records in order", 5, &recent)?;
    assert_eq!(hits.len(), 2);
    assert_eq!(hits.first().map(|hit| hit.id.as_str()), Some("order"));

    assert!(notes.remove("lunch")?);
    assert_eq!(notes.len()?, 4);
    println!("{:?}", notes.stats());
    Ok(())
}
