//! Two agents and a channel: in order, at least once, and from where the reader stopped.

use std::sync::Arc;
use std::time::Duration;

use terrace_memory::channel::{DistributedMemory, From};
use terrace_memory::store::{EngineStore, Store};

const WAIT: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let plans = DistributedMemory::<String>::new(Arc::clone(&store), "plans")?;
    for step in ["read", "write", "test"] {
        plans.publish(&step.to_owned())?;
    }

    let mut worker = plans.subscribe("worker", From::Stored)?;
    let first = worker.next(WAIT)?.ok_or("nothing came")?;
    assert_eq!(first.value, "read");
    worker.ack(first.seq)?;
    let second = worker.next(WAIT)?.ok_or("nothing came")?;
    println!("died over {:?}", second.value);
    drop(worker);

    // What was not acknowledged comes again; another reader has a place of its own.
    let mut worker = plans.subscribe("worker", From::Stored)?;
    let mut seen = Vec::new();
    while let Some(event) = worker.next(WAIT)? {
        worker.ack(event.seq)?;
        seen.push(event.value);
    }
    assert_eq!(seen, ["write", "test"]);
    let mut audit = plans.subscribe("audit", From::Start)?;
    assert_eq!(audit.next(WAIT)?.map(|event| event.value), Some("read".to_owned()));
    Ok(())
}
