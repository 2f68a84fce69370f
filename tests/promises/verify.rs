//! `verify` sees every kind of damage while the store is in use, and keeps the pace it was given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Error, VerifyOptions};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, open_sim, settle, tiny};

#[test]
fn a_store_that_moves_and_is_written_is_sound_all_the_time() {
    let scratch = Scratch::new().unwrap();
    let db = tiny().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    let (stop, mut damage) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut i = 0_u32;
            while !stop.load(Ordering::Acquire) {
                i += 1;
                ks.put((i % 3000 * 7919 % 3000).to_be_bytes(), vec![1; 3000]).unwrap();
                if i.is_multiple_of(3) {
                    ks.delete((i % 3000 * 31 % 3000).to_be_bytes()).unwrap();
                }
                if i.is_multiple_of(4000) {
                    ks.put("long", vec![2; 2 << 20]).unwrap();
                }
            }
        });
        let moved = || db.stats().segments_cleaned > 0 && db.stats().archives > 0;
        for round in 0..3000 {
            let verified = db.verify(|_| ()).unwrap();
            damage.extend(verified.damage);
            if !damage.is_empty() || round >= 12 && moved() {
                break;
            }
        }
        stop.store(true, Ordering::Release);
    });
    assert!(damage.is_empty(), "{damage:#?}");
    assert!(db.stats().segments_cleaned > 0 && db.stats().archives > 0);
}

/// Fills every tier, then changes one file with this ending under the open store.
fn damaged(ending: &str, change: impl Fn(&Path)) -> Vec<String> {
    let scratch = Scratch::new().unwrap();
    let db = tiny().open(scratch.join("db")).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..2500_u32 {
        ks.put(i.to_be_bytes(), vec![i.to_le_bytes()[0]; 3000]).unwrap();
    }
    for i in 0..700_u32 {
        ks.put(i.to_be_bytes(), vec![9; 3000]).unwrap();
    }
    assert!(db.settle(Duration::from_secs(30)).unwrap());
    assert!(db.verify(|_| ()).unwrap().is_sound());
    let entries = std::fs::read_dir(scratch.join("db")).unwrap();
    let path = entries.map(|entry| entry.unwrap().path()).find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(ending) && db.ledger().files.iter().any(|file| name == file.name)
            || name.contains(".man0") && ending == ".man"
    });
    change(&path.unwrap());
    let verified = db.verify(|_| ()).unwrap();
    verified.damage.iter().map(ToString::to_string).collect()
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn every_kind_of_file_is_checked() {
    for (ending, at) in [(".seg", 20), (".arc", 10), (".arc", 900)] {
        let found = damaged(ending, |path| flip(path, at));
        assert!(!found.is_empty(), "{ending} at {at}");
    }
    let bits = damaged(".bit", |path| flip(path, 20));
    assert!(bits.iter().any(|text| text.contains("dead bitmaps")), "{bits:?}");
    let gone = damaged(".arc", |path| std::fs::remove_file(path).unwrap());
    assert!(gone.iter().any(|text| text.contains(".arc")), "{gone:?}");
    let one_copy = damaged(".man", |path| flip(path, 30));
    assert_eq!(one_copy, [""; 0], "one sound copy of the manifest is enough");
}

#[test]
fn the_pace_is_kept_and_progress_ends_at_the_total() {
    let db = tiny().temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..2000_u32 {
        ks.put(i.to_be_bytes(), vec![1; 1000]).unwrap();
    }
    let began = Instant::now();
    let mut last = (0, 1);
    let options = VerifyOptions::new().bytes_per_s(4 << 20);
    let verified = db.verify_with(options, |p| last = (p.done, p.total)).unwrap();
    assert!(verified.is_sound() && verified.bytes > 2_000_000, "{verified:?}");
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    assert_eq!(last.0, last.1);
}

#[test]
fn rot_in_the_last_records_of_a_closed_store_is_no_torn_tail() {
    let (disk, time) = (SimVfs::new(4), Arc::new(ManualTime::new(1_700_000_000_000)));
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("a", "the first value").unwrap();
    ks.put("b", "the last value").unwrap();
    settle(&db);
    let file = db.ledger().files.iter().find(|file| file.bytes.reserved > 0).unwrap().name.clone();
    drop(ks);
    db.close().unwrap();
    disk.edit(format!("{SIM_PATH}/{file}"), |bytes: &mut Vec<u8>| {
        let at = bytes.windows(8).position(|window| window == b"the last").unwrap();
        bytes[at] ^= 1;
    });
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert_eq!(ks.get("a").unwrap().as_deref(), Some(&b"the first value"[..]));
    match ks.get("b") {
        Err(Error::Corrupt(damage)) => assert_eq!(damage.file, file),
        other => panic!("expected the damage, got {other:?}"),
    }
    let verified = db.verify(|_| {}).unwrap();
    assert_eq!(verified.damage.first().map(|damage| &damage.file), Some(&file));
}

#[test]
fn files_that_another_program_cut_short_are_named_and_the_rest_is_verified() {
    for ending in [".seg", ".arc"] {
        let scratch = Scratch::new().unwrap();
        let path = scratch.join("db");
        let db = tiny().without_workers().open(&path).unwrap();
        let ks = db.keyspace("default").unwrap();
        (0..300_u32).for_each(|i| ks.put(i.to_be_bytes(), vec![1; 3000]).unwrap());
        db.archive_all().unwrap();
        (300..600_u32).for_each(|i| ks.put(i.to_be_bytes(), vec![2; 3000]).unwrap());
        db.compact().unwrap();
        let whole = db.verify(|_| ()).unwrap();
        assert!(whole.is_sound());
        let files = db.ledger().files;
        let file = files.iter().find(|f| f.name.ends_with(ending) && f.bytes.reserved == 0);
        let name = &file.unwrap().name;
        let victim = std::fs::OpenOptions::new().write(true).open(path.join(name)).unwrap();
        // One page is left: what lies behind it is a SIGBUS for whoever reads it through a map.
        victim.set_len(4096).unwrap();
        let mut last = (0, 1);
        let verified = db.verify(|p| last = (p.done, p.total)).unwrap();
        let [damage] = &verified.damage[..] else { panic!("{:?}", verified.damage) };
        assert_eq!(
            (&damage.file, damage.field, damage.found.as_str()),
            (name, "file length", "4096")
        );
        assert_eq!(verified.files, whole.files - 1, "the others were read");
        assert_eq!(last.0, last.1);
        // Closing may read it.
        victim.set_len(file.unwrap().bytes.len).unwrap();
    }
}
