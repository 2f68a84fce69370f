//! R1 to R7: a small store holding every kind of file is damaged in one place at a time. Every byte
//! is flipped, every length cut; sectors are zeroed, swapped and made old; files are deleted,
//! doubled, swapped, taken from an older copy and from another store.
//!
//! Each outcome is one of: identical; refused with a report; served with the damage named. Never a
//! panic, a wrong value, a silent "absent", more than two seconds of a processor or 512 MiB; each
//! sweep prints the most that it saw. `TERRACE_SWEEP=all` flips all eight bits of each byte and
//! cuts at every length.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use terrace::testing::{ManualTime, SimVfs, Vfs};
use terrace::{Db, Error, OpenPolicy, Options};
use terrace_tests::processor::cpu_us;

use crate::limits::{beyond, peak_kib};

const HOME: &str = "/store";
const NOW_MS: u64 = 1_700_000_000_000;
/// One in so many damaged stores is also saved.
const SALVAGE_EVERY: usize = 40;

type Files = BTreeMap<String, Vec<u8>>;
/// Files of a store that are others now, or gone.
type Change = Vec<(String, Option<Vec<u8>>)>;
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A closed store, what it holds, and which keys it held once.
struct Sound {
    files: Files,
    content: Content,
    deleted: Vec<Vec<u8>>,
}

fn options(disk: &SimVfs) -> Options {
    let time = Arc::new(ManualTime::new(NOW_MS));
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let options = options.segment_size(1 << 20).without_workers();
    options.file_system(Arc::new(disk.clone())).time(time)
}

/// All files, without the zeros that were allocated ahead.
fn files_of(disk: &SimVfs) -> Files {
    let dir = disk.open_dir(Path::new(HOME)).unwrap();
    let names = dir.list().unwrap().into_iter().map(|entry| entry.name);
    names
        .filter(|name| name != "LOCK")
        .map(|name| {
            let mut bytes = disk.read(format!("{HOME}/{name}")).unwrap();
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(64));
            (name, bytes)
        })
        .collect()
}

/// Writes a store with records in every tier; `old` is a copy of its files from halfway.
fn sound(salt: u8) -> (Sound, Files) {
    let disk = SimVfs::new(u64::from(salt));
    let db = options(&disk).open(HOME).unwrap();
    let ks = db.keyspace("notes").unwrap();
    let mut content = Content::new();
    let mut put = |key: String, value: Vec<u8>| {
        ks.put(&key, &value).unwrap();
        content.insert(key.into_bytes(), value);
    };
    for i in 0..30_u8 {
        put(format!("cold {i:02}"), vec![(b'a' + i % 26) ^ salt; 60 + usize::from(i)]);
    }
    db.archive_all().unwrap();
    for i in 0..12_u8 {
        put(format!("cold {i:02}"), vec![(b'0' + i % 10) ^ salt; 40]);
        put(format!("warm {i:02}"), vec![(b'A' + i % 26) ^ salt; 50]);
    }
    db.sync().unwrap();
    let old = files_of(&disk);
    ks.delete("cold 20").unwrap();
    ks.delete("warm 03").unwrap();
    put("warm 04".into(), b"the second value of it".to_vec());
    db.compact().unwrap();
    db.keyspace("other").unwrap().put("x", "cleared").unwrap();
    db.keyspace("other").unwrap().clear().unwrap();
    for i in 0..6_u8 {
        put(format!("late {i:02}"), vec![(b'k' + i) ^ salt; 30]);
    }
    put("warm 05".into(), b"the third value of it".to_vec());
    ks.delete("late 02").unwrap();
    let deleted: Vec<Vec<u8>> =
        ["cold 20", "warm 03", "late 02"].map(|key| key.as_bytes().to_vec()).into();
    for key in &deleted {
        content.remove(key);
    }
    drop(ks);
    db.close().unwrap();
    (Sound { files: files_of(&disk), content, deleted }, old)
}

