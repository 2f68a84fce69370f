//! The program `terrace-memory` as Claude Code calls it: silent, always 0, and several at a time.
#![expect(clippy::disallowed_methods, reason = "starts the program and reads what it wrote")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn start(project: &Path, words: &[&str], input: &[u8]) -> Option<Child> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_terrace-memory"))
        .args(words)
        .env("CLAUDE_PROJECT_DIR", project)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    // A program that does not read its input closes it.
    drop(stdin.write_all(input));
    drop(stdin);
    Some(child)
}

fn run(project: &Path, words: &[&str], input: &[u8]) -> Option<Output> {
    start(project, words, input)?.wait_with_output().ok()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn hooks_are_silent_and_succeed_whatever_they_are_given() {
    let project = tempfile::tempdir().unwrap();
    let prompt = br#"{"hook_event_name":"UserPromptSubmit","session_id":"s","prompt":"Hi"}"#;
    let inputs: [&[u8]; 4] = [prompt, b"{", b"", &[0xFF; 100]];
    for input in inputs {
        for words in [["hook", "user-prompt"], ["hook", "stop"], ["hook", "unknown"]] {
            let output = run(project.path(), &words, input).unwrap();
            assert_eq!(output.status.code(), Some(0), "{words:?}");
            assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        }
    }
    let found = run(project.path(), &["search", "hi"], b"").unwrap();
    assert!(text(&found).contains("User"), "{found:?}");
    let wrong = run(project.path(), &["nonsense"], b"").unwrap();
    assert_eq!((wrong.status.code(), text(&wrong)), (Some(2), String::new()));
}

#[test]
fn hooks_that_run_at_once_each_write_their_prompt() {
    let project = tempfile::tempdir().unwrap();
    let input = |i: usize| {
        format!(
            "{{\"hook_event_name\":\"UserPromptSubmit\",\"session_id\":\"s{i}\",\
             \"prompt_id\":\"p{i}\",\"prompt\":\"question{i}\"}}"
        )
    };
    let started: Vec<Child> = (0..20)
        .filter_map(|i| start(project.path(), &["hook", "user-prompt"], input(i).as_bytes()))
        .collect();
    assert_eq!(started.len(), 20);
    for child in started {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let folder = project.path().join(".claude/conversations");
    let mut all = String::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    assert_eq!(all.matches("## [").count(), 20);
    assert!((0..20).all(|i| all.contains(&format!("\nquestion{i}\n"))));
}

#[test]
fn the_installer_enters_the_program_by_its_path() {
    let project = tempfile::tempdir().unwrap();
    let output = run(project.path(), &["install"], b"").unwrap();
    assert!(output.status.success() && text(&output).ends_with(": written\n"), "{output:?}");
    let again = run(project.path(), &["install"], b"").unwrap();
    assert!(text(&again).ends_with(": unchanged\n"));
    let settings = project.path().join(".claude/settings.json");
    let found = std::fs::read_to_string(&settings).unwrap();
    let program = env!("CARGO_BIN_EXE_terrace-memory");
    assert!(found.contains(&format!("\\\"{program}\\\" hook stop")), "{found}");
    assert!(run(project.path(), &["uninstall"], b"").unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "{}\n");
    let clean = run(project.path(), &["audit"], b"").unwrap();
    assert_eq!(text(&clean), "0 files, 0 findings\n");
}
