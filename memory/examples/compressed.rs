//! Pages that are much alike: a dictionary of their own makes small ones small.

use std::sync::Arc;

use serde_json::json;
use terrace_memory::Json;
use terrace_memory::compressed::CompressedMemory;
use terrace_memory::store::{EngineStore, Ttl};

fn page(number: u32) -> Json {
    json!({
        "kind": "tool result",
        "tool": ["read_file", "list_directory", "search"][number as usize % 3],
        "arguments": { "path": format!("src/module_{number}.rs"), "limit": number * 37 % 500 },
        "status": "succeeded",
        "took_ms": number * 7919 % 1000,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let pages = CompressedMemory::new(Arc::new(EngineStore::new(&db)?), "pages")?;
    for number in 0..500 {
        pages.put(&format!("before/{number}"), &page(number), Ttl::Never)?;
    }
    pages.train()?;
    let mut ratio = 0.0;
    for number in 500..600 {
        ratio += pages.put(&format!("after/{number}"), &page(number), Ttl::Never)?.ratio() / 100.0;
    }
    let stats = pages.stats()?;
    println!("ratio {ratio:.1} with what was learnt; {stats:?}");
    assert_eq!(stats.entries, 600);
    assert!(stats.dict.is_some() && ratio > 1.5);
    assert_eq!(pages.get::<Json>("before/7")?, Some(page(7)));
    assert_eq!(pages.get::<Json>("after/512")?, Some(page(512)));
    Ok(())
}
