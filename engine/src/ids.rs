//! Newtypes for what is counted and named: sequence numbers, files, places in the log.
//! Knows their widths on disk and in the index; knows nothing of what they point at.

use std::fmt;

/// Position of a mutation in the order of all mutations. Strictly increasing, never reused.
///
/// The first mutation of a store is 1; 0 means "before everything".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Seq(pub u64);

impl Seq {
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Number of a segment's file. Segments and archives draw from one counter; no number is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub u32);

/// Number of an archive's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ArchiveId(pub u32);

/// One life of a keyspace: creating and clearing a keyspace begin a new one. Records carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Incarnation(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}.seg", self.0)
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}.arc", self.0)
    }
}

/// Place of a segment in the table of open segments; reused after the segment has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(pub u32);

/// A record's place in the log: slot of its segment and byte offset, in 46 bits.
///
/// Offsets are multiples of 8, so 26 bits reach 512 MiB; 20 bits name the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location {
    pub slot: Slot,
    pub offset: u32,
}

impl Location {
    /// The place so many bytes behind this one, in the same segment.
    pub(crate) fn behind(self, len: u64) -> Self {
        let offset = u64::from(self.offset).saturating_add(len);
        Self { offset: u32::try_from(offset).unwrap_or(u32::MAX), ..self }
    }

    pub(crate) const BITS: u32 = 46;
    const OFFSET_BITS: u32 = 26;

    pub(crate) fn new(slot: Slot, offset: u32) -> Self {
        debug_assert!(offset.is_multiple_of(8), "records start at multiples of 8");
        Self { slot, offset }
    }

    /// Packs into the low 46 bits.
    pub(crate) fn pack(self) -> u64 {
        let offset = u64::from(self.offset >> 3);
        assert!(offset < 1 << Self::OFFSET_BITS, "limits::SEGMENT_FILE_LEN_MAX bounds offsets");
        assert!(self.slot.0 < 1 << 20, "limits::SEGMENT_COUNT_MAX bounds slots");
        u64::from(self.slot.0) << Self::OFFSET_BITS | offset
    }

    /// Reads the low 46 bits; the rest is ignored.
    pub(crate) fn unpack(bits: u64) -> Self {
        let offset = u32::try_from(bits & ((1 << Self::OFFSET_BITS) - 1)).unwrap_or(0) << 3;
        let slot = u32::try_from((bits >> Self::OFFSET_BITS) & 0xF_FFFF).unwrap_or(0);
        Self { slot: Slot(slot), offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_survives_packing_at_its_borders() {
        for (slot, offset) in [(0, 0), (0xF_FFFF, (512 << 20) - 8), (1, 8), (77, 4096)] {
            let location = Location::new(Slot(slot), offset);
            assert_eq!(Location::unpack(location.pack()), location);
            assert!(location.pack() < 1 << Location::BITS);
        }
    }

    #[test]
    fn file_names_are_fixed_width_numbers() {
        assert_eq!(SegmentId(17).to_string(), "0000000017.seg");
        assert_eq!(ArchiveId(u32::MAX).to_string(), "4294967295.arc");
    }

    #[test]
    fn the_last_sequence_number_has_no_successor() {
        assert_eq!(Seq(1).next(), Seq(2));
        assert_eq!(Seq(u64::MAX).next(), Seq(u64::MAX));
    }
}
