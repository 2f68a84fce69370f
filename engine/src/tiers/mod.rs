//! The three tiers as one store: what they share, and the order of the locks.
//! Knows how a record is found and written; knows nothing of when records move.
//!
//! Lock order, outermost first:
//! 1. `maintenance`: one movement at a time. Held across I/O, never by a read or a put.
//! 2. `append`: the tail of the journal, the index's writer, the accounts. Never held across a
//!    flush or a closure of a user; a manifest edit runs under it only when no spare is ready.
//! 3. a shard of the hot tier.
//! 4. leaves: the order's tree before what is fresh in it, versions before moments, changes,
//!    keyspaces, the manifest, the flusher, `pressure`.

pub(crate) mod append;
pub(crate) mod archived;
pub(crate) mod audit;
pub(crate) mod baseline;
pub(crate) mod census;
pub(crate) mod changes;
pub(crate) mod clear;
pub(crate) mod debt;
pub(crate) mod handles;
pub(crate) mod image;
pub(crate) mod journal;
pub(crate) mod keyspaces;
pub(crate) mod lane;
pub(crate) mod moments;
pub(crate) mod open;
pub(crate) mod order;
pub(crate) mod read;
pub(crate) mod read_only;
pub(crate) mod rebuild;
pub(crate) mod recover;
pub(crate) mod scan;
pub(crate) mod scratch;
pub(crate) mod several;
pub(crate) mod span;
pub(crate) mod tally;
pub(crate) mod walk;
pub(crate) mod window;
pub(crate) mod write;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use crate::cold::ArchiveSet;
use crate::error::{Damage, Error, Result};
use crate::hash::HashSeed;
use crate::hot::HotTier;
use crate::ids::Seq;
use crate::manifest::log::ManifestLog;
use crate::options::Options;
use crate::tiers::append::Append;
use crate::tiers::baseline::Baseline;
use crate::tiers::changes::Changes;
use crate::tiers::keyspaces::Keyspaces;
use crate::tiers::moments::Moments;
use crate::tiers::order::Unsorted;
use crate::tiers::tally::Tally;
use crate::tiers::walk::SpareWalks;
use crate::value::pins::Pins;
use crate::vfs::clock::{Clock, ticking_us};
use crate::vfs::map::anon::ForkMark;
use crate::vfs::{Dir, Lock, os};
use crate::warm::flush::{DirtyRange, Flusher};
use crate::warm::index::fence::Fence;
use crate::warm::index::order::OrderIndex;
use crate::warm::index::point::PointIndex;
use crate::warm::table::SegmentTable;
use crate::warm::versions::VersionTable;

/// The part of the last flush that a leader waits for others.
const COMPANY_SHARE: u64 = 10;

/// Figures that only ever rise.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub puts: AtomicU64,
    pub deletes: AtomicU64,
    /// Reads, by who answered.
    pub reads: Tally,
    pub user_bytes: AtomicU64,
    pub journal_bytes: AtomicU64,
    pub survivor_bytes: AtomicU64,
    pub archive_bytes: AtomicU64,
    pub segments_cleaned: AtomicU64,
    pub records_gathered: AtomicU64,
    pub records_demoted: AtomicU64,
    pub records_expired: AtomicU64,
    pub archives_merged: AtomicU64,
    pub put_waits: AtomicU64,
    pub put_wait_us: AtomicU64,
}

/// Adds to one figure.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenReport {
    pub foreign: Vec<String>,
    pub damage: Vec<Damage>,
    pub tail_bytes_cut: u64,
    /// Copies of the manifest that were not sound.
    pub manifest_mended: u64,
    /// The index came from the image of the last close.
    pub index_image: bool,
}

/// What movement works with; the lock that holds it admits one movement at a time.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    /// Files whose unlink was seen; the next edit says so.
    pub gone: Vec<u32>,
    /// Segments that hold a damaged record: never reclaimed, so that nothing sound is lost.
    pub damaged: Vec<u32>,
    /// Where rewriting the order's leaves goes on; empty when it rests.
    pub order_swept: Fence,
}

/// Figures as of the last look, and what is kept for later.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Bytes of the statistics file, once it was written.
    pub statistics_len: AtomicU64,
    /// Bytes of garbage over its bound.
    pub garbage_over: AtomicU64,
    /// When movement last took its share of the memory, and whether the hot tier has it since.
    pub scratch_taken_ms: AtomicU64,
    pub scratch_lent: AtomicBool,
    /// Rows that walks had to jump to since the log was gathered last.
    pub jumps: CachePadded<AtomicU64>,
    /// Microseconds that the last flush took.
    pub flush_us: AtomicU64,
    pub walks: SpareWalks,
}

