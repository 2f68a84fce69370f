//! The figures of the memory layer that somebody has promised: run with `cargo bench -p
//! terrace-memory`. Prints; compares with nothing.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use terrace_memory::conversation::{ConversationMemory, Message, Role, SessionMemoryStore, Window};
use terrace_memory::state::SessionStateManager;
use terrace_memory::store::{Durability, EngineStore, Store};
use terrace_memory::tokens::{TokenCounter, Vocabulary};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Counts bytes: what an append costs without counting tokens.
struct Bytes;

impl TokenCounter for Bytes {
    fn count(&self, text: &str) -> usize {
        text.len() / 4
    }

    fn id(&self) -> &'static str {
        "bytes"
    }
}

fn report(what: &str, count: u32, took: Duration) {
    println!("{what:<54} {count:>8} times {:>12.2?} each", took / count);
}

fn text(len: usize) -> String {
    let words = "the engine moves a record by how it is used and never asks anybody for it; ";
    words.chars().cycle().take(len).collect()
}

fn appends(store: &Arc<dyn Store>, counter: Arc<dyn TokenCounter>, what: &str) -> Outcome {
    let sessions = SessionMemoryStore::new(Arc::clone(store), counter);
    let talk = sessions.get_or_create(what)?;
    let message = Message::new(Role::User, text(1024));
    let begin = Instant::now();
    for _ in 0..20_000 {
        talk.append(message.clone())?;
    }
    report(what, 20_000, begin.elapsed());
    Ok(())
}

fn synced(store: &Arc<dyn Store>) {
    let sessions = SessionMemoryStore::new(Arc::clone(store), Arc::new(Vocabulary::O200k));
    let begin = Instant::now();
    let (threads, each) = (8_u32, 100_u32);
    let one = |thread: u32| -> terrace_memory::Result<()> {
        let talk = sessions.get_or_create(&format!("synced {thread}"))?;
        let talk = talk.durability(Durability::Synced);
        (0..each).try_for_each(|_| talk.append(Message::new(Role::User, text(1024))).map(|_| ()))
    };
    let one = &one;
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|i| scope.spawn(move || one(i))).collect();
        running.into_iter().all(|one| matches!(one.join(), Ok(Ok(()))))
    });
    assert!(done, "every append is there");
    report("append 1 KiB, synced, 8 threads, 8 sessions", threads * each, begin.elapsed());
}

fn fill(talk: &ConversationMemory, count: usize) -> Outcome {
    let page: Vec<Message> = (0..500).map(|_| Message::new(Role::User, text(100))).collect();
    for _ in 0..count / page.len() {
        talk.append_all(&page)?;
    }
    Ok(())
}

fn long_history() -> Outcome {
    let directory = tempfile::tempdir()?;
    let open = || -> Result<_, Box<dyn std::error::Error>> {
        let db = terrace::Db::open(directory.path().join("data"))?;
        let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
        Ok(SessionMemoryStore::new(store, Arc::new(Vocabulary::O200k)))
    };
    let sessions = open()?;
    for (id, count) in [("short", 1000), ("long", 1_000_000)] {
        let talk = sessions.get_or_create(id)?;
        fill(&talk, count)?;
        for tokens in [500, 4000] {
            let begin = Instant::now();
            for _ in 0..1000 {
                talk.window(Window::tokens(tokens))?;
            }
            let what = format!("window({tokens} tokens) of {count} messages");
            report(&what, 1000, begin.elapsed());
        }
    }
    drop(sessions);
    let begin = Instant::now();
    let sessions = open()?;
    let opened = begin.elapsed();
    let last = sessions.get_or_create("long")?.last(50)?;
    println!(
        "open {opened:.2?}; with the last {} of a million {:.2?}",
        last.len(),
        begin.elapsed()
    );
    Ok(())
}

fn snapshots() -> Outcome {
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let state = SessionStateManager::new(store, "s")?.max_snapshots(1000)?;
    for i in 0..10_000 {
        state.set(&format!("key {i}"), &json!(text(1000)))?;
    }
    db.sync()?;
    let before = db.ledger().disk_len();
    let begin = Instant::now();
    for i in 0..1000 {
        state.set(&format!("key {i}"), &json!(i))?;
        state.snapshot(json!(null))?;
    }
    report("set and snapshot of a 10 MB state", 1000, begin.elapsed());
    println!("files {before} bytes before, {} after", db.ledger().disk_len());
    let begin = Instant::now();
    let first = state.snapshots()?.first().map(|info| info.id);
    if let Some(first) = first {
        let restored = state.restore(first)?;
        println!("restore of {} changed keys {:.2?}", restored.changed, begin.elapsed());
    }
    Ok(())
}

fn tokens() {
    Vocabulary::O200k.count("load");
    for (what, text) in [("prose", text(1 << 20)), ("one letter, 512 KiB", "a".repeat(512 << 10))] {
        let begin = Instant::now();
        let count = Vocabulary::O200k.count(&text);
        println!("{count} tokens of {} bytes of {what}: {:.2?}", text.len(), begin.elapsed());
    }
}

fn main() -> Outcome {
    tokens();
    let db = terrace::Options::new().temporary()?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    appends(&store, Arc::new(Vocabulary::O200k), "append 1 KiB, buffered, tokens counted")?;
    appends(&store, Arc::new(Bytes), "append 1 KiB, buffered, tokens not counted")?;
    synced(&store);
    snapshots()?;
    long_history()
}
