//! The campaign can fail: with each planted bug it goes red, and without them it stays green.
//! Knows the bugs; the checkers are those of the campaign.

use terrace::testing::Canary;

use crate::{PLAN, Plan, run};

/// Seeds that are tried before a checker counts as blind.
const SEEDS: u64 = 60;

/// The first seed that finds the bug, and what it says.
fn found(canary: Canary) -> Option<(u64, String)> {
    let large_percent = if canary == Canary::NoLengthCheck { 60 } else { PLAN.large_percent };
    let plan = Plan { images_max: 400, large_percent, canary: Some(canary) };
    (1..=SEEDS).find_map(|seed| run(seed, plan).err().map(|text| (seed, text)))
}

#[test]
fn every_planted_bug_is_found_by_crash_images() {
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        match found(canary) {
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
}
