//! The long-term memory: what is recorded is found, files stay true, threads and processes do not
//! overwrite each other.

use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::EngineStore;

const DAY: &str = include_str!("recall/fixtures/2026-02-04.md");
const QUESTIONS: &str = include_str!("recall/fixtures/questions.txt");
const NOON: Millis = Millis(1_770_206_400_000);

struct Project {
    directory: tempfile::TempDir,
    memory: LongTerm,
}

impl Project {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let memory = LongTerm::open(directory.path(), None).unwrap().zone(TimeZone::UTC);
        Self { directory, memory }
    }

    fn write(&self, name: &str, text: &str) {
        files::write_whole(&self.directory.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        files::read(&self.directory.path().join(name)).unwrap().unwrap_or_default()
    }

    fn today(&self) -> String {
        self.read(".claude/conversations/2026-02-04.md")
    }
}

fn turn(role: Role, prompt: &str, text: &str) -> Turn {
    let (session, project) = ("s".to_owned(), "p".to_owned());
    Turn { role, text: text.to_owned(), at: NOON, session, prompt: prompt.to_owned(), project }
}

#[test]
fn questions_in_korean_find_what_was_said_in_either_language() {
    let project = Project::new();
    project.write(".claude/conversations/2026-02-04.md", DAY);
    for line in QUESTIONS.lines() {
        let (question, expected) = line.split_once(" = ").unwrap();
        let found = project.memory.search(question, SearchOptions::default()).unwrap();
        let good = found.iter().take(2).any(|one| one.text.contains(expected));
        assert!(good, "{question}: {found:?}");
    }
}

#[test]
fn a_tag_is_a_word_and_not_a_part_of_one() {
    let project = Project::new();
    project.write(".claude/conversations/2026-02-04.md", DAY);
    let options = SearchOptions { rounds: 1, follow_up: false, ..SearchOptions::default() };
    assert_eq!(project.memory.search("auth", options).unwrap(), []);
    let found = project.memory.search("author", options).unwrap();
    assert_eq!((found[0].tags[0].as_str(), found[0].line), ("author", 17));
    assert_eq!(found[0].matched, ["author"]);
}

#[test]
fn a_superseded_decision_is_found_behind_the_current_one() {
    let project = Project::new();
    let memory = &project.memory;
    memory.remember("architecture", "Sessions", "- cookies for login", &["session"]).unwrap();
    let new = Decision {
        section: "architecture".into(),
        title: "Signed sessions".into(),
        body: format!("- tokens for login, password={}", "hunter22"),
        keywords: vec!["session".into()],
    };
    memory.supersede("Sessions", new, "two hosts").unwrap();
    let found = memory.search("session", SearchOptions::default()).unwrap();
    let seen: Vec<_> = found.iter().map(|one| (one.heading.as_str(), one.status)).collect();
    let (new, old) = (("Signed sessions", Status::Current), ("Sessions", Status::Superseded));
    assert_eq!(seen, [new, old]);
    assert!(found[0].score > 2.0 * found[1].score);
    assert!(!project.read("MEMORY.md").contains("hunter"));
    assert_eq!(memory.audit().unwrap().findings, []);
}

