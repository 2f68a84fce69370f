//! Which share of the records is on probation: four small caches are asked what each would hit.
//! Knows a sample of the touches; knows nothing of records.

use crate::hot::policy::GHOST_COUNT_MIN;
use crate::hot::policy::shadow::{self, Shadow};

/// Shares that are tried, in percent. The last one is plain recency.
const PERCENTS: [usize; 4] = [2, 10, 40, 100];
/// Records in a shadow. Larger caches are sampled: of their tags, as many as a shadow holds.
const SHADOW_COUNT: usize = 256;
/// Hashes that left and are kept by a shadow at most: as the ghost of a small cache does.
const GONE_MAX: usize = 1000;
/// Hits count for as long as so many times the shadow's records are touched.
const WINDOW: f64 = 8.0;
/// By how much another share must have hit more, as a part of the shadow's records: what a change
/// costs until the cache has followed it.
const LEAD: f64 = 0.1;

#[derive(Debug)]
struct Rival {
    shadow: Shadow,
    score: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Choice {
    rivals: Vec<Rival>,
    current: usize,
    /// Tags below this one are looked at.
    sampled_below: u32,
    capacity: usize,
    gone: usize,
}

impl Choice {
    /// Compares from the start on; the first share holds until another one leads.
    pub(crate) fn new() -> Self {
        let shadow = |percent| Shadow::new(SHADOW_COUNT, GONE_MAX, percent);
        let rival = |percent| Rival { shadow: shadow(percent), score: 0.0 };
        let rivals = PERCENTS.into_iter().map(rival).collect();
        Self { rivals, current: 0, sampled_below: u32::MAX, capacity: 0, gone: 0 }
    }

    pub(crate) fn charged(&self) -> u64 {
        if self.rivals.is_empty() { 0 } else { Self::cost() }
    }

    /// Bytes that the shadows take.
    pub(crate) fn cost() -> u64 {
        PERCENTS.len() as u64 * shadow::charge(SHADOW_COUNT, GONE_MAX)
    }

    /// Follows the number of records that the cache holds when it is full.
    pub(crate) fn set_count(&mut self, count: usize) {
        let capacity = count.clamp(1, SHADOW_COUNT);
        let below = (capacity as u64 * u64::from(u32::MAX)).div_ceil(count.max(1) as u64);
        self.sampled_below = u32::try_from(below).unwrap_or(u32::MAX);
        let gone = (GHOST_COUNT_MIN * capacity / count.max(1)).clamp(SHADOW_COUNT, GONE_MAX);
        if (self.capacity, self.gone) != (capacity, gone) {
            (self.capacity, self.gone) = (capacity, gone);
            for rival in &mut self.rivals {
                rival.shadow.set_capacity(capacity, gone);
            }
        }
    }

    /// Shows a touch, resident or not, to the shadows if it is in the sample.
    #[inline]
    pub(crate) fn touch(&mut self, tag: u32) {
        // The low bits choose: the high ones are the order of the table.
        if tag.reverse_bits() <= self.sampled_below && !self.rivals.is_empty() {
            self.compare(tag);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a few hundred records")]
    fn compare(&mut self, tag: u32) {
        let capacity = self.capacity as f64;
        let kept = 1.0 - 1.0 / (capacity * WINDOW).max(50.0);
        for rival in &mut self.rivals {
            let hit = rival.shadow.touch(tag);
            rival.score = rival.score * kept + f64::from(u8::from(hit));
        }
        let scores = || self.rivals.iter().map(|rival| rival.score);
        let now = scores().nth(self.current).unwrap_or(0.0);
        let best = scores().enumerate().max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((best, score)) = best
            && score > now + 2.0 + LEAD * capacity
        {
            self.current = best;
        }
    }

    /// Records that are protected, of `count`; `None` when recency alone holds.
    #[inline]
    pub(crate) fn protected_max(&self, count: usize) -> Option<usize> {
        let percent = PERCENTS.get(self.current).copied().unwrap_or(100);
        (percent < 100).then(|| count.saturating_sub(((count * percent + 50) / 100).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: u32) -> u32 {
        key.wrapping_mul(0x9E37_79B9) ^ 0x5bd1_e995
    }

    #[test]
    fn recency_is_chosen_where_it_hits_and_left_where_it_does_not() {
        let mut choice = Choice::new();
        choice.set_count(2000);
        assert_eq!(choice.protected_max(2000), Some(1960));
        for round in 0..20 {
            (0..3000)
                .for_each(|key| choice.touch(tag(if round % 2 == 0 { key } else { 2999 - key })));
        }
        assert_eq!(choice.protected_max(2000), None);
        for _ in 0..40 {
            (0..3000).for_each(|key| choice.touch(tag(key)));
        }
        assert_eq!(choice.protected_max(2000), Some(1960));
    }
}
