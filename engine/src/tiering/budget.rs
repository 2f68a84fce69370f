//! One bucket of bytes for cleaning, demotion and merging: a worker that moved more than its share
//! rests, so that what is not urgent does not take processor and device from puts and reads.
//! Knows bytes and time; knows nothing of what is moved.

use std::time::Duration;

use crate::tiers::Tiers;
use crate::tiers::debt::Debt;

/// Bytes a second that movement may take when nobody writes.
const RATE_MIN: u64 = 64 << 20;
/// What is not used up is kept for so long.
const SAVED_MS: u64 = 500;
/// A worker rests at most so long at a time: what is urgent may change.
const REST_MAX_MS: u64 = 20;

/// The bucket.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    tokens: i64,
    filled_ms: u64,
    /// Bytes that were put and moved in all, as of the last look.
    written: u64,
    moved: u64,
    /// Bytes a second that were put, smoothed.
    ingest: u64,
}

impl Bucket {
    /// Takes what was moved out of the bucket and fills it for the time that passed. Returns how
    /// long to rest; zero while it is not empty.
    ///
    /// The rate follows the writers: each byte put is worth three moved, for it may have to be
    /// cleaned, demoted and merged.
    pub(crate) fn settle(&mut self, now_ms: u64, written: u64, moved: u64) -> Duration {
        let elapsed = now_ms.saturating_sub(self.filled_ms).min(10_000);
        let put = written.saturating_sub(self.written);
        if let Some(rate) = put.saturating_mul(1000).checked_div(elapsed) {
            // A second's worth of memory, whatever the distance of the looks.
            let weight = elapsed.min(1000);
            self.ingest = (self.ingest * (1000 - weight) + rate * weight) / 1000;
            (self.written, self.filled_ms) = (written, now_ms);
        }
        let rate = i64::try_from(self.rate()).unwrap_or(i64::MAX);
        let fill = |ms: u64| rate.saturating_mul(i64::try_from(ms).unwrap_or(0)) / 1000;
        let spent = i64::try_from(moved.saturating_sub(self.moved)).unwrap_or(i64::MAX);
        self.moved = moved;
        let filled = self.tokens.saturating_add(fill(elapsed)).min(fill(SAVED_MS));
        self.tokens = filled.saturating_sub(spent);
        let owed = u64::try_from(self.tokens.saturating_neg()).unwrap_or(0);
        Duration::from_millis((owed.saturating_mul(1000) / self.rate()).min(REST_MAX_MS))
    }

    /// Bytes a second that movement may take.
    fn rate(&self) -> u64 {
        RATE_MIN.max(self.ingest.saturating_mul(3))
    }
}

impl Tiers {
    /// How long the worker that moves rests now: not at all while puts wait for it.
    pub(crate) fn rest(&self, bucket: &mut Bucket) -> Duration {
        use std::sync::atomic::Ordering::Relaxed;
        let counters = &self.counters;
        let moved = counters.survivor_bytes.load(Relaxed) + counters.archive_bytes.load(Relaxed);
        let written = counters.user_bytes.load(Relaxed);
        let rest = bucket.settle(self.clock.monotonic_ms(), written, moved);
        if self.space_debt() == Debt::None { rest } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_rests_once_it_took_more_than_its_share_and_goes_on_when_time_has_passed() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.settle(1000, 0, 0), Duration::ZERO);
        assert_eq!(bucket.settle(1001, 0, 16 << 20), Duration::ZERO);
        let rest = bucket.settle(1002, 0, 80 << 20);
        assert_eq!(rest, Duration::from_millis(REST_MAX_MS));
        assert!(!bucket.settle(1100, 0, 80 << 20).is_zero());
        assert_eq!(bucket.settle(3000, 0, 80 << 20), Duration::ZERO);
    }

    #[test]
    fn the_rate_follows_the_writers() {
        let mut bucket = Bucket::default();
        bucket.settle(1000, 0, 0);
        for second in 2..6 {
            bucket.settle(second * 1000, second * (100 << 20), 0);
        }
        assert_eq!(bucket.rate(), 300 << 20);
    }
}
