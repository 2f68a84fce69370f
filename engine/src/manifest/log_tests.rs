//! What a manifest says after edits, torn copies, full disks and failed syncs.

use super::*;
use crate::format::checksum::bound_crc;
use crate::format::manifest::KeyspaceFacts;
use crate::manifest::FileState;
use crate::vfs::Vfs;
use crate::vfs::sim::{SimVfs, Survivors};

fn home(disk: &SimVfs) -> Arc<dyn Dir> {
    disk.create_dir(Path::new("/m")).unwrap()
}

fn facts() -> StoreFacts {
    StoreFacts { store: [1; 16], hash_seed: [2; 16], created_ms: 3, archive_dir: None }
}

fn open(disk: &SimVfs) -> ManifestLog {
    ManifestLog::open(home(disk)).unwrap().unwrap().0
}

fn clock_of(log: &ManifestLog) -> u64 {
    log.read(|set| set.clock_ms)
}

fn names(disk: &SimVfs) -> Vec<String> {
    let mut names: Vec<_> = home(disk).list().unwrap().into_iter().map(|one| one.name).collect();
    names.sort();
    names
}

fn keyspace(number: u32) -> Op {
    Op::SetKeyspace(KeyspaceFacts {
        name: format!("{number:0>250}"),
        incarnation: number,
        seq: 0,
        volatile: false,
        unordered: false,
        default_ttl_ms: 0,
        compression_level: 3,
    })
}

#[test]
fn edits_are_there_after_a_crash_and_each_opening_begins_a_generation() {
    let disk = SimVfs::new(1);
    assert!(ManifestLog::open(home(&disk)).unwrap().is_none());
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    assert_eq!(names(&disk), ["0000000001.man0", "0000000001.man1"]);
    let id = log.next_file();
    assert_eq!((id, log.next_file(), log.next_incarnation(), log.next_incarnation()), (1, 2, 1, 2));
    log.commit(&vec![Op::DraftSegment { id }, Op::ClockAt { ms: 10 }]).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 20 }]).unwrap();
    let lens = ["/m/0000000001.man0", "/m/0000000001.man1"].map(|p| disk.read(p).unwrap().len());
    assert_eq!(log.file_lens().0, (lens[0] + lens[1]) as u64);
    assert!(log.file_lens().1 > 0 && !log.has_failed());
    let disk = disk.crash(Survivors::None);
    let again = open(&disk);
    assert_eq!(clock_of(&again), 20);
    assert_eq!(again.read(|set| set.files.get(&1).copied()), Some(FileState::DraftSegment));
    assert_eq!(names(&disk), ["0000000002.man0", "0000000002.man1"]);
    assert_eq!(generations(&*home(&disk)).unwrap(), [2]);
    assert!(generation_is_sound(&*home(&disk), 2).unwrap());
    assert!(!generation_is_sound(&*home(&disk), 3).unwrap());
}

#[test]
fn only_names_as_they_are_written_name_a_manifest() {
    assert_eq!(parse_name("0000000012.man1"), Some((12, 1)));
    assert_eq!(parse_name(&file_name(99_999_999_999, 0)), Some((99_999_999_999, 0)));
    for name in ["12.man1", "0000000012.man01", "0000000012.man", "+000000012.man1", "LOCK", ""] {
        assert_eq!(parse_name(name), None, "{name}");
    }
}

#[test]
fn a_torn_copy_costs_nothing_while_the_other_is_whole() {
    let disk = SimVfs::new(2);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 10 }]).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 20 }]).unwrap();
    let paths = ["/m/0000000001.man0", "/m/0000000001.man1"];
    let mended = |image: &SimVfs| ManifestLog::open(home(image)).unwrap().unwrap().1;
    assert_eq!(mended(&disk.clone_image()), 0);
    for torn in paths {
        let image = disk.clone_image();
        image.edit(torn, |bytes| bytes.truncate(bytes.len() - 3));
        let newest = read_newest(&*home(&image), Unreadable::IsError).unwrap().unwrap();
        let [damage] = &newest.unsound[..] else { panic!("{:?}", newest.unsound) };
        assert_eq!(format!("/m/{}", damage.file), torn);
        let told = (damage.field, damage.found.as_str(), damage.expected.as_str());
        assert_eq!(told, ("edits", "2", "3"));
        assert_eq!(clock_of(&open(&image.clone_image())), 20, "{torn}");
        assert_eq!((mended(&image), mended(&image)), (1, 0), "{torn}");
        let image = disk.clone_image();
        image.lose(torn);
        assert_eq!(clock_of(&open(&image.clone_image())), 20, "without {torn}");
        assert_eq!((mended(&image), mended(&image)), (1, 0), "without {torn}");
    }
    let both = disk.clone_image();
    for path in paths {
        both.edit(path, |bytes| bytes.truncate(bytes.len() - 3));
    }
    assert_eq!(clock_of(&open(&both)), 10, "the last edit is torn in both");
    let none = disk.clone_image();
    for path in paths {
        none.edit(path, |bytes| bytes.truncate(70));
    }
    let Err(Error::Damaged { damage, .. }) = ManifestLog::open(home(&none)) else {
        panic!("a manifest without a first edit is damage");
    };
    assert_eq!(damage.len(), 2);
}

