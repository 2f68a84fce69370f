//! The threads that call steps: one moves records, one flushes, one makes the next segment ready.
//! No logic of their own.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tiering::Step;
use crate::tiering::budget::Bucket;
use crate::tiers::Tiers;
use crate::vfs::os;

/// How long a worker waits when nothing is wanted and nobody wakes it.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How long movement rests after it failed.
const FAILED_WAIT: Duration = Duration::from_millis(500);

/// What a worker does again and again; `false` ends it.
type Body = fn(&Tiers, &mut Bucket) -> bool;

/// Starts the workers of a store. They end when it is closed or gone.
pub(crate) fn start(tiers: &Arc<Tiers>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let bodies: [(&str, Body); 3] =
        [("terrace-move", move_once), ("terrace-flush", flush_once), ("terrace-spare", spare_once)];
    for (name, body) in bodies {
        let weak = Arc::downgrade(tiers);
        let thread = os::spawn(name, move || run(&weak, body));
        threads.push(thread.map_err(|error| Error::io("start worker", name, error))?);
    }
    Ok(threads)
}

/// Starts a thread that does the same again and again until the store is closed or gone.
pub(crate) fn repeat(
    tiers: &Arc<Tiers>,
    every: Duration,
    body: fn(&Tiers),
) -> Result<JoinHandle<()>> {
    let (weak, name) = (Arc::downgrade(tiers), "terrace-stats");
    let thread = os::spawn(name, move || {
        while let Some(tiers) = weak.upgrade().filter(|tiers| !tiers.is_closing()) {
            body(&tiers);
            let until = tiers.clock.monotonic_ms() + u64::try_from(every.as_millis()).unwrap_or(0);
            let mut left = every;
            // Others are woken by the same call.
            while !left.is_zero() && !tiers.is_closing() {
                pause(&tiers, left.min(IDLE_WAIT));
                let left_ms = until.saturating_sub(tiers.clock.monotonic_ms());
                left = Duration::from_millis(left_ms);
            }
        }
    });
    thread.map_err(|error| Error::io("start worker", name, error))
}

fn run(weak: &Weak<Tiers>, body: Body) {
    let mut bucket = Bucket::default();
    while let Some(tiers) = weak.upgrade() {
        if tiers.is_closing() || !body(&tiers, &mut bucket) {
            return;
        }
    }
}

/// Moves, rests when it moved much, and waits when nothing is wanted. `false` ends the worker.
fn move_once(tiers: &Tiers, bucket: &mut Bucket) -> bool {
    let wait = match tiers.step() {
        Ok(Step::Worked) => {
            let rest = tiers.rest(bucket);
            if !rest.is_zero() {
                pause(tiers, rest);
            }
            return true;
        }
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

/// Makes room in the journal and the next segments of it, so that no put has to, however long
/// movement takes.
fn spare_once(tiers: &Tiers, _: &mut Bucket) -> bool {
    let made = tiers.make_room_ahead().and_then(|room| Ok(tiers.make_spare(false)? || room));
    let wait = match made {
        Ok(true) => return true,
        Ok(false) => IDLE_WAIT,
        Err(error) => {
            tracing::warn!(%error, "the journal could not be made ready; a put will try");
            FAILED_WAIT
        }
    };
    pause(tiers, wait);
    true
}

fn flush_once(tiers: &Tiers, _: &mut Bucket) -> bool {
    tiers.pins.tick(tiers.clock.monotonic_ms());
    let due = tiers.flush_is_due();
    let _span = due.then(|| tracing::debug_span!("flush").entered());
    if due && let Err(error) = tiers.sync() {
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
