//! R5, R8, R12: damage is listed or served around, a failed flush poisons, a full disk refuses.

use std::path::Path;
use std::sync::Arc;

use terrace::testing::{ManualTime, SimVfs, Survivors, Vfs};
use terrace::{Db, Durability, Error, OpenPolicy, Options, PutOptions};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, assert_exact, open_sim, settle, tiny};

fn disk() -> (SimVfs, Arc<ManualTime>) {
    (SimVfs::new(9), Arc::new(ManualTime::new(1_700_000_000_000)))
}

#[test]
fn a_failed_flush_poisons_writing_and_reads_go_on_until_the_store_is_opened_again() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("safe", "1").unwrap();
    db.sync().unwrap();
    ks.put("lost", "2").unwrap();
    disk.fail_sync_at(1);
    assert!(matches!(db.sync(), Err(Error::Io { .. })));
    let error = ks.put("more", "3").unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert!(matches!(db.sync(), Err(Error::Poisoned { .. })), "a flush is never retried");
    assert_eq!(ks.get("safe").unwrap().as_deref(), Some(&b"1"[..]));
    drop((ks, db));
    let disk = disk.crash(Survivors::None);
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert_eq!(ks.get("safe").unwrap().as_deref(), Some(&b"1"[..]));
    ks.put_with("more", "3", PutOptions::new().durability(Durability::Synced)).unwrap();
    assert_eq!(db.durable_seq(), db.last_seq());
}

#[test]
fn a_write_that_fails_under_movement_is_told_to_the_next_writer_or_changes_nothing() {
    let mut told = 0;
    for k in 1..=24_u64 {
        let (disk, time) = disk();
        let fill = |db: &Db, what: u8| {
            let ks = db.keyspace("default").unwrap();
            (0..2400_u32).for_each(|i| ks.put((i % 900).to_be_bytes(), vec![what; 1000]).unwrap());
        };
        let db = open_sim(&disk, &time).unwrap();
        fill(&db, 1);
        // Half of the failures meet a store that was opened, and drops the image it read.
        let db = if k % 2 == 0 {
            db
        } else {
            db.close().unwrap();
            open_sim(&disk, &time).unwrap()
        };
        disk.fail_write_at(k.div_ceil(2));
        for _ in 0..60 {
            drop(db.step());
        }
        disk.heal();
        match db.keyspace("default").unwrap().put("next", "1") {
            Err(Error::Poisoned { .. }) => told += 1,
            answer => {
                answer.unwrap();
                fill(&db, 2);
                db.sync().unwrap();
                settle(&db);
                db.keyspace("default").unwrap().clear().unwrap();
                db.close().unwrap();
            }
        }
    }
    assert!((1..24).contains(&told), "{told} of 24 failures ended writing");
}

#[test]
fn a_large_write_that_finds_no_room_leaves_nothing_that_an_opening_misses() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("key", "as it was").unwrap();
    db.sync().unwrap();
    disk.set_capacity(disk.used() + (1 << 20));
    disk.photograph(1);
    let error = ks.put("key", vec![7; 3 << 20]).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    let photos = disk.photographs();
    assert!(!photos.is_empty(), "it had a segment of its own");
    for (at, photo) in photos.iter().enumerate() {
        // Names may reach the disk before what the manifest says of them.
        let image = photo.crash(Survivors::All);
        image.heal();
        let found = open_sim(&image, &time).and_then(|db| db.keyspace("default")?.get("key"));
        assert_eq!(found.unwrap().as_deref(), Some(&b"as it was"[..]), "effect {at}");
    }
}

#[test]
fn strict_lists_the_damage_of_a_segment_and_degraded_serves_the_rest() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..3000_u32 {
        ks.put(i.to_be_bytes(), vec![1; 1000]).unwrap();
    }
    settle(&db);
    let victim = db.ledger().files.iter().find(|f| f.bytes.trailer > 0).unwrap().name.clone();
    drop(ks);
    db.close().unwrap();
    let mut cut = 0;
    disk.edit(format!("{SIM_PATH}/{victim}"), |bytes: &mut Vec<u8>| {
        let at = bytes.windows(8).position(|window| window == b"TRCEND01").unwrap();
        bytes[at + 9] ^= 1;
        cut = at;
    });
    assert!(cut > 0);
    match open_sim(&disk, &time) {
        Err(Error::Damaged { damage, .. }) => {
            assert!(damage.iter().any(|one| one.file == victim), "{damage:?}");
        }
        other => panic!("expected the damage, got {other:?}"),
    }
    let shared = Arc::new(disk.clone());
    let options = tiny().without_workers().file_system(shared).time(time.clone());
    let db = options.open_policy(OpenPolicy::Degraded).open(SIM_PATH).unwrap();
    let ks = db.keyspace("default").unwrap();
    let served = (0..3000_u32).filter(|i| ks.contains(i.to_be_bytes()).unwrap()).count();
    assert!(served > 1000, "{served} keys of the other segments are served");
    assert!(!db.verify(|_| ()).unwrap().is_sound());
}

