//! Latencies by logarithm: 32 steps for each doubling, so that a figure is right to 3 percent.
//! Knows durations; knows nothing of what took so long.

use std::time::Duration;

/// Steps for each doubling.
const STEPS: u64 = 32;

/// How often something took how long.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * 32], count: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Something took so long.
    pub fn note(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = usize::try_from(place_of(ns)).unwrap_or(0);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds what another one holds.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How much it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Microseconds that a share of all did not exceed.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure for a person"
    )]
    pub fn at(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= wanted {
                return (end_of(place).min(self.max_ns)) as f64 / 1000.0;
            }
        }
        self.max()
    }

    /// The longest, in microseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    pub fn max(&self) -> f64 {
        self.max_ns as f64 / 1000.0
    }
}

/// The step of a number: its leading bit, and the five bits behind it.
fn place_of(ns: u64) -> u64 {
    if ns < STEPS {
        return ns;
    }
    let exponent = u64::from(ns.ilog2()) - 5;
    (exponent + 1) * STEPS + (ns >> exponent) - STEPS
}

/// The largest number of a step.
fn end_of(place: u64) -> u64 {
    if place < STEPS {
        return place;
    }
    let exponent = place / STEPS - 1;
    (((place % STEPS) + STEPS + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_step_and_steps_are_a_32nd_wide() {
        for ns in (0..5000).chain([1 << 20, 123_456_789, u64::MAX >> 8]) {
            let end = end_of(place_of(ns));
            assert!(end >= ns && end - ns <= ns / 32 + 1, "{ns}: {end}");
        }
    }

    #[test]
    fn shares_and_the_longest_are_told() {
        let mut all = Histogram::default();
        (1..=1000).for_each(|us| all.note(Duration::from_micros(us)));
        let mut twice = all.clone();
        twice.add(&all);
        assert_eq!((twice.count(), twice.max()), (2000, 1000.0));
        for (share, us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = twice.at(share);
            assert!((us..=us * 1.04).contains(&found), "{share}: {found}");
        }
    }
}
