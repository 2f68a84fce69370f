//! The trailer of a sealed segment: its records in hash order, in groups of 64, and where each is.
//! A second witness of the segment's keys, and all that opening reads of it. Pure bytes.
//! format-spec.md section 5.

use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::ids::{Incarnation, Seq};
use crate::limits::SEGMENT_FILE_LEN_MAX;

/// First bytes of a trailer.
pub(crate) const TRAILER_MAGIC: &[u8; 8] = b"TRCTRL01";
/// Entries of one group; each group can be decoded by itself.
pub(crate) const TRAILER_GROUP_COUNT: usize = 64;

const FLAG_TOMBSTONE: u64 = 1;
const FLAG_DEADLINE: u64 = 2;
const FLAG_SUPERSEDED: u64 = 4;
const FLAG_BITS: u32 = 3;

/// One record of the segment, as its trailer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrailerEntry {
    /// Upper half of the key's hash.
    pub tag: u32,
    /// Bytes from the start of the file.
    pub offset: u32,
    /// Encoded length of the record.
    pub len: u32,
    pub seq: Seq,
    pub deadline_ms: u64,
    pub incarnation: Incarnation,
    pub tombstone: bool,
    /// A newer record of the same key lies in the same segment.
    pub superseded: bool,
}

/// Encodes entries that the caller hands over in order of (tag, offset).
pub(crate) struct TrailerBuilder {
    incarnations: Vec<Incarnation>,
    first_seq: Seq,
    deadline_base_ms: u64,
    directory: Vec<(u32, u32)>,
    groups: Vec<u8>,
    count: u32,
    last: (u32, u32),
}

impl TrailerBuilder {
    /// `first_seq` and `deadline_base_ms` are at most what any entry holds.
    pub(crate) fn new(first_seq: Seq, deadline_base_ms: u64) -> Self {
        Self {
            incarnations: Vec::new(),
            first_seq,
            deadline_base_ms,
            directory: Vec::new(),
            groups: Vec::new(),
            count: 0,
            last: (0, 0),
        }
    }

    pub(crate) fn push(&mut self, entry: &TrailerEntry) {
        assert!((entry.tag, entry.offset) >= self.last, "trailer entries come in hash order");
        if (self.count as usize).is_multiple_of(TRAILER_GROUP_COUNT) {
            let at = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            self.directory.push((entry.tag, at));
            self.groups.put_varint(0);
        } else {
            self.groups.put_varint(u64::from(entry.tag - self.last.0));
        }
        self.last = (entry.tag, entry.offset);
        self.put_rest(entry);
        self.count += 1;
    }

    fn put_rest(&mut self, entry: &TrailerEntry) {
        let flags = if entry.tombstone { FLAG_TOMBSTONE } else { 0 }
            | if entry.deadline_ms != 0 { FLAG_DEADLINE } else { 0 }
            | if entry.superseded { FLAG_SUPERSEDED } else { 0 };
        self.groups.put_varint(u64::from(entry.offset / 8));
        self.groups.put_varint(u64::from(entry.len / 8) << FLAG_BITS | flags);
        self.groups.put_varint(entry.seq.0 - self.first_seq.0);
        let known = self.incarnations.iter().position(|&one| one == entry.incarnation);
        let index = known.unwrap_or_else(|| {
            self.incarnations.push(entry.incarnation);
            self.incarnations.len() - 1
        });
        self.groups.put_varint(index as u64);
        if entry.deadline_ms != 0 {
            self.groups.put_varint(entry.deadline_ms - self.deadline_base_ms);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.groups.len() + 64);
        out.put_bytes(TRAILER_MAGIC);
        out.put_u32(self.count);
        out.put_u32(u32::try_from(self.directory.len()).unwrap_or(u32::MAX));
        out.put_u64(self.first_seq.0);
        out.put_u64(self.deadline_base_ms);
        out.put_u32(u32::try_from(self.incarnations.len()).unwrap_or(u32::MAX));
        out.put_u32(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        out.put_u64(0);
        for incarnation in &self.incarnations {
            out.put_u32(incarnation.0);
        }
        for (tag, at) in &self.directory {
            out.put_u32(*tag);
            out.put_u32(*at);
        }
        out.put_bytes(&self.groups);
        out
    }
}

/// A trailer that was checked against the footer's checksum; entries are decoded one by one.
#[derive(Debug, Clone)]
pub(crate) struct TrailerReader<'a> {
    count: u32,
    first_seq: Seq,
    deadline_base_ms: u64,
    incarnations: &'a [u8],
    directory: &'a [u8],
    groups: &'a [u8],
}

