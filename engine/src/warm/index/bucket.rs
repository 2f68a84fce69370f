//! One bucket of the point index: six 10-byte entries, a version and a spill count in a cache line.
//! Knows the packing and the seqlock; knows nothing of homes, growth or records.
//!
//! Words 0 to 5 hold, for each entry, the tag (upper half) and the lower 32 bits of the location.
//! The other 16 bits of each entry (14 of location, touched, tombstone) fill word 6 and the lower
//! half of word 7; the upper half of word 7 is the version (16 bits, odd while a writer is inside)
//! and the spill count (16 bits). A location is never zero, since no record starts at offset 0, so
//! zeroed memory is an empty bucket.
#![expect(
    clippy::indexing_slicing,
    reason = "positions are below ENTRIES and words below WORDS: a bucket has a fixed size"
)]

use crate::ids::Location;
use crate::shim::atomic::{AtomicU64, Ordering, fence};
use crate::shim::spin_loop;

/// Entries of one bucket.
pub(crate) const ENTRIES: usize = 6;
/// Words of one bucket: one cache line.
pub(crate) const WORDS: usize = 8;

const LOCATION_HIGH_BITS: u64 = 0x3FFF;
const TOUCHED: u64 = 1 << 14;
const TOMBSTONE: u64 = 1 << 15;
const VERSION_SHIFT: u32 = 32;
const SPILL_SHIFT: u32 = 48;

/// One entry, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Upper half of the key's hash.
    pub tag: u32,
    /// Where the newest record of the key is.
    pub location: Location,
    /// That record is a tombstone.
    pub tombstone: bool,
    /// Somebody read it since the last pass of demotion.
    pub touched: bool,
}

/// A consistent copy of one bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Snapshot([u64; WORDS]);

/// Where the 16 high bits of entry `i` stand: word and shift.
fn high_place(i: usize) -> (usize, u32) {
    const SHIFTS: [u32; 4] = [0, 16, 32, 48];
    if i < 4 { (6, SHIFTS[i]) } else { (7, SHIFTS[i & 1]) }
}

/// What one look at a bucket says of one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// The first entry with the tag, and its position.
    pub first: Option<(usize, IndexEntry)>,
    /// There may be more with that tag here: a [`Snapshot`] tells.
    pub more: bool,
    /// As [`Snapshot::spill`].
    pub spill: bool,
}

/// Looks for a tag without copying the bucket: what nearly every search needs.
#[inline]
pub(crate) fn look(words: &[AtomicU64; WORDS], tag: u32) -> Look {
    loop {
        let before = words[7].load(Ordering::Acquire);
        let mut bits = 0_u32;
        for (i, word) in words.iter().take(ENTRIES).enumerate() {
            bits |= u32::from(word.load(Ordering::Relaxed) >> 32 == u64::from(tag)) << i;
        }
        let position = bits.trailing_zeros() as usize;
        let mut first = None;
        if position < ENTRIES {
            let (word, shift) = high_place(position);
            let high = (words[word].load(Ordering::Relaxed) >> shift) & 0xFFFF;
            let low = words[position].load(Ordering::Relaxed);
            first = unpack(low, high).map(|entry| (position, entry));
        }
        fence(Ordering::Acquire);
        let after = words[7].load(Ordering::Relaxed);
        let version = (before >> VERSION_SHIFT) & 0xFFFF;
        if version & 1 == 0 && version == (after >> VERSION_SHIFT) & 0xFFFF {
            // A vacant position has the tag 0 too.
            let more = bits & bits.wrapping_sub(1) != 0;
            return Look { first, more, spill: after >> SPILL_SHIFT != 0 };
        }
        spin_loop();
    }
}

/// Hands the entries with tags from `from` to below `to` to `each`; says whether to look into the
/// next bucket too. For whoever may write: nobody else changes the bucket meanwhile.
#[inline]
pub(crate) fn entries_between(
    words: &[AtomicU64; WORDS],
    from: u64,
    to: u64,
    mut each: impl FnMut(IndexEntry),
) -> bool {
    for (i, word) in words.iter().take(ENTRIES).enumerate() {
        let low = word.load(Ordering::Relaxed);
        if (from..to).contains(&(low >> 32)) {
            let (word, shift) = high_place(i);
            let high = (words[word].load(Ordering::Relaxed) >> shift) & 0xFFFF;
            if let Some(entry) = unpack(low, high) {
                each(entry);
            }
        }
    }
    words[7].load(Ordering::Relaxed) >> SPILL_SHIFT != 0
}

