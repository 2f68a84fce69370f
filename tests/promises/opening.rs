//! What an opening tells of what it found: bytes it cut, copies it mended, bitmaps it cannot read.

use std::path::Path;
use std::sync::Arc;

use terrace::testing::{ManualTime, SimVfs, Vfs};
use terrace::{Error, OpenPolicy};
use terrace_tests::scratch::Scratch;

use crate::{SIM_PATH, assert_exact, files_of, open_sim, sim_options, tiny};

fn disk() -> (SimVfs, Arc<ManualTime>) {
    (SimVfs::new(11), Arc::new(ManualTime::new(1_700_000_000_000)))
}

/// The paths of the files of the simulated store whose names end so.
fn paths(disk: &SimVfs, ending: &str) -> Vec<String> {
    let entries = disk.open_dir(Path::new(SIM_PATH)).unwrap().list().unwrap();
    let names = entries.into_iter().map(|entry| format!("{SIM_PATH}/{}", entry.name));
    names.filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn bytes_behind_the_last_sound_record_are_counted_and_zeros_that_were_never_written_are_not() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..5_u8).for_each(|key| ks.put([key], vec![b'v'; 195]).unwrap());
    // A header of 40 bytes, a key of one, padding to 8: 240 bytes each.
    for (torn, cut) in [(None, 0), (Some(4_usize), 240), (Some(2), 3 * 240)] {
        let image = disk.clone_image();
        for path in paths(&image, ".seg") {
            image.edit(path, |bytes: &mut Vec<u8>| {
                let first = bytes.windows(195).position(|window| window == [b'v'; 195]);
                if let (Some(first), Some(torn)) = (first, torn) {
                    bytes[first + torn * 240] ^= 1;
                }
            });
        }
        let db = open_sim(&image, &time).unwrap();
        assert_eq!(db.stats().tail_bytes_cut, cut, "torn at {torn:?}");
        let left = db.keyspace("default").unwrap().iter().count();
        assert_eq!(left, torn.unwrap_or(5), "what is in front of it is there");
        db.close().unwrap();
        assert_eq!(open_sim(&image, &time).unwrap().stats().tail_bytes_cut, 0);
    }
}

#[test]
fn copies_of_the_manifest_that_were_mended_are_counted() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    db.keyspace("default").unwrap().put("key", "value").unwrap();
    assert_eq!(db.stats().manifest_copies_mended, 0, "a new store");
    db.close().unwrap();
    let mended = |image: &SimVfs| {
        let db = open_sim(image, &time).unwrap();
        assert!(db.keyspace("default").unwrap().contains("key").unwrap());
        db.stats().manifest_copies_mended
    };
    assert_eq!(mended(&disk.clone_image()), 0);
    for ending in [".man0", ".man1"] {
        let [path] = &paths(&disk, ending)[..] else { panic!("one generation") };
        let gone = disk.clone_image();
        gone.lose(path);
        assert_eq!((mended(&gone), mended(&gone)), (1, 0), "without {ending}");
        let bent = disk.clone_image();
        bent.edit(path, |bytes: &mut Vec<u8>| bytes[70] ^= 1);
        assert_eq!((mended(&bent), mended(&bent)), (1, 0), "{ending} bent");
        let long = disk.clone_image();
        long.edit(path, |bytes: &mut Vec<u8>| bytes.resize(140 << 20, 0));
        assert_eq!((mended(&long), mended(&long)), (1, 0), "{ending} too long");
        let reader = sim_options(&long, &time).open_read_only(SIM_PATH).unwrap();
        assert!(reader.keyspace("default").unwrap().contains("key").unwrap());
    }
}