/// Whether the log is longer than the memory that the system has for pages of files: then warm
/// records that are touched twice are copied into the hot tier.
#[derive(Debug, Default)]
pub(crate) struct FilePages {
    pub short: AtomicBool,
    /// When the system was asked last.
    pub asked_ms: AtomicU64,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Tiers {
    // Constant after opening.
    pub options: Options,
    pub dir: Arc<dyn Dir>,
    pub archive_dir: Arc<dyn Dir>,
    pub store: [u8; 16],
    pub seed: HashSeed,
    pub pid: u32,
    /// Tells a child made by `fork`, where the kernel can.
    pub fork_mark: Option<ForkMark>,
    pub report: OpenReport,
    // With synchronization of their own.
    pub clock: Clock,
    pub manifest: ManifestLog,
    pub keyspaces: Keyspaces,
    pub hot: HotTier,
    pub index: PointIndex,
    pub order: OrderIndex,
    pub versions: VersionTable,
    pub moments: Moments,
    pub pins: Pins,
    pub changes: Changes,
    pub segments: ArcSwap<SegmentTable>,
    pub cold: ArcSwap<ArchiveSet>,
    pub flusher: Flusher,
    pub counters: Counters,
    pub visible: AtomicU64,
    /// Allocated bytes of the log and of all files, as of the last roll or movement.
    pub warm_len: AtomicU64,
    pub disk_len: AtomicU64,
    pub extra: Extra,
    pub pages: FilePages,
    /// Rises before index entries are removed, so that a miss can be told from a move.
    pub moves: AtomicU64,
    pub closed: AtomicBool,
    /// The last step of movement found nothing to do.
    pub idle: AtomicBool,
    // Protected, in the order above.
    pub maintenance: Mutex<Maintenance>,
    pub append: Mutex<Append>,
    /// Why movement last failed, while it keeps failing: puts that must wait for it fail instead.
    pub stuck: Mutex<Option<Error>>,
    /// Wakes puts that wait for space and workers that wait for work.
    pub pressure: Mutex<u64>,
    pub relieved: Condvar,
    pub wanted: Condvar,
    pub lock: Mutex<Option<Box<dyn Lock>>>,
    /// How the keys found at opening come into order. Before `append` in the order.
    pub unsorted: Mutex<Unsorted>,
    /// What a program marked, and samples since. Taken before `append`, by nobody who holds it.
    pub baseline: Mutex<Option<Baseline>>,
    /// Held while the next journal segment is made. Before `append` in the order.
    pub preparing: Mutex<()>,
    /// Held while the journal is allocated ahead of the puts, and where one of its segments is
    /// taken to be sealed. Before `append` in the order.
    pub allocating: Mutex<()>,
    /// One keyspace is created or dropped at a time. Before `maintenance` in the order.
    pub creating: Mutex<()>,
    /// One change of a volatile record, or end of its keyspace, at a time. After `creating`.
    pub volatile_changes: Mutex<()>,
}

impl Tiers {
    /// Fails after `close` and in the child of a fork.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) || !self.is_same_process() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Fails when the store was opened for reading only.
    pub(crate) fn check_writable(&self, doing: &'static str) -> Result<()> {
        if self.options.read_only { Err(Error::ReadOnly { doing }) } else { Ok(()) }
    }

    fn is_same_process(&self) -> bool {
        match &self.fork_mark {
            Some(mark) => mark.is_here(),
            None => os::process_id() == self.pid,
        }
    }

    pub(crate) fn visible(&self) -> Seq {
        Seq(self.visible.load(Ordering::Acquire))
    }

    /// Returns when everything that is visible now is on stable storage.
    pub(crate) fn sync(&self) -> Result<()> {
        self.flush_through(self.visible())
    }

    pub(crate) fn flush_through(&self, seq: Seq) -> Result<()> {
        let begun = Cell::new(None);
        let result = self.flusher.flush_through(seq, || {
            self.await_company();
            begun.set(Some(ticking_us()));
            self.take_dirty()
        });
        if let Some(begun) = begun.get() {
            let took = ticking_us().saturating_sub(begun);
            self.extra.flush_us.store(took, Ordering::Relaxed);
        }
        result
    }

    /// Who was served by the last flush comes back in a moment: a leader waits for them a tenth of
    /// that flush, so that the next one serves all and not every other.
    fn await_company(&self) {
        if !self.flusher.expects_more() {
            return;
        }
        let most = self.extra.flush_us.load(Ordering::Relaxed) / COMPANY_SHARE;
        let begun = ticking_us();
        while self.flusher.expects_more() && ticking_us().saturating_sub(begun) < most {
            os::yield_now();
        }
    }

    /// What the journal holds that was not synced yet, and the `seq` that syncing it reaches.
    fn take_dirty(&self) -> (Vec<DirtyRange>, Seq) {
        self.append.lock().take_dirty()
    }

    /// The count of moves so far: what an optimistic writer remembers of the moment it read.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Tells the workers that there may be something to do.
    pub(crate) fn nudge(&self) {
        *self.pressure.lock() += 1;
        self.wanted.notify_all();
    }
}