#[test]
fn sound_records_behind_a_hole_of_the_journal_are_served_and_the_gap_is_named() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..30_u32 {
        ks.put(format!("k{i:02}"), vec![b'a'; 100]).unwrap();
    }
    db.sync().unwrap();
    ks.put("behind", "it says that all before it was synced").unwrap();
    let image = disk.clone_image();
    let dir = image.open_dir(Path::new(SIM_PATH)).unwrap();
    let entries = dir.list().unwrap().into_iter();
    let mut names = entries.map(|entry| format!("{SIM_PATH}/{}", entry.name));
    let place = |name: &String| {
        image.read(name).and_then(|bytes| bytes.windows(3).position(|window| window == b"k10"))
    };
    let name = names.find(|name| place(name).is_some()).unwrap();
    let at = place(&name).unwrap();
    image.edit(&name, |bytes: &mut Vec<u8>| bytes[at + 50] ^= 1);
    let strict = open_sim(&image.clone_image(), &time);
    assert!(matches!(strict, Err(Error::Damaged { .. })), "{strict:?}");
    let options = tiny().without_workers().file_system(Arc::new(image.clone_image()));
    let db = options.time(time).open_policy(OpenPolicy::Degraded).open(SIM_PATH).unwrap();
    let ks = db.keyspace("default").unwrap();
    let served = (0..30_u32).filter(|i| ks.contains(format!("k{i:02}")).unwrap()).count();
    assert_eq!((served, ks.contains("behind").unwrap()), (29, true));
    let verified = db.verify(|_| ()).unwrap();
    let gap = verified.damage.iter().find(|damage| damage.field == "seq").unwrap();
    assert_eq!((gap.found.as_str(), gap.expected.as_str()), ("12", "11"), "{gap:?}");
    assert_exact(&db);
}

#[test]
fn an_archive_of_a_cleared_keyspace_goes_only_after_all_that_came_before_is_durable() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let (cleared, other) = (db.keyspace("cleared").unwrap(), db.keyspace("other").unwrap());
    (0..20_u32).for_each(|i| cleared.put(i.to_be_bytes(), "archived").unwrap());
    db.archive_all().unwrap();
    db.sync().unwrap();
    other.put("before", "the clear").unwrap();
    cleared.clear().unwrap();
    settle(&db);
    let image = disk.crash(Survivors::None);
    let db = open_sim(&image, &time).unwrap();
    let left = db.keyspace("cleared").unwrap().iter().count();
    let is_there = db.keyspace("other").unwrap().contains("before").unwrap();
    assert!(left == 20 || left == 0 && is_there, "{left} keys, what came before: {is_there}");
    assert_exact(&db);
}

#[test]
fn a_full_disk_refuses_what_needs_space_and_the_store_goes_on_when_there_is_some() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..50_u32).for_each(|i| ks.put(i.to_be_bytes(), vec![1; 1000]).unwrap());
    let mut refused = 0;
    for blocks in [0, 1, 2, 40, 80] {
        disk.set_capacity(disk.used() + blocks * 4096);
        for _ in 0..3 {
            refused += u32::from(db.compact().is_err()) + u32::from(db.archive_all().is_err());
            refused += u32::from(ks.put("more", vec![2; 300_000]).is_err());
        }
        assert!((0..50_u32).all(|i| ks.contains(i.to_be_bytes()).unwrap()), "{blocks} blocks");
        disk.heal();
        ks.put("room", "again").unwrap();
        db.compact().unwrap();
        settle(&db);
        assert_exact(&db);
    }
    assert!(refused > 5, "{refused} calls were refused");
    let db = open_sim(&disk.crash(Survivors::None), &time).unwrap();
    assert!(db.verify(|_| ()).unwrap().is_sound());
}

#[test]
fn above_the_disk_budget_puts_are_refused_and_deletes_bring_space_back() {
    let options = Options::new().disk_budget(8 << 20).segment_size(1 << 20);
    let db = options.temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    let mut put = 0_u32;
    let error = loop {
        match ks.put(put.to_be_bytes(), vec![7; 10_000]) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 5000, "nothing was refused");
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!((0..put).all(|i| ks.contains(i.to_be_bytes()).unwrap()));
    for i in 0..put {
        assert!(ks.delete(i.to_be_bytes()).unwrap());
    }
    assert!(db.settle(std::time::Duration::from_secs(30)).unwrap());
    ks.put("again", "there is room").unwrap();
}

