//! Changes that others hear of, and an audit trail without gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use terrace_memory::event::{EventDrivenStateManager, StateChange};
use terrace_memory::retention::Retention;
use terrace_memory::store::EngineStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let state = EventDrivenStateManager::new(Arc::new(EngineStore::new(&db)?), "session-1")?;
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    let listening = state.subscribe(Arc::new(move |change: &StateChange| {
        println!("{}: {} is {:?}", change.seq.0, change.key, change.new);
        count.fetch_add(1, Ordering::Relaxed);
    }));
    for theme in ["dark", "light", "dark"] {
        state.set("theme", &json!(theme), "settings", json!({ "by": "ada" }))?;
    }
    drop(listening);
    state.set("language", &json!("ko"), "agent", json!(null))?;
    assert_eq!(heard.load(Ordering::Relaxed), 3, "who left hears nothing more");

    let trail = state.audit(None, None, 10)?;
    let numbers: Vec<u64> = trail.iter().map(|change| change.seq.0).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    assert_eq!(trail.get(1).and_then(|change| change.old.clone()), Some(json!("light")));
    state.retain(Retention::count(2))?;
    assert_eq!(state.audit(None, None, 10)?.len(), 2);
    assert_eq!(state.get("theme")?, Some(json!("dark")), "the state itself stays");
    Ok(())
}
