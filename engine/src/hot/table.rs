//! The entries of one shard: where each resident record lies, found by 32 bits of its hash.
//! Knows tags, places and marks; knows nothing of records or of what the marks mean.
//!
//! Lines of 64 bytes, each six entries of 10 bytes: tag, place, mark; then a count of the entries
//! that found no room here and went on to the next line. The home line is the tag scaled to the
//! number of lines, so that the order of lines is the order of tags whatever the size: a table
//! grows by an eighth, in one sequential pass, without reading a record.
#![expect(clippy::indexing_slicing, reason = "lines and ways are bounded by their construction")]

use std::io;

use crate::vfs::map::anon::AnonMap;

const LINE_LEN: usize = 64;
const WAYS: usize = 6;
const PLACES: usize = WAYS * 4;
const MARKS: usize = WAYS * 8;
const SPILL: usize = WAYS * 10;
/// Lines of the smallest table: a page.
const LINES_MIN: usize = 64;
/// Tables from this length on ask for huge pages.
const HUGE_LEN_MIN: usize = 2 << 20;

type Line = [u8; LINE_LEN];

/// One entry's position; it holds until the next change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(usize);

impl At {
    pub(crate) fn slot(self) -> usize {
        self.0
    }
}

/// A resident record: tag, place of its bytes, and a mark of whoever keeps the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub tag: u32,
    pub place: u32,
    /// Never 0: that is a vacant slot.
    pub mark: u16,
}

#[derive(Debug)]
pub(crate) struct Table {
    lines: AnonMap,
    count: usize,
}

impl Table {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { lines: lines_of(LINES_MIN)?, count: 0 })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots, vacant ones too: positions run below this.
    pub(crate) fn slots(&self) -> usize {
        self.line_count() * WAYS
    }

    pub(crate) fn charged(&self) -> u64 {
        self.lines.charged_len() as u64
    }

    /// Bytes of the table that the next entry needs, when that is not this one.
    pub(crate) fn growth(&self) -> Option<u64> {
        (self.count + 1 > room(self.line_count())).then(|| len_of(grown(self.line_count())) as u64)
    }

    /// Makes room for one more entry.
    pub(crate) fn grow(&mut self) -> io::Result<()> {
        self.rebuild(grown(self.line_count()))
    }

    /// Gives memory back when most slots are vacant.
    pub(crate) fn shrink(&mut self) -> io::Result<()> {
        let wanted = (self.count * 8 / (WAYS * 7) + LINES_MIN / 2).max(LINES_MIN);
        if wanted * 3 / 2 < self.line_count() { self.rebuild(grown(wanted)) } else { Ok(()) }
    }

    fn rebuild(&mut self, line_count: usize) -> io::Result<()> {
        let old = std::mem::replace(&mut self.lines, lines_of(line_count)?);
        self.count = 0;
        for line in old.as_slice().as_chunks::<LINE_LEN>().0 {
            for entry in (0..WAYS).filter_map(|way| entry_of(line, way)) {
                self.insert(entry);
            }
        }
        Ok(())
    }

    fn line_count(&self) -> usize {
        self.lines.as_slice().len() / LINE_LEN
    }

    fn lines(&self) -> &[Line] {
        self.lines.as_slice().as_chunks::<LINE_LEN>().0
    }

    fn line_mut(&mut self, line: usize) -> &mut Line {
        &mut self.lines.as_mut_slice().as_chunks_mut::<LINE_LEN>().0[line]
    }

    /// The entry with this tag whose place `is` the one that is looked for.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut is: impl FnMut(u32) -> bool) -> Option<(At, u16)> {
        let lines = self.lines();
        let home = home(tag, lines.len());
        let mut index = home;
        loop {
            let line = &lines[index];
            for way in 0..WAYS {
                if u32_at(line, way * 4) == tag {
                    let mark = u16_at(line, MARKS + way * 2);
                    if mark != 0 && is(u32_at(line, PLACES + way * 4)) {
                        return Some((At(index * WAYS + way), mark));
                    }
                }
            }
            if u16_at(line, SPILL) == 0 {
                return None;
            }
            index = next(index, lines.len());
            if index == home {
                return None;
            }
        }
    }

    /// Enters a record. There is room: `growth` said so.
    pub(crate) fn insert(&mut self, entry: Entry) -> At {
        assert!(entry.mark != 0, "a mark of 0 is a vacant slot");
        let line_count = self.line_count();
        let mut index = home(entry.tag, line_count);
        loop {
            let line = self.line_mut(index);
            if let Some(way) = (0..WAYS).find(|way| u16_at(line, MARKS + way * 2) == 0) {
                line[way * 4..][..4].copy_from_slice(&entry.tag.to_le_bytes());
                line[PLACES + way * 4..][..4].copy_from_slice(&entry.place.to_le_bytes());
                line[MARKS + way * 2..][..2].copy_from_slice(&entry.mark.to_le_bytes());
                self.count += 1;
                return At(index * WAYS + way);
            }
            spill(line, 1);
            index = next(index, line_count);
        }
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, at: At) {
        let Some(entry) = self.entry(at.0) else { return };
        let line_count = self.line_count();
        let mut index = home(entry.tag, line_count);
        while index != at.0 / WAYS {
            spill(self.line_mut(index), u16::MAX);
            index = next(index, line_count);
        }
        self.set_mark(at, 0);
        self.count -= 1;
    }

    /// The record in a slot, unless it is vacant.
    #[inline]
    pub(crate) fn entry(&self, slot: usize) -> Option<Entry> {
        entry_of(self.lines().get(slot / WAYS)?, slot % WAYS)
    }

    pub(crate) fn at(slot: usize) -> At {
        At(slot)
    }

    #[inline]
    pub(crate) fn place(&self, at: At) -> u32 {
        u32_at(&self.lines()[at.0 / WAYS], PLACES + at.0 % WAYS * 4)
    }

    #[inline]
    pub(crate) fn mark(&self, at: At) -> u16 {
        u16_at(&self.lines()[at.0 / WAYS], MARKS + at.0 % WAYS * 2)
    }

    #[inline]
    pub(crate) fn set_mark(&mut self, at: At, mark: u16) {
        let line = self.line_mut(at.0 / WAYS);
        line[MARKS + at.0 % WAYS * 2..][..2].copy_from_slice(&mark.to_le_bytes());
    }

    pub(crate) fn set_place(&mut self, at: At, place: u32) {
        let line = self.line_mut(at.0 / WAYS);
        line[PLACES + at.0 % WAYS * 4..][..4].copy_from_slice(&place.to_le_bytes());
    }

    /// Asserts that every entry is found from its home and that the count is right.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let entries: Vec<Entry> = (0..self.slots()).filter_map(|slot| self.entry(slot)).collect();
        assert_eq!(entries.len(), self.count);
        for entry in entries {
            let found = self.find(entry.tag, |place| place == entry.place);
            assert_eq!(found.map(|(_, mark)| mark), Some(entry.mark), "lost {entry:?}");
        }
    }
}

