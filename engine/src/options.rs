//! What a user may choose: of a store, of a keyspace, of one write. Plain values, checked at open.
//! Knows ranges and defaults; knows nothing of what is done with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits;
use crate::vfs::Vfs;
use crate::vfs::clock::TimeSource;
use crate::vfs::os::OsVfs;
use crate::vfs::unmapped::UnmappedVfs;

/// When a write counts as done.
///
/// The short answer: `Buffered` survives the death of the process, `Synced` also that of the
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The bytes are in the kernel before the call returns: a killed process loses nothing. A flush
    /// starts after one second or 8 MiB; a power cut loses at most what was written since the last
    /// flush began, never more than 64 MiB.
    #[default]
    Buffered,
    /// On stable storage before the call returns; all who wait share one flush.
    Synced,
}

/// What opening does about damage that a crash does not explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OpenPolicy {
    /// Refuse, with the whole list of what was found.
    #[default]
    Strict,
    /// Serve the rest; a damaged key answers `Error::Corrupt`.
    Degraded,
}

/// Which records of a keyspace [`Db::demote`](crate::Db::demote) moves to the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DemotePolicy {
    /// All that the log holds of it.
    All,
    /// Those that nobody read since they were written, or since movement last looked at them.
    Unread,
}

/// How bytes come from files.
#[derive(Debug, Clone, Copy)]
enum Access {
    Maps,
    Calls,
}

/// How a store is opened: budgets, durability, policy.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) memory_budget: u64,
    pub(crate) warm_budget: u64,
    pub(crate) disk_budget: Option<u64>,
    pub(crate) archive_dir: Option<PathBuf>,
    pub(crate) segment_size: u64,
    pub(crate) durability: Durability,
    pub(crate) open_policy: OpenPolicy,
    pub(crate) handle_age_warning: Duration,
    pub(crate) statistics_every: Option<Duration>,
    access: Access,
    pub(crate) workers: bool,
    pub(crate) read_only: bool,
    /// Nobody opens the store again.
    pub(crate) temporary: bool,
    pub(crate) vfs: Option<Arc<dyn Vfs>>,
    pub(crate) time: Option<Arc<dyn TimeSource>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_budget: 256 << 20,
            warm_budget: 1 << 30,
            disk_budget: None,
            archive_dir: None,
            segment_size: limits::SEGMENT_LEN_MAX,
            durability: Durability::Buffered,
            open_policy: OpenPolicy::Strict,
            handle_age_warning: Duration::from_mins(5),
            statistics_every: None,
            access: Access::Maps,
            workers: true,
            read_only: false,
            temporary: false,
            vfs: None,
            time: None,
        }
    }
}

impl Options {
    /// The defaults: 256 MiB of memory, 1 GiB of warm log, no limit of disk, `Buffered`, `Strict`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of anonymous memory that the store may hold: index, hot tier, filters, scratch.
    /// Mapped file pages are not among them. At least 4 MiB. May change on reopening.
    #[must_use]
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of log kept warm; what is colder goes to the archive. At least 4 MiB. May change on
    /// reopening.
    #[must_use]
    pub fn warm_budget(mut self, bytes: u64) -> Self {
        self.warm_budget = bytes;
        self
    }

    /// Bytes of all files above which puts fail with `Error::Full`. At least 8 MiB. May change on
    /// reopening.
    #[must_use]
    pub fn disk_budget(mut self, bytes: u64) -> Self {
        self.disk_budget = Some(bytes);
        self
    }

