//! A long-term memory: what was said and decided, as Markdown, and found again in two languages.
//! The folder can be given; otherwise it is a temporary one.

use terrace_memory::Error;
use terrace_memory::conversation::Role;
use terrace_memory::hook::{Env, HookKind, run_hook};
use terrace_memory::recall::{Decision, LongTerm, SearchOptions, Turn};

fn main() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let given = std::env::args().nth(1).map(std::path::PathBuf::from);
    let project = given.unwrap_or_else(|| directory.path().to_owned());
    let env = Env { project_dir: Some(project.clone()), ..Env::from_process() };

    // As Claude Code calls it; the program `terrace-memory` does nothing else.
    let input = r#"{"hook_event_name":"UserPromptSubmit","session_id":"s1","prompt_id":"p1",
        "prompt":"How do we share the work between agents?"}"#;
    println!("prompt: {:?}", run_hook(HookKind::UserPrompt, input.as_bytes(), &env));

    let memory = LongTerm::open(&project, None)?;
    let text = "A PM hands tasks to workers.\n\n`#tags: orchestrator, pm-worker`".to_owned();
    let (session, prompt) = ("s1".to_owned(), "p1".to_owned());
    let (role, project) = (Role::Assistant, "demo".to_owned());
    let turn = Turn { role, text, at: env.now, session, prompt, project };
    println!("answer: {:?}", memory.record(&turn)?);

    memory.remember("architecture", "One queue", "- All workers take from it.", &["queue"])?;
    let new = Decision {
        section: "architecture".to_owned(),
        title: "A queue a worker".to_owned(),
        body: "- Workers never wait for each other.".to_owned(),
        keywords: vec!["queue".to_owned()],
    };
    match memory.supersede("One queue", new, "the one was always full") {
        // The second run on one folder.
        Err(Error::Invalid(why)) => println!("not superseded: {why}"),
        done => done?,
    }
    // "Parallel work", in Korean.
    for question in ["\u{bcd1}\u{b82c} \u{c791}\u{c5c5}", "queues"] {
        println!("{question}?");
        for hit in memory.search(question, SearchOptions::default())? {
            let (place, line) = (hit.file, hit.line);
            println!("  {place}:{line} {} {:?} by {:?}", hit.heading, hit.status, hit.matched);
        }
    }
    println!("{} findings", memory.audit()?.findings.len());
    Ok(())
}