#[test]
fn bitmaps_that_cannot_be_read_now_end_the_opening_and_those_that_rotted_are_damage() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..40_u8).for_each(|key| ks.put([key], "the first").unwrap());
    db.archive_all().unwrap();
    (0..40_u8).for_each(|key| ks.put([key], "the second").unwrap());
    db.archive_all().unwrap();
    drop(ks);
    let disk = disk.kill();
    assert_eq!(paths(&disk, ".bit").len(), 1, "there are dead bitmaps");
    let degraded =
        |image: &SimVfs| sim_options(image, &time).open_policy(OpenPolicy::Degraded).open(SIM_PATH);
    let (mut failed, mut sound_in_a_row) = (0, 0);
    for k in 1.. {
        let image = disk.clone_image();
        image.fail_read_at(k);
        match degraded(&image) {
            Ok(db) => {
                image.heal();
                let verified = db.verify(|_| ()).unwrap();
                assert!(verified.is_sound(), "read {k}: taken for damage: {:?}", verified.damage);
                let ks = db.keyspace("default").unwrap();
                for key in 0..40_u8 {
                    assert_eq!(ks.get([key]).unwrap().as_deref(), Some(&b"the second"[..]));
                }
                sound_in_a_row += 1;
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
    for path in paths(&disk, ".bit") {
        disk.edit(path, |bytes: &mut Vec<u8>| bytes[20] ^= 1);
    }
    let strict = open_sim(&disk.clone_image(), &time);
    let Err(Error::Damaged { damage, .. }) = strict else { panic!("{strict:?}") };
    assert!(damage.iter().all(|one| one.file.contains(".bit")), "{damage:?}");
    let verified = degraded(&disk).unwrap().verify(|_| ()).unwrap();
    assert!(verified.damage.iter().any(|one| one.file.contains(".bit")), "{verified:?}");
}

#[test]
fn a_key_that_rotted_counts_as_damaged_once_the_files_are_recounted() {
    let (disk, time) = disk();
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    (0..10_u32).for_each(|i| ks.put(format!("key {i}"), vec![b'v'; 195]).unwrap());
    db.compact().unwrap();
    drop(ks);
    db.close().unwrap();
    for path in paths(&disk, ".seg") {
        disk.edit(path, |bytes: &mut Vec<u8>| {
            if let Some(at) = bytes.windows(5).position(|window| window == b"key 4") {
                bytes[at] ^= 1;
            }
        });
    }
    let db = open_sim(&disk, &time).unwrap();
    let ks = db.keyspace("default").unwrap();
    assert_eq!(db.ledger().warm.damaged, 0, "nobody has looked yet");
    assert_exact(&db);
    assert_eq!((db.ledger().warm.damaged, db.ledger().warm.live), (240, 9 * 240));
    assert_exact(&db);
    assert!(matches!(ks.get("key 4"), Err(Error::Corrupt(_))));
    ks.put("key 4", vec![b'w'; 195]).unwrap();
    assert_eq!((db.ledger().warm.damaged, db.ledger().warm.live), (0, 10 * 240));
    assert_exact(&db);
}

#[test]
fn what_stands_where_an_image_was_is_no_reason_to_refuse_the_store() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let open = || tiny().without_workers().open(&path).unwrap();
    open().keyspace("default").unwrap().put("key", "value").unwrap();
    let images = || files_of(&path).into_keys().filter(|name| name.contains(".idx"));
    let [image] = &images().collect::<Vec<_>>()[..] else { panic!("a close leaves one image") };
    let image = path.join(image);
    std::fs::remove_file(&image).unwrap();
    std::fs::create_dir(&image).unwrap();
    for round in 0..3 {
        let db = open();
        assert!(db.keyspace("default").unwrap().contains("key").unwrap(), "round {round}");
        db.close().unwrap();
        assert!(image.is_dir(), "what is not a file of the store is left alone");
    }
}

#[test]
fn bitmaps_of_more_bytes_than_any_have_are_damage_and_are_not_read() {
    let scratch = Scratch::new().unwrap();
    let path = scratch.join("db");
    let db = tiny().without_workers().open(&path).unwrap();
    let ks = db.keyspace("default").unwrap();
    for value in ["the first", "the second"] {
        (0..40_u8).for_each(|key| ks.put([key], value).unwrap());
        db.archive_all().unwrap();
    }
    drop(ks);
    db.close().unwrap();
    let bits = files_of(&path).into_keys().find(|name| name.contains(".bit")).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path.join(&bits)).unwrap();
    file.set_len((1 << 30) + 1).unwrap();
    let Err(Error::Damaged { damage, .. }) = tiny().open(&path) else { panic!("damage") };
    let [damage] = &damage[..] else { panic!("{damage:?}") };
    assert_eq!((&damage.file, damage.field), (&bits, "file length"));
}

#[test]
fn a_store_that_is_killed_again_and_again_has_no_longer_manifest_for_it() {
    let (mut disk, time) = disk();
    open_sim(&disk, &time).unwrap().keyspace("default").unwrap().put("key", "value").unwrap();
    let mut lens = Vec::new();
    for _ in 0..12 {
        let db = open_sim(&disk, &time).unwrap();
        let files = db.ledger().files;
        lens.extend(files.iter().find(|file| file.name == "manifest").map(|file| file.bytes.len));
        disk = disk.kill();
    }
    assert!(lens[11] <= lens[1] + 64, "{lens:?}");
}
