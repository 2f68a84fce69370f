//! A long conversation and what of it fits into a prompt: whole turns, system message in front.

use std::sync::Arc;

use terrace_memory::conversation::{Message, Role, SessionMemoryStore, Window};
use terrace_memory::retention::Retention;
use terrace_memory::store::EngineStore;
use terrace_memory::tokens::Vocabulary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = terrace::Options::new().temporary()?;
    let store = Arc::new(EngineStore::new(&db)?);
    let sessions = SessionMemoryStore::new(store, Arc::new(Vocabulary::O200k));
    let talk = sessions.get_or_create("session-1")?;
    talk.append(Message::new(Role::System, "You answer in one sentence."))?;
    for turn in 0..200 {
        let group = format!("turn-{turn}");
        talk.append_all(&[
            Message::new(Role::User, format!("Read file {turn}.")).group(&group),
            Message::new(Role::Assistant, "read_file").group(&group),
            Message::new(Role::Tool, format!("contents of file {turn}")).group(&group),
        ])?;
    }

    let view = talk.window(Window::tokens(200))?;
    assert!(view.tokens <= 200 && !view.truncated);
    let roles: Vec<Role> = view.messages.iter().map(|message| message.role).take(2).collect();
    assert_eq!(roles, [Role::System, Role::User], "no window begins with a tool's result");
    println!("{} messages, {} tokens", view.messages.len(), view.tokens);

    // One turn that is too long by itself is shown all the same, and flagged.
    talk.append(Message::new(Role::User, "again ".repeat(1000)))?;
    assert!(talk.window(Window::tokens(200))?.truncated);

    // Another handle is the same conversation.
    let other = sessions.get_or_create("session-1")?;
    assert_eq!(other.len()?, 602);
    other.retain(Retention::count(30))?;
    assert!(talk.len()? <= 31);
    println!("{}", talk.context_summary(2, 40)?);
    Ok(())
}
