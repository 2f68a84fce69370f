//! Windows of time over which tokens count: for ever, the last so long, a period of the calendar.
//! Knows moments; knows nothing of tokens.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit, ZonedRound};

use crate::error::{Error, Result};
use crate::store::Millis;

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From midnight before Monday.
    Week,
    /// From midnight before the first.
    Month,
}

/// Periods of the calendar in one time zone: they begin when people there say so, also when the
/// clocks change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    period: Period,
    zone: TimeZone,
    name: String,
}

impl Calendar {
    /// Periods in this time zone, such as `UTC` or `Asia/Seoul`.
    ///
    /// Errors: [`Error::Invalid`] when the system does not know the zone.
    pub fn new(period: Period, zone: &str) -> Result<Self> {
        let name = zone.to_owned();
        let zone = if zone == "UTC" {
            TimeZone::UTC
        } else {
            TimeZone::get(zone).map_err(|_| Error::Invalid("a time zone that is not known"))?
        };
        Ok(Self { period, zone, name })
    }

    /// The beginning of the period that `now` is in.
    fn start(&self, now: Millis) -> Option<Millis> {
        let now = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
        let zoned = now.to_zoned(self.zone.clone());
        let start = match self.period {
            Period::Hour => {
                let hour = ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc);
                zoned.round(hour).ok()?
            }
            Period::Day => zoned.start_of_day().ok()?,
            Period::Week => {
                let days = i64::from(zoned.weekday().to_monday_zero_offset());
                let monday = zoned.checked_sub(jiff::Span::new().days(days)).ok()?;
                monday.start_of_day().ok()?
            }
            Period::Month => zoned.first_of_month().ok()?.start_of_day().ok()?,
        };
        u64::try_from(start.timestamp().as_millisecond()).ok().map(Millis)
    }
}

/// Over which time tokens count against the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// All that were ever used.
    Forever,
    /// Those of the last so long.
    Rolling(Duration),
    /// Those of the current period.
    Calendar(Calendar),
}

impl Window {
    /// What is used at or before this moment no longer counts; `None` when all counts.
    pub(crate) fn cutoff(&self, now: Millis) -> Option<Millis> {
        match self {
            Self::Forever => None,
            Self::Rolling(length) => {
                let length = Millis(0).after(*length);
                Some(Millis(now.0.saturating_sub(length.0)))
            }
            Self::Calendar(calendar) => {
                calendar.start(now).map(|start| Millis(start.0.saturating_sub(1)))
            }
        }
    }

    /// What is stored to see that the window was changed.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Forever => "forever".to_owned(),
            Self::Rolling(length) => format!("rolling {} ms", length.as_millis()),
            Self::Calendar(Calendar { period, name, .. }) => format!("{period:?} in {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Millis {
        let at: Timestamp = text.parse().unwrap();
        Millis(u64::try_from(at.as_millisecond()).unwrap())
    }

    #[test]
    fn periods_begin_where_people_there_say() {
        let now = ms("2026-11-21T15:45:10Z");
        let start = |period, zone| Calendar::new(period, zone).unwrap().start(now).unwrap();
        assert_eq!(start(Period::Hour, "UTC"), ms("2026-11-21T15:00:00Z"));
        assert_eq!(start(Period::Day, "UTC"), ms("2026-11-21T00:00:00Z"));
        assert_eq!(start(Period::Week, "UTC"), ms("2026-11-16T00:00:00Z"));
        assert_eq!(start(Period::Month, "UTC"), ms("2026-11-01T00:00:00Z"));
        assert!(Calendar::new(Period::Day, "Nowhere/City").is_err());
        if let Ok(seoul) = Calendar::new(Period::Day, "Asia/Seoul") {
            assert_eq!(seoul.start(now).unwrap(), ms("2026-11-21T15:00:00Z"));
        }
    }

    #[test]
    fn a_moment_beyond_the_calendar_counts_everything_and_panics_not() {
        let calendar = Calendar::new(Period::Month, "UTC").unwrap();
        assert_eq!(Window::Calendar(calendar).cutoff(Millis(u64::MAX)), None);
        assert_eq!(Window::Rolling(Duration::MAX).cutoff(Millis(5)), Some(Millis(0)));
        assert_eq!(Window::Rolling(Duration::from_millis(2)).cutoff(Millis(5)), Some(Millis(3)));
    }
}
