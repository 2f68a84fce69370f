//! One leaf of the order: up to 32 keys, each as four bytes behind what all share, a tag, and a
//! hint at where its record was last seen.
//! Knows positions in one leaf; knows nothing of other leaves or of where a key comes from.
//!
//! A sort key is the incarnation, big-endian, and the key's bytes. The four bytes (the
//! discriminator) decide nearly every comparison; keys that tie in them are read.

use crate::ids::{Location, Slot};

/// Keys of one leaf at most.
pub(crate) const LEAF_LEN_MAX: usize = 32;
/// Two records that begin so many bytes behind each other are read forward.
const NEAR_LEN: u32 = 16 << 10;
/// What the processor reads ahead within.
const PAGE_LEN: u32 = 4096;
/// Capacity of a leaf grows by so many entries.
const GROWTH: usize = 8;

/// The discriminator and the tag of one key.
#[derive(Debug)]
pub(crate) struct LeafEntry {
    pub discriminator: u32,
    pub tag: u32,
    pub hint: Hint,
}

/// Where the newest record of a key was when it was looked up last, in 32 bits; or nothing.
///
/// Nobody tells a hint when its record is superseded, moved, or its slot used again: who follows it
/// asks the segment for its mark, and whether it stood there when the leaf was last told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint(u32);

impl Hint {
    pub(crate) const NONE: Self = Self(u32::MAX);
    /// 23 bits of eighths reach 64 MiB; 9 bits name the slot.
    const OFFSET_BITS: u32 = 23;

    /// A hint as an image keeps it.
    pub(crate) fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// Whether hints can name all of so many slots.
    pub(crate) fn reaches(slots: usize) -> bool {
        slots <= 1 << (32 - Self::OFFSET_BITS)
    }

    /// The hint at a place; none where it does not fit.
    pub(crate) fn at(place: Location) -> Self {
        let (slot, offset) = (place.slot.0, place.offset >> 3);
        if slot >> (32 - Self::OFFSET_BITS) != 0 || offset >> Self::OFFSET_BITS != 0 {
            return Self::NONE;
        }
        Self(slot << Self::OFFSET_BITS | offset)
    }

    /// Whether a record here comes soon behind the one there: whoever reads both reads forward.
    #[inline]
    pub(crate) fn follows(self, before: Self) -> bool {
        // Slot and offset in one number: another slot is far away.
        self.0.wrapping_sub(before.0) < NEAR_LEN >> 3
    }

    /// Whether both records begin on the same page of memory.
    #[inline]
    pub(crate) fn shares_page(self, other: Self) -> bool {
        (self.0 ^ other.0) < PAGE_LEN >> 3
    }

    #[inline]
    pub(crate) fn place(self) -> Option<Location> {
        let offset = (self.0 & ((1 << Self::OFFSET_BITS) - 1)) << 3;
        let slot = Slot(self.0 >> Self::OFFSET_BITS);
        (self != Self::NONE).then(|| Location::new(slot, offset))
    }
}

/// The keys from one fence up to the next, in order.
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    /// So many bytes of the fence begin every key here.
    shared: u16,
    /// All hints here held when so many segments had entered their table, or later.
    entered: u32,
    entries: Vec<LeafEntry>,
}

/// Where a sort key belongs in a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It does not begin with what the leaf's keys share.
    Outside,
    /// Entries in this range tie with it; when the range is empty, it belongs there.
    Ties { from: usize, to: usize },
}

impl Leaf {
    /// A leaf of these sort keys, in order, under this fence. The hints held when so many segments
    /// had `entered` their table, or later.
    pub(crate) fn of<'a>(
        fence: &[u8],
        entered: u32,
        keys: impl Iterator<Item = (&'a [u8], u32, Hint)> + Clone,
    ) -> Self {
        let shared =
            keys.clone().fold(fence.len(), |shared, (key, ..)| shared.min(common_len(fence, key)));
        let mut entries = Vec::with_capacity(keys.clone().count().next_multiple_of(GROWTH));
        entries.extend(keys.map(|(key, tag, hint)| entry(key, shared, tag, hint)));
        Self { shared: u16::try_from(shared).unwrap_or(u16::MAX), entered, entries }
    }