#[test]
fn archives_lie_in_a_directory_of_their_own_when_one_is_named() {
    let scratch = Scratch::new().unwrap();
    let (home, cold) = (scratch.join("db"), scratch.join("cold"));
    let options = tiny().archive_dir(&cold);
    let db = options.clone().open(&home).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..2000_u32 {
        ks.put(i.to_be_bytes(), vec![i.to_le_bytes()[0]; 10_000]).unwrap();
    }
    assert!(db.settle(std::time::Duration::from_secs(30)).unwrap());
    let archives = |dir: &std::path::Path| {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".arc")).count()
    };
    assert!(archives(&cold) > 0 && archives(&home) == 0);
    assert_exact(&db);
    drop(ks);
    db.close().unwrap();
    let other = tiny().archive_dir(scratch.join("elsewhere")).open(&home).unwrap_err();
    assert!(matches!(other, Error::Invalid { what: "archive_dir", .. }), "{other}");
    let db = options.open(&home).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert!((0..2000_u32).all(|i| ks.contains(i.to_be_bytes()).unwrap()));
}

#[test]
fn a_read_error_while_opening_is_told_and_never_taken_for_a_missing_file() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    for i in 0..400_u32 {
        ks.put(i.to_be_bytes(), vec![7; 300]).unwrap();
        match i {
            100 | 200 => db.archive_all().unwrap(),
            300 => db.compact().unwrap(),
            _ => {}
        }
    }
    drop(ks);
    let disk = disk.kill();
    let (mut failed, mut sound_in_a_row) = (0, 0);
    for k in 1.. {
        let copy = disk.clone_image();
        copy.fail_read_at(k);
        match open_sim(&copy, &time) {
            Ok(db) => {
                copy.heal();
                assert!(db.verify(|_| ()).unwrap().is_sound(), "read {k}: taken for damage");
                assert_eq!(db.keyspace("default").unwrap().iter().count(), 400, "read {k}");
                sound_in_a_row += 1;
            }
            Err(Error::Damaged { damage, .. }) => {
                assert!(damage.iter().all(|one| one.found != "missing"), "read {k}: {damage:?}");
                (failed, sound_in_a_row) = (failed + 1, 0);
            }
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "read {k}: {error}");
                (failed, sound_in_a_row) = (failed + 1, 0);
            }
        }
        if sound_in_a_row > 20 {
            break;
        }
    }
    assert!(failed > 5, "{failed} read errors were told");
}

#[test]
fn a_first_manifest_that_is_torn_in_either_copy_alone_is_no_store_yet() {
    for name in ["0000000001.man0", "0000000001.man1"] {
        let (disk, time) = disk();
        disk.create_dir(Path::new(SIM_PATH)).unwrap();
        disk.edit(format!("{SIM_PATH}/{name}"), |bytes: &mut Vec<u8>| bytes.extend([1, 2, 3]));
        let db = open_sim(&disk, &time).unwrap();
        db.keyspace("default").unwrap().put("key", "value").unwrap();
        db.close().unwrap();
        let again = open_sim(&disk, &time).unwrap();
        assert!(again.keyspace("default").unwrap().contains("key").unwrap(), "{name}");
    }
}

#[test]
fn what_cannot_be_a_store_is_named_by_readers_as_well() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("file");
    std::fs::write(&path, "no directory").unwrap();
    for error in [tiny().open_read_only(&path).err(), tiny().open(&path).err()] {
        assert!(matches!(error, Some(Error::Foreign { .. })), "{error:?}");
    }
    let absent = tiny().open_read_only(scratch.join("nothing")).err();
    assert!(matches!(absent, Some(Error::Foreign { .. })), "{absent:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"no directory");
}

