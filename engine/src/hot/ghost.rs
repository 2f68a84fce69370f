//! Hashes of records that left the hot tier or were touched once, each with when that was.
//! Knows tags and epochs; knows nothing of records or of what is done with the answer.
//!
//! Sets of 16 slots of 4 bytes: 16 bits of the tag and the epoch. A set that is full forgets what
//! it noted longest ago. Two tags with the same 16 bits are taken for one, once in 4096 questions:
//! that costs an early admission, never a wrong answer.
#![expect(clippy::indexing_slicing, reason = "sets are bounded by their construction")]

use crate::hot::policy::epoch::{EPOCHS, age};

const WAYS: usize = 16;
/// A slot: the low half is the fingerprint, the high half epoch + 1; 0 is vacant.
const FINGERPRINT: u32 = 0xFFFF;

#[derive(Debug)]
pub(crate) struct Ghost {
    sets: Vec<[u32; WAYS]>,
}

impl Ghost {
    pub(crate) fn new(count: usize) -> Self {
        Self { sets: vec![[0; WAYS]; count.div_ceil(WAYS).max(1)] }
    }

    /// How many hashes it remembers.
    pub(crate) fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    pub(crate) fn charged(&self) -> u64 {
        crate::hot::allocation_len(self.capacity() * 4)
    }

    fn set(&mut self, tag: u32) -> &mut [u32; WAYS] {
        let index = (u64::from(tag) * self.sets.len() as u64) >> 32;
        &mut self.sets[usize::try_from(index).unwrap_or(0)]
    }

    /// When this tag was noted, if it is remembered.
    pub(crate) fn find(&mut self, tag: u32) -> Option<u16> {
        let slot = self.set(tag).iter().find(|slot| is(**slot, tag));
        slot.map(|slot| epoch_of(*slot))
    }

    /// As [`Self::find`]; it is forgotten.
    pub(crate) fn take(&mut self, tag: u32) -> Option<u16> {
        let slot = self.set(tag).iter_mut().find(|slot| is(**slot, tag))?;
        Some(epoch_of(std::mem::take(slot)))
    }

    /// Notes a tag as of `epoch`.
    pub(crate) fn note(&mut self, tag: u32, epoch: u16, now: u16) {
        debug_assert!(epoch < EPOCHS, "epoch {epoch} of {EPOCHS}");
        let oldest = |slot: &&mut u32| match **slot {
            0 => u16::MAX,
            noted => age(epoch_of(noted), now),
        };
        let set = self.set(tag);
        let slot = match set.iter().position(|&slot| is(slot, tag)) {
            Some(index) => set.get_mut(index),
            None => set.iter_mut().max_by_key(oldest),
        };
        if let Some(slot) = slot {
            *slot = tag & FINGERPRINT | (u32::from(epoch) + 1) << 16;
        }
    }

    /// Forgets what is older than `age_max` in one part of `parts`.
    pub(crate) fn forget_part(&mut self, part: usize, parts: usize, now: u16, age_max: u16) {
        let bound = |part: usize| self.sets.len() * part / parts;
        let range = bound(part)..bound(part + 1);
        for slot in self.sets[range].iter_mut().flatten() {
            if *slot != 0 && age(epoch_of(*slot), now) > age_max {
                *slot = 0;
            }
        }
    }
}

fn is(slot: u32, tag: u32) -> bool {
    slot != 0 && slot & FINGERPRINT == tag & FINGERPRINT
}

fn epoch_of(slot: u32) -> u16 {
    u16::try_from((slot >> 16).saturating_sub(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_until_it_is_taken_or_crowded_out() {
        let mut ghost = Ghost::new(64);
        assert_eq!((ghost.capacity(), ghost.find(5)), (64, None));
        ghost.note(5, 7, 7);
        ghost.note(5, 9, 9);
        assert_eq!((ghost.find(5), ghost.take(5), ghost.take(5)), (Some(9), Some(9), None));
        for tag in 0..17 {
            ghost.note(tag, u16::try_from(tag).unwrap() + 10, 40);
        }
        assert_eq!((ghost.find(0), ghost.find(1), ghost.find(16)), (None, Some(11), Some(26)));
    }

    #[test]
    fn what_is_old_is_forgotten_before_its_epoch_comes_again() {
        let mut ghost = Ghost::new(16);
        ghost.note(1, EPOCHS - 5, EPOCHS - 5);
        ghost.note(2, 10, 10);
        ghost.forget_part(0, 1, 10, 12);
        assert_eq!((ghost.find(1), ghost.find(2)), (None, Some(10)));
    }
}