#[test]
fn one_prompt_is_written_once_and_an_answer_that_goes_on_replaces_its_beginning() {
    let project = Project::new();
    let record =
        |role, prompt: &str, text: &str| project.memory.record(&turn(role, prompt, text)).unwrap();
    assert_eq!(record(Role::User, "p1", "hello"), Recorded::Appended);
    assert_eq!(record(Role::User, "p1", "hello"), Recorded::Duplicate);
    assert_eq!(record(Role::Assistant, "p1", day::NOT_CAPTURED), Recorded::Appended);
    assert_eq!(record(Role::Assistant, "p1", "I began\n`#tags: a`"), Recorded::Replaced);
    assert_eq!(record(Role::Assistant, "p1", "I began"), Recorded::Replaced);
    assert_eq!(record(Role::Assistant, "p1", "I began and ended"), Recorded::Replaced);
    assert_eq!(record(Role::Assistant, "p1", "I began and ended"), Recorded::Duplicate);
    assert_eq!(record(Role::Assistant, "p1", "Another thing"), Recorded::Appended);
    assert_eq!(record(Role::User, "", "again"), Recorded::Appended);
    assert_eq!(record(Role::User, "", "again"), Recorded::Appended);
    let text = project.today();
    assert_eq!(text.matches("## [12:00] User").count(), 3);
    assert_eq!(text.matches("## [12:00] Assistant").count(), 2);
    assert!(text.starts_with("---\ndate: 2026-02-04\nproject: p\nkeywords: []\n---\n\n## ["));
    let tool = project.memory.record(&turn(Role::Tool, "", "x"));
    assert!(matches!(tool, Err(Error::Invalid(_))));
}