/// A store that was never closed: sealed segments, an archive, and a journal of which everything
/// but the records named `tail` was synced before these were written. Each of them says so, and
/// each may be lost: nobody can tell the last of them from a torn tail.
fn sound_open() -> Sound {
    let disk = SimVfs::new(3);
    let db = options(&disk).open(HOME).unwrap();
    let ks = db.keyspace("notes").unwrap();
    let mut content = Content::new();
    let mut put = |key: String, value: Vec<u8>| {
        ks.put(&key, &value).unwrap();
        content.insert(key.into_bytes(), value);
    };
    (0..10_u8).for_each(|i| put(format!("cold {i:02}"), vec![b'a' + i; 60]));
    db.archive_all().unwrap();
    (0..8_u8).for_each(|i| put(format!("warm {i:02}"), vec![b'A' + i; 50]));
    db.compact().unwrap();
    (0..12_u8).for_each(|i| put(format!("late {i:02}"), vec![b'k' + i; 70]));
    put("warm 04".into(), b"the second value of it".to_vec());
    put("cold 05".into(), b"another value of it".to_vec());
    let deleted: Vec<Vec<u8>> =
        ["cold 02", "warm 03", "late 02"].map(|key| key.as_bytes().to_vec()).into();
    for key in &deleted {
        ks.delete(key).unwrap();
        content.remove(key);
    }
    db.sync().unwrap();
    (0..6_u8).for_each(|i| ks.put(format!("tail {i}"), vec![b'0' + i; 700]).unwrap());
    Sound { files: files_of(&disk), content, deleted }
}

fn disk_of(files: &Files) -> SimVfs {
    let disk = SimVfs::new(1);
    disk.create_dir(Path::new(HOME)).unwrap();
    for (name, bytes) in files {
        disk.edit(format!("{HOME}/{name}"), |content: &mut Vec<u8>| content.clone_from(bytes));
    }
    disk
}

/// How a damaged store may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Identical,
    Refused,
    Named,
}

impl Sound {
    /// Opens the damaged store and judges all that it says; the text tells what is wrong.
    fn judge(&self, files: &Files, save: bool) -> Result<Outcome, String> {
        let disk = disk_of(files);
        if save {
            self.judge_salvage(files)?;
        }
        match options(&disk).open(HOME) {
            Ok(db) => self.judge_open(&db, true),
            Err(Error::Damaged { damage, .. }) if damage.is_empty() => {
                Err("an empty report".into())
            }
            Err(
                Error::Damaged { .. }
                | Error::Corrupt(_)
                | Error::Version { .. }
                | Error::Foreign { .. }
                | Error::Io { .. },
            ) => {
                let disk = disk_of(files);
                let degraded = options(&disk).open_policy(OpenPolicy::Degraded).open(HOME);
                degraded.map_or(Ok(Outcome::Refused), |db| {
                    self.judge_open(&db, false).map(|_| Outcome::Refused)
                })
            }
            Err(other) => Err(format!("refused with {other}")),
        }
    }

    fn judge_open(&self, db: &Db, strict: bool) -> Result<Outcome, String> {
        let is_named = || db.verify(|_| ()).is_ok_and(|verified| !verified.is_sound());
        let Ok(ks) = db.keyspace("notes") else {
            return Err("the keyspace cannot be opened".into());
        };
        let mut outcome = Outcome::Identical;
        for (key, value) in &self.content {
            let name = String::from_utf8_lossy(key);
            match ks.get(key) {
                Ok(Some(found)) if found[..] == value[..] => {}
                Err(Error::Corrupt(_)) => outcome = Outcome::Named,
                other if strict => return Err(format!("{name}: {other:?}")),
                _ if !is_named() => return Err(format!("{name}: silent and wrong")),
                _ => outcome = Outcome::Named,
            }
        }
        for key in &self.deleted {
            match ks.get(key) {
                Ok(None) => {}
                Err(Error::Corrupt(_)) => outcome = Outcome::Named,
                _ if !strict && is_named() => outcome = Outcome::Named,
                found => {
                    return Err(format!("{}: back as {found:?}", String::from_utf8_lossy(key)));
                }
            }
        }
        let walked: Vec<_> = ks.iter().collect();
        let failed = walked.iter().any(Result::is_err);
        let rows = walked.into_iter().flatten().map(|(k, v)| (k.to_vec(), v.to_vec()));
        let rows = rows.filter(|(key, _)| !key.starts_with(b"tail"));
        let same = rows.eq(self.content.iter().map(|(k, v)| (k.clone(), v.clone())));
        if strict && !failed && !same {
            return Err("a walk differs and says nothing".into());
        }
        if outcome == Outcome::Named && !is_named() {
            return Err("damage that verify does not see".into());
        }
        Ok(outcome)
    }

