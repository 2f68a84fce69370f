//! Reading and checking everything while the store is in use.
//! Reports damage; repairs nothing.
//!
//! Writers wait at most while the ends of the unsealed segments are noted, and while what looks
//! wrong is looked at a second time; movement also while the manifest is compared.

mod files;
mod index;
mod segment;

use std::collections::HashSet;
use std::time::Duration;

use crate::cold::ArchiveEntry;
use crate::error::Damage;
use crate::tiers::Tiers;
use crate::vfs::os;

/// Bytes after which progress is told, and the pace is kept.
const PIECE_LEN: u64 = 1 << 20;
/// Longest pause at a time; a store that is closed meanwhile waits no longer.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How far a long piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, as known at the start.
    pub total: u64,
}

impl Progress {
    pub(crate) fn new(done: u64, total: u64) -> Self {
        Self { done, total }
    }
}

/// How a store is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    bytes_per_s: Option<u64>,
}

impl VerifyOptions {
    /// As fast as it goes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads at most so many bytes a second, so that a store in use is not slowed down by it.
    #[must_use]
    pub fn bytes_per_s(mut self, bytes: u64) -> Self {
        self.bytes_per_s = Some(bytes.max(1));
        self
    }
}

/// What [`crate::Db::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Records checked.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that did not hold; empty when the store is sound.
    pub damage: Vec<Damage>,
}

impl Verified {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// One run: what it found so far, its pace, and who hears of it.
struct Run<'t> {
    tiers: &'t Tiers,
    verified: Verified,
    options: VerifyOptions,
    progress: &'t mut dyn FnMut(Progress),
    total: u64,
    done: u64,
    untold: u64,
    suspects: Vec<index::Suspect>,
    /// Files that somebody cut short. To read them through a map would end the process.
    cut: HashSet<String>,
}

impl Run<'_> {
    /// So many more bytes were read.
    fn read(&mut self, bytes: u64) {
        self.verified.bytes += bytes;
        self.done += bytes;
        self.untold += bytes;
        if self.untold < PIECE_LEN {
            return;
        }
        (self.progress)(Progress::new(self.done.min(self.total), self.total));
        let untold = std::mem::take(&mut self.untold);
        let Some(rate) = self.options.bytes_per_s else { return };
        let mut left = Duration::from_micros(untold.saturating_mul(1_000_000) / rate);
        while !left.is_zero() && !self.tiers.is_closing() {
            let piece = left.min(PAUSE_MAX);
            os::pause(piece);
            left -= piece;
        }
    }

    fn damage(&mut self, damage: Damage) {
        self.verified.damage.push(damage);
    }
}

pub(crate) fn verify(
    tiers: &Tiers,
    options: VerifyOptions,
    mut progress: impl FnMut(Progress),
) -> Verified {
    let ends = segment::ends(tiers);
    let archives = tiers.cold.load_full();
    let total = ends.iter().map(|(_, end)| *end).sum::<u64>()
        + archives.entries().iter().map(|entry| entry.archive.file_len()).sum::<u64>();
    let mut run = Run {
        tiers,
        verified: Verified { damage: tiers.report.damage.clone(), ..Verified::default() },
        options,
        progress: &mut progress,
        total,
        done: 0,
        untold: 0,
        suspects: Vec::new(),
        cut: HashSet::new(),
    };
    run.lens(&ends, &archives);
    let bits = run.files();
    for (segment, end) in &ends {
        run.segment(segment, *end, bits.as_ref());
    }
    let whole = |run: &Run<'_>, entry: &ArchiveEntry| !run.cut.contains(entry.archive.name());
    for entry in archives.entries() {
        if !whole(&run, entry) {
            continue;
        }
        let damage = entry.archive.verify(&mut |done| run.read(done));
        run.verified.damage.extend(damage);
        run.verified.files += 1;
        run.verified.records += u64::from(entry.archive.record_count());
        run.archive_bits(entry, bits.as_ref());
    }
    run.judge_suspects(bits.as_ref());
    run.index_entries();
    (run.progress)(Progress::new(total, total));
    run.verified
}