    /// Keeps the archives in another directory, for example on another device. Settled when the
    /// store is created; another one on reopening is `Error::Invalid`.
    #[must_use]
    pub fn archive_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.archive_dir = Some(path.as_ref().to_path_buf());
        self
    }

    /// The largest segment, 1 to 64 MiB. Segments start small and grow with the store. May change
    /// on reopening.
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// The durability of a write that does not name one.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What opening does about damage.
    #[must_use]
    pub fn open_policy(mut self, policy: OpenPolicy) -> Self {
        self.open_policy = policy;
        self
    }

    /// Warns through `tracing`, once each, of snapshots, iterators, transactions and values that
    /// are held for longer than this, and of watchers that do not read for so long. Five minutes
    /// by default.
    #[must_use]
    pub fn handle_age_warning(mut self, age: Duration) -> Self {
        self.handle_age_warning = age;
        self
    }

    /// Writes the file `STATISTICS` in the store's directory this often, for `terrace top` and for
    /// people; it goes when the store is closed. With the feature `metrics` the same figures go to
    /// the recorder of that crate. At least 10 ms. Off by default.
    #[must_use]
    pub fn statistics_every(mut self, time: Duration) -> Self {
        self.statistics_every = Some(time);
        self
    }

    /// Whether files are mapped: `true` by default. `false` is the mode for hosts that must not
    /// take a SIGBUS: every byte comes and goes by `pread` and `pwrite`, and a device that fails,
    /// or another program that cuts a file short, is an error and never a signal.
    ///
    /// Costs: the log lies in memory as well, up to one and a half times `warm_budget` beside
    /// `memory_budget`, and is read when the store is opened; a record is written by three calls;
    /// blocks of archives are read anew for each record. May change on reopening.
    #[must_use]
    pub fn file_maps(mut self, mapped: bool) -> Self {
        self.access = if mapped { Access::Maps } else { Access::Calls };
        self
    }

    /// The file system that these options ask for.
    pub(crate) fn files(&self) -> Arc<dyn Vfs> {
        let vfs = self.vfs.clone().unwrap_or_else(|| Arc::new(OsVfs));
        match self.access {
            Access::Maps => vfs,
            Access::Calls => Arc::new(UnmappedVfs::new(vfs)),
        }
    }

    /// Opens without background workers: a test drives every step by `Db::step`.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn without_workers(mut self) -> Self {
        self.workers = false;
        self
    }

    /// Opens on another file system, for example the simulated disk.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn file_system(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = Some(vfs);
        self
    }

    /// Judges deadlines by a clock that a test sets.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeSource>) -> Self {
        self.time = Some(time);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        at_least("memory_budget", self.memory_budget, 4 << 20)?;
        at_least("warm_budget", self.warm_budget, 4 << 20)?;
        at_least("segment_size", self.segment_size, limits::SEGMENT_LEN_MIN)?;
        if let Some(time) = self.statistics_every.filter(|time| time.as_millis() < 10) {
            let found = format_args!("{} us", time.as_micros()).to_string();
            return Err(Error::invalid("statistics_every", found, "at least 10 ms"));
        }
        if self.segment_size > limits::SEGMENT_LEN_MAX {
            let expected = format!("at most {} bytes", limits::SEGMENT_LEN_MAX);
            return Err(Error::invalid("segment_size", self.segment_size, expected));
        }
        self.disk_budget.map_or(Ok(()), |bytes| at_least("disk_budget", bytes, 8 << 20))
    }
}

fn at_least(what: &'static str, found: u64, min: u64) -> Result<()> {
    if found < min {
        return Err(Error::invalid(what, found, format_args!("at least {min} bytes")));
    }
    Ok(())
}

/// How a keyspace behaves. Settled when it is created, but for the default TTL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyspaceOptions {
    pub(crate) volatile: bool,
    pub(crate) unordered: bool,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) compression_level: Option<i32>,
}

impl KeyspaceOptions {
    /// Durable, ordered, no default TTL, zstd level 3.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lives in memory alone: never evicted (`Error::Full` instead), takes no sequence numbers, is
    /// empty after reopening and outside the atomicity of batches.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Does without the memory that keeps keys in order.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// The TTL of a put that names none. May change on reopening; zero is `Error::Invalid`.
    #[must_use]
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// The zstd level of this keyspace's archives, 1 to 19. `compact` uses 15 if that is more.
    #[must_use]
    pub fn compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_ttl(self.default_ttl)?;
        match self.compression_level {
            Some(level) if !(1..=19).contains(&level) => {
                Err(Error::invalid("compression_level", level, "1 to 19"))
            }
            _ => Ok(()),
        }
    }
}

/// How one put behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) durability: Option<Durability>,
}

impl PutOptions {
    /// The keyspace's default TTL and the store's durability.
    pub fn new() -> Self {
        Self::default()
    }

    /// The record expires this long after now. Zero is `Error::Invalid`.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// When this put counts as done.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

/// Refuses a TTL of zero: it would be a delete in disguise.
pub(crate) fn check_ttl(ttl: Option<Duration>) -> Result<()> {
    if ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(Error::invalid("ttl", "zero", "more than zero; delete removes a key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_invalid_and_say_what_would_do() {
        for options in [
            Options::new().memory_budget(1),
            Options::new().warm_budget(1),
            Options::new().disk_budget(1),
            Options::new().segment_size(1),
            Options::new().segment_size(65 << 20),
        ] {
            assert!(matches!(options.check(), Err(Error::Invalid { .. })), "{options:?}");
        }
        assert!(Options::new().check().is_ok());
        assert!(KeyspaceOptions::new().compression_level(20).check().is_err());
        assert!(KeyspaceOptions::new().default_ttl(Duration::ZERO).check().is_err());
        assert!(check_ttl(Some(Duration::from_nanos(1))).is_ok());
    }
}
