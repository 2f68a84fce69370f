//! An order on its way: only what the table allows, and a history that says who moved it.

use std::sync::Arc;

use serde_json::json;
use terrace_memory::Error;
use terrace_memory::store::{EngineStore, Store};
use terrace_memory::workflow::{StatefulMemory, Transitions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let table = Transitions::builder("draft")
        .allow("draft", ["review"])
        .allow("review", ["draft", "done"])
        .terminal("done")
        .build()?;
    let order = StatefulMemory::open(Arc::clone(&store), "order-7", table.clone())?;
    order.transition("review", json!({ "by": "ada" }))?;
    order.transition("draft", json!({ "why": "a figure is missing" }))?;
    order.transition("review", json!({ "by": "ada" }))?;

    // Two want to move it; the second says from where, and is told that it is too late.
    let other = StatefulMemory::open(store, "order-7", table)?;
    order.transition_from("review", "done", json!({ "by": "grace" }))?;
    match other.transition_from("review", "draft", json!(null)) {
        Err(Error::InvalidTransition { .. } | Error::Conflict { .. }) => {}
        other => return Err(format!("not refused: {other:?}").into()),
    }
    assert_eq!(other.current()?.name, "done");
    for step in order.history(None, 10)? {
        println!("{}: {} -> {}", step.seq.0, step.from, step.to);
    }
    assert_eq!(order.history(None, 10)?.len(), 4);
    Ok(())
}
