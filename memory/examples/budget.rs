//! Tokens of an hour: counted exactly, each request once, and held back while a request runs.

use std::sync::Arc;
use std::time::Duration;

use terrace_memory::Error;
use terrace_memory::budget::{TokenBudgetTracker, Window};
use terrace_memory::store::EngineStore;
use terrace_memory::tokens::{TokenCounter, Vocabulary};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store = Arc::new(EngineStore::new(&db)?);
    let hour = Window::Rolling(Duration::from_hours(1));
    let budget = TokenBudgetTracker::new(store, "ada", 1000, hour)?;

    let prompt = "Which tier answers a key that was just written?";
    let tokens = Vocabulary::O200k.count(prompt) as u64;
    let left = budget.record("request-1", tokens)?;
    assert_eq!(left, 1000 - tokens);
    assert_eq!(budget.record("request-1", tokens)?, left, "one request counts once");

    let reserved = budget.reserve("request-2", 600)?;
    match budget.record("request-3", 500) {
        Err(Error::BudgetExceeded { needed, remaining }) => {
            println!("refused: {needed} needed, {remaining} remaining");
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    reserved.commit(150)?;
    assert_eq!(budget.remaining()?, left - 150);

    drop(budget.reserve("request-4", 300)?);
    assert_eq!(budget.remaining()?, left - 150, "what was not used is given back");
    println!("{} of 1000 left", budget.remaining()?);
    Ok(())
}
