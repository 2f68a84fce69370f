//! Every seed of every fuzz target through the same functions that the fuzzer calls; a walk over
//! small changes of each. `write_the_seeds` makes those of the engine anew.

use std::path::{Path, PathBuf};

use terrace::internals::{Body, DECODERS, open_image, seeds};
use terrace_tests::fuzzed::{crashes, operations};
use terrace_tests::random::Random;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// A target's name and what it runs.
type Target = (&'static str, Box<dyn Fn(&[u8])>);

/// All targets but that of the command line, which has its own test.
fn targets() -> Vec<Target> {
    let decoder = |&(name, body): &Body| -> Target {
        (
            name,
            Box::new(move |data| {
                std::hint::black_box(body(data));
            }),
        )
    };
    let mut targets: Vec<_> = DECODERS.iter().map(decoder).collect();
    targets.push(("store", Box::new(open_image)));
    targets.push(("operations", Box::new(operations)));
    targets.push(("crashes", Box::new(crashes)));
    targets
}

/// The checked-in seeds of one target.
fn checked_in(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("seeds").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_seed_passes_and_every_target_has_some() {
    for (target, body) in targets() {
        let seeds = checked_in(target);
        assert!(!seeds.is_empty(), "no seeds for {target}");
        for (_, bytes) in seeds {
            body(&bytes);
        }
        assert!(fuzz_dir().join(format!("fuzz_targets/{target}.rs")).is_file(), "{target}");
    }
}

#[test]
fn changed_seeds_of_the_decoders_pass_with_and_without_sound_checksums() {
    let mut random = Random::from_environment(77);
    let mut tried = 0;
    for (target, body) in targets() {
        if ["operations", "crashes", "store"].contains(&target) {
            continue;
        }
        for (_, seed) in checked_in(target) {
            for _ in 0..300 {
                body(&changed(&seed, &mut random));
                tried += 1;
            }
        }
    }
    assert!(tried > 5000, "{tried}");
}

#[test]
fn changed_directories_are_opened_refused_or_saved() {
    let mut random = Random::from_environment(78);
    let seeds = checked_in("store");
    for _ in 0..30 {
        for (_, seed) in &seeds {
            open_image(&changed(seed, &mut random));
        }
    }
    assert!(seeds.len() >= 2);
}

#[test]
fn random_operations_pass_with_and_without_crashes() {
    let mut random = Random::from_environment(79);
    for _ in 0..6 {
        let bytes = random.bytes(400);
        operations(&bytes);
        crashes(&bytes);
    }
    assert!(random.below(2) < 2);
}

/// A few bytes written over, cut out, put in or doubled.
fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.len() < 2 {
            break;
        }
        let at = random.within(1..bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.within(0..5)],
            3 => bytes.truncate(at),
            4 => drop(bytes.splice(at..at, random.bytes(4))),
            _ => {
                let end = (at + random.within(1..64)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
        }
    }
    if random.below(2) == 0 && !bytes.is_empty() {
        bytes[0] ^= 1;
    }
    bytes
}

#[test]
fn the_engine_still_writes_what_the_seeds_were_made_of() {
    let made = seeds().unwrap();
    for (target, body) in DECODERS {
        assert!(made.iter().any(|(name, ..)| name == target), "no seed for {target}");
        let mut of_target = made.iter().filter(|(name, ..)| name == target);
        assert!(of_target.any(|(.., bytes)| body(bytes)), "no seed of {target} decodes");
    }
}

#[test]
#[ignore = "writes fuzz/seeds anew, for a change of the format"]
fn write_the_seeds() {
    let mut made = seeds().unwrap();
    let mut random = Random::new(1);
    for i in 0..4 {
        made.push(("operations", format!("random{i}"), random.bytes(200)));
        made.push(("crashes", format!("random{i}"), random.bytes(200)));
    }
    for (target, name, bytes) in &made {
        let dir = fuzz_dir().join("seeds").join(target);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    assert!(made.len() > 30);
}
