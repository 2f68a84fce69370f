//! What several callers at once may see: calls of real threads, transactions, walks and watchers
//! while records move between tiers so small that a second of writing overflows them.
//!
//! `TERRACE_SEED` sets the seeds, `TERRACE_EFFORT` multiplies the work (1 when unset).
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod anomalies;
mod iterators;
mod linear;
mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Db, Options};
use terrace_tests::random::Random;

/// Where a simulated store lies.
const SIM_PATH: &str = "/store";

/// The moment at which clocks of tests begin.
const START_MS: u64 = 1_700_000_000_000;

/// How much of everything: `TERRACE_EFFORT`, at least 1.
fn effort() -> usize {
    let given = std::env::var("TERRACE_EFFORT").ok().and_then(|text| text.trim().parse().ok());
    given.unwrap_or(1).max(1)
}

/// Options so small that a few hundred records fill every tier.
fn tiny() -> Options {
    Options::new().memory_budget(4 << 20).warm_budget(4 << 20).segment_size(1 << 20)
}

/// A store on the simulated disk; nothing moves but by `Db::step`.
fn open_sim(disk: &SimVfs, time: &Arc<ManualTime>) -> Db {
    let (disk, time) = (Arc::new(disk.clone()), Arc::clone(time));
    tiny().without_workers().file_system(disk).time(time).open(SIM_PATH).unwrap()
}

/// Who moves records while the threads of a test run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    /// The store's own workers, on a real disk.
    Workers,
    /// A thread that steps without a pause, on the simulated disk.
    Steps,
}

impl Mover {
    fn open(self) -> Db {
        match self {
            Self::Workers => tiny().temporary().unwrap(),
            Self::Steps => open_sim(&SimVfs::new(7), &Arc::new(ManualTime::new(START_MS))),
        }
    }
}

/// How far the movement under a test has come.
#[derive(Debug, Default)]
struct Movement {
    rounds: AtomicUsize,
    stop: AtomicBool,
    ended: AtomicBool,
}

impl Movement {
    /// Lets records move until so many others were written since the start, so that a test that is
    /// faster than the tiers does not end before anything moved.
    fn wait_for(&self, rounds: usize) {
        while self.rounds.load(Ordering::Relaxed) < rounds && !self.ended.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}

/// Says so when it goes, also by a panic: no thread of a test outlives its end or waits for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the threads of a test while another keyspace of the same store is filled and overwritten
/// far above the budgets, so that segments are cleaned, demoted and merged under them.
fn while_records_move<T>(db: &Db, mover: Mover, body: impl FnOnce(&Movement) -> T) -> T {
    let movement = Movement::default();
    std::thread::scope(|scope| {
        scope.spawn(|| churn(db, mover, &movement));
        let _stop = SetOnDrop(&movement.stop);
        body(&movement)
    })
}

fn churn(db: &Db, mover: Mover, movement: &Movement) {
    let _ended = SetOnDrop(&movement.ended);
    let churned = db.keyspace("churned").unwrap();
    let mut random = Random::new(77);
    while !movement.stop.load(Ordering::Relaxed) {
        let key = random.below(700).to_be_bytes();
        let len = random.within(2_000..20_000);
        churned.put(key, random.bytes(len)).unwrap();
        if random.chance(20) {
            churned.delete(random.below(700).to_be_bytes()).unwrap();
        }
        if mover == Mover::Steps {
            db.step().unwrap();
        }
        if movement.rounds.fetch_add(1, Ordering::Relaxed) % 500 == 499 {
            db.compact().unwrap();
        }
    }
}