    /// Salvage verifies its output by itself; here every key is right, or named.
    fn judge_salvage(&self, files: &Files) -> Result<(), String> {
        let scratch = tempfile::tempdir().unwrap();
        let (from, into) = (scratch.path().join("from"), scratch.path().join("into"));
        std::fs::create_dir(&from).unwrap();
        for (name, bytes) in files {
            std::fs::write(from.join(name), bytes).unwrap();
        }
        let saved = match terrace::repair::salvage(&from, &into, |_| ()) {
            Ok(saved) => saved,
            Err(Error::Version { .. } | Error::Foreign { .. }) => return Ok(()),
            Err(other) => return Err(format!("salvage: {other}")),
        };
        let db = Db::open(&into).unwrap();
        let mut found = Content::new();
        for name in db.keyspaces().unwrap() {
            let keyspace = db.keyspace(&name).unwrap();
            if !name.ends_with(terrace::repair::UNKNOWN_SUFFIX) {
                for item in &keyspace {
                    let (key, value) = item.unwrap();
                    found.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        let unnamed = |key: &[u8]| {
            let names = saved.lost_keys.iter().chain(&saved.unknown_keys);
            !names.into_iter().any(|one| one.key.as_deref() == Some(key))
        };
        for (key, value) in &self.content {
            let wrong = match found.get(key) {
                Some(found) if found == value => false,
                Some(_) => unnamed(key) && !saved.has_gap,
                None => saved.is_whole(),
            };
            if wrong {
                let key = String::from_utf8_lossy(key);
                return Err(format!(
                    "salvage: {key}: {:?} of {saved:?}",
                    found.get(key.as_bytes())
                ));
            }
        }
        for key in &self.deleted {
            if found.contains_key(key) && unnamed(key) && !saved.has_gap {
                return Err(format!("salvage: {} is back", String::from_utf8_lossy(key)));
            }
        }
        Ok(())
    }

    fn with(&self, change: Change) -> Files {
        let mut files = self.files.clone();
        for (name, bytes) in change {
            match bytes {
                Some(bytes) => drop(files.insert(name, bytes)),
                None => drop(files.remove(&name)),
            }
        }
        files
    }

    /// Judges many damaged stores on all processors; prints the counts of each outcome, and the
    /// most that one took. Answers how many were not identical.
    fn sweep(
        &self,
        what: &str,
        count: usize,
        damaged: impl Fn(usize) -> (String, Change) + Sync,
    ) -> usize {
        let next = AtomicUsize::new(0);
        let slowest_us = AtomicU64::new(0);
        let counts = [const { AtomicUsize::new(0) }; 3];
        let one = |at: usize| {
            let (name, change) = damaged(at);
            let files = self.with(change);
            let began = cpu_us();
            match self.judge(&files, at.is_multiple_of(SALVAGE_EVERY)) {
                Ok(outcome) => counts[outcome as usize].fetch_add(1, Ordering::Relaxed),
                Err(text) => panic!("{what}: {name}: {text}"),
            };
            let took_us = cpu_us() - began;
            slowest_us.fetch_max(took_us, Ordering::Relaxed);
            if let Some(text) = beyond(took_us, peak_kib()) {
                panic!("{what}: {name}: {text}");
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= count {
                            break;
                        }
                        one(at);
                    }
                });
            }
        });
        let [identical, refused, named] = counts.map(AtomicUsize::into_inner);
        println!(
            "{what}: {identical} identical, {refused} refused, {named} served with damage; at most \
             {} ms of a processor, {} MiB",
            slowest_us.into_inner().div_ceil(1000),
            peak_kib() >> 10
        );
        assert_eq!(identical + refused + named, count);
        refused + named
    }

    /// The same, made one at a time: `change` gets each place of each file.
    fn sweep_places(&self, what: &str, step: usize, change: impl Fn(&mut Vec<u8>, usize) + Sync) {
        let mut seen = 0;
        for (name, bytes) in &self.files {
            seen += self.sweep(&format!("{what} {name}"), bytes.len().div_ceil(step), |at| {
                let mut changed = bytes.clone();
                change(&mut changed, at * step);
                (format!("{name} at {}", at * step), vec![(name.clone(), Some(changed))])
            });
        }
        assert!(seen > 5, "{what}: hardly any damage was seen");
    }
}

