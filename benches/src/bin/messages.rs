//! Messages of 1 KiB appended to a conversation, side by side with `SQLite` in WAL mode.
//! Run with `cargo run --release -p terrace-benches --features peers-sqlite --bin messages`.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, params};
use terrace_memory::conversation::{Message, Role, SessionMemoryStore};
use terrace_memory::store::{Durability, EngineStore, Store};
use terrace_memory::tokens::TokenCounter;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BUFFERED: u64 = 50_000;
const SYNCED: u64 = 250;
const THREADS: u64 = 8;
const ROUNDS: usize = 3;

/// `SQLite` counts no tokens; then neither does the other side.
struct Uncounted;

impl TokenCounter for Uncounted {
    fn count(&self, text: &str) -> usize {
        text.len() / 4
    }

    fn id(&self) -> &'static str {
        "uncounted"
    }
}

fn text() -> String {
    "the engine moves a record by how it is used; ".chars().cycle().take(1024).collect()
}

/// A connection as an agent's session store opens it: a table of messages by session and place.
fn sqlite(path: &Path, synchronous: &str) -> Outcome<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_mins(1))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS message (session TEXT NOT NULL, seq INTEGER NOT NULL, \
         role TEXT NOT NULL, content TEXT NOT NULL, at INTEGER NOT NULL, \
         PRIMARY KEY (session, seq)) WITHOUT ROWID",
    )?;
    Ok(connection)
}

fn sqlite_appends(connection: &Connection, session: &str, count: u64) -> Outcome<()> {
    let text = text();
    let mut insert = connection.prepare(
        "INSERT INTO message (session, seq, role, content, at) VALUES (?1, ?2, 'user', ?3, ?4)",
    )?;
    for seq in 0..count {
        insert.execute(params![session, seq, text, 1_800_000_000_000_u64])?;
    }
    Ok(())
}

fn terrace_appends(
    sessions: &SessionMemoryStore,
    session: &str,
    count: u64,
    durability: Durability,
) -> Outcome<()> {
    let talk = sessions.get_or_create(session)?.durability(durability);
    let message = Message::new(Role::User, text());
    for _ in 0..count {
        talk.append(message.clone())?;
    }
    Ok(())
}

/// Appends a second, of all threads together.
fn rate(count: u64, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let begin = Instant::now();
    work()?;
    #[expect(clippy::cast_precision_loss, reason = "a figure to print")]
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

fn on_threads(one: impl Fn(u64) -> Outcome<()> + Sync) -> Outcome<()> {
    let one = &one;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|i| scope.spawn(move || one(i))).collect();
        running.into_iter().try_for_each(|one| one.join().map_err(|_| "a thread panicked")?)
    })
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(0.0)
}

fn round(directory: &Path) -> Outcome<[f64; 4]> {
    let db = terrace::Db::open(directory.join("terrace"))?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let sessions = SessionMemoryStore::new(store, Arc::new(Uncounted));
    let path = directory.join("sqlite.db");
    let ours =
        rate(BUFFERED, || terrace_appends(&sessions, "buffered", BUFFERED, Durability::Buffered))?;
    let normal = sqlite(&path, "NORMAL")?;
    let theirs = rate(BUFFERED, || sqlite_appends(&normal, "buffered", BUFFERED))?;
    drop(normal);
    let ours_synced = rate(SYNCED * THREADS, || {
        on_threads(|i| {
            terrace_appends(&sessions, &format!("synced {i}"), SYNCED, Durability::Synced)
        })
    })?;
    let theirs_synced = rate(SYNCED * THREADS, || {
        on_threads(|i| {
            let full = sqlite(&path, "FULL")?;
            sqlite_appends(&full, &format!("synced {i}"), SYNCED)
        })
    })?;
    Ok([ours, theirs, ours_synced, theirs_synced])
}

fn main() -> Outcome<()> {
    let mut all: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir_in(".")?;
        for (rates, rate) in all.iter_mut().zip(round(directory.path())?) {
            rates.push(rate);
        }
    }
    let [ours, theirs, ours_synced, theirs_synced] = all.map(median);
    println!("appends of 1 KiB a second, median of {ROUNDS} rounds");
    for (what, ours, theirs) in [
        ("buffered, one thread; SQLite WAL NORMAL", ours, theirs),
        ("synced, 8 threads; SQLite WAL FULL", ours_synced, theirs_synced),
    ] {
        println!("{what}: terrace {ours:.0}, sqlite {theirs:.0}, ratio {:.2}", ours / theirs);
    }
    Ok(())
}
