//! The hooks, with inputs as Claude Code gives them: nothing is lost, nothing is written twice,
//! nothing ever fails aloud.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOON: Millis = Millis(1_770_206_400_000);
const DAY: &str = ".claude/conversations/2026-02-04.md";

struct Project {
    directory: tempfile::TempDir,
    env: Env,
}

impl Project {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project_dir = Some(directory.path().to_owned());
        Self { directory, env: Env { project_dir, now: NOON, zone: TimeZone::UTC } }
    }

    fn prompt(&self, text: &str, id: &str) -> HookOutcome {
        let input = json!({
            "session_id": "abc123", "prompt_id": id, "cwd": "/somewhere/else",
            "transcript_path": self.transcript(), "permission_mode": "default",
            "hook_event_name": "UserPromptSubmit", "prompt": text,
        });
        run_hook(HookKind::UserPrompt, input.to_string().as_bytes(), &self.env)
    }

    fn stop(&self, id: &str, message: Option<&str>) -> HookOutcome {
        let input = json!({
            "session_id": "abc123", "prompt_id": id, "hook_event_name": "Stop",
            "transcript_path": self.transcript(), "stop_hook_active": false,
            "last_assistant_message": message, "background_tasks": [], "session_crons": [],
        });
        run_hook(HookKind::Stop, input.to_string().as_bytes(), &self.env)
    }

    fn transcript(&self) -> PathBuf {
        self.directory.path().join("t.jsonl")
    }

    fn write_transcript(&self, prompt: &str, answer: &str) {
        let user = json!({ "type": "user", "uuid": "u1", "parentUuid": null,
            "message": { "role": "user", "content": prompt } });
        let said = json!({ "type": "assistant", "uuid": "u2", "parentUuid": "u1",
            "message": { "id": "m", "content": [{ "type": "text", "text": answer }] } });
        let system = json!({ "type": "system", "uuid": "u3", "parentUuid": "u2" });
        let text = format!("{user}\n{said}\n{system}\n");
        files::write_whole(&self.transcript(), &text).unwrap();
    }

    fn day(&self) -> String {
        files::read(&self.directory.path().join(DAY)).unwrap().unwrap_or_default()
    }
}

fn recorded(what: Recorded) -> HookOutcome {
    HookOutcome::Recorded(what)
}

#[test]
fn a_prompt_and_its_answer_are_written_down_with_all_tags() {
    let project = Project::new();
    assert_eq!(project.prompt("Write the parser", "p1"), recorded(Recorded::Appended));
    let long = format!("{}\n\n`#tags: parser, jsonl`", "done ".repeat(300));
    assert_eq!(project.stop("p1", Some(&long)), recorded(Recorded::Appended));
    assert_eq!(project.stop("p1", Some(&long)), recorded(Recorded::Duplicate));
    let day = project.day();
    assert!(day.contains("## [12:00] User\n<!-- at=2026-02-04T12:00:00Z session=abc123 prompt=p1"));
    assert!(day.contains("\u{2026}\n\n`#tags: parser, jsonl`\n"), "{day}");
    let name = project.directory.path().file_name().unwrap().to_string_lossy().into_owned();
    assert!(day.contains(&format!("project: {name}\n")));
}

#[test]
fn without_the_message_the_transcript_is_asked_for_this_prompt() {
    let project = Project::new();
    project.prompt("Question", "p1");
    project.write_transcript("Question", "Answer from the file");
    assert_eq!(project.stop("p1", None), recorded(Recorded::Appended));
    assert!(project.day().contains("Answer from the file"));
}

#[test]
fn a_stale_transcript_leaves_a_gap_that_the_next_prompt_repairs() {
    let project = Project::new();
    project.write_transcript("An older question", "An older answer");
    project.prompt("Question", "p1");
    assert_eq!(project.stop("p1", None), recorded(Recorded::Appended));
    assert!(project.day().contains(NOT_CAPTURED) && !project.day().contains("older"));
    project.write_transcript("Question", "The answer that came late");
    assert_eq!(project.prompt("Next question", "p2"), recorded(Recorded::Appended));
    let day = project.day();
    assert!(!day.contains(NOT_CAPTURED), "{day}");
    let places = ["The answer that came late", "Next question"].map(|text| day.find(text).unwrap());
    assert!(places[0] < places[1]);
}

#[test]
fn other_events_subagents_and_broken_inputs_write_no_turn() {
    let project = Project::new();
    let run = |kind, input: &str| run_hook(kind, input.as_bytes(), &project.env);
    let failure = r#"{"hook_event_name":"StopFailure","last_assistant_message":"API error"}"#;
    assert_eq!(run(HookKind::Stop, failure), HookOutcome::Skipped("another event"));
    let agent = r#"{"hook_event_name":"Stop","agent_id":"a","last_assistant_message":"x"}"#;
    assert_eq!(run(HookKind::Stop, agent), HookOutcome::Skipped("a subagent"));
    let empty = r#"{"hook_event_name":"UserPromptSubmit","prompt":" "}"#;
    assert_eq!(run(HookKind::UserPrompt, empty), HookOutcome::Skipped("an empty prompt"));
    assert!(matches!(run(HookKind::Stop, "{"), HookOutcome::Failed(_)));
    assert_eq!(project.day(), "");
    let log = files::read(&project.directory.path().join(LOG)).unwrap().unwrap();
    assert!(log.contains("Stop: codec"), "{log}");
    let nowhere = Env { project_dir: None, ..project.env.clone() };
    let outcome = run_hook(
        HookKind::UserPrompt,
        &br#"{"hook_event_name":"UserPromptSubmit","prompt":"x"}"#[..],
        &nowhere,
    );
    assert_eq!(outcome, HookOutcome::Skipped("no project"));
    assert_eq!(outcome.exit_code(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_prompt_is_one_section(text in "(## \\[10:00\\] User|\n|-->|---|`|\\\\|.){0,40}") {
        let project = Project::new();
        let outcome = project.prompt(&text, "p1");
        let expected = usize::from(!text.trim().is_empty());
        prop_assert_eq!(outcome == recorded(Recorded::Appended), expected == 1);
        prop_assert_eq!(project.day().matches("\n## [").count(), expected);
    }

    #[test]
    fn any_input_ends_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let project = Project::new();
        for kind in [HookKind::UserPrompt, HookKind::Stop] {
            prop_assert_eq!(run_hook(kind, &bytes[..], &project.env).exit_code(), 0);
        }
    }
}
