//! The store as a program holds it: open, keyspaces, sync, figures, close.
//! Thin: checks its arguments and asks the tiers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::manifest::Op;
use crate::handle::StoreHandle;
use crate::keyspace::Keyspace;
use crate::ledger::leaks::{LeakPolicy, LeakReport};
use crate::ledger::{Audit, Ledger};
use crate::limits;
use crate::options::{DemotePolicy, KeyspaceOptions, Options};
use crate::snapshot::{Snapshot, SnapshotOptions};
use crate::statistics;
use crate::stats::Stats;
use crate::tiering::workers;
use crate::tiers::Tiers;
use crate::tiers::keyspaces::{KeyspaceState, new_facts};
use crate::tiers::tally::Answer;
use crate::transaction::{self, Transaction};
use crate::verify::{Progress, Verified, VerifyOptions};

/// An open store.
///
/// The short answer: `Db::open`, `keyspace`, `put`, `get`; everything else happens by itself.
/// Clones share the store; it is closed when the last handle is dropped, or by [`Db::close`].
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let db = terrace::Db::open(dir.path().join("data"))?;
/// let notes = db.keyspace("notes")?;
/// notes.put("a", "1")?;
/// assert_eq!(notes.get("a")?.as_deref(), Some(&b"1"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Db {
    inner: Arc<StoreHandle>,
}

impl Options {
    /// Opens the store in this directory, creating it when absent.
    ///
    /// Errors: [`Error::Locked`] when another process has it open, [`Error::Foreign`] when the
    /// directory is not a store, [`Error::Version`], [`Error::Damaged`], [`Error::Invalid`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::start(path.as_ref(), self, None)
    }

    /// Opens the store in this directory for reading, as [`Db::open_read_only`] does.
    pub fn open_read_only(mut self, path: impl AsRef<Path>) -> Result<Db> {
        (self.read_only, self.workers) = (true, false);
        let tiers = Tiers::open_read_only(path.as_ref(), &self)?;
        Ok(Db { inner: Arc::new(StoreHandle::new(tiers, Vec::new(), None)) })
    }

    /// Opens a store in a directory of its own under the system's temporary directory; it is
    /// removed when the last handle is dropped.
    pub fn temporary(mut self) -> Result<Db> {
        self.temporary = true;
        let path = crate::vfs::os::temporary_path()
            .map_err(|error| Error::io("make temporary directory", "temporary directory", error))?;
        Db::start(&path, self, Some(path.clone()))
    }
}