fn lines_of(line_count: usize) -> io::Result<AnonMap> {
    let len = len_of(line_count);
    AnonMap::new(len, len >= HUGE_LEN_MIN)
}

/// Whole pages, so that what is mapped is what is used.
fn len_of(line_count: usize) -> usize {
    (line_count * LINE_LEN).next_multiple_of(4096)
}

/// Entries that this many lines take: seven eighths of their slots.
fn room(line_count: usize) -> usize {
    line_count * WAYS * 7 / 8
}

fn grown(line_count: usize) -> usize {
    line_count + (line_count / 8).max(LINES_MIN)
}

#[inline]
fn home(tag: u32, line_count: usize) -> usize {
    usize::try_from((u64::from(tag) * line_count as u64) >> 32).unwrap_or(0)
}

#[inline]
fn next(line: usize, line_count: usize) -> usize {
    if line + 1 == line_count { 0 } else { line + 1 }
}

#[inline]
fn entry_of(line: &Line, way: usize) -> Option<Entry> {
    let mark = u16_at(line, MARKS + way * 2);
    let (tag, place) = (u32_at(line, way * 4), u32_at(line, PLACES + way * 4));
    (mark != 0).then_some(Entry { tag, place, mark })
}

fn spill(line: &mut Line, by: u16) {
    let count = u16_at(line, SPILL).wrapping_add(by);
    line[SPILL..][..2].copy_from_slice(&count.to_le_bytes());
}

#[inline]
fn u32_at(line: &Line, at: usize) -> u32 {
    u32::from_le_bytes([line[at], line[at + 1], line[at + 2], line[at + 3]])
}

#[inline]
fn u16_at(line: &Line, at: usize) -> u16 {
    u16::from_le_bytes([line[at], line[at + 1]])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_table_holds_what_a_map_holds(
            ops in proptest::collection::vec((any::<bool>(), 0_u32..1200), 0..3000),
            spread in prop_oneof![Just(1_u32), Just(3_500_000)],
        ) {
            let mut table = Table::new().unwrap();
            let mut model = HashMap::new();
            for (i, (put, key)) in ops.into_iter().enumerate() {
                let tag = key.wrapping_mul(spread) / 2;
                let found = table.find(tag, |place| place == key);
                prop_assert_eq!(found.map(|(_, mark)| mark), model.get(&key).copied());
                if let Some((at, _)) = found {
                    table.remove(at);
                    model.remove(&key);
                }
                if put {
                    if table.growth().is_some() {
                        table.grow().unwrap();
                    }
                    let mark = u16::try_from(i % 1000).unwrap() + 1;
                    table.insert(Entry { tag, place: key, mark });
                    model.insert(key, mark);
                }
            }
            table.validate();
            table.shrink().unwrap();
            table.validate();
            prop_assert_eq!(table.count(), model.len());
        }
    }

    #[test]
    fn a_table_that_emptied_gives_its_memory_back() {
        let mut table = Table::new().unwrap();
        for key in 0..50_000_u32 {
            if table.growth().is_some() {
                table.grow().unwrap();
            }
            table.insert(Entry { tag: key.wrapping_mul(0x9E37_79B9), place: key, mark: 1 });
        }
        assert!(table.charged() < 50_000 * 14, "{} bytes for 50000 entries", table.charged());
        for slot in 0..table.slots() {
            if table.entry(slot).is_some_and(|entry| entry.place >= 10) {
                table.remove(Table::at(slot));
            }
        }
        table.shrink().unwrap();
        assert_eq!((table.count(), table.charged()), (10, 8192));
        table.validate();
    }
}
