//! Two nodes on one machine share a session over TCP: each writes, both come to hold the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use terrace_memory::Error;
use terrace_memory::store::EngineStore;
use terrace_memory::sync::{DistributedSessionSync, TcpTransport};

fn main() -> Result<(), Error> {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let desk_end = Arc::new(TcpTransport::bind("desk", free)?);
    let laptop_end = Arc::new(TcpTransport::bind("laptop", free)?);
    desk_end.add_peer("laptop", laptop_end.address())?;
    laptop_end.add_peer("desk", desk_end.address())?;
    let open = |node: &str, end: &Arc<TcpTransport>| -> Result<DistributedSessionSync, Error> {
        let db = terrace::Options::new().memory_budget(16 << 20).temporary()?;
        let (store, end) = (Arc::new(EngineStore::new(&db)?), Arc::clone(end));
        DistributedSessionSync::open(store, "plan", node, end)
    };
    let (desk, laptop) = (open("desk", &desk_end)?, open("laptop", &laptop_end)?);
    desk.add_peer("laptop")?;
    laptop.add_peer("desk")?;
    let worker = laptop.spawn();
    for step in 0..1000 {
        desk.set(&format!("step {step}"), &json!({ "done": false }))?;
    }
    let last = desk.set("title", &json!("Ship it"))?;
    println!("all there: {}", desk.wait_acked(&last, Duration::from_secs(30))?);
    let reply = laptop.set("title", &json!("Ship it on Friday"))?;
    println!("later than {last}: {reply}");
    while desk.get("title")? != Some(json!("Ship it on Friday")) {
        desk.pump(Duration::from_millis(50))?;
    }
    println!("desk: {:?}; {} keys", desk.get("title")?, desk.all()?.len());
    worker.stop()
}
