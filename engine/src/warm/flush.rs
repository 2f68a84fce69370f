//! The shared flush: one leader syncs for all who wait; the durable watermark; the poison.
//! Knows ranges of files and who waits; knows nothing of records, and never retries a flush.

use std::sync::Arc;
use std::sync::OnceLock;

use crate::canary::{Canary, planted};
use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::shim::atomic::{AtomicU64, Ordering};
use crate::shim::{Condvar, Mutex};
use crate::warm::segment::Segment;

/// Bytes of one segment that were stored and not yet synced.
#[derive(Debug, Clone)]
pub(crate) struct DirtyRange {
    pub segment: Arc<Segment>,
    pub from: u64,
    pub to: u64,
}

/// Who is in a flush.
#[derive(Debug, Default)]
struct Company {
    /// Somebody leads.
    is_led: bool,
    /// Callers who have not returned.
    present: u32,
    /// Those who were there when the last flush ended: most of them will be back soon.
    expected: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Flusher {
    /// A leaf lock; the leader syncs without it.
    company: Mutex<Company>,
    done: Condvar,
    durable: AtomicU64,
    poison: OnceLock<String>,
}

impl Flusher {
    pub(crate) fn new(durable: Seq) -> Self {
        let this = Self::default();
        this.durable.store(durable.0, Ordering::Release);
        this
    }

    /// The highest `seq` with everything at or below it on stable storage.
    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    /// Fails once a flush has failed: nothing is written any more.
    pub(crate) fn check(&self, doing: &'static str) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { doing, cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses all further writes.
    pub(crate) fn poison(&self, cause: &Error) {
        if self.poison.set(cause.to_string()).is_ok() {
            tracing::error!(%cause, "a flush failed; the store takes no more writes");
        }
    }

    /// Returns when everything up to `seq` is durable. One caller leads: it takes what is dirty,
    /// with the `seq` that it reaches, and syncs it; the others wait and look again.
    pub(crate) fn flush_through(
        &self,
        seq: Seq,
        take: impl Fn() -> (Vec<DirtyRange>, Seq),
    ) -> Result<()> {
        let mut company = self.company.lock();
        company.present += 1;
        loop {
            let checked = self.check("flush");
            if checked.is_err() || self.durable() >= seq {
                company.present -= 1;
                return checked;
            }
            if !company.is_led {
                break;
            }
            self.done.wait(&mut company);
        }
        company.is_led = true;
        drop(company);
        let (ranges, reached) = take();
        let result = ranges.iter().try_for_each(sync);
        match &result {
            Ok(()) => {
                self.durable.fetch_max(reached.0, Ordering::AcqRel);
            }
            Err(error) => self.poison(error),
        }
        let mut company = self.company.lock();
        company.is_led = false;
        company.expected = company.present;
        company.present -= 1;
        drop(company);
        self.done.notify_all();
        result
    }

    /// Whether fewer callers are here than were when the last flush ended.
    pub(crate) fn expects_more(&self) -> bool {
        let company = self.company.lock();
        company.present < company.expected
    }
}

fn sync(range: &DirtyRange) -> Result<()> {
    let segment = &range.segment;
    if planted(Canary::SkipDataSync) {
        return Ok(());
    }
    let synced = segment.file.sync_range(&segment.map, range.from, range.to);
    let synced = match synced {
        Err(_) if planted(Canary::RetryFlush) => {
            segment.file.sync_range(&segment.map, range.from, range.to)
        }
        once => once,
    };
    synced.map_err(|error| Error::io("flush journal", segment.id.to_string(), error))
}
