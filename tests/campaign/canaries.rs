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
    let plan = Plan { images_max: 400, large_percent, canary: Some(canary) };
    (1..=SEEDS).find_map(|seed| run(seed, plan).err().map(|text| (seed, text)))
}

/// Two segments with records of the same lengths; a sector of one is written where the same sector
/// of the other belongs. A store may say that its records are damaged, not that they are absent.
fn misdirected_sector() -> Result<(), String> {
    let disk = SimVfs::new(1);
    let time = Arc::new(ManualTime::new(NOW_MS));
    let db = options(&disk, &time).open(HOME).unwrap();
    let ks = db.keyspace("left").unwrap();
    for prefix in ["a", "b"] {
        for number in 0..40 {
            ks.put(format!("{prefix}{number:02}"), "one-and-twenty-bytes!").unwrap();
        }
        db.compact().unwrap();
    }
    drop(ks);
    db.close().unwrap();
    let folder = disk.open_dir(Path::new(HOME)).unwrap();
    let names = folder.list().unwrap().into_iter().map(|entry| format!("{HOME}/{}", entry.name));
    let holds = |key: &[u8]| {
        let with_key = |name: &String| {
            disk.read(name).is_some_and(|bytes| bytes.windows(3).any(|window| window == key))
        };
        names.clone().find(|name| name.ends_with(".seg") && with_key(name)).unwrap()
    };
    let (source, target) = (disk.read(holds(b"a05")).unwrap(), holds(b"b05"));
    disk.edit(target, |bytes: &mut Vec<u8>| bytes[512..1024].copy_from_slice(&source[512..1024]));
    let db = options(&disk, &time).open(HOME).map_err(|error| format!("open: {error}"))?;
    let ks = db.keyspace("left").unwrap();
    let lost = (0..40).find(|number| matches!(ks.get(format!("b{number:02}")), Ok(None)));
    match lost {
        Some(number) => Err(format!("b{number:02} is absent, and nothing is said")),
        None => Ok(()),
    }
}

/// The same with a bug planted.
fn misdirected(canary: Option<Canary>) -> Result<(), String> {
    plant(canary);
    let found = misdirected_sector();
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found_by_crash_images() {
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        let verdict = match canary {
            Canary::NoNonce => misdirected(Some(canary)).err().map(|text| (0, text)),
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
    assert_eq!(misdirected(None), Ok(()));
}
