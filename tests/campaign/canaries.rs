//! The campaign can fail: with each planted bug it goes red, and without them it stays green.
//! Knows the bugs; the checkers are those of the campaign.

use std::path::Path;
use std::sync::Arc;

use terrace::testing::{Canary, ManualTime, SimVfs, Vfs, plant};

use crate::judge::{HOME, options};
use crate::{NOW_MS, PLAN, Plan, run};

/// Seeds that are tried before a checker counts as blind.
const SEEDS: u64 = 60;

/// The first seed that finds the bug, and what it says.
fn found(canary: Canary) -> Option<(u64, String)> {
    let large_percent = if canary == Canary::NoLengthCheck { 60 } else { PLAN.large_percent };
    let plan = Plan { images_max: 400, large_percent, canary: Some(canary), mapped: true };
    (1..=SEEDS).find_map(|seed| run(seed, plan).err().map(|text| (seed, text)))
}

/// A closed store with two sealed segments that hold records of the same lengths, `a00` to `a39`
/// and `b00` to `b39`.
fn two_segments() -> (SimVfs, Arc<ManualTime>) {
    let disk = SimVfs::new(1);
    let time = Arc::new(ManualTime::new(NOW_MS));
    // A close seals what was written since the opening, and moves nothing.
    for prefix in ["a", "b"] {
        let db = options(&disk, &time).open(HOME).unwrap();
        let ks = db.keyspace("left").unwrap();
        for number in 0..40 {
            ks.put(format!("{prefix}{number:02}"), "one-and-twenty-bytes!").unwrap();
        }
        drop(ks);
        db.close().unwrap();
    }
    assert_ne!(segment_with(&disk, b"a05"), segment_with(&disk, b"b05"));
    // What the records and trailers say is at stake, not the image of the index.
    for name in names(&disk).filter(|name| name.contains(".idx")) {
        disk.lose(name);
    }
    (disk, time)
}

fn names(disk: &SimVfs) -> impl Iterator<Item = String> {
    let entries = disk.open_dir(Path::new(HOME)).unwrap().list().unwrap();
    entries.into_iter().map(|entry| format!("{HOME}/{}", entry.name))
}

fn segment_with(disk: &SimVfs, key: &[u8]) -> String {
    let holds = |name: &String| {
        disk.read(name).is_some_and(|bytes| bytes.windows(3).any(|window| window == key))
    };
    names(disk).filter(|name| name.contains(".seg")).find(holds).unwrap()
}

/// The store may be refused, and a record may be damaged; none is absent.
fn nothing_is_absent(disk: &SimVfs, time: &Arc<ManualTime>) -> Result<(), String> {
    let Ok(db) = options(disk, time).open(HOME) else { return Ok(()) };
    let ks = db.keyspace("left").unwrap();
    let keys = ["a", "b"].into_iter().flat_map(|p| (0..40).map(move |n| format!("{p}{n:02}")));
    match keys.into_iter().find(|key| matches!(ks.get(key), Ok(None))) {
        Some(key) => Err(format!("{key} is absent, and nothing is said")),
        None => Ok(()),
    }
}

/// A sector of one segment is written where the same sector of the other belongs.
fn misdirected_sector() -> Result<(), String> {
    let (disk, time) = two_segments();
    let source = disk.read(segment_with(&disk, b"a05")).unwrap();
    disk.edit(segment_with(&disk, b"b05"), |bytes: &mut Vec<u8>| {
        bytes[512..1024].copy_from_slice(&source[512..1024]);
    });
    nothing_is_absent(&disk, &time)
}

/// Bits of a trailer are flipped.
fn damaged_trailer() -> Result<(), String> {
    let (disk, time) = two_segments();
    let name = segment_with(&disk, b"a05");
    let bytes = disk.read(&name).unwrap();
    let at = bytes.windows(8).position(|window| window == b"TRCTRL01").unwrap();
    (8..120).step_by(5).try_for_each(|offset| {
        let disk = disk.clone_image();
        disk.edit(&name, |bytes: &mut Vec<u8>| bytes[at + offset] ^= 4);
        nothing_is_absent(&disk, &time)
    })
}

/// What a checker says with a bug planted, or without.
fn with(canary: Option<Canary>, checker: fn() -> Result<(), String>) -> Result<(), String> {
    plant(canary);
    let verdict = std::panic::catch_unwind(checker);
    plant(None);
    verdict.unwrap_or_else(|_| Err("panic".into()))
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        let verdict = match canary {
            Canary::NoNonce => with(Some(canary), misdirected_sector).err().map(|text| (0, text)),
            Canary::TrustTrailer => with(Some(canary), damaged_trailer).err().map(|t| (0, t)),
            other => found(other),
        };
        match verdict {
            Some((seed, text)) => {
                let text: String = text.chars().take(160).collect();
                println!("{canary:?}: seed {seed}: {text}");
            }
            None => missed.push(canary),
        }
    }
    assert!(missed.is_empty(), "planted and not found: {missed:?}");
}

#[test]
fn without_a_planted_bug_the_same_seeds_are_green() {
    let plan = Plan { images_max: 100, ..PLAN };
    let red: Vec<_> = (1..=10).filter_map(|seed| run(seed, plan).err()).collect();
    assert!(red.is_empty(), "{red:?}");
    assert_eq!(with(None, misdirected_sector), Ok(()));
    assert_eq!(with(None, damaged_trailer), Ok(()));
}
