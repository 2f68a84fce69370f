//! The promises of the engine, one file each, through its public API alone.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod budgets;
mod checkpoint;
mod crash;
mod errors;
mod events;
mod faults;
mod held;
mod image;
mod kill;
mod leaks;
mod ledger;
mod memory;
mod model;
mod moments;
mod opening;
mod read_only;
mod salvage;
mod soak;
mod space;
mod ttl;
mod unmapped;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use terrace::testing::{ManualTime, SimVfs};
use terrace::{Db, Options};

/// Where a simulated store lies.
pub const SIM_PATH: &str = "/store";

/// Options so small that a few hundred records fill every tier.
pub fn tiny() -> Options {
    Options::new().memory_budget(4 << 20).warm_budget(4 << 20).segment_size(1 << 20)
}

/// Options of a store on the simulated disk, driven step by step, with a clock that the test sets.
pub fn sim_options(disk: &SimVfs, time: &Arc<ManualTime>) -> Options {
    let (disk, time) = (Arc::new(disk.clone()), Arc::clone(time));
    tiny().without_workers().file_system(disk).time(time)
}

/// A store of such options.
pub fn open_sim(disk: &SimVfs, time: &Arc<ManualTime>) -> terrace::Result<Db> {
    sim_options(disk, time).open(SIM_PATH)
}

/// Moves until nothing is wanted.
pub fn settle(db: &Db) {
    for _ in 0..200 {
        if !db.step().unwrap() {
            return;
        }
    }
}

/// The account of a store agrees with its files.
pub fn assert_exact(db: &Db) {
    let audit = db.audit().unwrap();
    assert!(audit.is_exact(), "{audit:#?}");
}

/// Calls `write` with 1, 2, 3 and so on in another thread, for as long as `meanwhile` takes.
pub fn while_writing(mut write: impl FnMut(u32) + Send, meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0_u32;
            while !stop.load(Ordering::Acquire) {
                round += 1;
                write(round);
            }
        });
        meanwhile();
        stop.store(true, Ordering::Release);
        writer.join().unwrap();
    });
}

/// The files of a directory with their bytes.
pub fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Bytes that a directory's files take on the device.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}