    /// A leaf as it was: entries in order, with hints that hold.
    pub(crate) fn restore(
        shared: u16,
        entered: u32,
        list: impl ExactSizeIterator<Item = LeafEntry>,
    ) -> Self {
        let mut entries = Vec::with_capacity(list.len().next_multiple_of(GROWTH));
        entries.extend(list);
        Self { shared, entered, entries }
    }

    /// All hints here held when so many segments had entered their table, or later.
    #[inline]
    pub(crate) fn entered(&self) -> u32 {
        self.entered
    }

    /// Drops the hints that do not hold any more; the others held when so many segments had
    /// `entered`, which is no less than before.
    pub(crate) fn renew(&mut self, entered: u32, holds: impl Fn(Location) -> bool) {
        for entry in &mut self.entries {
            if entry.hint.place().is_some_and(|place| !holds(place)) {
                entry.hint = Hint::NONE;
            }
        }
        self.entered = entered;
    }

    /// Notes where the record of a key is; the leaf was renewed before. Nothing is noted where the
    /// key is not the only one with its tag and discriminator.
    pub(crate) fn note(&mut self, fence: &[u8], key: &[u8], tag: u32, hint: Hint) {
        let Place::Ties { from, to } = self.place(fence, key) else { return };
        let ties = self.entries.get_mut(from..to).unwrap_or(&mut []);
        let mut same = ties.iter_mut().filter(|entry| entry.tag == tag);
        if let (Some(entry), None) = (same.next(), same.next()) {
            entry.hint = hint;
        }
    }

    /// So many bytes of the fence begin every key here.
    pub(crate) fn shared(&self) -> u16 {
        self.shared
    }

    pub(crate) fn entries(&self) -> &[LeafEntry] {
        &self.entries
    }

    /// Bytes that the entries take.
    pub(crate) fn charged_len(&self) -> usize {
        self.entries.capacity() * size_of::<LeafEntry>()
    }

    /// Where `key` belongs.
    pub(crate) fn place(&self, fence: &[u8], key: &[u8]) -> Place {
        let shared = usize::from(self.shared);
        if common_len(fence, key) < shared {
            return Place::Outside;
        }
        let wanted = discriminator(key, shared);
        let from = self.entries.partition_point(|entry| entry.discriminator < wanted);
        let ties = self.entries.iter().skip(from).take_while(|e| e.discriminator == wanted);
        Place::Ties { from, to: from + ties.count() }
    }

    /// The first entry that may be at or above `key`.
    pub(crate) fn lower(&self, fence: &[u8], key: &[u8]) -> usize {
        match self.place(fence, key) {
            Place::Ties { from, .. } => from,
            Place::Outside if self.is_below(fence, key) => self.entries.len(),
            Place::Outside => 0,
        }
    }

    /// Behind the last entry that may be at or below `key`.
    pub(crate) fn upper(&self, fence: &[u8], key: &[u8]) -> usize {
        match self.place(fence, key) {
            Place::Ties { to, .. } => to,
            Place::Outside if self.is_below(fence, key) => self.entries.len(),
            Place::Outside => 0,
        }
    }

    /// Whether all keys here are below a key that does not begin with what they share.
    fn is_below(&self, fence: &[u8], key: &[u8]) -> bool {
        fence.get(..usize::from(self.shared)).is_some_and(|shared| shared < key)
    }

    /// Puts a key in front of entry `at`; the caller found the place and checked for room.
    pub(crate) fn insert(&mut self, at: usize, key: &[u8], tag: u32, hint: Hint) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(GROWTH);
        }
        let shared = usize::from(self.shared);
        self.entries.insert(at, entry(key, shared, tag, hint));
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= LEAF_LEN_MAX
    }
}

fn entry(key: &[u8], shared: usize, tag: u32, hint: Hint) -> LeafEntry {
    LeafEntry { discriminator: discriminator(key, shared), tag, hint }
}