#[test]
fn a_copy_under_another_name_or_of_another_version_does_not_count() {
    let disk = SimVfs::new(3);
    ManifestLog::create(home(&disk), facts()).unwrap();
    let (zero, one) = ("/m/0000000001.man0", "/m/0000000001.man1");
    let swapped = disk.clone_image();
    let bytes = swapped.read(zero).unwrap();
    swapped.edit(one, |other| *other = bytes.clone());
    swapped.edit(zero, Vec::clear);
    assert!(matches!(ManifestLog::open(home(&swapped)), Err(Error::Damaged { .. })));
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8] = 9;
        let crc = bound_crc(0, 0, &bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    };
    disk.edit(zero, newer);
    let half = disk.clone_image();
    let (log, mended) = ManifestLog::open(home(&half)).unwrap().unwrap();
    assert_eq!((log.read(|set| set.facts.store), mended), ([1; 16], 1));
    disk.edit(one, newer);
    let refused = ManifestLog::open(home(&disk)).unwrap_err();
    assert!(matches!(refused, Error::Version { found: 9, .. }), "{refused}");
}

#[test]
fn a_long_manifest_rolls_over_before_the_next_edit() {
    let disk = SimVfs::new(4);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    let many: Vec<Op> = (1..17_000).map(keyspace).collect();
    log.commit(&many).unwrap();
    assert!(log.file_lens().0 > 2 * EDITS_LEN_MAX, "{:?}", log.file_lens());
    let dropped = |name| Op::DropKeyspace { name, incarnation: u32::MAX, seq: 1 };
    let drops = |op: &Op| match op {
        Op::SetKeyspace(facts) => dropped(facts.name.clone()),
        other => panic!("{other:?}"),
    };
    log.commit(&many.iter().map(drops).collect()).unwrap();
    assert_eq!(names(&disk), ["0000000002.man0", "0000000002.man1"]);
    log.commit(&vec![Op::ClockAt { ms: 7 }]).unwrap();
    assert_eq!(names(&disk), ["0000000003.man0", "0000000003.man1"]);
    assert!(log.file_lens().0 < 4096, "{:?}", log.file_lens());
    log.commit(&vec![Op::ClockAt { ms: 8 }]).unwrap();
    assert_eq!(names(&disk), ["0000000003.man0", "0000000003.man1"]);
    let again = open(&disk.crash(Survivors::None));
    assert_eq!((clock_of(&again), again.read(|set| set.keyspaces.len())), (8, 0));
}

#[test]
fn what_says_everything_may_be_long_without_a_rollover_at_each_edit() {
    let disk = SimVfs::new(10);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    log.commit(&(1..4000).map(keyspace).collect()).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 1 }]).unwrap();
    let second = names(&disk);
    assert_eq!(second, ["0000000002.man0", "0000000002.man1"], "the edit was long");
    for ms in 2..10 {
        log.commit(&vec![Op::ClockAt { ms }]).unwrap();
    }
    assert_eq!(names(&disk), second);
    assert!(log.file_lens().0 > 2 << 20, "{:?}", log.file_lens());
}

