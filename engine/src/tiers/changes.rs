//! The changes of late, in the order of `seq`, for whoever watches or must know what it missed.
//! Knows keys and their hashes; knows nothing of values, of watchers or of transactions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::hash::KeyHash;
use crate::ids::{Incarnation, Seq};
use crate::tiers::write::Mutation;
use crate::value::pins::Site;

/// Bytes that a change takes besides its key.
const CHANGE_LEN: usize = size_of::<Change>() + 16;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Put,
    Deleted,
    /// The incarnation ended; 0 when its keyspace was dropped, else the one that follows.
    Ended {
        next: u32,
    },
}

/// One mutation.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub seq: Seq,
    pub incarnation: Incarnation,
    pub hash: KeyHash,
    pub key: Box<[u8]>,
    pub happened: Happened,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Every change from this `seq` on is here.
    first_available: u64,
}

/// A consumer of changes, as the store knows it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub keyspace: String,
    pub prefix: Box<[u8]>,
    pub site: Site,
    pub created_ms: u64,
    /// It has everything up to this `seq`.
    pub seen: AtomicU64,
    /// When it last asked for more.
    pub asked_ms: AtomicU64,
    warned: AtomicBool,
}

impl Watcher {
    pub(crate) fn new(keyspace: &str, prefix: &[u8], site: Site, seen: Seq, now_ms: u64) -> Self {
        Self {
            keyspace: keyspace.to_owned(),
            prefix: prefix.into(),
            site,
            created_ms: now_ms,
            seen: AtomicU64::new(seen.0),
            asked_ms: AtomicU64::new(now_ms),
            warned: AtomicBool::new(false),
        }
    }

    /// It asked, and has everything up to here.
    pub(crate) fn note(&self, seen: Seq, now_ms: u64) {
        self.seen.store(seen.0, Ordering::Relaxed);
        self.asked_ms.store(now_ms, Ordering::Relaxed);
        self.warned.store(false, Ordering::Relaxed);
    }
}

/// A watcher and what waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Behind {
    pub watcher: Arc<Watcher>,
    /// Changes of the whole store that it has not seen.
    pub changes: u64,
    /// What they take in memory, as far as they are still kept.
    pub bytes: u64,
}

/// The ring of changes. It is kept while somebody subscribes.
#[derive(Debug)]
pub(crate) struct Changes {
    /// A leaf lock.
    ring: Mutex<Ring>,
    more: Condvar,
    subscribers: AtomicUsize,
    charged: AtomicU64,
    len_max: usize,
    /// A leaf lock, before the ring's.
    watchers: Mutex<Vec<Arc<Watcher>>>,
}

impl Changes {
    /// Keeps at most a sixty-fourth of the memory budget.
    pub(crate) fn new(memory_budget: u64) -> Self {
        Self {
            ring: Mutex::default(),
            more: Condvar::new(),
            subscribers: AtomicUsize::new(0),
            charged: AtomicU64::new(0),
            len_max: usize::try_from(memory_budget / 64).unwrap_or(usize::MAX),
            watchers: Mutex::default(),
        }
    }

    pub(crate) fn add_watcher(&self, watcher: &Arc<Watcher>) {
        self.watchers.lock().push(Arc::clone(watcher));
    }

    pub(crate) fn remove_watcher(&self, watcher: &Arc<Watcher>) {
        self.watchers.lock().retain(|one| !Arc::ptr_eq(one, watcher));
    }

    /// All watchers with what waits for each.
    pub(crate) fn behind(&self, visible: Seq) -> Vec<Behind> {
        let watchers = self.watchers.lock().clone();
        let ring = self.ring.lock();
        let behind = watchers.into_iter().map(|watcher| {
            let seen = watcher.seen.load(Ordering::Relaxed);
            let from = ring.changes.partition_point(|change| change.seq.0 <= seen);
            let bytes = ring.changes.range(from..).map(|change| CHANGE_LEN + change.key.len());
            let bytes = bytes.sum::<usize>() as u64;
            Behind { watcher, changes: visible.0.saturating_sub(seen), bytes }
        });
        behind.collect()
    }

    /// Watchers for whom changes wait, who did not ask since `before_ms`, and who were not handed
    /// out here yet.
    pub(crate) fn take_stalled(&self, visible: Seq, before_ms: u64) -> Vec<Behind> {
        let mut behind = self.behind(visible);
        behind.retain(|one| {
            let asked = one.watcher.asked_ms.load(Ordering::Relaxed);
            let stalled = one.changes > 0 && asked <= before_ms;
            stalled && !one.watcher.warned.swap(true, Ordering::Relaxed)
        });
        behind
    }