/// The four bytes behind the shared ones, zeros where the key ends.
fn discriminator(key: &[u8], shared: usize) -> u32 {
    let rest = key.get(shared..).unwrap_or(&[]);
    if let Some(bytes) = rest.first_chunk::<4>() {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 4];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u32::from_be_bytes(bytes)
}

/// How many bytes two sort keys have in common at their start.
pub(crate) fn common_len(a: &[u8], b: &[u8]) -> usize {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let words = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    let (a, b) = (a.get(words..).unwrap_or(&[]), b.get(words..).unwrap_or(&[]));
    words + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_length_is_that_of_a_walk_byte_by_byte() {
        for (a, b) in [("", ""), ("a", "a"), ("abcdefghij", "abcdefghik"), ("abcdefgh", "abcdefgh")]
        {
            let walked = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            assert_eq!(common_len(a.as_bytes(), b.as_bytes()), walked, "{a} {b}");
        }
    }

    #[test]
    fn a_hint_is_the_place_or_nothing() {
        for (slot, offset) in [(0, 0), (510, (64 << 20) - 8), (3, 4096)] {
            let place = Location::new(Slot(slot), offset);
            assert_eq!(Hint::at(place).place(), Some(place));
        }
        assert_eq!(Hint::at(Location::new(Slot(512), 0)).place(), None);
        assert_eq!(Hint::at(Location::new(Slot(0), 64 << 20)).place(), None);
        assert_eq!(Hint::at(Location::new(Slot(511), (64 << 20) - 8)).place(), None);
    }

    #[test]
    fn a_noted_hint_stands_at_its_own_key_until_its_segment_does_not_hold() {
        let (fence, keys) = (b"key0", [&b"key0"[..], b"key1", b"key1x", b"key2"]);
        // The last two have the same tag.
        let told = keys.iter().zip([7, 8, 9, 9]).map(|(key, tag)| (*key, tag, Hint::NONE));
        let mut leaf = Leaf::of(fence, 3, told);
        let hint = |slot| Hint::at(Location::new(Slot(slot), 64));
        leaf.note(fence, keys[1], 8, hint(1));
        leaf.note(fence, keys[3], 9, hint(2));
        leaf.note(fence, b"key5", 8, hint(3));
        leaf.note(fence, b"z", 7, hint(4));
        let hints = |leaf: &Leaf| leaf.entries().iter().map(|entry| entry.hint).collect::<Vec<_>>();
        assert_eq!(hints(&leaf), [Hint::NONE, hint(1), Hint::NONE, hint(2)]);
        leaf.renew(5, |place| place.slot != Slot(1));
        assert_eq!(hints(&leaf), [Hint::NONE, Hint::NONE, Hint::NONE, hint(2)]);
        assert_eq!(leaf.entered(), 5);
        leaf.insert(1, b"key0x", 9, Hint::NONE);
        leaf.insert(1, b"key0x", 9, Hint::NONE);
        leaf.note(fence, b"key0x", 9, hint(6));
        assert!(!hints(&leaf).contains(&hint(6)), "nobody can tell which of the two it is");
    }

    #[test]
    fn a_place_is_between_the_neighbours_and_ties_are_told() {
        let keys: Vec<Vec<u8>> =
            [10_u32, 20, 30].iter().map(|n| format!("key{n:08}").into()).collect();
        let leaf = Leaf::of(
            b"key00000010",
            0,
            keys.iter().zip(1..).map(|(k, tag)| (&k[..], tag, Hint::NONE)),
        );
        let place = |key: &str| leaf.place(b"key00000010", key.as_bytes());
        assert_eq!(place("key00000015"), Place::Ties { from: 1, to: 1 });
        assert_eq!(place("key00000020"), Place::Ties { from: 1, to: 2 });
        assert_eq!(place("kez"), Place::Outside);
        let fence = b"key00000010";
        assert_eq!((leaf.lower(fence, b"a"), leaf.upper(fence, b"a")), (0, 0));
        assert_eq!((leaf.lower(fence, b"z"), leaf.upper(fence, b"z")), (3, 3));
        assert_eq!((leaf.lower(fence, b"key"), leaf.upper(fence, b"key")), (0, 0));
    }
}
