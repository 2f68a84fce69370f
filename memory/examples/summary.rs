//! A conversation that is summarised as it grows; a summariser that fails loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use terrace_memory::Error;
use terrace_memory::conversation::{Message, Role, SessionMemoryStore};
use terrace_memory::store::{EngineStore, Store};
use terrace_memory::summary::{Compaction, SummaryMemory};
use terrace_memory::tokens::Vocabulary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let sessions = SessionMemoryStore::new(Arc::clone(&store), Arc::new(Vocabulary::O200k));
    let talk = sessions.get_or_create("session-1")?;
    let busy = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&busy);
    let model = move |before: Option<&str>, messages: &[Message]| {
        if fails.swap(false, Ordering::Relaxed) {
            return Err(Error::Timeout);
        }
        let topics: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        Ok(format!("{}{}; ", before.unwrap_or("They spoke of: "), topics.join(", ")))
    };
    let counter = Arc::new(Vocabulary::O200k);
    let memory = SummaryMemory::new(store, "session-1", talk, counter, Arc::new(model), 4)?;
    for topic in ["tiers", "segments", "archives", "tombstones", "the ledger", "kills", "salvage"] {
        memory.add(Message::new(Role::User, topic))?;
    }
    memory.add(Message::new(Role::Assistant, "Anything else?"))?;

    assert!(matches!(memory.compact(), Err(Error::Timeout)));
    assert_eq!(memory.context()?.recent.len(), 8, "nothing was lost");
    assert!(matches!(memory.compact()?, Compaction::Done { messages: 4, .. }));
    let context = memory.context()?;
    println!("{} ... and {} messages", context.summary.as_deref().unwrap_or(""), 4);
    assert_eq!(context.recent.len(), 4);
    assert!(context.summary.is_some_and(|summary| summary.contains("tombstones")));
    Ok(())
}
