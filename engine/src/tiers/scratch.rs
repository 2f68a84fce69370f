//! Movement's share of the memory budget, and how much of it each of its parts may take.
//! Knows figures; knows nothing of who uses them.

/// What movement takes at a time, whatever the budget is: contexts of zstd, the filter of one
/// partition, a sample. Half of a small budget must do.
const SCRATCH_LEN: u64 = 8 << 20;
/// Bytes that movement remembers of each record of a batch, while it sorts them.
const RECORD_LEN: u64 = 48;
/// Records that a batch may always have.
const RECORDS_MIN: u64 = 16 << 10;
/// Keys that wait to be sorted in may always be so many.
const FRESH_MIN: u64 = 16 << 10;

/// The shares of a memory budget. Lengths are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scratch {
    budget: u64,
    len: u64,
}

impl Scratch {
    pub(crate) fn of(memory_budget: u64) -> Self {
        let len = (memory_budget / 8).max((memory_budget / 2).min(SCRATCH_LEN));
        Self { budget: memory_budget, len }
    }

    /// All of it: the hot tier leaves so much alone while movement works.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// What stays with movement while it rests; the hot tier uses the rest meanwhile. What a
    /// program's allocator keeps of what movement gave back lies in it.
    pub(crate) fn resting_len(self) -> u64 {
        self.len / 4
    }

    /// Records of one batch of cleaning or demotion.
    pub(crate) fn records_max(self) -> u64 {
        (self.len / 4 / RECORD_LEN).max(RECORDS_MIN)
    }

    /// Hashes that are kept for the filter of an archive that is being written.
    pub(crate) fn hashes_max(self) -> usize {
        usize::try_from(self.len / 16 / size_of::<u64>() as u64).unwrap_or(usize::MAX)
    }

    /// Bytes of blocks that a dictionary is made of.
    pub(crate) fn sample_max(self) -> u64 {
        self.len / 8
    }

    /// New keys that may wait until they are sorted in, before the puts that bring more do it.
    pub(crate) fn fresh_max(self) -> usize {
        let most = (self.budget / 32 / size_of::<u32>() as u64).max(FRESH_MIN);
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_budget_gives_half_and_a_large_one_an_eighth() {
        let shares = [4_u64 << 20, 16 << 20, 64 << 20, 1 << 30].map(|b| Scratch::of(b).len());
        assert_eq!(shares, [2 << 20, 8 << 20, 8 << 20, 128 << 20]);
    }

    #[test]
    fn the_parts_fit_into_the_whole() {
        for budget in [4_u64 << 20, 16 << 20, 256 << 20, 8 << 30] {
            let scratch = Scratch::of(budget);
            let hashes = scratch.hashes_max() as u64 * 8;
            let parts = scratch.records_max() * RECORD_LEN + hashes + scratch.sample_max();
            assert!(parts <= scratch.len(), "{parts} of {}", scratch.len());
        }
    }
}
