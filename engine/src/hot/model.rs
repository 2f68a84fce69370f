//! The policy without bytes: what a shard of so many records would keep, for judging on traces.
//! Knows keys as numbers; knows nothing of budgets.
#![cfg_attr(
    not(feature = "internals"),
    expect(unreachable_pub, reason = "benches reach it through the feature `internals`")
)]

use std::fmt;
use std::io;

use crate::hot::policy::Policy;
use crate::hot::table::Table;

/// One shard's table and policy, bounded by a number of records; a key that misses is admitted.
pub struct PolicyModel {
    table: Table,
    policy: Policy,
    capacity: usize,
}

impl PolicyModel {
    /// Holds up to `capacity` records.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (table, mut policy, capacity) = (Table::new()?, Policy::new(u64::MAX), capacity.max(1));
        policy.expect(capacity);
        Ok(Self { table, policy, capacity })
    }

    /// One request for a key below 2^32 - 1; answers whether it was resident.
    pub fn touch(&mut self, key: u32) -> io::Result<bool> {
        let (tag, place) = (scrambled(key), key + 1);
        if let Some((at, _)) = self.table.find(tag, |other| other == place) {
            self.policy.touch(&mut self.table, at, tag);
            return Ok(true);
        }
        self.policy.show(tag);
        while self.policy.count() >= self.capacity {
            if self.policy.evict(&mut self.table).is_none() {
                break;
            }
        }
        if self.table.growth().is_some() {
            self.table.grow()?;
        }
        self.policy.admit(&mut self.table, tag, place, false);
        Ok(false)
    }

    /// Bytes that entries, ghost, epochs and shadows take; what lies with the record's own bytes,
    /// six of deadline and flags, is not in it.
    pub fn metadata_len(&self) -> u64 {
        self.table.charged() + self.policy.charged()
    }
}

impl fmt::Debug for PolicyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyModel({} of {} records)", self.policy.count(), self.capacity)
    }
}

/// The finalizer of the `SplitMix64` generator: dense numbers become hashes.
fn scrambled(key: u32) -> u32 {
    let mut x = u64::from(key).wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    u32::try_from((x ^ x >> 31) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_above_the_capacity_keeps_hitting_and_marks_outlive_many_turns() {
        let mut model = PolicyModel::new(1000).unwrap();
        let mut hits = 0;
        for turn in 0..40 {
            let found = (0..1200).filter(|&key| model.touch(key).unwrap()).count();
            hits += if turn >= 20 { found } else { 0 };
        }
        assert!(hits > 20 * 900, "{hits} of {}", 20 * 1000);
        // A few keys alone, until epochs have gone round several times.
        for round in 0..100_000_u32 {
            assert!(round < 20 || model.touch(round % 20).unwrap());
            model.touch(round % 20).unwrap();
        }
        model.policy.validate(&model.table);
    }
}
