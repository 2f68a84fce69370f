//! Time: where it comes from, a wall clock that does not step while the process lives, deadlines.
//! Knows milliseconds; knows nothing of records or of who keeps the high-water mark.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::canary::{Canary, planted};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Most that the high-water mark rises at a time, in milliseconds: a day.
pub(crate) const HIGH_WATER_STEP_MS: u64 = 24 * 60 * 60 * 1000;

/// Where time comes from.
pub trait TimeSource: Send + Sync + Debug {
    /// Milliseconds since 1970. May step either way at any moment.
    fn wall_ms(&self) -> u64;
    /// Milliseconds since some moment before the process began. Never steps back; goes on while
    /// the machine sleeps.
    fn monotonic_ms(&self) -> u64;
}

/// The system's clocks: `CLOCK_REALTIME` and `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemTime;

impl TimeSource for SystemTime {
    fn wall_ms(&self) -> u64 {
        whole_ms(clock_gettime(ClockId::Realtime))
    }

    fn monotonic_ms(&self) -> u64 {
        whole_ms(clock_gettime(ClockId::Boottime))
    }
}

/// Microseconds since some moment, for short times: how long a call of the system took.
pub(crate) fn ticking_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000)
}

fn whole_ms(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// A time source that a test sets: wall clock and monotonic clock move apart or together.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct ManualTime {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

#[cfg(any(test, feature = "testing"))]
impl ManualTime {
    /// Both clocks stand still until they are moved.
    #[must_use]
    pub fn new(wall_ms: u64) -> Self {
        Self { wall_ms: AtomicU64::new(wall_ms), monotonic_ms: AtomicU64::new(1_000) }
    }

    /// Time passes: both clocks advance.
    pub fn advance(&self, elapsed: Duration) {
        self.advance_monotonic(elapsed);
        self.set_wall_ms(self.wall_ms().saturating_add(ms_rounded_up(elapsed)));
    }

    /// The wall clock alone is set, forward or back.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// The monotonic clock alone advances.
    pub fn advance_monotonic(&self, elapsed: Duration) {
        self.monotonic_ms.fetch_add(ms_rounded_up(elapsed), Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "testing"))]
impl TimeSource for ManualTime {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// The wall clock of one open store.
///
/// It is read once, at open, and goes on by the monotonic clock: steps of the wall clock while the
/// store is open neither expire a record nor revive one. It starts at or above the high-water mark
/// that earlier opens kept, so that a wall clock set back between two opens revives nothing either.
#[derive(Debug)]
pub(crate) struct Clock {
    source: Arc<dyn TimeSource>,
    anchor_wall_ms: u64,
    anchor_monotonic_ms: u64,
    /// The high-water mark that is known to be kept; 0 when none is.
    high_water_ms: AtomicU64,
}

impl Clock {
    /// Starts at the wall time or at `high_water_ms`, whichever is later. A store that keeps no
    /// mark yet gives 0.
    pub(crate) fn new(source: Arc<dyn TimeSource>, high_water_ms: u64) -> Self {
        let anchor_wall_ms = source.wall_ms().max(high_water_ms);
        let anchor_monotonic_ms = source.monotonic_ms();
        let high_water_ms = AtomicU64::new(high_water_ms);
        Self { source, anchor_wall_ms, anchor_monotonic_ms, high_water_ms }
    }

    /// Milliseconds since 1970; never less than an earlier answer.
    pub(crate) fn now_ms(&self) -> u64 {
        if planted(Canary::ClockStepsBack) {
            return self.source.wall_ms();
        }
        let elapsed_ms = self.source.monotonic_ms().saturating_sub(self.anchor_monotonic_ms);
        self.anchor_wall_ms.saturating_add(elapsed_ms)
    }

    /// The deadline of a record that is written now: rounded up to whole milliseconds, `u64::MAX`
    /// when that is too far away for a number.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.source.monotonic_ms()
    }

    /// When a record with this TTL, put now, expires.
    pub(crate) fn deadline_ms(&self, ttl: Duration) -> u64 {
        self.now_ms().saturating_add(ms_rounded_up(ttl))
    }

    /// The mark to keep now: the present, but at most a day above the mark that is kept, so that
    /// one look at a broken clock cannot expire what has years to live.
    pub(crate) fn high_water_to_persist(&self) -> u64 {
        match self.high_water_ms.load(Ordering::Relaxed) {
            0 => self.now_ms(),
            kept => self.now_ms().min(kept.saturating_add(HIGH_WATER_STEP_MS)),
        }
    }

    /// `high_water_ms` is kept on stable storage now.
    pub(crate) fn note_persisted(&self, high_water_ms: u64) {
        self.high_water_ms.fetch_max(high_water_ms, Ordering::Relaxed);
    }

    /// How far the wall clock was above the kept mark at open, in milliseconds; 0 without a mark.
    /// A store that was not opened for so long, or a clock that is wrong: the caller judges.
    pub(crate) fn leap_at_open_ms(&self, high_water_ms: u64) -> u64 {
        if high_water_ms == 0 { 0 } else { self.anchor_wall_ms.saturating_sub(high_water_ms) }
    }
}

fn ms_rounded_up(duration: Duration) -> u64 {
    let rest = u128::from(!duration.subsec_nanos().is_multiple_of(1_000_000));
    u64::try_from(duration.as_millis() + rest).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NOON_MS: u64 = 1_800_000_000_000;

    fn manual(high_water_ms: u64) -> (Arc<ManualTime>, Clock) {
        let time = Arc::new(ManualTime::new(NOON_MS));
        let source = Arc::<ManualTime>::clone(&time);
        (time, Clock::new(source, high_water_ms))
    }

    #[test]
    fn a_wall_clock_set_forward_expires_nothing() {
        let (time, clock) = manual(0);
        let deadline = clock.deadline_ms(HOUR);
        time.set_wall_ms(NOON_MS + 365 * HIGH_WATER_STEP_MS);
        assert!(clock.now_ms() < deadline);
        time.advance(HOUR);
        assert_eq!(clock.now_ms(), deadline);
    }

    #[test]
    fn a_wall_clock_set_back_revives_nothing() {
        let (time, clock) = manual(0);
        let deadline = clock.deadline_ms(HOUR);
        time.advance(HOUR);
        time.set_wall_ms(0);
        assert!(clock.now_ms() >= deadline);
    }

    #[test]
    fn a_wall_clock_set_back_between_two_opens_revives_nothing() {
        let (time, first) = manual(0);
        let deadline = first.deadline_ms(HOUR);
        time.advance(HOUR);
        let kept = first.high_water_to_persist();
        time.set_wall_ms(NOON_MS - HIGH_WATER_STEP_MS);
        let second = Clock::new(time, kept);
        assert!(second.now_ms() >= deadline);
    }

    #[test]
    fn the_high_water_mark_rises_by_a_day_at_most() {
        let (time, clock) = manual(NOON_MS - 10 * HIGH_WATER_STEP_MS);
        let first = clock.high_water_to_persist();
        assert_eq!(first, NOON_MS - 9 * HIGH_WATER_STEP_MS);
        assert_eq!(clock.high_water_to_persist(), first, "asking alone raises nothing");
        clock.note_persisted(first);
        assert_eq!(clock.high_water_to_persist(), NOON_MS - 8 * HIGH_WATER_STEP_MS);
        assert_eq!(clock.leap_at_open_ms(NOON_MS - 5), 5);
        drop(time);
    }

    #[test]
    fn deadlines_round_up_and_saturate() {
        let (_, clock) = manual(0);
        assert_eq!(clock.deadline_ms(Duration::from_nanos(1)), NOON_MS + 1);
        assert_eq!(clock.deadline_ms(Duration::from_millis(5)), NOON_MS + 5);
        assert_eq!(clock.deadline_ms(Duration::MAX), u64::MAX);
    }

    #[test]
    fn the_system_clock_goes_forward_from_a_date_after_this_line_was_written() {
        let before = SystemTime.monotonic_ms();
        assert!(SystemTime.wall_ms() > 1_700_000_000_000);
        assert!(SystemTime.monotonic_ms() >= before);
    }
}
