//! From a path to an open store, and back: assembling the tiers, closing them.
//! Knows the order; each step is somebody else's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::hot::HotTier;
use crate::ids::{Incarnation, SegmentId, Seq};
use crate::limits::SEGMENT_LEN_MIN;
use crate::options::{OpenPolicy, Options};
use crate::tiers::append::{Append, segment_target};
use crate::tiers::changes::Changes;
use crate::tiers::keyspaces::{KeyspaceState, Keyspaces};
use crate::tiers::moments::Moments;
use crate::tiers::order::Unsorted;
use crate::tiers::recover::{Opened, Recovered, open_dir};
use crate::tiers::scratch::Scratch;
use crate::tiers::{Counters, Extra, FilePages, Maintenance, Tiers};
use crate::value::pins::Pins;
use crate::vfs::clock::{Clock, SystemTime};
use crate::vfs::map::anon::ForkMark;
use crate::vfs::os;
use crate::vfs::{Dir, Vfs, memory};
use crate::warm::account::SegmentAccount;
use crate::warm::active::SegmentWriter;
use crate::warm::flush::Flusher;
use crate::warm::index::order::OrderIndex;
use crate::warm::versions::VersionTable;

/// How often the system is asked for the memory that it has for pages of files.
const PAGES_ASKED_EVERY_MS: u64 = 2000;
/// A log shorter than this finds room everywhere: asking takes a tenth of a millisecond.
const PAGES_ASKED_MIN: u64 = 16 << 20;
/// How long movement rests before the hot tier gets its share of the memory: what is lent is taken
/// back by evicting, which is not worth it for a moment.
const SCRATCH_REST_MS: u64 = 5000;

impl Tiers {
    /// Opens or creates a store.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Arc<Self>> {
        options.check()?;
        let vfs = options.files();
        Self::open_on(&*vfs, path, options)
    }

    /// The same on a file system of the caller's choice.
    pub(crate) fn open_on(vfs: &dyn Vfs, path: &Path, options: Options) -> Result<Arc<Self>> {
        let _span = tracing::debug_span!("open", path = %path.display()).entered();
        let mut opened = open_dir(vfs, path, &options)?;
        opened.remove_leftovers()?;
        let clock_ms = opened.manifest.read(|set| set.clock_ms);
        let time = options.time.clone().unwrap_or_else(|| Arc::new(SystemTime));
        let clock = Clock::new(time, clock_ms);
        let strict = options.open_policy == OpenPolicy::Strict;
        opened.finish_journal(strict, clock.now_ms())?;
        let recovered = opened.load(options.open_policy)?;
        opened.remove_leftovers()?;
        let tiers = assemble(opened, recovered, clock, options)?;
        tiers.set_counts();
        tiers.note_clock()?;
        tiers.measure_space();
        Ok(tiers)
    }

    /// The keys of each keyspace, as far as the accounts know.
    fn set_counts(&self) {
        let append = self.append.lock();
        let count = |incarnation: u32, by: u64| {
            if let Some(keyspace) = self.keyspaces.by_incarnation(Incarnation(incarnation)) {
                keyspace.count_by(i64::try_from(by).unwrap_or(0));
            }
        };
        for group in append.accounts.iter().flatten().flat_map(SegmentAccount::groups) {
            count(group.incarnation.0, group.count);
        }
        for entry in self.cold.load().entries() {
            for row in &entry.archive.tables().incarnations {
                let dead = entry.dead.of_incarnation(row.incarnation).record_count;
                count(row.incarnation.0, u64::from(row.record_count).saturating_sub(dead));
            }
        }
    }

    /// Keeps the clock's high-water mark.
    pub(crate) fn note_clock(&self) -> Result<()> {
        let ms = self.clock.high_water_to_persist();
        if ms > self.manifest.read(|set| set.clock_ms) {
            self.commit_edit(&vec![Op::ClockAt { ms }])?;
            self.clock.note_persisted(ms);
        }
        Ok(())
    }

    /// Recounts what the log and all files take on the device.
    pub(crate) fn measure_space(&self) {
        self.note_space(&self.append.lock());
        let archives = self.cold.load();
        let cold: u64 = archives.entries().iter().map(|entry| entry.archive.file_len()).sum();
        let (manifest, _) = self.manifest.file_lens();
        let warm = self.warm_len.load(Ordering::Relaxed);
        self.disk_len.store(warm + cold + manifest, Ordering::Relaxed);
        self.fit_memory();
        self.ask_for_pages();
    }

    /// Asks now and then whether the system has the memory to keep the whole log's pages.
    fn ask_for_pages(&self) {
        let now = self.clock.monotonic_ms();
        let asked = self.pages.asked_ms.load(Ordering::Relaxed);
        if asked != 0 && now < asked + PAGES_ASKED_EVERY_MS {
            return;
        }
        self.pages.asked_ms.store(now.max(1), Ordering::Relaxed);
        let log = self.warm_len.load(Ordering::Relaxed);
        let is_long = log >= PAGES_ASKED_MIN;
        let short = is_long && memory::available_for_pages().is_some_and(|bytes| bytes < log);
        self.pages.short.store(short, Ordering::Relaxed);
    }

    /// Movement's share of the memory budget.
    pub(crate) fn scratch(&self) -> Scratch {
        Scratch::of(self.options.memory_budget)
    }

    /// Gives the hot tier what the other classes of memory leave of the budget.
    fn fit_memory(&self) {
        let taken = self.index.charged_len()
            + self.order_len()
            + self.versions.charged_len()
            + self.changes.charged_len()
            + self.cold.load().anonymous_len();
        let lent = self.extra.scratch_lent.load(Ordering::Relaxed);
        let scratch = self.scratch();
        let scratch = if lent { scratch.resting_len() } else { scratch.len() };
        let rest = self.options.memory_budget.saturating_sub(taken + scratch);
        self.hot.set_budget(rest.max(64 << 10));
    }

    /// Takes movement's share of the memory back from the hot tier, before movement uses it.
    pub(crate) fn take_scratch(&self) {
        self.extra.scratch_taken_ms.store(self.clock.monotonic_ms().max(1), Ordering::Relaxed);
        if self.extra.scratch_lent.swap(false, Ordering::Relaxed) {
            self.fit_memory();
        }
    }

    /// Lets the hot tier have it once movement has rested for a while. Under the lock of movement,
    /// as taking it back is.
    pub(crate) fn lend_scratch(&self) {
        let taken = self.extra.scratch_taken_ms.load(Ordering::Relaxed);
        let rested = taken == 0 || self.clock.monotonic_ms() > taken + SCRATCH_REST_MS;
        self.extra.scratch_lent.store(rested, Ordering::Relaxed);
    }
}

