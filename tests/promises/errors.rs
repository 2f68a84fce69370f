//! Bad input gets a typed error that says what and where, and changes nothing.

use std::time::Duration;

use terrace::{Db, Error, KEY_LEN_MAX, KeyspaceOptions, Options, PutOptions};
use terrace_tests::scratch::Scratch;

#[test]
fn over_long_keys_zero_ttls_and_bad_names_are_refused_and_nothing_changes() {
    let db = Options::new().temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    let error = ks.put(vec![0; KEY_LEN_MAX + 1], "v").unwrap_err();
    assert!(matches!(error, Error::Limit { max: 65_535, found: 65_536, .. }), "{error}");
    let error = ks.put_with("k", "v", PutOptions::new().ttl(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "ttl", .. }), "{error}");
    assert!(matches!(db.keyspace(""), Err(Error::Invalid { .. })));
    assert_eq!(ks.len().unwrap(), 0);
    assert_eq!(db.last_seq(), 0);
    ks.put(vec![1; KEY_LEN_MAX], "longest").unwrap();
    ks.put("", "empty key").unwrap();
    assert_eq!(ks.get("").unwrap().as_deref(), Some(&b"empty key"[..]));
    assert_eq!(ks.len().unwrap(), 2);
}

#[test]
fn a_locked_store_names_its_holder_and_is_free_after_close() {
    let scratch = Scratch::new().unwrap();
    let db = Db::open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    match Db::open(scratch.join("db")).unwrap_err() {
        Error::Locked { holder_pid, since_ms, .. } => {
            assert_eq!(holder_pid, Some(std::process::id()));
            assert!(since_ms.is_some());
        }
        other => panic!("expected a lock, got {other}"),
    }
    db.close().unwrap();
    assert!(matches!(ks.get("a"), Err(Error::Closed)));
    assert!(Db::open(scratch.join("db")).is_ok());
}

#[test]
fn foreign_directories_and_files_are_refused_and_left_as_they_are() {
    let scratch = Scratch::new().unwrap();
    let dir = scratch.join("photos");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("cat.jpg"), "meow").unwrap();
    assert!(matches!(Db::open(&dir), Err(Error::Foreign { .. })));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    let file = scratch.join("file");
    std::fs::write(&file, "text").unwrap();
    assert!(matches!(Db::open(&file), Err(Error::Foreign { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
    let error = Db::open("/proc/no/such/place").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let scratch = Scratch::new().unwrap();
    Db::open(scratch.join("db")).unwrap().close().unwrap();
    for entry in std::fs::read_dir(scratch.join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains(".man") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[8] = 9;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    match Db::open(scratch.join("db")).unwrap_err() {
        Error::Version { found, supported, .. } => assert_eq!((found, supported), (9, 1)),
        other => panic!("expected a version, got {other}"),
    }
}

#[test]
fn options_that_differ_from_those_at_creation_are_named() {
    let db = Options::new().temporary().unwrap();
    db.keyspace_with("a", KeyspaceOptions::new().unordered()).unwrap();
    let error = db.keyspace_with("a", KeyspaceOptions::new()).unwrap_err();
    assert!(matches!(error, Error::Invalid { what: "unordered", .. }), "{error}");
    assert!(matches!(Options::new().warm_budget(3).temporary(), Err(Error::Invalid { .. })));
}

#[test]
fn a_damaged_record_is_an_error_and_writing_over_it_heals() {
    let scratch = Scratch::new().unwrap();
    let db = Db::open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("key", vec![5; 3000]).unwrap();
    ks.put("other", "fine").unwrap();
    db.sync().unwrap();
    let damage = |from: &[u8]| {
        for entry in std::fs::read_dir(scratch.join("db")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
                bytes[at] ^= 0xFF;
                use std::os::unix::fs::FileExt;
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&bytes[at..=at], u64::try_from(at).unwrap()).unwrap();
            }
        }
    };
    damage(&[5; 3000]);
    let error = ks.get("key").unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert!(!db.verify(|_| ()).unwrap().is_sound());
    assert_eq!(ks.get("other").unwrap().as_deref(), Some(&b"fine"[..]));
    ks.put("key", "healed").unwrap();
    assert_eq!(ks.get("key").unwrap().as_deref(), Some(&b"healed"[..]));
}
