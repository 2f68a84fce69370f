//! What every store must hold to, as a program that any crate can run on its own store.
//! Knows the trait alone; each check works in namespaces of its own.
//!
//! ```
//! use std::sync::Arc;
//! use terrace_memory::store::{MemStore, Store, conformance};
//!
//! struct Mine(MemStore);
//! impl conformance::Subject for Mine {
//!     fn store(&self) -> Arc<dyn Store> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//! let held = conformance::run(&Mine(MemStore::new()))?;
//! assert!(held.contains(&"guards"));
//! # Ok::<(), terrace_memory::Error>(())
//! ```

mod changes;
mod commits;
mod model;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::store::{Ns, Store};

/// A store under test, empty at first.
pub trait Subject {
    /// The store; the same state whenever it is asked for.
    fn store(&self) -> Arc<dyn Store>;

    /// Lets so much time pass by the store's clock. Sleeps, unless the clock can be moved.
    fn pass(&self, time: Duration) {
        let watch = Stopwatch::start(time);
        while let Some(left) = watch.left() {
            std::thread::park_timeout(left);
        }
    }

    /// Closes the store and opens it again; `false` when it does not outlive its handles.
    fn reopen(&self) -> bool {
        false
    }
}

type Check = fn(&Bench) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("reads", commits::reads),
    ("guards", commits::guards),
    ("whole commits", commits::whole),
    ("versions", commits::versions),
    ("scans", commits::scans),
    ("limits", commits::limits),
    ("namespaces", commits::namespaces),
    ("threads", commits::threads),
    ("deadlines", ttl::deadlines),
    ("expired is absent", ttl::expired_is_absent),
    ("expired stays so", ttl::expired_stays_so),
    ("changes", changes::changes),
    ("truncated changes", changes::truncated),
    ("waiting for changes", changes::waiting),
    ("reopening", changes::reopening),
    ("model", model::model),
];

/// Runs every check; answers which held.
///
/// Panics at the first rule that is broken, with what was found and what was expected.
pub fn run(subject: &dyn Subject) -> Result<Vec<&'static str>> {
    let mut held = Vec::with_capacity(CHECKS.len());
    for (name, check) in CHECKS {
        check(&Bench { subject, name })?;
        held.push(*name);
    }
    Ok(held)
}

/// One check's place to work.
struct Bench<'s> {
    subject: &'s dyn Subject,
    name: &'static str,
}

impl Bench<'_> {
    fn store(&self) -> Arc<dyn Store> {
        self.subject.store()
    }

    fn ns(&self, part: &str) -> Ns {
        let name = format!("conformance {} {part}", self.name);
        Ns::new(&name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The text of what `result` failed with.
    fn error<T>(&self, doing: &str, result: Result<T>) -> Error {
        match result {
            Ok(_) => panic!("{}: {doing} succeeded", self.name),
            Err(error) => error,
        }
    }
}

/// A small generator: the same seed gives the same numbers. `SplitMix64` (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}