#[test]
fn a_missing_or_linked_file_is_listed_and_degraded_serves_the_rest() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().without_workers().open(&path).unwrap();
    let ks = db.keyspace("default").unwrap();
    ks.put("a", "archived").unwrap();
    db.archive_all().unwrap();
    ks.put("b", "sealed").unwrap();
    db.compact().unwrap();
    ks.put("c", "in the journal").unwrap();
    db.sync().unwrap();
    let names: Vec<_> = crate::files_of(&path).into_keys().collect();
    let kept = |name: &String| name.contains(".seg") || name.contains(".arc");
    let (mut listed, mut unguessed, mut cases) = (0, 0, 0);
    for name in names.iter().filter(|name| kept(name)) {
        for is_link in [false, true] {
            cases += 1;
            let copy = scratch.join(&format!("copy {cases}"));
            std::fs::create_dir(&copy).unwrap();
            for name in &names {
                std::fs::copy(path.join(name), copy.join(name)).unwrap();
            }
            std::fs::remove_file(copy.join(name)).unwrap();
            if is_link {
                std::os::unix::fs::symlink(path.join(name), copy.join(name)).unwrap();
            }
            match tiny().open(&copy) {
                Err(Error::Damaged { damage, .. }) => {
                    assert!(damage.iter().any(|one| one.file == *name), "{name}: {damage:?}");
                    let degraded = tiny().open_policy(OpenPolicy::Degraded).open(&copy).unwrap();
                    assert!(!degraded.verify(|_| ()).unwrap().is_sound());
                    listed += 1;
                }
                // The journal's own end is not guessed at.
                Err(Error::Io { .. }) => {
                    assert!(is_link, "{name}");
                    unguessed += 1;
                }
                // A spare that never held a record.
                Ok(db) => assert_eq!(db.keyspace("default").unwrap().iter().count(), 3, "{name}"),
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
    assert!(listed >= 5, "{listed} of {cases} were listed");
    assert!(unguessed > 0, "a link in place of the journal is no missing journal");
}

#[test]
fn every_clear_of_the_journals_tail_is_told_to_its_own_keyspace() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let (a, b) = (db.keyspace("a").unwrap(), db.keyspace("b").unwrap());
    a.put("x", "1").unwrap();
    b.put("y", "1").unwrap();
    a.clear().unwrap();
    a.put("x", "2").unwrap();
    b.clear().unwrap();
    a.clear().unwrap();
    b.put("z", "3").unwrap();
    let again = open_sim(&disk.kill(), &time).unwrap();
    assert_eq!(again.keyspace("a").unwrap().iter().count(), 0);
    let left: Vec<_> = again.keyspace("b").unwrap().iter().map(|row| row.unwrap().0).collect();
    assert_eq!(left.iter().map(|key| &key[..]).collect::<Vec<_>>(), [b"z"]);
    assert_exact(&again);
}

#[test]
fn who_holds_a_store_is_told_with_the_time_since_when() {
    let scratch = Scratch::new().unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let before = u64::try_from(now().as_millis()).unwrap();
    let _held = tiny().open(scratch.join("db")).unwrap();
    let after = u64::try_from(now().as_millis()).unwrap();
    match tiny().open(scratch.join("db")) {
        Err(Error::Locked { holder_pid, since_ms: Some(since_ms), .. }) => {
            assert_eq!(holder_pid, Some(std::process::id()));
            assert!((before..=after).contains(&since_ms), "{since_ms}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_rot_made_another_key_is_an_error_of_walks_and_a_put_heals_it() {
    for with_image in [false, true] {
        let (disk, time) = disk();
        let db = open_sim(&disk, &time).unwrap();
        let ks = db.keyspace("default").unwrap();
        for i in 0..10_u32 {
            ks.put(format!("k{i:02}"), vec![b'v'; 100]).unwrap();
        }
        assert_eq!(ks.iter().count(), 10);
        db.compact().unwrap();
        drop(ks);
        db.close().unwrap();
        let names = disk.open_dir(Path::new(SIM_PATH)).unwrap().list().unwrap();
        for name in names.into_iter().map(|entry| format!("{SIM_PATH}/{}", entry.name)) {
            if name.contains(".seg") {
                disk.edit(&name, |bytes: &mut Vec<u8>| {
                    if let Some(at) = bytes.windows(3).position(|window| window == b"k03") {
                        bytes[at + 2] ^= 1;
                    }
                });
            } else if name.contains(".idx") && !with_image {
                disk.lose(name);
            }
        }
        let db = open_sim(&disk, &time).unwrap();
        let ks = db.keyspace("default").unwrap();
        assert!(matches!(ks.get("k03"), Err(Error::Corrupt(_))));
        assert_eq!(ks.get("k02").unwrap().as_deref(), Some(&[b'v'; 100][..]));
        assert!(ks.iter().any(|item| item.is_err()), "the whole walk");
        assert!(ks.prefix("k03").any(|item| item.is_err()), "where the key belongs");
        let scanned = ks.scan_with("k03".."k04", |_, _| std::ops::ControlFlow::Continue(()));
        assert!(matches!(scanned, Err(Error::Corrupt(_))), "{scanned:?}");
        assert!(ks.keys::<&[u8]>(..).any(|key| key.is_err()), "keys alone");
        ks.put("k03", vec![b'v'; 100]).unwrap();
        let healed: Vec<_> = ks.iter().map(|item| item.unwrap().0.to_vec()).collect();
        let all: Vec<_> = (0..10).map(|i| format!("k{i:02}").into_bytes()).collect();
        assert_eq!(healed, all);
    }
}
