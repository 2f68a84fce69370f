//! The simulator itself: what it must lose, what it must keep, and that a seed repeats a run.
//! Each test plays a process on the disk and looks at the image of a crash.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::choice::Random;
use super::{SimVfs, Survivors};
use crate::vfs::os::OsVfs;
use crate::vfs::{Dir, Vfs};

fn store() -> (SimVfs, Arc<dyn Dir>) {
    let sim = SimVfs::new(7);
    let dir = sim.create_dir(Path::new("/store")).unwrap();
    (sim, dir)
}

fn count_of(wanted: u8, bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(byte == wanted)).sum()
}

#[test]
fn a_running_process_sees_what_the_kernel_would_show_it() {
    let temporary = tempfile::tempdir().unwrap();
    let kernel = OsVfs.create_dir(temporary.path()).unwrap();
    let (_sim, simulated) = store();
    let run = |dir: &dyn Dir| {
        let mut random = Random(11);
        let file = dir.create("x").unwrap();
        file.allocate(0, 1 << 16).unwrap();
        let map = file.map(1 << 17, 0).unwrap();
        let mut writer = map.writer().unwrap();
        writer.set_writable(1 << 16);
        let mut at = 0;
        while at + 2000 < 1 << 16 {
            let len_bytes = random.below(2000);
            let bytes = vec![random.next().to_le_bytes()[0]; usize::try_from(len_bytes).unwrap()];
            match random.below(8) {
                0 => file.write_all_at(&bytes, at).unwrap(),
                1 => file.punch_to_end(at + len_bytes / 2).unwrap(),
                2 => file.allocate(at, 1 << 16).unwrap(),
                _ => {
                    file.allocate(at, at + 2000).unwrap();
                    writer.store(at, &bytes);
                }
            }
            at += len_bytes;
            writer.publish(at);
        }
        let mut read = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut read, 0).unwrap();
        let published = usize::try_from(map.published()).unwrap();
        assert_eq!(map.slice(0..published).unwrap(), &read[..published]);
        read
    };
    assert!(run(&*kernel) == run(&*simulated), "the same calls, other bytes");
}

#[test]
fn an_unsynced_name_is_lost_although_its_file_was_synced() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.write_all_at(b"data", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(sim.crash(Survivors::None).read("/store/x"), None);
    dir.sync().unwrap();
    assert_eq!(sim.crash(Survivors::None).read("/store/x").unwrap(), b"data");
    dir.unlink("x").unwrap();
    assert_eq!(sim.read("/store/x"), None);
    assert_eq!(sim.crash(Survivors::None).read("/store/x").unwrap(), b"data");
    assert_eq!(sim.crash(Survivors::All).read("/store/x"), None);
}

#[test]
fn synced_data_is_kept_and_what_came_after_is_lost() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    dir.sync().unwrap();
    assert_eq!(sim.crash(Survivors::None).read("/store/x").unwrap(), b"");
    file.write_all_at(b"first", 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(b"SECOND", 0).unwrap();
    for seed in 0..200 {
        let image = sim.crash(Survivors::Random(seed)).read("/store/x").unwrap();
        let old = image == b"first" || image.starts_with(b"first") && image.len() == 6;
        assert!(old || image == b"SECON" || image == b"SECOND", "seed {seed}: {image:?}");
    }
    assert_eq!(sim.crash(Survivors::None).read("/store/x").unwrap(), b"first");
    assert_eq!(sim.crash(Survivors::All).read("/store/x").unwrap(), b"SECOND");
}

#[test]
fn sectors_of_one_write_survive_one_by_one_and_whole() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.sync().unwrap();
    dir.sync().unwrap();
    file.write_all_at(&[2; 2048], 0).unwrap();
    let mut torn_count = 0;
    for seed in 0..100 {
        let image = sim.crash(Survivors::Random(seed)).read("/store/x").unwrap();
        assert!(image.chunks(512).all(|sector| sector.iter().all(|&byte| byte == sector[0])));
        torn_count += usize::from(image.contains(&1) && image.contains(&2));
    }
    assert!(torn_count > 10, "{torn_count} of 100 images are torn");
}

