//! C1 to C8 and R13 by crash images: work from a seed on a simulated disk that keeps a copy of
//! itself before every effect; each copy loses what a power cut may lose, is opened, and must show
//! a prefix of the work with everything durable, soon.
//!
//! `TERRACE_CRASH_IMAGES` says how many images (10,000,000 for a night); `TERRACE_SEED` where the
//! seeds begin; `TERRACE_CRASH_RUNS` ends after so many seeds.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise"
)]

mod canaries;
mod history;
mod judge;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use terrace::testing::{Canary, ManualTime, SimVfs, plant, seed_random};
use terrace_tests::random::Random;

use crate::history::{History, State};
use crate::judge::{Judge, Tally, map_files};
use crate::work::{Ended, Worker};

const NOW_MS: u64 = 1_700_000_000_000;
/// Images of one seed at most.
const RUN_IMAGES_MAX: u64 = 1500;
/// Images of a plain `cargo test`.
const IMAGES: u64 = 6000;
/// Images between two lines of progress.
const PROGRESS: u64 = 250_000;

/// How a run goes.
#[derive(Debug, Clone, Copy)]
struct Plan {
    images_max: u64,
    /// Percent of idle moments at which a batch of a segment of its own is written.
    large_percent: u64,
    canary: Option<Canary>,
    /// Whether the store maps its files.
    mapped: bool,
}

const PLAN: Plan =
    Plan { images_max: RUN_IMAGES_MAX, large_percent: 8, canary: None, mapped: true };

/// One seed: generations of work, each cut at many places; each goes on from one of its images.
fn run(seed: u64, plan: Plan) -> Result<Tally, String> {
    seed_random(Some(seed));
    plant(plan.canary);
    map_files(plan.mapped);
    let caught = catch_unwind(AssertUnwindSafe(|| generations(seed, plan)));
    plant(None);
    map_files(true);
    seed_random(None);
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn generations(seed: u64, plan: Plan) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let time = Arc::new(ManualTime::new(NOW_MS));
    let mut judge = Judge::new(random.fork(), Arc::clone(&time), plan.images_max);
    let mut disk = SimVfs::new(seed);
    let mut history = History::of(State::new());
    let count = if random.below(4) == 0 { 10 } else { 3 };
    for generation in 0..count {
        if judge.is_done() {
            break;
        }
        judge.forget();
        let time = Arc::clone(&time);
        let mut worker = Worker::new(disk, time, random.fork(), history, plan.large_percent);
        // Few cuts early, so that the work comes to its later stages before the images run out.
        let share = plan.images_max / count * (generation + 1);
        (disk, history) = one_generation(&mut worker, &mut judge, share)
            .map_err(|text| format!("generation {generation}: {text}"))?;
    }
    Ok(judge.tally)
}

/// Works and cuts; answers the disk that the next generation begins with, and its history.
fn one_generation(
    worker: &mut Worker,
    judge: &mut Judge,
    images_max: u64,
) -> Result<(SimVfs, History), String> {
    let operations = 20 + judge.random.below(60);
    for number in 0..=operations {
        let reached = worker.history.reached();
        worker.disk.photograph(if worker.large_percent > 50 { 40 } else { 1 });
        let ended = worker.operation().map_err(|text| format!("operation {number}: {text}"))?;
        worker.disk.photograph(0);
        let photos = worker.disk.photographs();
        let left = images_max.saturating_sub(judge.tally.images);
        let cuts = (left / 12 / (operations + 1 - number)).clamp(u64::from(left > 0), 12);
        let history = worker.history.as_of(reached);
        for _ in 0..cuts.min(photos.len() as u64) {
            let Some(photo) = judge.random.pick(&photos) else { break };
            judge
                .cut(photo, &history)
                .map_err(|text| format!("cut in operation {number}: {text}"))?;
        }
        if ended == Ended::Failed {
            break;
        }
    }
    worker.disk.heal();
    if judge.random.below(3) == 0 {
        // The process dies and the machine goes on.
        let image = worker.disk.kill();
        let found = judge.killed(&image.clone_image(), &worker.history)?;
        return Ok((image, worker.history.onward(found, true)));
    }
    let image = worker.disk.crash(judge.survivors());
    let found = judge.image(&image.clone_image(), &worker.history, 0)?;
    Ok((image, worker.history.onward(found, false)))
}

/// The line that repeats a run.
fn replay(seed: u64, plan: Plan) -> String {
    let test = if plan.mapped { "crash_images_show" } else { "without_maps_crash_images_show" };
    format!(
        "TERRACE_SEED={seed} TERRACE_CRASH_RUNS=1 \
         cargo test -p terrace-tests --test campaign -- --nocapture {test}"
    )
}

fn from_environment(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(default)
}

/// Runs seeds on all processors until so many images were judged.
fn campaign(first: u64, images: u64, runs: u64, plan: Plan) -> (Tally, u64) {
    let (next, judged) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let work = || {
        let mut mine = Tally::default();
        while judged.load(Ordering::Relaxed) < images && !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                break;
            }
            let seed = first + number;
            match run(seed, plan) {
                Ok(tally) => {
                    let before = judged.fetch_add(tally.images, Ordering::Relaxed);
                    let after = before + tally.images;
                    if after / PROGRESS > before / PROGRESS {
                        println!("{after} of {images} crash images judged, at seed {seed}");
                    }
                    mine.add(&tally);
                }
                Err(text) => {
                    failed.store(true, Ordering::Relaxed);
                    panic!("seed {seed}: {text}\nreplay: {}", replay(seed, plan));
                }
            }
        }
        mine
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            match handle.join() {
                Ok(mine) => total.add(&mine),
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    let seeds = next.load(Ordering::Relaxed).min(runs);
    (total, seeds)
}

#[test]
fn crash_images_show_a_prefix_of_the_work_with_everything_durable() {
    judge_images(PLAN, from_environment("TERRACE_CRASH_IMAGES", IMAGES));
}

#[test]
fn without_maps_crash_images_show_the_same() {
    let images = from_environment("TERRACE_CRASH_IMAGES", IMAGES);
    judge_images(Plan { mapped: false, ..PLAN }, images / 4);
}

fn judge_images(plan: Plan, images: u64) {
    let first = Random::from_environment(1).seed();
    let runs = from_environment("TERRACE_CRASH_RUNS", u64::MAX);
    let (tally, seeds) = campaign(first, images, runs, plan);
    println!(
        "{} crash images judged, and {} with the bytes of an earlier one, of {} cuts in {seeds} \
         seeds; {} cuts had every subset tried; in recoveries {:?}; {} openings with a fault; the \
         dearest opening took {} us of a processor",
        tally.images,
        tally.repeated,
        tally.cuts,
        tally.exhaustive,
        tally.nested,
        tally.faults,
        tally.open_cpu_us
    );
    assert!(tally.images >= images || seeds == runs, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = Plan { images_max: 60, ..PLAN };
    let timeless = |tally| Tally { open_cpu_us: 0, ..tally };
    let tallies = [5, 5, 6].map(|seed| timeless(run(seed, plan).unwrap()));
    assert_eq!(tallies[0], tallies[1]);
    assert_ne!(tallies[0].trace, tallies[2].trace);
}
