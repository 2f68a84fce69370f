//! The changes of late, in the order of `seq`, for whoever watches or must know what it missed.
//! Knows keys and their hashes; knows nothing of values, of watchers or of transactions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::hash::KeyHash;
use crate::ids::{Incarnation, Seq};
use crate::tiers::write::Mutation;

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

/// The ring of changes. It is kept while somebody subscribes.
#[derive(Debug)]
pub(crate) struct Changes {
    /// A leaf lock.
    ring: Mutex<Ring>,
    more: Condvar,
    subscribers: AtomicUsize,
    charged: AtomicU64,
    len_max: usize,
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
        }
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