impl Db {
    /// Opens the store in this directory with the default options, creating it when absent.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens the store in this directory for reading, also while another process writes to it.
    ///
    /// It shows what was written before the call and nothing later. It takes no lock and changes no
    /// file; segments and archives that the writer removes meanwhile stay readable. The part of the
    /// journal that is not sealed yet, usually less than 64 MiB, is copied into memory.
    ///
    /// Errors: [`Error::ReadOnly`] from every call that writes; [`Error::Foreign`] when no store is
    /// there; those of [`Db::open`] but [`Error::Locked`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let writer = terrace::Db::open(dir.path().join("data"))?;
    /// writer.keyspace("notes")?.put("a", "1")?;
    /// let reader = terrace::Db::open_read_only(dir.path().join("data"))?;
    /// writer.keyspace("notes")?.put("a", "2")?;
    /// assert_eq!(reader.keyspace("notes")?.get("a")?.as_deref(), Some(&b"1"[..]));
    /// assert!(reader.keyspace("notes")?.put("a", "3").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_read_only(path)
    }

    fn start(path: &Path, options: Options, temporary: Option<std::path::PathBuf>) -> Result<Self> {
        let workers = options.workers;
        let tiers = Tiers::open(path, options)?;
        let mut threads = if workers { workers::start(&tiers)? } else { Vec::new() };
        if workers && let Some(every) = tiers.options.statistics_every {
            threads.push(workers::repeat(&tiers, every, statistics::publish)?);
        }
        let inner = StoreHandle::new(tiers, threads, temporary);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens a keyspace, creating it with the default options when absent.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.tiers().check_open()?;
        limits::check_keyspace_name(name)?;
        match self.tiers().keyspaces.by_name(name) {
            Some(state) => Ok(Keyspace::new(Arc::clone(&self.inner), state)),
            None => self.keyspace_with(name, KeyspaceOptions::new()),
        }
    }

    /// Opens a keyspace, creating it with these options when absent. Options other than the default
    /// TTL that differ from those it was created with are [`Error::Invalid`].
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let tiers = self.tiers();
        tiers.check_open()?;
        limits::check_keyspace_name(name)?;
        options.check()?;
        let _creating = tiers.creating.lock();
        if let Some(state) = tiers.keyspaces.by_name(name) {
            if state.reopen(&options)? {
                tiers.check_writable("change keyspace")?;
                let incarnation = state.incarnation()?.0;
                let seq = tiers.visible().0;
                tiers.commit_edit(&vec![Op::SetKeyspace(state.facts(incarnation, seq))])?;
            }
            return Ok(Keyspace::new(Arc::clone(&self.inner), state));
        }
        tiers.check_writable("create keyspace")?;
        let count = tiers.keyspaces.all().len();
        if count >= limits::KEYSPACE_COUNT_MAX {
            let (max, found) = (limits::KEYSPACE_COUNT_MAX as u64, count as u64 + 1);
            return Err(Error::Limit { what: "keyspaces", max, found });
        }
        // A drop of the same name that the manifest does not know yet must come before.
        tiers.publish_ended()?;
        let facts = new_facts(name, tiers.manifest.next_incarnation(), &options);
        tiers.commit_edit(&vec![Op::SetKeyspace(facts.clone())])?;
        let state = KeyspaceState::of(&facts);
        tiers.keyspaces.insert(Arc::clone(&state));
        Ok(Keyspace::new(Arc::clone(&self.inner), state))
    }

    /// The names of all keyspaces, sorted.
    pub fn keyspaces(&self) -> Result<Vec<String>> {
        self.tiers().check_open()?;
        Ok(self.tiers().keyspaces.all().iter().map(|keyspace| keyspace.name.clone()).collect())
    }

    /// Drops a keyspace with all its records, in constant time; `false` when there is none of that
    /// name. Its space comes back in the background.
    pub fn drop_keyspace(&self, name: &str) -> Result<bool> {
        let tiers = self.tiers();
        tiers.check_open()?;
        let _creating = tiers.creating.lock();
        let Some(state) = tiers.keyspaces.by_name(name) else { return Ok(false) };
        if state.volatile {
            tiers.end_volatile(&state, true)?;
            return Ok(true);
        }
        let ended = state.incarnation()?;
        tiers.end_incarnation(&state, true)?;
        tiers.hot.purge_incarnation(ended);
        Ok(true)
    }

    /// Begins a batch: changes of any keyspaces that become visible and durable together.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.inner))
    }

    /// Runs `body` as one serializable transaction, across keyspaces: it reads one moment and its
    /// own writes, and what it wrote is committed as a whole if nothing that it read has changed;
    /// else it runs again. No lock is held while it runs. An error of `body` ends it, nothing is
    /// written.
    ///
    /// Errors: [`Error::Conflict`] when other writers won too often.
    ///
    /// ```
    /// # let db = terrace::Options::new().temporary()?;
    /// let accounts = db.keyspace("accounts")?;
    /// accounts.put("a", [9])?;
    /// db.transaction(|tx| {
    ///     let a = tx.get(&accounts, "a")?.map_or(0, |value| value[0]);
    ///     tx.put(&accounts, "a", [a - 1])?;
    ///     tx.put(&accounts, "b", [1])
    /// })?;
    /// assert_eq!(accounts.get("a")?.as_deref(), Some(&[8][..]));
    /// # Ok::<(), terrace::Error>(())
    /// ```
    #[track_caller]
    pub fn transaction<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        transaction::run(&self.inner, body)
    }

    /// Holds this moment: points and ranges are read as they are now until it is dropped.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_with(SnapshotOptions::new())
    }

    /// Holds this moment under a name, or for a bounded time.
    #[track_caller]
    pub fn snapshot_with(&self, options: SnapshotOptions) -> Snapshot {
        Snapshot::new(&self.inner, options)
    }

    /// Returns when everything that was written before the call is on stable storage.
    pub fn sync(&self) -> Result<()> {
        self.tiers().check_open()?;
        self.tiers().sync()
    }

    /// The highest `seq` with everything at or below it on stable storage.
    pub fn durable_seq(&self) -> u64 {
        self.tiers().flusher.durable().0
    }

    /// The `seq` of the last mutation.
    pub fn last_seq(&self) -> u64 {
        self.tiers().visible().0
    }

    /// Waits until background movement has nothing to do; `false` when the time was too short.
    pub fn settle(&self, timeout: Duration) -> Result<bool> {
        let tiers = self.tiers();
        let until = tiers
            .clock
            .monotonic_ms()
            .saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        loop {
            if tiers.settle(16)? {
                return Ok(true);
            }
            if tiers.clock.monotonic_ms() >= until {
                return Ok(false);
            }
        }
    }

    /// Does one step of background movement; `false` when nothing is wanted.
    #[cfg(feature = "testing")]
    pub fn step(&self) -> Result<bool> {
        Ok(self.tiers().step()? == crate::tiering::Step::Worked)
    }

    /// Cleans the whole log now, rewrites it in order of its keys where there is room for a second
    /// copy, and makes few archives of many, packed as well as can be: one core packs some 5 MB a
    /// second. Never needed: the store cleans, orders and merges by itself.
    pub fn compact(&self) -> Result<()> {
        self.tiers().check_open()?;
        self.tiers().compact()
    }

    /// Moves records of one keyspace from the log to the archive now, whatever the budgets say, and
    /// answers how many went. Records of other keyspaces in the same segments are copied and stay
    /// in the log; what the hot tier holds stays there too; a volatile keyspace has nothing to
    /// move. Never needed: the store demotes what is cold when the log outgrows its budget.
    ///
    /// Errors: [`Error::Invalid`] for a keyspace of another store, [`Error::ReadOnly`],
    /// [`Error::Full`], [`Error::Io`]. What went down before an error stays there.
    pub fn demote(&self, keyspace: &Keyspace, policy: DemotePolicy) -> Result<u64> {
        self.tiers().check_open()?;
        if !Arc::ptr_eq(&self.inner, keyspace.inner()) {
            let (found, expected) = ("another store's", "this store's");
            return Err(Error::invalid("keyspace to demote", found, expected));
        }
        self.tiers().demote(keyspace.state().incarnation()?, policy)
    }

    /// Demotes the whole log now, so that a test has archives without filling the budget.
    #[cfg(feature = "testing")]
    pub fn archive_all(&self) -> Result<()> {
        self.tiers().check_open()?;
        self.tiers().check_writable("demote")?;
        self.tiers().demote_all()
    }

    /// Figures of the running store.
    pub fn stats(&self) -> Stats {
        Stats::of(self.tiers())
    }

    /// Reads that the hot, the warm and the cold tier answered; cheaper than [`Db::stats`].
    pub fn hits(&self) -> [u64; 3] {
        let reads = &self.tiers().counters.reads;
        [Answer::Hot, Answer::Warm, Answer::Cold].map(|answer| reads.sum(answer))
    }

    /// What the statistics file says, as of now: a line a figure, `name value`, and a line for each
    /// of the oldest handles.
    pub fn statistics(&self) -> String {
        statistics::text(self.tiers())
    }

    /// Where every byte is, as the accounts know it.
    pub fn ledger(&self) -> Ledger {
        self.tiers().ledger()
    }

    /// Recounts the ledger from the files and the index and compares it line by line.
    pub fn audit(&self) -> Result<Audit> {
        self.tiers().check_open()?;
        self.tiers().audit()
    }

    /// Marks this moment as the baseline of [`Db::leaks`]. From now on every class of bytes is
    /// sampled in the background, at most 64 times in all, and a few thousand keys are remembered
    /// by their hash. A later call marks anew.
    pub fn baseline(&self) {
        self.tiers().mark_baseline();
    }

    /// What grew since the baseline and by which keys, who holds what since when, and bytes that
    /// nothing owns.
    ///
    /// Values are counted by the place in the program that took them and by file, as long as they
    /// borrow from a file; copies (from the hot tier, or of what was compressed) are the program's.
    ///
    /// ```
    /// # let db = terrace::Options::new().temporary()?;
    /// use terrace::LeakPolicy;
    /// let notes = db.keyspace("notes")?;
    /// db.baseline();
    /// let forgotten = db.snapshot();
    /// let report = db.leaks(LeakPolicy::new().handle_age(std::time::Duration::ZERO));
    /// assert!(!report.is_clean());
    /// assert_eq!(report.handles.len(), 1);
    /// println!("{report}"); // Snapshot made at src/main.rs:7:20, 0 s ago, 0 bytes pinned
    /// # drop((notes, forgotten));
    /// # Ok::<(), terrace::Error>(())
    /// ```
    pub fn leaks(&self, policy: LeakPolicy) -> LeakReport {
        crate::leaks::report(self.tiers(), &policy)
    }

    /// Reads and checks everything while the store is in use: the checksums of all records and
    /// blocks, what blocks decompress to, the order of archives, filters, trailers and dead
    /// bitmaps, the index against the log, the manifest against the files. Repairs nothing.
    pub fn verify(&self, progress: impl FnMut(Progress)) -> Result<Verified> {
        self.verify_with(VerifyOptions::new(), progress)
    }

    /// The same at a chosen pace.
    pub fn verify_with(
        &self,
        options: VerifyOptions,
        progress: impl FnMut(Progress),
    ) -> Result<Verified> {
        self.tiers().check_open()?;
        Ok(crate::verify::verify(self.tiers(), options, progress))
    }

    /// Makes a copy of this moment in a directory that is new or empty, while reads and writes go
    /// on. It is a store: it opens by itself. What is sealed gets a second name where the file
    /// system has hard links, and is copied elsewhere; the rest of the journal is copied. Archives
    /// lie beside the log, wherever this store keeps them. Everything is on stable storage when
    /// the call returns.
    ///
    /// Errors: [`Error::Foreign`] when the directory is not empty, [`Error::Full`], [`Error::Io`].
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<()> {
        self.tiers().check_open()?;
        crate::checkpoint::checkpoint(self.tiers(), path.as_ref())
    }

    /// Makes everything durable and releases the lock. Other handles answer [`Error::Closed`] from
    /// now on; values that were read stay valid.
    pub fn close(self) -> Result<()> {
        self.inner.close()
    }

    fn tiers(&self) -> &Tiers {
        &self.inner.tiers
    }
}
