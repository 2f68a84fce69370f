//! The format, read by two programs: the engine, and a reader in Python that was written from
//! `format-spec.md` alone. Both dump the same stores; the dumps must agree line by line.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test copies directories, starts an interpreter, stops at a surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use terrace::{Db, KeyspaceOptions, Options, PutOptions};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

/// Keyspace, key, seq, deadline, checksum and length of the value.
type Line = (String, Vec<u8>, u64, u64, u32, usize);

/// What the engine says is in the store.
fn engine_dump(db: &Db) -> Vec<Line> {
    let mut lines = Vec::new();
    for name in db.keyspaces().unwrap() {
        let keyspace = db.keyspace(&name).unwrap();
        for item in &keyspace {
            let (key, value) = item.unwrap();
            let info = keyspace.info(&key).unwrap().unwrap();
            let deadline = info.expires_at.unwrap_or(0);
            let crc = crc32fast::hash(&value);
            lines.push((name.clone(), key.to_vec(), info.seq, deadline, crc, value.len()));
        }
    }
    lines
}

/// What the second reader says; `None` where there is no Python with a zstd module.
fn second_dump(dir: &Path) -> Option<Vec<String>> {
    let has = Command::new("python3").args(["-c", "import zstandard"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI installs python3 with zstandard");
        return None;
    }
    Some(dump_with(&reader(), dir))
}

fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("second_reader").join("dump.py")
}

fn dump_with(script: &Path, dir: &Path) -> Vec<String> {
    let output = Command::new("python3").arg(script).arg(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap();
    }
    out
}

fn assert_same(expected: &[Line], dir: &Path) {
    let Some(found) = second_dump(dir) else { return };
    assert_eq!(found.len(), expected.len(), "records in both dumps");
    for ((name, key, seq, deadline, crc, len), line) in expected.iter().zip(&found) {
        for part in [
            format!("\"keyspace\": \"{name}\""),
            format!("\"key_hex\": \"{}\"", hex(key)),
            format!("\"seq\": {seq},"),
            format!("\"expires_at_ms\": {deadline},"),
            format!("\"value_crc\": {crc},"),
            format!("\"value_len\": {len}}}"),
        ] {
            assert!(line.contains(&part), "{}: {part} is not in {line}", key.escape_ascii());
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn fill(db: &Db) {
    let mut random = Random::from_environment(77);
    let notes = db.keyspace("notes").unwrap();
    let other = db.keyspace_with("other", KeyspaceOptions::new().unordered()).unwrap();
    for round in 0..3000_u32 {
        let key = format!("key-{:04}", random.below(1500));
        let len = random.within(0..9000);
        let text: Vec<u8> = b"the quick brown fox ".iter().cycle().take(len).copied().collect();
        let ttl = PutOptions::new().ttl(Duration::from_hours(24));
        match random.below(10) {
            0 => drop(notes.delete(&key).unwrap()),
            1 => notes.put_with(&key, &text, ttl).unwrap(),
            2 => other.put(&key, random.bytes(len)).unwrap(),
            3 => {
                let mut batch = db.batch();
                batch.put(&notes, &key, &text);
                batch.put(&other, round.to_be_bytes(), "in a batch");
                batch.commit().unwrap();
            }
            _ => notes.put(&key, &text).unwrap(),
        }
    }
    notes.put("large", random.bytes(1_500_000)).unwrap();
    let gone = db.keyspace("gone").unwrap();
    gone.put("a", "b").unwrap();
    drop(gone);
    assert!(db.drop_keyspace("gone").unwrap());
    let cleared = db.keyspace("cleared").unwrap();
    cleared.put("before", "1").unwrap();
    cleared.clear().unwrap();
    cleared.put("after", "2").unwrap();
}

#[test]
fn two_readers_agree_on_a_store_that_is_open_and_on_one_that_was_closed() {
    let scratch = Scratch::new().unwrap();
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let db = options.open(scratch.join("db")).unwrap();
    fill(&db);
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    assert!(db.stats().archives > 0, "the store has archives");
    let notes = db.keyspace("notes").unwrap();
    notes.put("tail", "not sealed").unwrap();
    let expected = engine_dump(&db);
    assert!(expected.len() > 1000);
    copy_dir(&scratch.join("db"), &scratch.join("copy"));
    assert_same(&expected, &scratch.join("copy"));
    drop(notes);
    db.close().unwrap();
    assert_same(&expected, &scratch.join("db"));
    let db = Db::open(scratch.join("copy")).unwrap();
    assert_eq!(engine_dump(&db), expected, "the copy opens as the store that it was copied from");
}

/// Old versions of some keys survive a cleaning into a segment that is younger than the one which
/// takes their new versions; then the new ones are demoted and the old ones stay, dead, in the log.
fn bury_old_versions(db: &Db) {
    let notes = db.keyspace("buried").unwrap();
    let value = vec![1; 2000];
    for number in 0..300_u32 {
        notes.put(number.to_be_bytes(), &value).unwrap();
    }
    for number in 150..300_u32 {
        assert!(notes.delete(number.to_be_bytes()).unwrap());
    }
    // Begins a journal segment, and after it the one that the others survive in.
    db.compact().unwrap();
    for number in 0..30_u32 {
        notes.put(number.to_be_bytes(), "the new version").unwrap();
    }
    for number in 2000..8000_u32 {
        notes.put(number.to_be_bytes(), &value).unwrap();
        while db.step().unwrap() {}
        if db.stats().archives > 0 {
            return;
        }
    }
    panic!("nothing was demoted");
}

#[test]
fn a_reader_that_ignores_the_dead_bits_of_segments_brings_old_versions_back() {
    let scratch = Scratch::new().unwrap();
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let options = options.segment_size(1 << 20).without_workers();
    let db = options.open(scratch.join("db")).unwrap();
    bury_old_versions(&db);
    let expected = engine_dump(&db);
    db.close().unwrap();
    assert_same(&expected, &scratch.join("db"));
    let text = std::fs::read_to_string(reader()).unwrap();
    let careless = text.replace("if not superseded and not is_dead(id, i):", "if not superseded:");
    assert_ne!(careless, text, "the reader asks for the bits of segments");
    let script = scratch.join("careless.py");
    std::fs::write(&script, careless).unwrap();
    if let Some(sound) = second_dump(&scratch.join("db")) {
        let found = dump_with(&script, &scratch.join("db"));
        assert_ne!(found, sound, "without the bits, old versions hide the archived ones");
    }
}
