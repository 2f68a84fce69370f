//! One figure over time, in bounded memory: samples, their slope, and whether they rise.
//! Knows numbers; knows nothing of what they count.

/// Samples of one figure, in the order of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trend {
    samples: Vec<(u64, u64)>,
}

impl FromIterator<(u64, u64)> for Trend {
    /// Of pairs of milliseconds and bytes, in order.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(samples: I) -> Self {
        Self { samples: samples.into_iter().collect() }
    }
}

impl Trend {
    pub(crate) fn first(&self) -> Option<u64> {
        self.samples.first().map(|(_, bytes)| *bytes)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.samples.last().map(|(_, bytes)| *bytes)
    }

    /// Bytes a second: the slope of the line with the least squares.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a slope is a figure for a person: 52 bits are enough, and casts saturate"
    )]
    pub(crate) fn slope(&self) -> i64 {
        let Some(&(start_ms, start)) = self.samples.first() else { return 0 };
        let count = self.samples.len() as f64;
        let points = self.samples.iter().map(|&(ms, bytes)| {
            let seconds = ms.saturating_sub(start_ms) as f64 / 1000.0;
            (seconds, bytes as f64 - start as f64)
        });
        let (mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0);
        for (seconds, bytes) in points {
            x += seconds;
            y += bytes;
            xx += seconds * seconds;
            xy += seconds * bytes;
        }
        let spread = count * xx - x * x;
        if spread <= 0.0 { 0 } else { ((count * xy - x * y) / spread).round() as i64 }
    }

    /// By how much the least of the last third lies above the most of the first; 0 when it does
    /// not, `None` with fewer than six samples.
    pub(crate) fn rise(&self) -> Option<u64> {
        let third = self.samples.len() / 3;
        if third < 2 {
            return None;
        }
        let bytes = || self.samples.iter().map(|(_, bytes)| *bytes);
        let most = bytes().take(third).max()?;
        let least = bytes().rev().take(third).min()?;
        Some(least.saturating_sub(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_bytes_a_second_whatever_the_distance_of_the_samples() {
        let line: Trend = [(0, 100), (500, 150), (3000, 400), (4000, 500)].into_iter().collect();
        assert_eq!(line.slope(), 100);
        let falling: Trend = [(7000, 300), (8000, 200), (9000, 100)].into_iter().collect();
        assert_eq!(falling.slope(), -100);
        assert_eq!(Trend::default().slope(), 0);
        assert_eq!([(5, 1), (5, 9)].into_iter().collect::<Trend>().slope(), 0);
    }

    #[test]
    fn a_rise_is_seen_over_six_samples_and_more() {
        let of = |figures: &[u64]| (0..).zip(figures.iter().copied()).collect::<Trend>().rise();
        assert_eq!(of(&[1, 2, 3, 4, 5, 6]), Some(3));
        assert_eq!(of(&[1, 9, 3, 4, 5, 6]), Some(0));
        assert_eq!(of(&[1, 2, 3]), None);
    }
}
