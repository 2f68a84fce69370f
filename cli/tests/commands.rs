//! The built program: what each command answers, and with which exit code.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests run programs and stop at the first surprise"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn terrace(db: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_terrace"))
        .arg("--db")
        .arg(db)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_record_is_put_got_scanned_and_deleted_with_the_right_codes() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    assert_eq!(code(&terrace(&db, &["put", "a", "1"], b"")), 0);
    assert_eq!(code(&terrace(&db, &["put", "b", "-"], b"two\nlines")), 0);
    assert_eq!(code(&terrace(&db, &["put", "c", "3", "--ttl", "1h"], b"")), 0);
    let got = terrace(&db, &["get", "b"], b"");
    assert_eq!((code(&got), &got.stdout[..]), (0, &b"two\nlines"[..]));
    assert_eq!(code(&terrace(&db, &["get", "missing"], b"")), 1);
    let scanned = terrace(&db, &["scan", "--keys-only"], b"");
    assert_eq!(scanned.stdout, b"a\nb\nc\n");
    let scanned = terrace(&db, &["scan", "--from", "b", "--limit", "1"], b"");
    assert_eq!(scanned.stdout, b"b\ttwo\nlines\n");
    assert_eq!(code(&terrace(&db, &["delete", "a"], b"")), 0);
    assert_eq!(code(&terrace(&db, &["delete", "a"], b"")), 1);
    for report in ["stats", "ledger", "verify", "compact"] {
        assert_eq!(code(&terrace(&db, &[report], b"")), 0, "{report}");
        let json = terrace(&db, &["--json", report], b"");
        assert_eq!(code(&json), 0, "{report}");
    }
}

#[test]
fn reading_works_beside_a_program_that_writes_and_writing_names_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let store = terrace::Db::open(&db).unwrap();
    store.keyspace("default").unwrap().put("a", "1").unwrap();
    assert_eq!(terrace(&db, &["get", "a"], b"").stdout, b"1");
    for report in [&["scan"][..], &["stats"], &["ledger"], &["verify"], &["export"]] {
        assert_eq!(code(&terrace(&db, report, b"")), 0, "{report:?}");
    }
    assert_eq!(code(&terrace(&db, &["get", "a", "--keyspace", "none"], b"")), 1);
    let copy = dir.path().join("copy");
    let into = copy.display().to_string();
    assert_eq!(code(&terrace(&db, &["checkpoint", &into], b"")), 0);
    assert_eq!(code(&terrace(&db, &["checkpoint", &into], b"")), 3, "it is not empty now");
    assert_eq!(code(&terrace(&copy, &["put", "b", "2"], b"")), 0);
    assert_eq!(terrace(&copy, &["scan"], b"").stdout, b"a\t1\nb\t2\n");
    let refused = terrace(&db, &["put", "b", "2"], b"");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(&refused), 3);
    assert!(text.contains(&format!("locked by process {}", std::process::id())), "{text}");
    assert_eq!(store.keyspace("default").unwrap().get("b").unwrap(), None);
}

#[test]
fn salvage_writes_a_store_that_verifies_and_counts_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    for key in ["a", "b"] {
        let value = format!("the value of {key}");
        assert_eq!(code(&terrace(&from, &["put", key, &value], b"")), 0);
    }
    let paths = [from.display().to_string(), dir.path().join("whole").display().to_string()];
    let whole = terrace(&from, &["salvage", &paths[0], &paths[1]], b"");
    assert_eq!(code(&whole), 0);
    assert!(String::from_utf8_lossy(&whole.stdout).contains("2 kept, 0 lost"));
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let text = b"value of b";
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            let mut bytes = bytes;
            *bytes.get_mut(at).unwrap() = b'V';
            std::fs::write(path, bytes).unwrap();
        }
    }
    let into_text = into.display().to_string();
    let part = terrace(&from, &["--json", "salvage", &paths[0], &into_text], b"");
    assert_eq!(code(&part), 3);
    assert!(String::from_utf8_lossy(&part.stdout).contains("\"lost\":1"), "{part:?}");
    assert_eq!(code(&terrace(&into, &["verify", "--mib-per-s", "500"], b"")), 0);
    assert_eq!(terrace(&into, &["get", "a"], b"").stdout, b"the value of a");
    assert_eq!(code(&terrace(&into, &["get", "b"], b"")), 1);
}

#[test]
fn usage_and_io_have_codes_of_their_own_and_the_text_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    assert_eq!(code(&terrace(&db, &["put", "a"], b"")), 2);
    assert_eq!(code(&terrace(&db, &["put", "a", "1", "--ttl", "0s"], b"")), 2);
    std::fs::write(dir.path().join("file"), "text").unwrap();
    let refused = terrace(&dir.path().join("file"), &["get", "a"], b"");
    assert_eq!(code(&refused), 3);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("file stands where"));
    let bad = terrace(&db, &["import", "-"], b"{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n");
    assert_eq!(code(&bad), 3);
    let text = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(text.contains("line 2") && text.contains("1 records were imported"), "{text}");
}

#[test]
fn an_export_imports_into_the_same_records_whatever_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let store = terrace::Db::open(&from).unwrap();
    let notes = store.keyspace("notes").unwrap();
    for i in 0..300_u32 {
        notes.put(i.to_le_bytes(), vec![u8::try_from(i % 256).unwrap(); 50]).unwrap();
    }
    store.keyspace("default").unwrap().put("text", "\u{D55C}\u{AE00}").unwrap();
    drop(notes);
    store.close().unwrap();
    let exported = terrace(&from, &["export"], b"");
    assert_eq!(code(&exported), 0);
    assert_eq!(String::from_utf8_lossy(&exported.stdout).lines().count(), 301);
    assert_eq!(code(&terrace(&into, &["import", "-"], &exported.stdout)), 0);
    assert_eq!(terrace(&into, &["export"], b"").stdout, exported.stdout);
}

#[test]
fn a_directory_is_imported_with_relative_paths_as_keys() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("sub").join("a.txt"), "hello").unwrap();
    let db = dir.path().join("db");
    let path = source.display().to_string();
    assert_eq!(code(&terrace(&db, &["import", "--dir", &path], b"")), 0);
    assert_eq!(terrace(&db, &["get", "sub/a.txt"], b"").stdout, b"hello");
}

#[test]
fn top_shows_one_frame_of_a_store_at_work_without_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let missing = terrace(&db, &["top", "--once"], b"");
    assert_eq!(code(&missing), 3, "{missing:?}");
    let options = terrace::Options::new().statistics_every(std::time::Duration::from_millis(10));
    let store = options.open(&db).unwrap();
    let notes = store.keyspace("notes").unwrap();
    notes.put("a", "1").unwrap();
    let snapshot = store.snapshot();
    let (mut shown, mut frames) = (String::new(), 0);
    while !shown.contains("Snapshot made at cli/tests/commands.rs") && frames < 500 {
        let frame = terrace(&db, &["top", "--once"], b"");
        shown = String::from_utf8_lossy(&frame.stdout).into_owned();
        frames += usize::from(frame.stdout.is_empty()) * 10 + 1;
    }
    for part in ["process", "warm", "movement", "debt", "ledger", "Snapshot made at"] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    assert_eq!(code(&terrace(&db, &["ledger"], b"")), 0, "the file has its account");
    drop(snapshot);
    store.close().unwrap();
    assert_eq!(code(&terrace(&db, &["top", "--once"], b"")), 3, "the file went");
}