#[test]
fn an_answer_after_midnight_stays_with_its_prompt() {
    let project = Project::new();
    let mut asked = turn(Role::User, "p1", "late");
    asked.at = Millis(NOON.0 + 12 * 3_600_000 - 1000);
    project.memory.record(&asked).unwrap();
    let mut answer = turn(Role::Assistant, "p1", "later");
    answer.at = Millis(asked.at.0 + 5000);
    project.memory.record(&answer).unwrap();
    assert!(project.today().contains("## [00:00] Assistant"));
    assert_eq!(project.read(".claude/conversations/2026-02-05.md"), "");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody deletes a file")]
fn the_index_follows_the_files_and_can_be_thrown_away() {
    let directory = tempfile::tempdir().unwrap();
    let db = terrace::Db::open(directory.path().join("index")).unwrap();
    let store: Arc<dyn Store> = Arc::new(EngineStore::new(&db).unwrap());
    let open = || {
        let root = directory.path().join("project");
        LongTerm::open(root, Some(Arc::clone(&store))).unwrap().zone(TimeZone::UTC)
    };
    let memory = open();
    let path = directory.path().join("project/.claude/conversations/2026-02-04.md");
    files::write_whole(&path, DAY).unwrap();
    let count = |memory: &LongTerm, query: &str| {
        memory
            .search(query, SearchOptions { rounds: 1, follow_up: false, limit: 99 })
            .unwrap()
            .len()
    };
    // Longer than the tick of the file system's clock.
    std::thread::park_timeout(Duration::from_millis(50));
    assert_eq!(count(&memory, "orchestrator"), 3);
    let again = open();
    assert_eq!(count(&again, "orchestrator"), 3);
    assert_eq!(again.refresh(&mut again.index.lock()).unwrap(), 0, "nothing is read twice");
    files::write_whole(&path, "## [10:00] User\nquux\n").unwrap();
    assert_eq!((count(&memory, "orchestrator"), count(&memory, "quux")), (0, 1));
    let stats = memory.reindex().unwrap();
    assert_eq!(stats, IndexStats { files: 1, sections: 1, read: 1 });
    std::fs::remove_file(&path).unwrap();
    assert_eq!(count(&memory, "quux"), 0);
}

#[test]
fn a_day_is_wrapped_up_and_found_by_its_keywords() {
    let project = Project::new();
    for i in 0..3 {
        let text = format!("compaction again {i}");
        project.memory.record(&turn(Role::User, &format!("p{i}"), &text)).unwrap();
    }
    let date = jiff::civil::date(2026, 2, 4);
    let found = project.memory.wrap_up(date, None).unwrap();
    assert_eq!(found.keywords, ["compaction"]);
    let decision = Decision {
        section: "patterns".into(),
        title: "Compact at night".into(),
        ..Decision::default()
    };
    let (decisions, next) = (vec![decision], vec!["measure".to_owned()]);
    let notes = WrapUp { decisions, next, ..WrapUp::default() };
    project.memory.wrap_up(date, Some(notes)).unwrap();
    assert!(project.today().contains("keywords: [\"compaction\"]"));
    assert!(project.today().contains("- Compact at night (#compact-at-night)"));
    assert!(project.read("MEMORY.md").contains("### Compact at night"));
    let empty = project.memory.wrap_up(jiff::civil::date(2020, 1, 1), None).unwrap();
    assert_eq!(empty, WrapUp::default());
    assert!(project.memory.audit().unwrap().findings.is_empty());
}

/// Run by itself it does nothing: another test starts it, twice, with a project to write to.
#[test]
fn a_process_that_records() {
    let Ok(root) = std::env::var("RECALL_TEST_PROJECT") else { return };
    let who = std::env::var("RECALL_TEST_WHO").unwrap();
    let memory = LongTerm::open(root, None).unwrap().zone(TimeZone::UTC);
    for i in 0..100 {
        let mut one = turn(Role::User, &format!("{who}-{i}"), &format!("{who} says {i} "));
        one.text.push_str(&"word ".repeat(50));
        one.session.clone_from(&who);
        assert_eq!(memory.record(&one).unwrap(), Recorded::Appended);
        if i % 10 == 0 {
            memory.wrap_up(jiff::civil::date(2026, 2, 4), None).unwrap();
            let title = format!("{who} {i}");
            memory.remember("tools", &title, "body", &[&title]).unwrap();
        }
    }
}

#[test]
fn two_processes_that_append_and_rewrite_lose_nothing() {
    let project = Project::new();
    let start = |who: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recall::tests::a_process_that_records", "--nocapture"])
            .env("RECALL_TEST_PROJECT", project.directory.path())
            .env("RECALL_TEST_WHO", who)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut running = [start("a"), start("b")];
    for child in &mut running {
        assert!(child.wait().unwrap().success());
    }
    let text = project.today();
    let sections = day::sections(&text);
    assert_eq!(sections.len(), 200);
    for who in ["a", "b"] {
        let of = sections.iter().filter(|one| one.mark.as_ref().unwrap().session == who);
        let seen: Vec<String> =
            of.map(|one| one.body.split(" word").next().unwrap().to_owned()).collect();
        let expected: Vec<String> = (0..100).map(|i| format!("{who} says {i}")).collect();
        assert_eq!(seen, expected);
    }
    assert_eq!(text.matches("---\n").count(), 2);
    assert_eq!(project.read("MEMORY.md").matches("### ").count(), 20);
}

#[test]
fn a_lock_that_somebody_keeps_is_an_error_after_a_while() {
    let project = Project::new();
    let held = project.memory.lock().unwrap();
    let watch = crate::clock::Stopwatch::start(Duration::from_secs(2));
    let blocked = project.memory.record(&turn(Role::User, "", "x"));
    assert!(matches!(blocked, Err(Error::Timeout)));
    assert!(watch.left().is_none(), "it was waited for");
    drop(held);
    assert!(project.memory.record(&turn(Role::User, "", "x")).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_file_and_any_question_are_answered(
        day in "(## \\[10:00\\] User|\n|#tags: |---|[a-c\u{ac00}-\u{ac04}\u{4e00}]| |.){0,60}",
        notes in "(### |\n|\\||#|[a-c]| |.){0,40}",
        query in "([a-c\u{ac00}-\u{ac04}\u{4e00}]| |.){0,20}",
    ) {
        let project = Project::new();
        project.write(".claude/conversations/2026-02-04.md", &day);
        project.write("MEMORY.md", &notes);
        for hit in project.memory.search(&query, SearchOptions::default()).unwrap() {
            prop_assert!(hit.score.is_finite() && hit.line > 0 && !hit.matched.is_empty());
        }
        project.memory.audit().unwrap();
        project.memory.wrap_up(jiff::civil::date(2026, 2, 4), None).unwrap();
        let _ = project.memory.remember("tools", "t", &query, &[&query]);
    }
}
