//! What grows and what is held: the report on leaks, and when a line of it is suspect.
//! Plain figures and their judgement; knows nothing of how they were taken.

use std::fmt;
use std::time::Duration;

use crate::ledger::trend::Trend;

/// What a leak report calls suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeakPolicy {
    pub(crate) handle_age: Duration,
    pub(crate) growth_bytes: u64,
    pub(crate) growth_percent: u64,
}

impl Default for LeakPolicy {
    fn default() -> Self {
        let handle_age = Duration::from_mins(1);
        Self { handle_age, growth_bytes: 1 << 20, growth_percent: 10 }
    }
}

impl LeakPolicy {
    /// Handles older than a minute; classes that grew by 1 MiB and by a tenth, and go on growing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that is older than this is suspect; a watcher, when changes wait for it so long.
    #[must_use]
    pub fn handle_age(mut self, age: Duration) -> Self {
        self.handle_age = age;
        self
    }

    /// Growth of a class below so many bytes is not suspect.
    #[must_use]
    pub fn growth_bytes(mut self, bytes: u64) -> Self {
        self.growth_bytes = bytes;
        self
    }

    /// Growth of a class below this share of what it was at the baseline is not suspect.
    #[must_use]
    pub fn growth_percent(mut self, percent: u64) -> Self {
        self.growth_percent = percent;
        self
    }
}

/// What a live handle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleKind {
    /// Values that borrow from a file, all that one place in the program took.
    Value,
    /// An iterator, or one call that reads several records.
    Iterator,
    /// A snapshot.
    Snapshot,
    /// A transaction.
    Transaction,
    /// A watcher of changes.
    Watcher,
}

/// A handle that a program holds, or all values that one place in it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveHandle {
    /// What it is.
    pub kind: HandleKind,
    /// The name of a snapshot; keyspace and prefix of a watcher.
    pub name: Option<String>,
    /// The place in the program that made it: file, line and column.
    pub created_at: String,
    /// Milliseconds since it was made; of values, since the oldest file had none from this place;
    /// of a watcher that changes wait for, since it last asked.
    pub age_ms: u64,
    /// How many there are: 1, but for values.
    pub count: u64,
    /// Bytes that could be freed without it: old versions in the log, unlinked files, changes.
    pub pinned_bytes: u64,
    /// Bytes of the files that values keep mapped.
    pub mapped_bytes: u64,
    /// The policy calls it suspect.
    pub suspect: bool,
}

/// A prefix whose keys are behind a growth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrowingPrefix {
    /// What the new keys begin with; empty when they have nothing in common.
    pub prefix: Vec<u8>,
    /// Encoded bytes of keys under it that were not there at the baseline, judged by a sample.
    pub bytes: u64,
    /// How many, judged by a sample.
    pub keys: u64,
    /// Of 100 sampled keys so many have no deadline.
    pub lasting_percent: u64,
}

/// One class of bytes that grew since the baseline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Growth {
    /// The class: `live without deadline` and `live with deadline` of a keyspace over all tiers;
    /// of the store `garbage`, `archive overhead`, `manifest`, `unlinked`, and `memory: ...`.
    pub class: &'static str,
    /// The keyspace, for classes that have one.
    pub keyspace: Option<String>,
    /// Bytes at the baseline.
    pub before: u64,
    /// Bytes now.
    pub now: u64,
    /// Bytes a second: the line through all samples since the baseline with the least squares.
    pub slope: i64,
    /// The prefixes behind it, the heaviest first; for live bytes alone.
    pub prefixes: Vec<GrowingPrefix>,
    /// The policy calls it suspect.
    pub suspect: bool,
}

/// Bytes that nothing owns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unowned {
    /// What they are.
    pub what: String,
    /// How many.
    pub bytes: u64,
}

/// What grew since the baseline, who holds what, and what nobody owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakReport {
    /// Milliseconds since the baseline; `None` when none was marked, and then nothing grew.
    pub since_ms: Option<u64>,
    /// Classes that are larger than at the baseline, the largest growth first.
    pub growth: Vec<Growth>,
    /// Live handles, the oldest first.
    pub handles: Vec<LiveHandle>,
    /// Bytes that nothing owns.
    pub unowned: Vec<Unowned>,
}

