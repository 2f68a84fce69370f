//! The memory of the whole process stays within the budget, whatever the store does.
//!
//! The test runs itself as a child, so that no other test counts. The child asks the kernel
//! for its anonymous memory while it loads, overwrites, reads, scans, merges, and opens again.

use std::process::Command;
use std::time::Duration;

use terrace::{Db, Options};
use terrace_tests::random::Random;
use terrace_tests::scratch::Scratch;

const BUDGET: &str = "TERRACE_MEMORY_BUDGET";
const WARM_LEN: u64 = 48 << 20;

/// Bytes of anonymous memory of this process, as the kernel counts them.
fn anonymous_len() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The highest that was seen, and during what.
struct Peak {
    before: u64,
    most: u64,
    during: String,
}

impl Peak {
    fn look(&mut self, during: &str) {
        let now = anonymous_len().saturating_sub(self.before);
        if now > self.most {
            (self.most, self.during) = (now, during.to_owned());
        }
    }
}

fn work(db: &Db, random: &mut Random, peak: &mut Peak, rounds: u64) {
    let text = db.keyspace("text").unwrap();
    let small = db.keyspace("small").unwrap();
    let words = "the store keeps what it was given and gives it back when it is asked ".repeat(20);
    for round in 0..rounds {
        let number = random.below(200_000);
        let from = usize::try_from(random.below(600)).unwrap();
        let value = format!("{number}{}", &words[from..from + 700]);
        text.put(format!("text/{number:08}"), value).unwrap();
        small.put(format!("small/{:08}", random.below(300_000)), [7; 40]).unwrap();
        let read = format!("text/{:08}", random.below(200_000));
        assert!(text.get(read).unwrap().is_none_or(|value| value.len() > 600));
        if round % 500 == 0 {
            peak.look("load");
        }
        if round % 20_000 == 0 {
            let count = text.prefix("text/0001").flatten().count();
            assert!(count <= 10_000);
            peak.look("scan");
        }
    }
}

#[test]
#[ignore = "the child of the next test"]
fn child_that_works_within_a_budget() {
    let Ok(budget) = std::env::var(BUDGET) else { return };
    let budget: u64 = budget.parse().unwrap();
    let scratch = Scratch::new().unwrap();
    let options = Options::new().memory_budget(budget).warm_budget(WARM_LEN);
    let mut random = Random::from_environment(5);
    let mut peak = Peak { before: anonymous_len(), most: 0, during: String::new() };
    let db = options.clone().open(scratch.join("db")).unwrap();
    work(&db, &mut random, &mut peak, 90_000);
    assert!(db.settle(Duration::from_mins(2)).unwrap());
    peak.look("settle");
    assert!(db.stats().archives > 0);
    db.close().unwrap();
    let db = options.open(scratch.join("db")).unwrap();
    peak.look("open");
    work(&db, &mut random, &mut peak, 20_000);
    db.compact().unwrap();
    peak.look("compact");
    let all = db.keyspace("text").unwrap().len().unwrap();
    assert!(all > 20_000, "{all} texts");
    peak.look("walk");
    println!("peak {} {}", peak.most, peak.during);
}

/// With budgets below 16 MiB, what the filter of one partition takes to build is much of what there
/// is.
#[test]
fn anonymous_memory_stays_within_the_budget_under_load_recovery_scans_and_merging() {
    for budget in [16_u64 << 20, 64 << 20] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "memory::child_that_works_within_a_budget"])
            .args(["--nocapture"])
            .env(BUDGET, budget.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        let told = text.lines().find_map(|line| line.strip_prefix("peak ")).unwrap();
        let (peak, during) = told.split_once(' ').unwrap();
        let bound = budget + budget / 20;
        println!("budget {budget} peak {peak} of {bound} allowed, during {during}");
        assert!(peak.parse::<u64>().unwrap() <= bound, "budget {budget}: {peak} in {during}");
    }
}