#[test]
fn the_sweep_sees_a_wrong_value_an_absent_key_and_one_that_came_back() {
    let (sound, _) = sound(0);
    let says = |change: &dyn Fn(&mut Sound)| {
        let (mut other, _) = self::sound(0);
        change(&mut other);
        other.judge(&sound.files, true).unwrap_err()
    };
    let wrong = says(&|other| drop(other.content.insert(b"warm 05".into(), b"another".into())));
    assert!(wrong.contains("warm 05"), "{wrong}");
    let absent = says(&|other| drop(other.content.insert(b"warm 99".into(), b"never".into())));
    assert!(absent.contains("warm 99"), "{absent}");
    let back = says(&|other| other.deleted.push(b"warm 06".into()));
    assert!(back.contains("warm 06"), "{back}");
    let walked = says(&|other| drop(other.content.remove(&b"warm 06"[..])));
    assert!(walked.contains("walk"), "{walked}");
}

#[test]
fn the_sound_store_holds_every_kind_of_file_and_is_identical() {
    let (sound, _) = sound(0);
    for ending in [".man0", ".man1", ".seg", ".arc", ".bit"] {
        assert!(sound.files.keys().any(|name| name.ends_with(ending)), "{ending}");
    }
    assert_eq!(sound.judge(&sound.files, true), Ok(Outcome::Identical));
}

#[test]
fn every_byte_is_flipped() {
    let (sound, _) = sound(0);
    if std::env::var_os("TERRACE_SWEEP").is_some() {
        for bit in 0..8 {
            sound.sweep_places("flip", 1, |bytes, at| bytes[at] ^= 1 << bit);
        }
    } else {
        sound.sweep_places("flip", 1, |bytes, at| bytes[at] ^= 1 << (at % 8));
    }
    assert!(sound.files.len() > 5);
}

#[test]
fn every_length_is_cut() {
    let (sound, _) = sound(0);
    let step = if std::env::var_os("TERRACE_SWEEP").is_some() { 1 } else { 3 };
    sound.sweep_places("cut", step, Vec::truncate);
    assert!(sound.files.len() > 5);
}

#[test]
fn a_store_that_was_not_closed_is_damaged() {
    let sound = sound_open();
    assert_eq!(sound.judge(&sound.files, true), Ok(Outcome::Identical));
    let step = if std::env::var_os("TERRACE_SWEEP").is_some() { 1 } else { 5 };
    sound.sweep_places("open, flip", step, |bytes, at| bytes[at] ^= 1 << (at % 8));
    sound.sweep_places("open, zeroed", 512, |bytes, at| {
        let end = (at + 512).min(bytes.len());
        bytes[at..end].fill(0);
    });
    let names: Vec<_> = sound.files.keys().collect();
    let without = |at: usize| (format!("{} deleted", names[at]), vec![(names[at].clone(), None)]);
    assert!(sound.sweep("open, files", names.len(), without) > 2);
}

