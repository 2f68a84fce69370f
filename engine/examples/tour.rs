//! A short tour: put, get, TTL, a batch, an update, a walk, the ledger.

use std::time::Duration;

use terrace::{Change, Options, PutOptions};

fn main() -> terrace::Result<()> {
    let db = Options::new().memory_budget(32 << 20).temporary()?;
    let notes = db.keyspace("notes")?;
    notes.put("plan", "write it down")?;
    notes.put_with("code", "4711", PutOptions::new().ttl(Duration::from_mins(1)))?;

    let mut batch = db.batch();
    batch.put(&notes, "a", "1");
    batch.put(&notes, "b", "2");
    batch.commit()?;

    notes.update("visits", |old| {
        let count = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        Change::Put((count + 1).to_le_bytes().to_vec())
    })?;
    for item in notes.prefix("") {
        let (key, value) = item?;
        println!("{key:?}: {} bytes", value.len());
    }
    db.sync()?;
    assert!(db.audit()?.is_exact());
    println!("{} bytes on disk, audited", db.ledger().disk_len());
    Ok(())
}
