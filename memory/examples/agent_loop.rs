//! A small agent: a loop of turns over one store on disk, with everything that it remembers.
//! Run it twice: the second run goes on where the first ended. The model is a stand-in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use terrace_memory::budget::{TokenBudgetTracker, Window as Span};
use terrace_memory::context::RequestContext;
use terrace_memory::conversation::{Message, Role, SessionMemoryStore, Window};
use terrace_memory::event::{EventDrivenStateManager, StateChange};
use terrace_memory::session::{MemoryKey, MemoryStore, Scope};
use terrace_memory::state::SessionStateManager;
use terrace_memory::store::{EngineStore, Store, Ttl};
use terrace_memory::summary::SummaryMemory;
use terrace_memory::tokens::{TokenCounter, Vocabulary};
use terrace_memory::workflow::{StatefulMemory, Transitions};
use terrace_memory::{Error, Json};

const QUESTIONS: [&str; 3] = [
    "Which tier answers a key that was just written?",
    "And one that nobody has read for a week?",
    "What does a kill -9 lose?",
];

/// What a model would say.
fn answer(question: &str, shown: usize) -> String {
    format!("You asked {:?}; I was shown {shown} messages.", question.to_lowercase())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/agent-loop".to_owned());
    let db = terrace::Options::new().memory_budget(64 << 20).open(&directory)?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let counter: Arc<dyn TokenCounter> = Arc::new(Vocabulary::O200k);

    let memory = MemoryStore::new(Arc::clone(&store));
    let runs = MemoryKey::new(Scope::User, "ada", "runs");
    let run = memory.update(&runs, |old: Option<u64>| {
        let run = old.unwrap_or(0) + 1;
        Ok((Some(run), run))
    })?;
    println!("run {run} in {directory}");

    let hour = Span::Rolling(Duration::from_hours(1));
    let budget = TokenBudgetTracker::new(Arc::clone(&store), "ada", 20_000, hour)?;
    let sessions = SessionMemoryStore::new(Arc::clone(&store), Arc::clone(&counter));
    let talk = sessions.get_or_create("ada")?;
    if talk.is_empty()? {
        talk.append(Message::new(Role::System, "You answer in one sentence."))?;
    }
    let table = Transitions::builder("idle")
        .allow("idle", ["thinking"])
        .allow("thinking", ["idle"])
        .build()?;
    let work = StatefulMemory::open(Arc::clone(&store), "ada", table)?;
    let facts = EventDrivenStateManager::new(Arc::clone(&store), "ada")?;
    let _heard = facts.subscribe(Arc::new(|change: &StateChange| {
        println!("  event {}: {} is now {:?}", change.seq.0, change.key, change.new);
    }));
    let state = SessionStateManager::new(Arc::clone(&store), "ada")?;

    for (turn, question) in QUESTIONS.iter().enumerate() {
        let id = format!("run-{run}-turn-{turn}");
        let context = RequestContext::new(&id).user_id("ada").build();
        context.run(|| -> Result<(), Error> {
            if work.can("thinking")? {
                work.transition("thinking", json!({ "request": id }))?;
            }
            let view = talk.window(Window::tokens(4000))?;
            let asked = counter.count(question) as u64;
            let reserved = budget.reserve(&id, view.tokens + asked + 200)?;
            let said = answer(question, view.messages.len());
            let used = view.tokens + asked + counter.count(&said) as u64;
            talk.append_all(&[
                Message::new(Role::User, *question).group(id.clone()),
                Message::new(Role::Assistant, said.clone()).group(id.clone()),
            ])?;
            let remaining = reserved.commit(used)?;
            println!("{question}\n  {said}\n  {used} tokens used, {remaining} remain");
            state.set("last question", &json!(question))?;
            state.snapshot(json!({ "request": id }))?;
            facts.set("turns", &json!(talk.len()? / 2), &id, Json::Null)?;
            work.transition_from("thinking", "idle", Json::Null)?;
            Ok(())
        })?;
    }
    let summarize = |before: Option<&str>, messages: &[Message]| {
        Ok(format!("{} {} messages.", before.unwrap_or("So far:"), messages.len()))
    };
    let summary =
        SummaryMemory::new(Arc::clone(&store), "ada", talk, counter, Arc::new(summarize), 4)?;
    println!("summary: {:?}", summary.compact()?);
    println!("context: {:?}", summary.context()?.summary);
    memory.set(
        &MemoryKey::new(Scope::Session, "ada", "done"),
        &true,
        Ttl::For(Duration::from_hours(1)),
    )?;
    println!(
        "{} steps of work, {} snapshots",
        work.history(None, 1000)?.len(),
        state.snapshots()?.len()
    );
    Ok(())
}
