//! Time: milliseconds since 1970 that never go back while a process lives, and a clock for tests.
//! Knows milliseconds; knows nothing of records.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment: milliseconds since 1970, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment and `time` more, rounded up to whole milliseconds; saturates.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let rest = u128::from(!time.subsec_nanos().is_multiple_of(1_000_000));
        let ms = u64::try_from(time.as_millis() + rest).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// The time from `earlier` to this moment; zero when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms after 1970", self.0)
    }
}

/// Where a store's time comes from.
///
/// The wall clock is read once; from there on time goes by the boot-time clock. Steps of the wall
/// clock while the process lives neither expire a record nor bring one back.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { anchor_wall_ms: u64, anchor_boot_ms: u64 },
    Manual(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        let (anchor_wall_ms, anchor_boot_ms) =
            (read_ms(ClockId::Realtime), read_ms(ClockId::Boottime));
        Self(Source::System { anchor_wall_ms, anchor_boot_ms })
    }

    /// A clock that stands still until [`Clock::advance`] moves it. Clones share it.
    pub fn manual(start: Millis) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start.0))))
    }

    /// This clock, but not before `mark`: what was judged expired once stays so.
    #[must_use]
    pub(crate) fn not_before(self, mark: Millis) -> Self {
        match self.0 {
            Source::System { anchor_wall_ms, anchor_boot_ms } => {
                let anchor_wall_ms = anchor_wall_ms.max(mark.0);
                Self(Source::System { anchor_wall_ms, anchor_boot_ms })
            }
            Source::Manual(ref now) => {
                now.fetch_max(mark.0, Ordering::SeqCst);
                self
            }
        }
    }

    /// Now. Never less than an earlier answer.
    pub fn now(&self) -> Millis {
        match &self.0 {
            Source::System { anchor_wall_ms, anchor_boot_ms } => {
                let elapsed_ms = read_ms(ClockId::Boottime).saturating_sub(*anchor_boot_ms);
                Millis(anchor_wall_ms.saturating_add(elapsed_ms))
            }
            Source::Manual(now) => Millis(now.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; `false` for the system's, which moves by itself.
    pub fn advance(&self, time: Duration) -> bool {
        let Source::Manual(now) = &self.0 else { return false };
        let later = |ms| Some(Millis(ms).after(time).0);
        now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).is_ok()
    }
}

/// Time that passes whatever a manual clock shows: for waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    started_ms: u64,
    limit: Duration,
}

impl Stopwatch {
    pub(crate) fn start(limit: Duration) -> Self {
        Self { started_ms: read_ms(ClockId::Boottime), limit }
    }

    /// What is left of the limit; `None` when it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        let passed = read_ms(ClockId::Boottime).saturating_sub(self.started_ms);
        self.limit.checked_sub(Duration::from_millis(passed)).filter(|left| !left.is_zero())
    }
}

fn read_ms(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_round_up_and_saturate() {
        assert_eq!(Millis(5).after(Duration::from_nanos(1)), Millis(6));
        assert_eq!(Millis(5).after(Duration::from_millis(2)), Millis(7));
        assert_eq!(Millis(5).after(Duration::MAX), Millis(u64::MAX));
        assert_eq!(Millis(5).since(Millis(9)), Duration::ZERO);
    }

    #[test]
    fn a_manual_clock_stands_until_it_is_moved_and_clones_share_it() {
        let clock = Clock::manual(Millis(1000));
        let clone = clock.clone();
        assert!(clone.advance(Duration::from_secs(1)));
        assert_eq!(clock.now(), Millis(2000));
        assert_eq!(clock.not_before(Millis(9000)).now(), Millis(9000));
    }

    #[test]
    fn the_system_clock_starts_at_the_mark_when_the_wall_was_set_back() {
        let clock = Clock::system();
        assert!(clock.now() > Millis(1_700_000_000_000));
        assert!(!clock.advance(Duration::from_secs(1)));
        let mark = Millis(clock.now().0 + 1_000_000);
        assert!(clock.not_before(mark).now() >= mark);
    }
}