impl LeakReport {
    /// Whether no line is suspect.
    pub fn is_clean(&self) -> bool {
        let growth = self.growth.iter().any(|one| one.suspect);
        let handles = self.handles.iter().any(|one| one.suspect);
        !growth && !handles && self.unowned.is_empty()
    }

    /// Every suspect line, for a person to read.
    pub fn suspects(&self) -> Vec<String> {
        let growth = self.growth.iter().filter(|one| one.suspect).map(ToString::to_string);
        let handles = self.handles.iter().filter(|one| one.suspect).map(ToString::to_string);
        let unowned = self.unowned.iter().map(ToString::to_string);
        growth.chain(handles).chain(unowned).collect()
    }
}

/// The suspect lines, one a line.
impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return writeln!(f, "no leak: {} live handles", self.handles.len());
        }
        self.suspects().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, before, now, slope, .. } = self;
        if let Some(keyspace) = &self.keyspace {
            write!(f, "keyspace {keyspace:?}: ")?;
        }
        write!(f, "{class} grew from {before} to {now} bytes, {slope} a second")?;
        self.prefixes.iter().try_for_each(|one| {
            let prefix = one.prefix.escape_ascii();
            let GrowingPrefix { bytes, keys, lasting_percent, .. } = one;
            write!(f, "; under \"{prefix}\" about {keys} new keys, {bytes} bytes, ")?;
            write!(f, "{lasting_percent} % without deadline")
        })
    }
}

impl fmt::Display for LiveHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.age_ms / 1000;
        let Self { count, created_at, pinned_bytes, mapped_bytes, .. } = self;
        match (&self.kind, &self.name) {
            (HandleKind::Value, _) => write!(f, "{count} values")?,
            (kind, Some(name)) => write!(f, "{kind:?} {name:?}")?,
            (kind, None) => write!(f, "{kind:?}")?,
        }
        write!(f, " made at {created_at}, {seconds} s ago, {pinned_bytes} bytes pinned")?;
        if *mapped_bytes > 0 { write!(f, ", {mapped_bytes} mapped") } else { Ok(()) }
    }
}

impl fmt::Display for Unowned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes that nothing owns", self.what, self.bytes)
    }
}

/// Whether a class that was sampled so grows: by enough, and still.
///
/// Bytes that rise and fall are not suspect. With six samples and more, the least of the last third
/// must lie above the most of the first third by what the policy lets pass.
pub(crate) fn is_growing(policy: &LeakPolicy, trend: &Trend) -> bool {
    let (Some(before), Some(now)) = (trend.first(), trend.last()) else { return false };
    let bound = policy.growth_bytes.max(before.saturating_mul(policy.growth_percent) / 100);
    if now.saturating_sub(before) < bound.max(1) {
        return false;
    }
    trend.rise().is_none_or(|rise| rise >= bound.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(figures: &[u64]) -> Trend {
        (0..).zip(figures).map(|(at, &bytes)| (at * 1000, bytes)).collect()
    }

    #[test]
    fn what_rises_without_end_is_growing_and_what_goes_up_and_down_is_not() {
        let policy = LeakPolicy::new().growth_bytes(100).growth_percent(10);
        assert!(is_growing(&policy, &trend(&[0, 90, 210, 320, 400, 520])));
        assert!(is_growing(&policy, &trend(&[0, 500])));
        assert!(!is_growing(&policy, &trend(&[0, 500, 20, 480, 30, 510, 40, 500])));
        assert!(!is_growing(&policy, &trend(&[0, 10, 20, 30, 40, 50])));
        assert!(!is_growing(&policy, &trend(&[9000, 9100, 9200, 9300, 9400, 9500])));
    }

    #[test]
    fn a_report_names_its_suspects_and_a_clean_one_says_so() {
        let mut report = LeakReport::default();
        assert!(report.is_clean() && report.to_string().starts_with("no leak"));
        report.unowned.push(Unowned { what: "file x".into(), bytes: 5 });
        assert!(!report.is_clean());
        assert_eq!(report.to_string(), "file x: 5 bytes that nothing owns\n");
    }
}