fn assemble(
    opened: Opened,
    recovered: Recovered,
    clock: Clock,
    options: Options,
) -> Result<Arc<Tiers>> {
    let Opened { dir, archive_dir, lock, manifest, facts, report } = opened;
    let Recovered { index, writer, mut table, accounts, cold, image } = recovered;
    let last = Seq(manifest.read(|set| set.journal_at).0.saturating_sub(1));
    let live = accounts.iter().flatten().map(SegmentAccount::live_bytes).sum();
    let active = first_journal(&*dir, &manifest, &mut table, &clock, facts.store, live, &options)?;
    let append = Append::new(writer, active, table, accounts, last);
    let segments = ArcSwap::from_pointee(append.table.clone());
    let unsorted = Unsorted::of(image, index.count(), append.table.entered());
    Ok(Arc::new(Tiers {
        dir,
        archive_dir,
        store: facts.store,
        seed: crate::hash::HashSeed(facts.hash_seed),
        pid: os::process_id(),
        fork_mark: ForkMark::new().ok(),
        report,
        clock,
        keyspaces: keyspaces_of(&manifest),
        manifest,
        hot: HotTier::new(crate::hash::HashSeed(facts.hash_seed), options.memory_budget / 2)?,
        index,
        order: OrderIndex::default(),
        versions: VersionTable::default(),
        moments: Moments::default(),
        pins: Pins::default(),
        changes: Changes::new(options.memory_budget),
        segments,
        cold: ArcSwap::from_pointee(cold),
        flusher: Flusher::new(last),
        counters: Counters::default(),
        visible: AtomicU64::new(last.0),
        warm_len: AtomicU64::new(0),
        disk_len: AtomicU64::new(0),
        extra: Extra::default(),
        pages: FilePages::default(),
        moves: AtomicU64::new(0),
        closed: AtomicBool::new(false),
        idle: AtomicBool::new(false),
        maintenance: Mutex::new(Maintenance::default()),
        append: Mutex::new(append),
        stuck: Mutex::new(None),
        pressure: Mutex::new(0),
        relieved: Condvar::new(),
        wanted: Condvar::new(),
        lock: Mutex::new(Some(lock)),
        unsorted: Mutex::new(unsorted),
        baseline: Mutex::new(None),
        preparing: Mutex::new(()),
        allocating: Mutex::new(()),
        creating: Mutex::new(()),
        volatile_changes: Mutex::new(()),
        options,
    }))
}

fn keyspaces_of(manifest: &crate::manifest::log::ManifestLog) -> Keyspaces {
    let keyspaces = Keyspaces::default();
    manifest.read(|set| {
        set.keyspaces.values().for_each(|facts| keyspaces.insert(KeyspaceState::of(facts)));
    });
    keyspaces
}

/// The journal segment that the open store appends to first.
fn first_journal(
    dir: &dyn Dir,
    manifest: &crate::manifest::log::ManifestLog,
    table: &mut crate::warm::table::SegmentTable,
    clock: &Clock,
    store: [u8; 16],
    live: u64,
    options: &Options,
) -> Result<SegmentWriter> {
    let slot = table.free_slot().ok_or(Error::Closed)?;
    let id = manifest.next_file();
    manifest.commit(&vec![Op::DraftSegment { id }])?;
    let nonce = os::random_bytes().map_err(|e| Error::io("draw nonce", dir.path(), e))?;
    let header = SegmentHeader {
        store,
        id: SegmentId(id),
        kind: SegmentKind::Journal,
        created_ms: clock.now_ms(),
        nonce: u64::from_le_bytes(nonce),
    };
    let limit = segment_target(live, 0, options);
    let chunk = (limit / 16).clamp(256 << 10, 4 << 20);
    let writer = SegmentWriter::create(dir, &header, slot, limit.max(SEGMENT_LEN_MIN), chunk)?;
    writer.sync()?;
    dir.sync().map_err(|error| Error::io("sync directory", dir.path(), error))?;
    manifest.commit(&vec![Op::OpenSegment { id, kind: SegmentKind::Journal as u8 }])?;
    Ok(writer)
}
