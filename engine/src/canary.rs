//! Planted bugs: each breaks one rule that a promise stands on, so that a test can see the checker
//! of that promise go red. Builds without the feature `testing` have none of them.
//! Knows names alone; each bug stands where the rule does.
#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "tests reach these names through the feature `testing`")
)]

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// A flush answers that it is done and syncs nothing.
    SkipDataSync,
    /// New files are not made durable by name.
    SkipDirSync,
    /// Files are unlinked before the edit that allows it.
    ReclaimBeforePublish,
    /// Recovery goes on behind a hole in the journal's tail.
    AcceptHole,
    /// The image of the index is believed without its checksums.
    TrustImage,
    /// What is derived from the records, a trailer, is believed without its checksum.
    TrustTrailer,
    /// A read error while the journal is recovered is taken for its end.
    CutOnReadError,
    /// A failed flush is tried again, and the second answer believed.
    RetryFlush,
    /// A tombstone goes while an older version is still there to come back.
    DropTombstoneEarly,
    /// Checksums are not bound to the life of a file.
    NoNonce,
    /// Deadlines are judged by the wall clock, also when it steps back.
    ClockStepsBack,
    /// An edit lists a file before its bytes are durable.
    PublishBeforeBytes,
    /// Attached records are not counted and measured before they are believed.
    NoLengthCheck,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SkipDataSync,
        Self::SkipDirSync,
        Self::ReclaimBeforePublish,
        Self::AcceptHole,
        Self::TrustImage,
        Self::TrustTrailer,
        Self::CutOnReadError,
        Self::RetryFlush,
        Self::DropTombstoneEarly,
        Self::NoNonce,
        Self::ClockStepsBack,
        Self::PublishBeforeBytes,
        Self::NoLengthCheck,
    ];
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

/// Plants one bug in every store that this thread drives, or takes it out again.
#[cfg(any(test, feature = "testing"))]
pub fn plant(canary: Option<Canary>) {
    PLANTED.set(canary);
}

/// Whether this bug is planted.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn planted(canary: Canary) -> bool {
    PLANTED.get() == Some(canary)
}

/// Never.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) const fn planted(_: Canary) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bug_at_a_time_is_planted_and_only_in_this_thread() {
        assert!(Canary::ALL.iter().all(|&canary| !planted(canary)));
        plant(Some(Canary::NoNonce));
        let here = Canary::ALL.map(planted);
        let there = std::thread::scope(|scope| scope.spawn(|| planted(Canary::NoNonce)).join());
        plant(None);
        assert_eq!(here.iter().filter(|&&planted| planted).count(), 1);
        assert_eq!(there.ok(), Some(false));
    }
}
