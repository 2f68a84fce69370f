//! What a user prefers, with a time to live, and a counter that loses no write of any thread.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use terrace_memory::Error;
use terrace_memory::session::{MemoryKey, MemoryStore, Scope};
use terrace_memory::store::{EngineStore, Ttl};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Preferences {
    theme: String,
    language: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let memory = MemoryStore::new(Arc::new(EngineStore::new(&db)?));
    let key = MemoryKey::new(Scope::User, "ada", "preferences");
    let wanted = Preferences { theme: "dark".to_owned(), language: None };
    memory.set(&key, &wanted, Ttl::For(Duration::from_hours(1)))?;
    assert_eq!(memory.get::<Preferences>(&key)?, Some(wanted));
    assert!(memory.ttl(&key)?.is_some_and(|left| left <= Duration::from_hours(1)));

    // A stored null is a value; a missing one is none.
    let cleared = MemoryKey::new(Scope::User, "ada", "cleared");
    memory.set(&cleared, &None::<String>, Ttl::Never)?;
    assert_eq!(memory.get::<Option<String>>(&cleared)?, Some(None));

    let visits = MemoryKey::new(Scope::Project, "ada", "visits");
    std::thread::scope(|scope| {
        let count = || -> Result<(), Error> {
            for _ in 0..50 {
                memory.update(&visits, |old: Option<u64>| Ok((Some(old.unwrap_or(0) + 1), ())))?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| Error::Closed)?)
    })?;
    assert_eq!(memory.get::<u64>(&visits)?, Some(200));
    println!("{:?}", memory.list(Scope::User, Some("ada"), None, 10)?);
    Ok(())
}
