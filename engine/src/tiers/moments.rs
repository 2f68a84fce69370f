//! Who looks at a moment of the past: snapshots, iterators, transactions, each at one `seq`.
//! Knows moments and how long they may last; knows nothing of the versions that they need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ids::Seq;
use crate::value::pins::Site;

/// What holds a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderKind {
    /// A snapshot that a program made.
    Snapshot,
    /// An iterator, or one call that reads several records.
    Iterator,
    /// A transaction.
    Transaction,
}

/// One moment that is held.
#[derive(Debug)]
pub(crate) struct Moment {
    pub seq: Seq,
    pub kind: HolderKind,
    pub name: Option<String>,
    pub created_ms: u64,
    /// After so many milliseconds it ends by itself; 0 for never.
    pub age_ms_max: u64,
    /// The place in the program that made it.
    pub site: Site,
    id: u64,
    expired: AtomicBool,
    warned: AtomicBool,
}

impl Moment {
    /// Fails once the moment was ended for its age or for what it pinned.
    pub(crate) fn check(&self) -> Result<()> {
        if self.expired.load(Ordering::Acquire) {
            return Err(Error::SnapshotExpired { seq: self.seq.0 });
        }
        Ok(())
    }
}

/// All moments that are held.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// A leaf lock.
    held: Mutex<BTreeMap<(Seq, u64), Arc<Moment>>>,
    next_id: AtomicU64,
    /// The latest moment that is held, plus one; 0 for none.
    newest: AtomicU64,
    /// Moments went since versions were last pruned.
    released: AtomicBool,
}

/// What a new moment says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub kind: HolderKind,
    pub name: Option<String>,
    pub created_ms: u64,
    pub age_ms_max: u64,
    pub site: Site,
}

impl Moments {
    /// Holds a moment. The caller holds the append lock, so that no writer is between replacing a
    /// version and having asked whether somebody needs it.
    pub(crate) fn hold(&self, seq: Seq, holder: Holder) -> Arc<Moment> {
        let Holder { kind, name, created_ms, age_ms_max, site } = holder;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (expired, warned) = (AtomicBool::new(false), AtomicBool::new(false));
        let moment =
            Arc::new(Moment { seq, kind, name, created_ms, age_ms_max, site, id, expired, warned });
        let mut held = self.held.lock();
        held.insert((seq, id), Arc::clone(&moment));
        self.note_newest(&held);
        moment
    }

    pub(crate) fn release(&self, moment: &Moment) {
        let mut held = self.held.lock();
        if held.remove(&(moment.seq, moment.id)).is_some() {
            self.note_newest(&held);
            self.released.store(true, Ordering::Release);
        }
    }

    fn note_newest(&self, held: &BTreeMap<(Seq, u64), Arc<Moment>>) {
        let newest = held.last_key_value().map_or(0, |((seq, _), _)| seq.0.saturating_add(1));
        self.newest.store(newest, Ordering::Release);
    }

    /// Whether a version with this `seq`, replaced by the mutation that is being made, is needed.
    pub(crate) fn need(&self, seq: Seq) -> bool {
        seq.0 < self.newest.load(Ordering::Acquire)
    }

    /// Whether a version that held from `seq` until `until` is needed.
    pub(crate) fn need_between(&self, seq: Seq, until: Seq) -> bool {
        if !self.need(seq) {
            return false;
        }
        self.held.lock().range((seq, 0)..(until, 0)).next().is_some()
    }

    /// Whether anybody looks at a moment before `seq`.
    pub(crate) fn any_before(&self, seq: Seq) -> bool {
        self.held.lock().first_key_value().is_some_and(|((first, _), _)| *first < seq)
    }

    /// Whether moments went since this was last asked.
    pub(crate) fn take_released(&self) -> bool {
        self.released.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Moment>> {
        self.held.lock().values().cloned().collect()
    }

    /// What was made before a time and was not handed out here yet.
    pub(crate) fn take_old(&self, before_ms: u64) -> Vec<Arc<Moment>> {
        let old = |moment: &Arc<Moment>| {
            moment.created_ms <= before_ms && !moment.warned.swap(true, Ordering::Relaxed)
        };
        self.held.lock().values().filter(|moment| old(moment)).cloned().collect()
    }

    /// Ends moments that are older than they may be.
    pub(crate) fn expire_aged(&self, now_ms: u64) {
        for moment in self.all() {
            let age = now_ms.saturating_sub(moment.created_ms);
            if moment.age_ms_max != 0 && age > moment.age_ms_max {
                self.expire(&moment);
            }
        }
    }

    /// Ends the moment that lies furthest back: what is needed for it takes more than its share.
    pub(crate) fn expire_oldest(&self) {
        let oldest = self.held.lock().first_key_value().map(|(_, moment)| Arc::clone(moment));
        if let Some(moment) = oldest {
            tracing::warn!(seq = moment.seq.0, site = %moment.site, "a snapshot was ended");
            self.expire(&moment);
        }
    }

    fn expire(&self, moment: &Moment) {
        moment.expired.store(true, Ordering::Release);
        self.release(moment);
    }
}