#[test]
fn a_sector_holds_one_of_its_versions_and_never_a_later_write_without_an_earlier_one() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.allocate(0, 512).unwrap();
    file.sync().unwrap();
    dir.sync().unwrap();
    for at in 0..8 {
        file.write_all_at(&[1], at).unwrap();
    }
    for seed in 0..100 {
        let image = sim.crash(Survivors::Random(seed)).read("/store/x").unwrap();
        let count = image.iter().take_while(|&&byte| byte == 1).count();
        assert!(image[count..].iter().all(|&byte| byte == 0), "seed {seed}");
    }
}

#[test]
fn a_file_may_grow_without_its_data_and_hold_zeros_or_noise() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    dir.sync().unwrap();
    file.write_all_at(&[5; 1024], 0).unwrap();
    let images: Vec<Vec<u8>> = (0..200)
        .map(|seed| sim.crash(Survivors::Random(seed)).read("/store/x").unwrap())
        .filter(|image| image.len() == 1024)
        .collect();
    assert!(images.iter().any(|image| image.iter().all(|&byte| byte == 0)));
    assert!(images.iter().any(|image| image.iter().any(|&byte| byte != 0 && byte != 5)));
}

#[test]
fn stores_through_a_map_are_live_at_once_and_durable_after_a_sync_of_their_range() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    dir.sync().unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.allocate(0, 8192).unwrap();
    let map = file.map(1 << 20, 4).unwrap();
    let mut writer = map.writer().unwrap();
    writer.set_writable(8192);
    writer.store(4, b"one");
    writer.store(1024, b"two");
    file.write_all_at(b"pwritten", 2048).unwrap();
    writer.publish(2056);
    assert_eq!(map.slice(2048..2056).unwrap(), b"pwritten");
    let mut read = [0; 7];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"headone");
    file.sync_range(&map, 4, 7).unwrap();
    let image = sim.crash(Survivors::None).read("/store/x").unwrap();
    assert_eq!(&image[..7], b"headone");
    assert!(image[7..].iter().all(|&byte| byte == 0));
    file.punch_to_end(2056).unwrap();
    file.sync().unwrap();
    let image = sim.crash(Survivors::None).read("/store/x").unwrap();
    assert_eq!((&image[1024..1027], &image[2048..2056]), (&b"two"[..], &b"pwritten"[..]));
    assert_eq!((file.len().unwrap(), file.allocated_len().unwrap()), (8192, 4096));
}

#[test]
#[should_panic(expected = "changes what is published")]
fn writing_below_what_a_map_published_stops_the_test() {
    let (_sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    let _map = file.map(512, 3).unwrap();
    drop(file.write_all_at(b"X", 1));
}

#[test]
#[should_panic(expected = "SIGBUS")]
fn a_store_where_nothing_was_allocated_stops_the_test() {
    let (_sim, dir) = store();
    let map = dir.create("x").unwrap().map(4096, 0).unwrap();
    let mut writer = map.writer().unwrap();
    writer.set_writable(4096);
    writer.store(0, b"x");
}

#[test]
fn a_killed_process_loses_nothing_and_its_handles_are_dead() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.allocate(0, 4096).unwrap();
    let map = file.map(4096, 0).unwrap();
    let mut writer = map.writer().unwrap();
    writer.set_writable(4096);
    writer.store(0, b"kept");
    let lock = dir.lock("LOCK", b"").unwrap();
    assert_eq!(dir.lock("LOCK", b"").unwrap_err().kind(), ErrorKind::WouldBlock);
    let next = sim.kill();
    writer.store(0, b"lost");
    assert!(sim.is_dead() && !next.is_dead());
    assert!(file.sync().is_err() && dir.list().is_err() && file.len().is_err());
    assert_eq!(&next.read("/store/x").unwrap()[..4], b"kept");
    let dir = next.open_dir(Path::new("/store")).unwrap();
    let relocked = dir.lock("LOCK", b"").unwrap();
    drop(lock);
    assert!(dir.lock("LOCK", b"").is_err(), "a dead process releases nothing");
    drop(relocked);
    assert!(dir.lock("LOCK", b"").is_ok());
}

