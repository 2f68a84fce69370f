//! The threads that call steps: one moves records, one flushes. No logic of their own.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tiering::Step;
use crate::tiers::Tiers;
use crate::vfs::os;

/// How long a worker waits when nothing is wanted and nobody wakes it.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How long movement rests after it failed.
const FAILED_WAIT: Duration = Duration::from_millis(500);

/// What a worker does again and again; `false` ends it.
type Body = fn(&Tiers) -> bool;

/// Starts the workers of a store. They end when it is closed or gone.
pub(crate) fn start(tiers: &Arc<Tiers>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let bodies: [(&str, Body); 2] = [("terrace-move", move_once), ("terrace-flush", flush_once)];
    for (name, body) in bodies {
        let weak = Arc::downgrade(tiers);
        let thread = os::spawn(name, move || run(&weak, body));
        threads.push(thread.map_err(|error| Error::io("start worker", name, error))?);
    }
    Ok(threads)
}

fn run(weak: &Weak<Tiers>, body: Body) {
    while let Some(tiers) = weak.upgrade() {
        if tiers.is_closing() || !body(&tiers) {
            return;
        }
    }
}

/// Moves until idle, then waits. `false` ends the worker.
fn move_once(tiers: &Tiers) -> bool {
    let wait = match tiers.step() {
        Ok(Step::Worked) => return true,
        Ok(Step::Idle) => IDLE_WAIT,
        Err(Error::Closed) => return false,
        Err(error) => {
            tracing::warn!(%error, "movement failed and is tried again");
            FAILED_WAIT
        }
    };
    pause(tiers, wait);
    true
}

fn flush_once(tiers: &Tiers) -> bool {
    tiers.pins.tick(tiers.clock.monotonic_ms());
    if tiers.flush_is_due()
        && let Err(error) = tiers.sync()
    {
        // The store is poisoned; writers are told. Reads go on without this worker.
        tracing::error!(%error, "the background flush failed");
        return false;
    }
    pause(tiers, IDLE_WAIT / 2);
    true
}

fn pause(tiers: &Tiers, wait: Duration) {
    let mut pressure = tiers.pressure.lock();
    if !tiers.is_closing() {
        tiers.wanted.wait_for(&mut pressure, wait);
    }
}
