//! Pages that are much alike, compressed one by one; `train` learns what they have in common.

use std::sync::Arc;

use serde_json::json;
use terrace_memory::Json;
use terrace_memory::compressed::CompressedMemory;
use terrace_memory::store::{EngineStore, Ttl};

fn page(number: u32) -> Json {
    let tool = if number.is_multiple_of(3) { "read_file" } else { "search" };
    json!({
        "kind": "tool result",
        "tool": tool,
        "arguments": { "path": format!("src/module_{number}.rs"), "limit": number * 37 % 500 },
        "status": "succeeded",
        "lines": "one line of a file and its end, ".repeat(40),
        "limits": { "lines": 2000, "bytes": 65536, "seconds": 30, "calls_of_a_turn": 25 },
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
    assert!(ratio > 3.0, "much of a page is in the one before");
    assert_eq!(pages.get::<Json>("before/7")?, Some(page(7)));
    assert_eq!(pages.get::<Json>("after/512")?, Some(page(512)));
    Ok(())
}