#[test]
fn a_full_disk_refuses_an_edit_and_leaves_nothing_of_it() {
    let disk = SimVfs::new(5);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 10 }]).unwrap();
    disk.set_capacity(disk.used());
    let long: Vec<Op> = (1..400).map(keyspace).collect();
    let full = log.commit(&long).unwrap_err();
    assert!(matches!(full, Error::Full { .. }) && !log.has_failed(), "{full}");
    disk.set_capacity(u64::MAX);
    log.commit(&vec![Op::ClockAt { ms: 20 }]).unwrap();
    for disk in [disk.kill(), disk.crash(Survivors::None)] {
        let again = open(&disk);
        assert_eq!((clock_of(&again), again.read(|set| set.keyspaces.len())), (20, 0));
    }
}

#[test]
fn an_edit_that_one_copy_had_room_for_is_taken_back() {
    let disk = SimVfs::new(8);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 10 }]).unwrap();
    let long: Vec<Op> = (1..400).map(keyspace).collect();
    let frame = encode_frame(&long, 0, 0).unwrap().len() as u64;
    disk.set_capacity(disk.used() + frame.next_multiple_of(4096) + 4096);
    assert!(matches!(log.commit(&long), Err(Error::Full { .. })));
    let lens = ["/m/0000000001.man0", "/m/0000000001.man1"].map(|p| disk.read(p).unwrap().len());
    assert!(lens[0] as u64 > frame, "the first copy had room: {lens:?}");
    disk.set_capacity(u64::MAX);
    for image in [disk.kill(), disk.crash(Survivors::All), disk.crash(Survivors::None)] {
        let again = open(&image);
        assert_eq!((clock_of(&again), again.read(|set| set.keyspaces.len())), (10, 0));
    }
}

#[test]
fn after_a_failed_sync_no_edit_is_taken() {
    let disk = SimVfs::new(6);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    disk.fail_sync_at(2);
    assert!(matches!(log.commit(&vec![Op::ClockAt { ms: 10 }]), Err(Error::Io { .. })));
    assert!(log.has_failed());
    assert_eq!(clock_of(&log), 0, "what failed is not true");
    let refused = log.commit(&vec![Op::ClockAt { ms: 20 }]).unwrap_err();
    assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
}

#[test]
fn a_file_is_read_up_to_its_cap_and_a_read_error_is_no_missing_copy() {
    let disk = SimVfs::new(7);
    let dir = home(&disk);
    dir.create("x").unwrap().write_all_at(b"four", 0).unwrap();
    assert_eq!(read_file(&*dir, "x", 4).unwrap(), b"four");
    assert_eq!(read_file(&*dir, "x", 3).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    ManifestLog::create(home(&disk), facts()).unwrap();
    disk.fail_read_at(1);
    assert!(matches!(ManifestLog::open(home(&disk)), Err(Error::Io { .. })));
    disk.fail_read_at(1);
    let read = read_newest(&*home(&disk), Unreadable::IsDamage).unwrap();
    let told = read.map(|newest| (newest.set.facts.store, newest.generation, newest.unsound.len()));
    assert_eq!(told, Some(([1; 16], 1, 1)));
    disk.heal();
    assert_eq!(open(&disk).read(|set| set.next_file), 1);
}

#[test]
fn a_copy_that_is_too_long_to_be_one_is_not_read_and_the_other_is_enough() {
    let disk = SimVfs::new(9);
    let log = ManifestLog::create(home(&disk), facts()).unwrap();
    log.commit(&vec![Op::ClockAt { ms: 10 }]).unwrap();
    let lens = |image: &SimVfs, len: u64| {
        for path in ["/m/0000000001.man0", "/m/0000000001.man1"] {
            image.edit(path, |bytes| bytes.resize(usize::try_from(len).unwrap(), 0));
        }
    };
    let longest = disk.clone_image();
    lens(&longest, FILE_LEN_MAX);
    assert_eq!(clock_of(&open(&longest)), 10, "zeros behind the last edit are its end");
    lens(&disk, FILE_LEN_MAX + 1);
    let Err(Error::Damaged { damage, .. }) = ManifestLog::open(home(&disk)) else {
        panic!("what is too long is damage");
    };
    assert_eq!(damage.iter().map(|one| one.field).collect::<Vec<_>>(), ["file length"; 2]);
    disk.edit("/m/0000000001.man0", |bytes| bytes.truncate(4096));
    let (log, mended) = ManifestLog::open(home(&disk)).unwrap().unwrap();
    assert_eq!((clock_of(&log), mended), (10, 1));
}