#[test]
fn a_process_can_die_at_every_effect() {
    let run = |die_at: Option<u64>| {
        let (sim, dir) = store();
        let before = sim.effects();
        if let Some(k) = die_at {
            sim.die_at(k);
        }
        let work = || {
            let file = dir.create("x")?;
            file.write_all_at(&[3; 1024], 0)?;
            file.sync()?;
            dir.sync()
        };
        let outcome: std::io::Result<()> = work();
        (sim.effects() - before, outcome.is_ok(), sim)
    };
    let (effect_count, finished, _) = run(None);
    assert_eq!((effect_count, finished), (6, true));
    for k in 1..=effect_count {
        let (_, finished, sim) = run(Some(k));
        assert!(!finished && sim.is_dead(), "effect {k}");
        let live = sim.kill().read("/store/x");
        assert_eq!(live.is_some(), k > 1);
        let written = count_of(3, &live.unwrap_or_default());
        assert_eq!(written, [0, 0, 0, 512, 1024, 1024][usize::try_from(k).unwrap() - 1]);
        assert_eq!(sim.crash(Survivors::None).read("/store/x"), None);
    }
}

#[test]
fn a_failed_sync_loses_bytes_that_the_next_sync_does_not_bring_back() {
    let mut lost_count = 0;
    for seed in 0..50 {
        let sim = SimVfs::new(seed);
        let dir = sim.create_dir(Path::new("/store")).unwrap();
        let file = dir.create("x").unwrap();
        dir.sync().unwrap();
        file.allocate(0, 4096).unwrap();
        file.sync().unwrap();
        file.write_all_at(&[9; 4096], 0).unwrap();
        sim.fail_sync_at(1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(sim.read("/store/x").unwrap(), [9; 4096]);
        lost_count += usize::from(sim.crash(Survivors::All).read("/store/x").unwrap() != [9; 4096]);
    }
    assert!(lost_count > 10, "{lost_count} of 50");
}

#[test]
fn a_full_disk_takes_what_fits_and_heals_when_space_returns() {
    let (sim, dir) = store();
    sim.set_capacity(8192);
    let file = dir.create("x").unwrap();
    file.allocate(0, 4096).unwrap();
    assert_eq!(file.allocate(4096, 16384).unwrap_err().kind(), ErrorKind::StorageFull);
    file.punch_to_end(0).unwrap();
    assert_eq!(file.write_all_at(&[1; 9000], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(sim.read("/store/x").unwrap(), [1; 8192]);
    let other = dir.create("y").unwrap();
    assert!(other.write_all_at(b"y", 0).is_err());
    dir.unlink("x").unwrap();
    drop(file);
    dir.sync().unwrap();
    other.write_all_at(b"y", 0).unwrap();
}

#[test]
fn reads_and_writes_fail_once_where_they_were_told_to() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    sim.fail_write_at(2);
    file.write_all_at(b"abcd", 0).unwrap();
    assert_eq!(file.write_all_at(b"EFGH", 0).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(sim.read("/store/x").unwrap(), b"EFcd");
    sim.fail_read_at(1);
    assert_eq!(file.read_exact_at(&mut [0; 4], 0).unwrap_err().raw_os_error(), Some(5));
    sim.shorten_read_at(1);
    assert_eq!(file.read_exact_at(&mut [0; 4], 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    sim.fail_read_at(1);
    assert_eq!(file.map(4096, 4).unwrap_err().raw_os_error(), Some(5));
    sim.fail_write_at(1);
    sim.heal();
    file.write_all_at(b"EFcd", 0).unwrap();
    file.read_exact_at(&mut [0; 4], 0).unwrap();
    assert_eq!(file.read_exact_at(&mut [0; 5], 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let images = |seed| {
        let (sim, dir) = store();
        for name in ["a", "b", "c"] {
            let file = dir.create(name).unwrap();
            for offset in 0..20 {
                file.write_all_at(name.repeat(300).as_bytes(), offset * 256).unwrap();
            }
        }
        let image = sim.crash(Survivors::Random(seed));
        ["a", "b", "c"].map(|name| image.read(format!("/store/{name}")))
    };
    assert_eq!(images(3), images(3));
    assert!((0..20).any(|seed| images(seed) != images(3)));
}

#[test]
fn prefixes_of_the_effects_grow_from_nothing_to_all() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    file.write_all_at(&[1; 1536], 0).unwrap();
    assert_eq!(sim.pending(), 5);
    let lens: Vec<_> = (0..=5)
        .map(|n| sim.crash(Survivors::Prefix(n)).read("/store/x"))
        .map(|image| image.map(|bytes| count_of(1, &bytes)))
        .collect();
    assert_eq!(lens, [None, Some(0), Some(0), Some(512), Some(1024), Some(1536)]);
}

#[test]
fn every_outcome_is_another_subset_and_each_sector_holds_one_of_its_versions() {
    let (sim, dir) = store();
    let file = dir.create("x").unwrap();
    dir.sync().unwrap();
    file.allocate(0, 1024).unwrap();
    file.sync().unwrap();
    for (at, byte) in [(0, 1), (0, 2), (512, 3)] {
        file.write_all_at(&[byte; 512], at).unwrap();
    }
    assert_eq!((sim.pending(), sim.outcomes()), (3, 6));
    let image = |survivors| {
        let bytes = sim.crash(survivors).read("/store/x").unwrap();
        (bytes[0], bytes[511], bytes[512])
    };
    let mut all: Vec<_> = (0..6).map(|index| image(Survivors::Outcome(index))).collect();
    all.sort_unstable();
    let expected = [(0, 0, 0), (0, 0, 3), (1, 1, 0), (1, 1, 3), (2, 2, 0), (2, 2, 3)];
    assert_eq!(all, expected);
    assert_eq!(image(Survivors::Suffix(2)), (2, 2, 3));
    assert_eq!(image(Survivors::AllBut(1)), (1, 1, 3));
    assert_eq!(image(Survivors::Only(1)), (2, 2, 0));
}

#[test]
fn a_photograph_is_the_disk_before_an_effect_and_has_a_life_of_its_own() {
    let (sim, dir) = store();
    sim.photograph(1);
    let file = dir.create("x").unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync().unwrap();
    let photos = sim.photographs();
    sim.photograph(0);
    file.write_all_at(b"d", 3).unwrap();
    let shown: Vec<_> = photos.iter().map(|photo| photo.kill().read("/store/x")).collect();
    let texts: [Option<&[u8]>; 4] = [None, Some(&b""[..]), Some(b"\0\0\0"), Some(b"abc")];
    assert_eq!(shown.iter().map(Option::as_deref).collect::<Vec<_>>(), texts);
    assert!(sim.photographs().is_empty());
    let digests = (photos[3].digest(), sim.digest(), sim.clone_image().digest());
    assert!(digests.0 != digests.1 && digests.1 == digests.2);
}

#[test]
fn damage_at_rest_and_lost_names_survive_every_crash() {
    let (sim, dir) = store();
    dir.create("x").unwrap().write_all_at(b"abc", 0).unwrap();
    dir.sync().unwrap();
    sim.edit("/store/x", |bytes| bytes[1] ^= 0xff);
    sim.edit("/store/foreign", |bytes| bytes.extend(b"not ours"));
    let image = sim.clone_image().crash(Survivors::None);
    assert_eq!(image.read("/store/x").unwrap(), [b'a', b'b' ^ 0xff, b'c']);
    assert_eq!(image.read("/store/foreign").unwrap(), b"not ours");
    image.lose("/store/x");
    let dir = image.open_dir(Path::new("/store")).unwrap();
    assert_eq!(dir.open("x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.list().unwrap().len(), 1);
}

#[test]
fn directories_stand_where_they_were_made() {
    let (sim, dir) = store();
    dir.create("x").unwrap();
    let kind = |path: &str| sim.create_dir(Path::new(path)).unwrap_err().kind();
    assert_eq!(kind("/store/x"), ErrorKind::NotADirectory);
    assert_eq!(kind("/store/x/y"), ErrorKind::NotADirectory);
    sim.create_dir(Path::new("/store/cold/deep")).unwrap();
    assert!(sim.crash(Survivors::None).dir_exists(Path::new("/store/cold/deep")));
    let refused = sim.remove_dir(Path::new("/store/cold")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    sim.remove_dir(Path::new("/store/cold/deep")).unwrap();
    assert!(!sim.dir_exists(Path::new("/store/cold/deep")));
}