/// The same with the entries as they are packed: tag and location's low bits, and the rest.
#[inline]
pub(crate) fn packed_between(
    words: &[AtomicU64; WORDS],
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, u64),
) -> bool {
    let highs = [words[6].load(Ordering::Relaxed), words[7].load(Ordering::Relaxed)];
    for (i, word) in words.iter().take(ENTRIES).enumerate() {
        let low = word.load(Ordering::Relaxed);
        let (word, shift) = high_place(i);
        let high = (highs[word & 1] >> shift) & 0xFFFF;
        let is_there = low & 0xFFFF_FFFF != 0 || high & LOCATION_HIGH_BITS != 0;
        if is_there && (from..to).contains(&(low >> 32)) {
            each(low, high);
        }
    }
    highs[1] >> SPILL_SHIFT != 0
}

/// Counts one spill more or less. The counter shares a word with the version, so that readers see
/// one or the other. One writer at a time: the caller holds the append lock.
#[inline]
pub(crate) fn add_spill(words: &[AtomicU64; WORDS], by: i32) {
    let word = words[7].load(Ordering::Relaxed);
    let spill = i32::try_from(word >> SPILL_SHIFT).unwrap_or(0) + by;
    let spill = u64::from(u16::try_from(spill).unwrap_or(u16::MAX));
    let rest = word & !(0xFFFF << SPILL_SHIFT);
    words[7].store(rest | spill << SPILL_SHIFT, Ordering::Release);
}

#[inline]
fn unpack(low: u64, high: u64) -> Option<IndexEntry> {
    let packed = (high & LOCATION_HIGH_BITS) << 32 | (low & 0xFFFF_FFFF);
    (packed != 0).then(|| IndexEntry {
        tag: u32::try_from(low >> 32).unwrap_or(0),
        location: Location::unpack(packed),
        tombstone: high & TOMBSTONE != 0,
        touched: high & TOUCHED != 0,
    })
}

impl Snapshot {
    /// A bucket as its bytes were kept; nobody is writing it.
    #[inline]
    pub(crate) fn restore(bytes: &[u8; WORDS * 8]) -> Self {
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut words = [0; WORDS];
        for (to, from) in words.iter_mut().zip(chunks) {
            *to = u64::from_le_bytes(*from);
        }
        words[7] &= !(0xFFFF << VERSION_SHIFT);
        Self(words)
    }

    /// The words to keep.
    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// Stores the bucket where nobody else looks yet.
    #[inline]
    pub(crate) fn place(&self, words: &[AtomicU64; WORDS]) {
        for (to, from) in words.iter().zip(self.0) {
            to.store(from, Ordering::Relaxed);
        }
    }