#[test]
fn a_long_record_in_a_segment_of_its_own_is_damaged() {
    let disk = SimVfs::new(3);
    let db = options(&disk).open(HOME).unwrap();
    let ks = db.keyspace("notes").unwrap();
    let mut content = Content::new();
    for (key, value) in [("before", vec![1; 100]), ("long", vec![2; 1_100_000]), ("after", vec![3])]
    {
        ks.put(key, &value).unwrap();
        content.insert(key.into(), value);
    }
    drop(ks);
    db.close().unwrap();
    let sound = Sound { files: files_of(&disk), content, deleted: Vec::new() };
    sound.sweep_places("flip", 40_009, |bytes, at| bytes[at] ^= 4);
    sound.sweep_places("cut", 100_003, Vec::truncate);
    assert!(sound.files.values().any(|bytes| bytes.len() > 1_100_000));
}

#[test]
fn sectors_are_zeroed_swapped_and_made_old() {
    let (sound, old) = sound(0);
    sound.sweep_places("zeroed", 512, |bytes, at| {
        let end = (at + 512).min(bytes.len());
        bytes[at..end].fill(0);
    });
    sound.sweep_places("noise", 512, |bytes, at| {
        let end = (at + 512).min(bytes.len());
        for (i, byte) in (0_u32..).zip(&mut bytes[at..end]) {
            *byte = (i * 31 % 251).to_le_bytes()[0];
        }
    });
    let mut damaged = Vec::new();
    for (name, bytes) in &sound.files {
        for (other, source) in sound.files.iter().chain(&old) {
            for at in (0..bytes.len().min(source.len())).step_by(512) {
                let end = (at + 512).min(bytes.len()).min(source.len());
                if bytes[at..end] != source[at..end] {
                    let sector = source[at..end].to_vec();
                    damaged.push((format!("{other} into {name} at {at}"), name, at, sector));
                }
            }
        }
    }
    let one = |at: usize| {
        let (what, name, at, sector) = &damaged[at];
        let mut bytes = sound.files[*name].clone();
        bytes[*at..at + sector.len()].copy_from_slice(sector);
        (what.clone(), vec![((*name).clone(), Some(bytes))])
    };
    assert!(damaged.len() > 20 && sound.sweep("sector of", damaged.len(), one) > 5);
}

#[test]
fn files_are_deleted_doubled_swapped_old_and_of_another_store() {
    let (sound, old) = sound(0);
    let (other, _) = self::sound(7);
    let mut damaged: Vec<(String, Change)> = Vec::new();
    for (name, bytes) in &sound.files {
        damaged.push((format!("{name} deleted"), vec![(name.clone(), None)]));
        damaged.push((format!("{name} emptied"), vec![(name.clone(), Some(Vec::new()))]));
        for source in [&old, &other.files] {
            if let Some(found) = source.get(name).filter(|found| *found != bytes) {
                let taken = vec![(name.clone(), Some(found.clone()))];
                damaged.push((format!("{name} from elsewhere"), taken));
            }
        }
        for (second, bytes_of_second) in &sound.files {
            if second > name && second.get(10..14) == name.get(10..14) {
                let double = (second.clone(), Some(bytes.clone()));
                let swapped = vec![(name.clone(), Some(bytes_of_second.clone())), double.clone()];
                damaged.push((format!("{name} and {second} swapped"), swapped));
                damaged.push((format!("{name} doubled as {second}"), vec![double]));
            }
        }
    }
    assert!(sound.sweep("files", damaged.len(), |at| damaged[at].clone()) > 5);
    // A file under a number that the manifest does not list changes nothing.
    let (name, bytes) = sound.files.iter().find(|(name, _)| name.contains(".seg")).unwrap();
    let mut added = sound.files.clone();
    added.insert("4000000000.seg".into(), bytes.clone());
    assert_eq!(sound.judge(&added, false), Ok(Outcome::Identical), "{name} doubled");
}
