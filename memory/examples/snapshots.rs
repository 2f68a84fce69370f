//! The state of a session, a snapshot before something risky, and a way back that has a way back.

use std::sync::Arc;

use serde_json::json;
use terrace_memory::state::SessionStateManager;
use terrace_memory::store::{EngineStore, MemStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let state = SessionStateManager::new(Arc::new(EngineStore::new(&db)?), "session-1")?;
    state.set("plan", &json!(["read", "write", "test"]))?;
    state.set("files", &json!({ "open": 3 }))?;
    let before = state.snapshot(json!({ "why": "before the refactoring" }))?;

    state.set("plan", &json!([]))?;
    state.remove("files")?;
    let restored = state.restore(before)?;
    assert_eq!(state.get("files")?, Some(json!({ "open": 3 })));

    state.restore(restored.undo)?;
    assert_eq!((state.get("files")?, state.get("plan")?), (None, Some(json!([]))));
    for snapshot in state.snapshots()? {
        println!("{snapshot:?}");
    }

    // All of it as one JSON document, read into another store.
    let mut document = Vec::new();
    state.export(&mut document)?;
    let copy = SessionStateManager::new(Arc::new(MemStore::new()), "copy")?;
    copy.import(&mut document.as_slice())?;
    assert_eq!(copy.get("plan")?, Some(json!([])));
    println!("exported {} bytes", document.len());
    Ok(())
}