    /// Reads without waiting for anybody but a writer that is inside this one bucket.
    pub(crate) fn read(words: &[AtomicU64; WORDS]) -> Self {
        loop {
            let before = words[7].load(Ordering::Acquire);
            let mut copy = [0; WORDS];
            for (to, from) in copy.iter_mut().zip(words) {
                *to = from.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            let after = words[7].load(Ordering::Relaxed);
            let version = (before >> VERSION_SHIFT) & 0xFFFF;
            if version & 1 == 0 && version == (after >> VERSION_SHIFT) & 0xFFFF {
                copy[7] = after;
                return Self(copy);
            }
            spin_loop();
        }
    }

    fn raw(&self, i: usize) -> (u64, u64) {
        let (word, shift) = high_place(i);
        (self.0[i], (self.0[word] >> shift) & 0xFFFF)
    }

    /// Entry `i`, unless it is empty.
    pub(crate) fn entry(&self, i: usize) -> Option<IndexEntry> {
        let (low, high) = self.raw(i);
        unpack(low, high)
    }

    /// The positions whose tag is `tag`, as bits; empty entries may be among them.
    pub(crate) fn matches(&self, tag: u32) -> u32 {
        let mut bits = 0;
        for i in 0..ENTRIES {
            bits |= u32::from(self.0[i] >> 32 == u64::from(tag)) << i;
        }
        bits
    }

    /// How many entries with their home here or before live behind this bucket.
    pub(crate) fn spill(&self) -> u16 {
        u16::try_from(self.0[7] >> SPILL_SHIFT).unwrap_or(u16::MAX)
    }

    /// The first empty position.
    #[inline]
    pub(crate) fn vacancy(&self) -> Option<usize> {
        (0..ENTRIES).find(|&i| self.0[i].trailing_zeros() >= 32 && self.entry(i).is_none())
    }

    /// Sets an entry as it was packed.
    #[inline]
    pub(crate) fn set_packed(&mut self, i: usize, low: u64, high: u64) {
        let (word, shift) = high_place(i);
        self.0[i] = low;
        self.0[word] = self.0[word] & !(0xFFFF << shift) | high << shift;
    }

    pub(crate) fn set(&mut self, i: usize, entry: Option<IndexEntry>) {
        let (low, high) = entry.map_or((0, 0), |entry| {
            let packed = entry.location.pack();
            assert!(packed != 0, "a record never starts at offset 0 of slot 0");
            let flags = u64::from(entry.touched) << 14 | u64::from(entry.tombstone) << 15;
            (u64::from(entry.tag) << 32 | packed & 0xFFFF_FFFF, packed >> 32 | flags)
        });
        self.set_packed(i, low, high);
    }

    pub(crate) fn set_spill(&mut self, spill: u16) {
        self.0[7] = self.0[7] & !(0xFFFF << SPILL_SHIFT) | u64::from(spill) << SPILL_SHIFT;
    }

    /// Stores the bucket back. One writer at a time: the caller holds the append lock.
    pub(crate) fn write(mut self, words: &[AtomicU64; WORDS]) {
        let version = (words[7].load(Ordering::Relaxed) >> VERSION_SHIFT) & 0xFFFF;
        assert!(version & 1 == 0, "one writer at a time");
        let odd = (version + 1) & 0xFFFF;
        let with =
            |word: u64, version: u64| word & !(0xFFFF << VERSION_SHIFT) | version << VERSION_SHIFT;
        words[7].store(with(words[7].load(Ordering::Relaxed), odd), Ordering::Relaxed);
        fence(Ordering::Release);
        for (to, from) in words.iter().zip(self.0).take(7) {
            to.store(from, Ordering::Relaxed);
        }
        self.0[7] = with(self.0[7], (odd + 1) & 0xFFFF);
        words[7].store(self.0[7], Ordering::Release);
    }
}

/// Sets the touched flag of entry `i`. Racing a writer may mark the entry that replaced it, which
/// costs a second chance and nothing else.
pub(crate) fn touch(words: &[AtomicU64; WORDS], i: usize) {
    let (word, shift) = high_place(i);
    words[word].fetch_or(TOUCHED << shift, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    fn words() -> [AtomicU64; WORDS] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    #[test]
    fn six_entries_fit_beside_spill_and_version_and_come_back() {
        let words = words();
        let mut bucket = Snapshot::read(&words);
        let entries: Vec<_> = (0..6_u32)
            .map(|i| IndexEntry {
                tag: u32::MAX - i,
                location: Location::new(Slot(0xF_FFF0 + i), 64 + i * 8),
                tombstone: i % 2 == 0,
                touched: i % 3 == 0,
            })
            .collect();
        for (i, entry) in entries.iter().enumerate() {
            bucket.set(i, Some(*entry));
        }
        bucket.set_spill(65_535);
        bucket.write(&words);
        let read = Snapshot::read(&words);
        for (i, entry) in entries.iter().enumerate() {
            assert_eq!(read.entry(i), Some(*entry));
        }
        assert_eq!((read.spill(), read.vacancy()), (65_535, None));
    }

    #[test]
    fn a_look_says_what_a_copy_says() {
        let words = words();
        let nothing = Look { first: None, more: false, spill: false };
        assert_eq!(look(&words, 7), nothing);
        // Six vacant positions look like six entries of the tag 0.
        assert_eq!((look(&words, 0).first, look(&words, 0).more), (None, true));
        let mut bucket = Snapshot::read(&words);
        let entry = |tag, slot| IndexEntry {
            tag,
            location: Location::new(Slot(slot), 640),
            tombstone: slot == 9,
            touched: slot == 8,
        };
        for (position, tag) in [(1, 7), (3, 5), (4, 7), (5, 0)] {
            bucket.set(position, Some(entry(tag, 6 + u32::try_from(position).unwrap())));
        }
        bucket.set_spill(3);
        bucket.write(&words);
        let read = Snapshot::read(&words);
        for (tag, position, more) in [(7, 1, true), (5, 3, false)] {
            let first = read.entry(position).map(|entry| (position, entry));
            assert_eq!(look(&words, tag), Look { first, more, spill: true });
        }
        let zero = look(&words, 0);
        assert!(zero.first.is_none() && zero.more, "a vacant position before the entry: {zero:?}");
        assert_eq!(look(&words, 8), Look { spill: true, ..nothing });
    }

    #[test]
    fn touching_changes_one_flag_of_one_entry() {
        let words = words();
        let mut bucket = Snapshot::read(&words);
        for i in 0..ENTRIES {
            let location = Location::new(Slot(1), 64);
            bucket.set(i, Some(IndexEntry { tag: 5, location, tombstone: false, touched: false }));
        }
        bucket.write(&words);
        touch(&words, 5);
        let read = Snapshot::read(&words);
        let touched: Vec<_> =
            (0..ENTRIES).filter(|&i| read.entry(i).is_some_and(|entry| entry.touched)).collect();
        assert_eq!(touched, [5]);
        assert_eq!(read.matches(5), 0b11_1111);
    }
}
