//! A small agent: a loop of turns over one store on disk, with everything that it remembers.
//! Run it twice: the second run goes on where the first ended. The model is a stand-in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use terrace_memory::budget::{TokenBudgetTracker, Window as Span};
use terrace_memory::context::RequestContext;
use terrace_memory::conversation::{ConversationMemory, Message, Role, SessionMemoryStore, Window};
use terrace_memory::event::{EventDrivenStateManager, StateChange};
use terrace_memory::session::{MemoryKey, MemoryStore, Scope};
use terrace_memory::state::SessionStateManager;
use terrace_memory::store::{EngineStore, Store};
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

/// What the agent remembers, all of it in one store.
struct Agent {
    budget: TokenBudgetTracker,
    talk: ConversationMemory,
    work: StatefulMemory,
    facts: EventDrivenStateManager,
    state: SessionStateManager,
}

impl Agent {
    fn open(store: &Arc<dyn Store>) -> Result<Self, Error> {
        let hour = Span::Rolling(Duration::from_hours(1));
        let sessions = SessionMemoryStore::new(Arc::clone(store), Arc::new(Vocabulary::O200k));
        let talk = sessions.get_or_create("ada")?;
        if talk.is_empty()? {
            talk.append(Message::new(Role::System, "You answer in one sentence."))?;
        }
        let table = Transitions::builder("idle").allow("idle", ["thinking"]);
        let table = table.allow("thinking", ["idle"]).build()?;
        Ok(Self {
            budget: TokenBudgetTracker::new(Arc::clone(store), "ada", 20_000, hour)?,
            talk,
            work: StatefulMemory::open(Arc::clone(store), "ada", table)?,
            facts: EventDrivenStateManager::new(Arc::clone(store), "ada")?,
            state: SessionStateManager::new(Arc::clone(store), "ada")?,
        })
    }

    fn turn(&self, question: &str) -> Result<(), Error> {
        let context = RequestContext::current().ok_or(Error::Invalid("no request"))?;
        let id = context.request_id();
        if self.work.can("thinking")? {
            self.work.transition("thinking", json!({ "request": id }))?;
        }
        let view = self.talk.window(Window::tokens(4000))?;
        let count = |text: &str| Vocabulary::O200k.count(text) as u64;
        let reserved = self.budget.reserve(id, view.tokens + count(question) + 200)?;
        let said = answer(question, view.messages.len());
        let used = view.tokens + count(question) + count(&said);
        self.talk.append_all(&[
            Message::new(Role::User, question).group(id),
            Message::new(Role::Assistant, said.clone()).group(id),
        ])?;
        let remaining = reserved.commit(used)?;
        println!("{question}\n  {said}\n  {used} tokens used, {remaining} remain");
        self.state.set("last question", &json!(question))?;
        self.state.snapshot(json!({ "request": id }))?;
        self.facts.set("turns", &json!(self.talk.len()? / 2), id, Json::Null)?;
        self.work.transition_from("thinking", "idle", Json::Null)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/agent-loop".to_owned());
    let db = terrace::Options::new().memory_budget(64 << 20).open(&directory)?;
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db)?);
    let memory = MemoryStore::new(Arc::clone(&store));
    let runs = MemoryKey::new(Scope::User, "ada", "runs");
    let run = memory.update(&runs, |old: Option<u64>| {
        let run = old.unwrap_or(0) + 1;
        Ok((Some(run), run))
    })?;
    println!("run {run} in {directory}");
    let agent = Agent::open(&store)?;
    let _heard = agent.facts.subscribe(Arc::new(|change: &StateChange| {
        println!("  event {}: {} is now {:?}", change.seq.0, change.key, change.new);
    }));
    for (turn, question) in QUESTIONS.iter().enumerate() {
        let context = RequestContext::new(&format!("run-{run}-turn-{turn}")).user_id("ada").build();
        context.run(|| agent.turn(question))?;
    }
    let summarize = |before: Option<&str>, messages: &[Message]| {
        Ok(format!("{} {} messages.", before.unwrap_or("So far:"), messages.len()))
    };
    let (talk, counter) = (agent.talk.clone(), Arc::new(Vocabulary::O200k));
    let summary =
        SummaryMemory::new(Arc::clone(&store), "ada", talk, counter, Arc::new(summarize), 4)?;
    println!("summary: {:?}", summary.compact()?);
    println!("context: {:?}", summary.context()?.summary);
    let (steps, kept) = (agent.work.history(None, 1000)?.len(), agent.state.snapshots()?.len());
    println!("{steps} steps of work, {kept} snapshots");
    Ok(())
}