    /// Bytes of anonymous memory.
    pub(crate) fn charged_len(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Keeps what comes after `last`. The caller holds the append lock, so nothing comes between.
    pub(crate) fn subscribe(&self, last: Seq) {
        let mut ring = self.ring.lock();
        if self.subscribers.fetch_add(1, Ordering::AcqRel) == 0 {
            *ring = Ring { first_available: last.next().0, ..Ring::default() };
        }
    }

    pub(crate) fn unsubscribe(&self) {
        let mut ring = self.ring.lock();
        if self.subscribers.fetch_sub(1, Ordering::AcqRel) == 1 {
            *ring = Ring::default();
            self.charged.store(0, Ordering::Relaxed);
        }
    }

    fn is_idle(&self) -> bool {
        self.subscribers.load(Ordering::Acquire) == 0
    }

    /// Notes mutations of which the last has this `seq`, before they are visible.
    pub(crate) fn note(&self, mutations: &[Mutation<'_>], last: Seq) {
        if self.is_idle() {
            return;
        }
        let first = last.0 + 1 - mutations.len() as u64;
        let mut ring = self.ring.lock();
        for (seq, mutation) in (first..).zip(mutations) {
            let happened = if mutation.value.is_some() { Happened::Put } else { Happened::Deleted };
            self.push(
                &mut ring,
                Change {
                    seq: Seq(seq),
                    incarnation: mutation.incarnation,
                    hash: mutation.hash,
                    key: mutation.key.into(),
                    happened,
                },
            );
        }
    }

    /// Notes that an incarnation ended, before that is visible.
    pub(crate) fn note_end(&self, seq: Seq, incarnation: Incarnation, next: u32) {
        if self.is_idle() {
            return;
        }
        let (hash, key) = (KeyHash(0), Box::default());
        let change = Change { seq, incarnation, hash, key, happened: Happened::Ended { next } };
        self.push(&mut self.ring.lock(), change);
    }

    fn push(&self, ring: &mut Ring, change: Change) {
        ring.bytes += CHANGE_LEN + change.key.len();
        ring.changes.push_back(change);
        while ring.bytes > self.len_max
            && let Some(oldest) = ring.changes.pop_front()
        {
            ring.bytes -= CHANGE_LEN + oldest.key.len();
            ring.first_available = oldest.seq.next().0;
        }
        self.charged.store(ring.bytes as u64, Ordering::Relaxed);
    }

    /// Wakes those who wait, now that what was noted is visible.
    pub(crate) fn wake(&self) {
        if !self.is_idle() {
            // A waiter looks at what is visible under this lock: none misses the call.
            drop(self.ring.lock());
            self.more.notify_all();
        }
    }

    /// Whether any change after `since` satisfies `is`; `true` as well when some of them are gone.
    pub(crate) fn any_after(&self, since: Seq, is: impl Fn(&Change) -> bool) -> bool {
        let ring = self.ring.lock();
        if since.next().0 < ring.first_available {
            return true;
        }
        let from = ring.changes.partition_point(|change| change.seq <= since);
        ring.changes.range(from..).any(is)
    }

    /// The first change after `since`, up to what `visible` says, that `take` takes. When there is
    /// none, waits up to `wait` for more, once. `Err` names the first change that is still here
    /// when some after `since` are gone. Returns how far it looked as well.
    pub(crate) fn next_after<T>(
        &self,
        since: Seq,
        wait: Duration,
        visible: impl Fn() -> Seq,
        mut take: impl FnMut(&Change) -> Option<T>,
    ) -> Result<(Seq, Option<T>), u64> {
        let mut ring = self.ring.lock();
        for turn in 0..2 {
            if since.next().0 < ring.first_available {
                return Err(ring.first_available);
            }
            let visible = visible();
            let from = ring.changes.partition_point(|change| change.seq <= since);
            let mut looked = since;
            for change in ring.changes.range(from..) {
                if change.seq > visible {
                    break;
                }
                looked = change.seq;
                if let Some(taken) = take(change) {
                    return Ok((looked, Some(taken)));
                }
            }
            if looked > since || turn == 1 || wait.is_zero() {
                return Ok((looked, None));
            }
            self.more.wait_for(&mut ring, wait);
        }
        Ok((since, None))
    }

    /// Wakes everybody, for example because the store closes.
    pub(crate) fn wake_all(&self) {
        drop(self.ring.lock());
        self.more.notify_all();
    }
}
