//! `Options::file_maps(false)`: no file of the store is mapped, and what a map would turn into a
//! SIGBUS is an error. The model and the crash campaign run in that mode too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Db, Error, Keyspace};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, assert_exact, files_of, sim_options, tiny};

/// Lines of this process's maps that name a file below `path`.
fn mapped_files(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = path.to_str().unwrap();
    maps.lines().filter(|line| line.contains(path)).count()
}

fn value(i: u32) -> Vec<u8> {
    vec![i.to_le_bytes()[0]; 5000]
}

/// Records in every tier, a raw value of an archive among them.
fn fill(db: &Db) -> Keyspace {
    let ks = db.keyspace("default").unwrap();
    ks.put("long", vec![9; 2 << 20]).unwrap();
    for i in 0..2200_u32 {
        ks.put(i.to_be_bytes(), value(i)).unwrap();
    }
    assert!(db.settle(Duration::from_secs(30)).unwrap());
    db.archive_all().unwrap();
    for i in 0..300_u32 {
        ks.put(i.to_be_bytes(), value(i)).unwrap();
    }
    assert!(db.stats().archives > 0 && db.stats().segments > 0);
    ks
}

fn all_there(ks: &Keyspace) {
    for i in 0..2200_u32 {
        assert!(*ks.get(i.to_be_bytes()).unwrap().unwrap() == value(i)[..], "key {i}");
    }
    assert!(ks.get("long").unwrap().unwrap().to_vec() == vec![9; 2 << 20]);
    let walked: Vec<_> = ks.iter().map(|item| item.unwrap().1.len()).collect();
    assert_eq!((walked.len(), walked.iter().sum::<usize>()), (2201, 2200 * 5000 + (2 << 20)));
}

#[test]
fn no_file_is_mapped_and_either_mode_reads_what_the_other_wrote() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().open(&path).unwrap();
    drop(fill(&db));
    assert!(mapped_files(&path) > 2, "the check sees maps where there are some");
    db.close().unwrap();
    for mapped in [false, true, false] {
        let db = tiny().file_maps(mapped).open(&path).unwrap();
        let ks = db.keyspace("default").unwrap();
        all_there(&ks);
        fill(&db);
        all_there(&ks);
        let held = ks.get("long").unwrap().unwrap();
        assert_eq!(mapped_files(&path) > 0, mapped);
        assert!(db.verify(|_| ()).unwrap().is_sound());
        assert_exact(&db);
        let copy = scratch.join(if mapped { "mapped" } else { "called" });
        if !copy.exists() {
            db.checkpoint(&copy).unwrap();
        }
        db.close().unwrap();
        assert!(held.to_vec() == vec![9; 2 << 20], "a value outlives its store");
    }
    for name in ["mapped", "called"] {
        let copy = tiny().file_maps(false).open_read_only(scratch.join(name)).unwrap();
        all_there(&copy.keyspace("default").unwrap());
        assert_eq!(mapped_files(&scratch.join(name)), 0);
    }
}

#[test]
fn a_file_that_another_program_cuts_short_is_an_error_and_no_signal() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().file_maps(false).open(&path).unwrap();
    let ks = fill(&db);
    for name in files_of(&path).into_keys().filter(|name| name.contains(".arc")) {
        std::fs::OpenOptions::new().write(true).open(path.join(name)).unwrap().set_len(64).unwrap();
    }
    let mut failed = 0;
    for i in 0..2200_u32 {
        match ks.get(i.to_be_bytes()) {
            Ok(found) => assert!(found.is_some_and(|found| *found == value(i)[..]), "key {i}"),
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "key {i}: {error}");
                failed += 1;
            }
        }
    }
    assert!((1000..=1900).contains(&failed), "{failed} keys cannot be read");
    assert!(ks.iter().any(|item| item.is_err()), "a walk tells as well");
    let verified = db.verify(|_| ()).unwrap();
    assert!(!verified.is_sound());
    ks.put("still", "written").unwrap();
    assert_eq!(ks.get("still").unwrap().as_deref(), Some(&b"written"[..]));
}

#[test]
fn a_write_that_fails_is_the_puts_answer_and_nothing_follows_it() {
    let (disk, time) = (SimVfs::new(11), Arc::new(ManualTime::new(1_700_000_000_000)));
    let open = |disk: &SimVfs| sim_options(disk, &time).file_maps(false).open(SIM_PATH);
    let db = open(&disk).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("before", "1").unwrap();
    disk.fail_write_at(1);
    let failed = ks.put("lost", "2").unwrap_err();
    assert!(matches!(failed, Error::Io { .. }), "{failed}");
    let refused = ks.put("after", "3").unwrap_err();
    assert!(matches!(refused, Error::Poisoned { .. } | Error::Io { .. }), "{refused}");
    assert_eq!(ks.get("before").unwrap().as_deref(), Some(&b"1"[..]));
    let again = open(&disk.kill()).unwrap();
    let ks = again.keyspace("default").unwrap();
    assert_eq!(ks.get("before").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(ks.get("after").unwrap(), None);
    ks.put("after", "4").unwrap();
}

#[test]
fn an_end_of_a_keyspace_that_did_not_reach_the_file_is_an_error() {
    for drops in [false, true] {
        let (disk, time) = (SimVfs::new(12), Arc::new(ManualTime::new(1_700_000_000_000)));
        let open = |disk: &SimVfs| sim_options(disk, &time).file_maps(false).open(SIM_PATH);
        let db = open(&disk).unwrap();
        let ks = db.keyspace("default").unwrap();
        ks.put("before", "1").unwrap();
        disk.fail_write_at(1);
        let ended = if drops { db.drop_keyspace("default").map(drop) } else { ks.clear() };
        assert!(matches!(ended, Err(Error::Io { .. })), "{ended:?}");
        assert_eq!(ks.get("before").unwrap().as_deref(), Some(&b"1"[..]), "nothing has changed");
        assert!(ks.put("after", "2").is_err());
        let again = open(&disk.kill()).unwrap();
        let ks = again.keyspace("default").unwrap();
        assert_eq!(ks.get("before").unwrap().as_deref(), Some(&b"1"[..]));
    }
}