impl<'a> TrailerReader<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Decoded<Self> {
        let mut fields = Fields::new(bytes);
        fields.expect("trailer magic", TRAILER_MAGIC)?;
        let count = fields.u32_at_most("entry count", SEGMENT_FILE_LEN_MAX / 40)?;
        let groups = fields.u32("group count")? as usize;
        if groups != (count as usize).div_ceil(TRAILER_GROUP_COUNT) {
            return Err(FieldError::new("group count", groups, "entries in groups of 64"));
        }
        let first_seq = Seq(fields.u64("first seq")?);
        let deadline_base_ms = fields.u64("deadline base")?;
        let incarnations = fields.u32("incarnation count")? as usize;
        let groups_len = fields.u32("groups length")? as usize;
        fields.expect("reserved", &[0; 8])?;
        let incarnations = fields.bytes("incarnations", incarnations.saturating_mul(4))?;
        let directory = fields.bytes("directory", groups.saturating_mul(8))?;
        let groups = fields.bytes("groups", groups_len)?;
        fields.finish("trailer end")?;
        Ok(Self { count, first_seq, deadline_base_ms, incarnations, directory, groups })
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Every entry in hash order; ends with the first that does not decode.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Decoded<TrailerEntry>> + use<'a> {
        let this = self.clone();
        let mut fields = Fields::new(this.groups);
        let mut tag = 0;
        let mut index = 0;
        let mut broken = false;
        std::iter::from_fn(move || {
            if index >= this.count || broken {
                return None;
            }
            let in_group = (index as usize) % TRAILER_GROUP_COUNT;
            let entry = (|| {
                if in_group == 0 {
                    tag = this.group(index as usize / TRAILER_GROUP_COUNT)?.0;
                }
                this.entry(&mut fields, &mut tag)
            })();
            broken = entry.is_err();
            index += 1;
            Some(entry)
        })
    }

    /// The same, to be read a piece at a time.
    pub(crate) fn cursor(self) -> TrailerCursor<'a> {
        TrailerCursor {
            fields: Fields::new(self.groups),
            index: 0,
            tag: 0,
            told: false,
            trailer: self,
        }
    }

    /// First tag and start of a group.
    fn group(&self, index: usize) -> Decoded<(u32, u32)> {
        let mut fields = Fields::new(self.directory.get(index * 8..).unwrap_or(&[]));
        Ok((fields.u32("group tag")?, fields.u32("group start")?))
    }

    fn entry(&self, fields: &mut Fields<'_>, tag: &mut u32) -> Decoded<TrailerEntry> {
        let delta = fields.varint32("tag delta")?;
        *tag = tag.checked_add(delta).ok_or_else(overflow)?;
        self.behind_tag(fields, *tag)
    }

    #[inline]
    fn behind_tag(&self, fields: &mut Fields<'_>, tag: u32) -> Decoded<TrailerEntry> {
        let offset = fields.varint("offset")?;
        let len_flags = fields.varint("length and flags")?;
        let len = (len_flags >> FLAG_BITS).checked_mul(8).ok_or_else(overflow)?;
        let offset = offset.checked_mul(8).ok_or_else(overflow)?;
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > SEGMENT_FILE_LEN_MAX) {
            return Err(overflow());
        }
        let seq = fields.varint("seq delta")?;
        let seq = Seq(self.first_seq.0.checked_add(seq).ok_or_else(overflow)?);
        let index = fields.varint32("incarnation index")? as usize;
        let incarnation = self.incarnations.get(index.saturating_mul(4)..).unwrap_or(&[]);
        let incarnation = Incarnation(Fields::new(incarnation).u32("incarnation index")?);
        let mut deadline_ms = 0;
        if len_flags & FLAG_DEADLINE != 0 {
            let delta = fields.varint("deadline")?;
            deadline_ms = self.deadline_base_ms.checked_add(delta).ok_or_else(overflow)?;
        }
        Ok(TrailerEntry {
            tag,
            offset: u32::try_from(offset).map_err(|_| overflow())?,
            len: u32::try_from(len).map_err(|_| overflow())?,
            seq,
            deadline_ms,
            incarnation,
            tombstone: len_flags & FLAG_TOMBSTONE != 0,
            superseded: len_flags & FLAG_SUPERSEDED != 0,
        })
    }

    /// The entry of a record, found by the directory without reading the rest: entries rise by tag
    /// and place, so that a tag that fills the trailer costs no more than another.
    pub(crate) fn find(&self, tag: u32, offset: u32) -> Decoded<Option<TrailerEntry>> {
        let (mut low, mut high) = (0, self.directory.len() / 8);
        while low < high {
            let middle = usize::midpoint(low, high);
            let first = self.group_entries(middle)?.next().transpose()?;
            if first.is_some_and(|first| (first.tag, first.offset) <= (tag, offset)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(group) = low.checked_sub(1) else { return Ok(None) };
        for entry in self.group_entries(group)? {
            let entry = entry?;
            if (entry.tag, entry.offset) == (tag, offset) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn group_entries(
        &self,
        group: usize,
    ) -> Decoded<impl Iterator<Item = Decoded<TrailerEntry>> + '_> {
        let (mut tag, start) = self.group(group)?;
        let mut fields = Fields::new(self.groups.get(start as usize..).unwrap_or(&[]));
        let before = group.saturating_mul(TRAILER_GROUP_COUNT);
        let members = (self.count as usize).saturating_sub(before).min(TRAILER_GROUP_COUNT);
        #[cfg(test)]
        tests::GROUPS_READ.set(tests::GROUPS_READ.get() + 1);
        Ok((0..members).map(move |_| self.entry(&mut fields, &mut tag)))
    }
}

#[cold]
fn overflow() -> FieldError {
    FieldError::new("trailer entry", "a number too large", "a smaller one")
}

/// Reads the entries of a trailer as far as somebody wants, and on from there.
#[derive(Debug)]
pub(crate) struct TrailerCursor<'a> {
    trailer: TrailerReader<'a>,
    fields: Fields<'a>,
    /// Entries that were read.
    index: u32,
    /// The tag of the last entry; of the next one, when that was read already.
    tag: u32,
    told: bool,
}

impl TrailerCursor<'_> {
    /// Hands the entries whose tags are below `end` to `each`, with their numbers. Fails at the
    /// first entry that does not decode or is out of order.
    #[inline]
    pub(crate) fn read_below(
        &mut self,
        end: u64,
        mut each: impl FnMut(u32, &TrailerEntry),
    ) -> Decoded<()> {
        while self.index < self.trailer.count {
            if !self.told {
                self.read_tag()?;
                self.told = true;
            }
            if u64::from(self.tag) >= end {
                break;
            }
            let entry = self.trailer.behind_tag(&mut self.fields, self.tag)?;
            each(self.index, &entry);
            self.index += 1;
            self.told = false;
        }
        Ok(())
    }

    #[inline]
    fn read_tag(&mut self) -> Decoded<()> {
        let index = self.index as usize;
        if index.is_multiple_of(TRAILER_GROUP_COUNT) {
            let first = self.trailer.group(index / TRAILER_GROUP_COUNT)?.0;
            if first < self.tag {
                return Err(FieldError::new("group tag", first, "tags that rise"));
            }
            self.tag = first;
        }
        let delta = self.fields.varint32("tag delta")?;
        self.tag = self.tag.checked_add(delta).ok_or_else(overflow)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// Groups that searches of this thread looked into.
        pub(super) static GROUPS_READ: Cell<u32> = const { Cell::new(0) };
    }

    fn entries(seeds: &[(u32, u32, u64, u64)]) -> Vec<TrailerEntry> {
        let mut entries: Vec<_> = seeds
            .iter()
            .enumerate()
            .map(|(i, &(tag, len, seq, deadline))| TrailerEntry {
                tag,
                offset: u32::try_from(64 + i * 8).unwrap(),
                len: (len % 1000 + 5) * 8,
                seq: Seq(100 + seq % 1000),
                deadline_ms: if deadline % 3 == 0 { 0 } else { 1000 + deadline % 5000 },
                incarnation: Incarnation(tag % 4),
                tombstone: len % 2 == 0,
                superseded: len % 5 == 0,
            })
            .collect();
        entries.sort_by_key(|entry| (entry.tag, entry.offset));
        entries
    }

    fn encode(entries: &[TrailerEntry]) -> Vec<u8> {
        let mut builder = TrailerBuilder::new(Seq(100), 1000);
        for entry in entries {
            builder.push(entry);
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn a_trailer_comes_back_in_hash_order_and_finds_each_tag(
            seeds in proptest::collection::vec(
                (0_u32..50_000, any::<u32>(), any::<u64>(), any::<u64>()), 0..400)
        ) {
            let entries = entries(&seeds);
            let bytes = encode(&entries);
            let reader = TrailerReader::decode(&bytes).unwrap();
            let read: Vec<_> = reader.entries().collect::<Decoded<_>>().unwrap();
            prop_assert_eq!(&read, &entries);
            let (mut pieces, mut cursor) = (Vec::new(), reader.clone().cursor());
            for end in [3, 3, 20_000, 1 << 32] {
                cursor.read_below(end, |number, entry| pieces.push((number, *entry))).unwrap();
                let below = entries.iter().filter(|entry| u64::from(entry.tag) < end).count();
                prop_assert_eq!(pieces.len(), below);
            }
            prop_assert!(pieces.iter().map(|(_, entry)| entry).eq(&entries));
            prop_assert!(pieces.iter().map(|(number, _)| *number).eq(0..reader.count()));
            for entry in &entries {
                prop_assert_eq!(reader.find(entry.tag, entry.offset).unwrap(), Some(*entry));
                prop_assert_eq!(reader.find(entry.tag, entry.offset + 4).unwrap(), None);
            }
            prop_assert_eq!(reader.find(u32::MAX, 64).unwrap(), None);
            prop_assert_eq!(reader.find(0, 0).unwrap(), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0_usize..300,
            with: u8,
        ) {
            if let Ok(reader) = TrailerReader::decode(&bytes) {
                prop_assert!(reader.entries().count() <= bytes.len());
            }
            bytes = encode(&entries(&[(1, 2, 3, 4), (70_000, 9, 8, 7)]));
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok(reader) = TrailerReader::decode(&bytes) {
                prop_assert!(reader.entries().count() <= 4000);
                drop((reader.find(1, 64), reader.find(70_000, 72)));
            }
        }
    }

    #[test]
    fn counts_and_places_beyond_what_a_segment_may_hold_are_refused() {
        let entry = |offset: u64, len: u64| TrailerEntry {
            offset: u32::try_from(offset).unwrap(),
            len: u32::try_from(len).unwrap(),
            ..entries(&[(7, 2, 3, 4)])[0]
        };
        let read = |entry: TrailerEntry| {
            let bytes = encode(&[entry]);
            let offset = entry.offset;
            TrailerReader::decode(&bytes).unwrap().find(7, offset).is_ok()
        };
        assert!(read(entry(SEGMENT_FILE_LEN_MAX - 80, 80)));
        assert!(!read(entry(SEGMENT_FILE_LEN_MAX - 80, 88)));
        assert!(!read(entry(SEGMENT_FILE_LEN_MAX, 80)));
        assert!(!read(entry(64, 0)));
        let mut bytes = encode(&[entry(64, 80)]);
        let most = u32::try_from(SEGMENT_FILE_LEN_MAX / 40).unwrap();
        for (count, field) in [(most, "group count"), (most + 1, "entry count")] {
            bytes[8..12].copy_from_slice(&count.to_le_bytes());
            assert_eq!(TrailerReader::decode(&bytes).unwrap_err().field, field);
        }
    }

    #[test]
    fn one_tag_in_every_entry_costs_a_search_no_more_than_twenty_groups() {
        let entries: Vec<_> = (0..100_000_u32)
            .map(|i| TrailerEntry { offset: 64 + i * 48, ..self::entries(&[(7, 2, 3, 4)])[0] })
            .collect();
        let bytes = encode(&entries);
        let reader = TrailerReader::decode(&bytes).unwrap();
        for entry in entries.iter().step_by(977) {
            GROUPS_READ.set(0);
            assert_eq!(reader.find(7, entry.offset).unwrap(), Some(*entry));
            assert!(GROUPS_READ.get() <= 20, "{} groups", GROUPS_READ.get());
        }
    }

    #[test]
    fn an_entry_without_ttl_costs_about_a_dozen_bytes() {
        let entries: Vec<_> = (0..10_000_u32)
            .map(|i| TrailerEntry {
                tag: i * 400_000,
                offset: 64 + (i * 7919 % 10_000) * 168,
                len: 168,
                seq: Seq(100 + u64::from(i)),
                deadline_ms: 0,
                incarnation: Incarnation(1),
                tombstone: false,
                superseded: false,
            })
            .collect();
        assert!(encode(&entries).len() < 10_000 * 12);
    }
}
