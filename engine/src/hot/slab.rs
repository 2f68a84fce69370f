//! The bytes of one shard's records: mapped slabs with the blocks cut to each record's length.
//! Knows blocks and what a record's block holds; knows nothing of who is resident, or why.
//!
//! Segregated fit (as in TLSF: Masmano and others, ECRTS 2004): vacant blocks stand in lists by
//! length, a word has one bit a list, neighbours that are vacant become one block. Allocating and
//! freeing take constant time. A record above half a slab has a map of its own, gone when it goes.
//!
//! A place is a slab's number from 1, and an offset in units of 16 bytes. A record's block: two
//! flags, deadline and key length in one word, `seq`, incarnation, value length, key, value. Its
//! length follows from these. A vacant block: length and flag, two links, and the length again at
//! its end. What all this takes is what is mapped.
#![expect(clippy::indexing_slicing, reason = "places come from this module's own lists")]

use std::io;

use crate::hot::HotRecord;
use crate::ids::{Incarnation, Seq};
use crate::vfs::map::anon::AnonMap;

#[cfg(test)]
mod check;

pub(crate) const UNIT: usize = 16;
const HEAD: usize = 24;
/// Bits of a place that say where in the slab.
const OFFSET_BITS: u32 = 17;
pub(crate) const SLAB_LEN_MAX: usize = UNIT << OFFSET_BITS;
const SLAB_COUNT_MAX: usize = (1 << (32 - OFFSET_BITS)) - 1;
const LISTS: usize = 128;
const VACANT: u32 = 1;
const AFTER_VACANT: u64 = 2;
const DEADLINE_BITS: u32 = 46;
/// Blocks of the list that may or may not be long enough which are looked at.
const TRIED: usize = 4;

/// A slab, and the units of it that records take.
#[derive(Debug)]
struct Slab {
    map: AnonMap,
    used: usize,
    single: bool,
}

#[derive(Debug)]
pub(crate) struct Slabs {
    maps: Vec<Option<Slab>>,
    slab_len: usize,
    heads: [u32; LISTS],
    filled: u128,
    mapped: u64,
    used: u64,
}

/// A resident record, read back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub incarnation: Incarnation,
    pub key: &'a [u8],
    pub record: HotRecord<'a>,
}

/// Units that a record's block takes.
pub(crate) fn units(key_len: usize, value_len: usize) -> usize {
    (HEAD + key_len + value_len).div_ceil(UNIT)
}

impl Slabs {
    pub(crate) fn new(slab_len: usize) -> Self {
        assert!((4096..=SLAB_LEN_MAX).contains(&slab_len), "slab of {slab_len} bytes");
        let heads = [0; LISTS];
        Self { maps: Vec::new(), slab_len, heads, filled: 0, mapped: 0, used: 0 }
    }

    pub(crate) fn slab_len(&self) -> usize {
        self.slab_len
    }

    /// Bytes that are mapped.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    /// Bytes that records' blocks take.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Whether a record of so many units gets a map of its own.
    pub(crate) fn is_single(&self, units: usize) -> bool {
        units * UNIT > self.slab_len / 2
    }

    /// A block out of the slabs that are mapped, or `None`.
    pub(crate) fn allocate(&mut self, units: usize) -> Option<u32> {
        let floor = list_of(units);
        let start = if units < 32 { floor } else { floor + 1 };
        let sure = if start < LISTS { self.filled >> start << start } else { 0 };
        let place = if sure == 0 {
            self.first_fit(floor, units)?
        } else {
            self.heads[usize::try_from(sure.trailing_zeros()).unwrap_or(0)]
        };
        let len = self.unlink(place);
        if len > units {
            self.link(place + to_u32(units), len - units);
        } else {
            self.set_after_vacant(place, len, false);
        }
        self.count_used(place, units, true);
        Some(place)
    }

    fn first_fit(&self, list: usize, units: usize) -> Option<u32> {
        let mut place = self.heads[list];
        for _ in 0..TRIED {
            if place == 0 {
                return None;
            }
            if vacant_len(self.word(place, 0)) >= units {
                return Some(place);
            }
            place = self.word(place, 4);
        }
        None
    }

    /// Maps one more slab.
    pub(crate) fn map_slab(&mut self) -> io::Result<()> {
        let place = self.map(self.slab_len, false)?;
        self.link(place, self.slab_len / UNIT);
        Ok(())
    }

    /// Maps what a record of so many units needs; its place.
    pub(crate) fn map_single(&mut self, units: usize) -> io::Result<u32> {
        let place = self.map(units * UNIT, true)?;
        self.count_used(place, units, true);
        Ok(place)
    }

    fn map(&mut self, len: usize, single: bool) -> io::Result<u32> {
        let vacant = self.maps.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.maps.len());
        if index >= SLAB_COUNT_MAX {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many slabs in a shard"));
        }
        let map = AnonMap::new(len, len >= SLAB_LEN_MAX)?;
        self.mapped += map.charged_len() as u64;
        let slab = Some(Slab { map, used: 0, single });
        match self.maps.get_mut(index) {
            Some(vacant) => *vacant = slab,
            None => self.maps.push(slab),
        }
        Ok(to_u32(index + 1) << OFFSET_BITS)
    }

    /// Gives a record's block back. A map of its own goes at once.
    pub(crate) fn free(&mut self, place: u32) {
        let units = self.units_at(place);
        self.count_used(place, units, false);
        let index = index_of(place);
        if self.maps[index].as_ref().is_some_and(|slab| slab.single) {
            self.unmap(index);
            return;
        }
        let (mut start, mut len) = (place, units);
        if self.first_word(place) & AFTER_VACANT != 0 {
            let bytes = self.bytes(index);
            let at = offset_of(place) - 4;
            let before = to_usize(u32_at(bytes, at));
            start -= to_u32(before);
            len += self.unlink(start);
        }
        let next = place + to_u32(units);
        if self.is_inside(start, next) && self.word(next, 0) & VACANT != 0 {
            len += self.unlink(next);
        }
        self.link(start, len);
    }

    /// Writes a record into its block.
    pub(crate) fn write(
        &mut self,
        place: u32,
        incarnation: Incarnation,
        key: &[u8],
        record: &HotRecord<'_>,
    ) {
        let (offset, value_len) = (offset_of(place), to_u32(record.value.len()));
        let head = (key.len() as u64) << 48 | deadline_bits(record.deadline_ms) << 2;
        let block = &mut self.bytes_mut(index_of(place))[offset..];
        block[..8].copy_from_slice(&head.to_le_bytes());
        block[8..16].copy_from_slice(&record.seq.0.to_le_bytes());
        block[16..20].copy_from_slice(&incarnation.0.to_le_bytes());
        block[20..24].copy_from_slice(&value_len.to_le_bytes());
        block[HEAD..][..key.len()].copy_from_slice(key);
        block[HEAD + key.len()..][..record.value.len()].copy_from_slice(record.value);
    }

    /// Writes another record of the same length in the place of one.
    pub(crate) fn overwrite(
        &mut self,
        place: u32,
        incarnation: Incarnation,
        key: &[u8],
        record: &HotRecord<'_>,
    ) {
        let flag = self.first_word(place) & AFTER_VACANT != 0;
        self.write(place, incarnation, key, record);
        self.mark_after_vacant(place, flag);
    }

    /// The record at a place.
    #[inline]
    pub(crate) fn record(&self, place: u32) -> Stored<'_> {
        let block = &self.bytes(index_of(place))[offset_of(place)..];
        let head = u64_at(block, 0);
        let (key_len, value_len) = (key_len_of(head), to_usize(u32_at(block, 20)));
        let (key, value) = block[HEAD..][..key_len + value_len].split_at(key_len);
        let deadline_ms = head >> 2 & ((1 << DEADLINE_BITS) - 1);
        let record = HotRecord { value, seq: Seq(u64_at(block, 8)), deadline_ms };
        Stored { incarnation: Incarnation(u32_at(block, 16)), key, record }
    }

    /// Whether the record at a place is this key's.
    #[inline]
    pub(crate) fn is(&self, place: u32, incarnation: Incarnation, key: &[u8]) -> bool {
        let block = &self.bytes(index_of(place))[offset_of(place)..];
        let same = key_len_of(u64_at(block, 0)) == key.len();
        same && u32_at(block, 16) == incarnation.0 && block[HEAD..].get(..key.len()) == Some(key)
    }

    /// The slab with the fewest bytes of records, of those that hold many, and its records.
    pub(crate) fn emptiest(&self) -> Option<(usize, Vec<u32>)> {
        let shared = self.maps.iter().enumerate();
        let shared = shared.filter_map(|(i, slab)| Some((i, slab.as_ref()?.used, slab)));
        let (index, ..) = shared
            .filter(|(_, _, slab)| slab.as_ref().is_some_and(|slab| !slab.single))
            .min_by_key(|&(_, used, _)| used)?;
        Some((index, self.records_of(index)))
    }

    /// Places of the records in a slab, in their order.
    fn records_of(&self, index: usize) -> Vec<u32> {
        let base = to_u32(index + 1) << OFFSET_BITS;
        let (mut at, mut places) = (0, Vec::new());
        while at * UNIT < self.slab_len {
            let place = base + to_u32(at);
            let word = self.word(place, 0);
            if word & VACANT == 0 {
                places.push(place);
                at += self.units_at(place);
            } else {
                at += vacant_len(word);
            }
        }
        places
    }

    /// Keeps a slab's vacant block from being handed out while its records move away.
    pub(crate) fn withhold(&mut self, index: usize) {
        let base = to_u32(index + 1) << OFFSET_BITS;
        let mut at = 0;
        while at * UNIT < self.slab_len {
            let place = base + to_u32(at);
            let word = self.word(place, 0);
            if word & VACANT == 0 {
                at += self.units_at(place);
            } else {
                at += self.unlink(place);
            }
        }
    }

    /// Ends a withheld slab: unmaps it when no record is left, else its vacant blocks serve again.
    /// `left` are the records that are still in it.
    pub(crate) fn finish(&mut self, index: usize, left: &[u32]) -> bool {
        if left.is_empty() {
            self.unmap(index);
            return true;
        }
        let base = to_u32(index + 1) << OFFSET_BITS;
        let (mut at, end) = (0, self.slab_len / UNIT);
        for &place in left {
            let start = to_usize(place - base);
            if start > at {
                self.link(base + to_u32(at), start - at);
            } else {
                self.mark_after_vacant(place, false);
            }
            at = start + self.units_at(place);
        }
        if end > at {
            self.link(base + to_u32(at), end - at);
        }
        false
    }

    /// Copies a record of a withheld slab to another slab, if there is a block for it.
    pub(crate) fn relocate(&mut self, place: u32) -> Option<u32> {
        let units = self.units_at(place);
        let to = self.allocate(units)?;
        let bytes = self.bytes(index_of(place))[offset_of(place)..][..units * UNIT].to_vec();
        let offset = offset_of(to);
        self.bytes_mut(index_of(to))[offset..][..bytes.len()].copy_from_slice(&bytes);
        self.mark_after_vacant(to, false);
        self.count_used(place, units, false);
        Some(to)
    }

    /// A record of a withheld slab is given up.
    pub(crate) fn abandon(&mut self, place: u32) {
        let units = self.units_at(place);
        self.count_used(place, units, false);
    }

    fn unmap(&mut self, index: usize) {
        if let Some(slab) = self.maps[index].take() {
            assert!(slab.used == 0, "slab unmapped with {} units of records", slab.used);
            self.mapped -= slab.map.charged_len() as u64;
        }
        while self.maps.last().is_some_and(Option::is_none) {
            self.maps.pop();
        }
    }

    fn count_used(&mut self, place: u32, units: usize, taken: bool) {
        let Some(slab) = self.maps[index_of(place)].as_mut() else { return };
        let len = (units * UNIT) as u64;
        slab.used = if taken { slab.used + units } else { slab.used - units };
        self.used = if taken { self.used + len } else { self.used - len };
    }

    /// Units of the block of the record at a place.
    pub(crate) fn units_at(&self, place: u32) -> usize {
        let block = &self.bytes(index_of(place))[offset_of(place)..];
        units(key_len_of(u64_at(block, 0)), to_usize(u32_at(block, 20)))
    }

    /// Whether `next` lies in the same slab as `place`, and not behind its end.
    fn is_inside(&self, place: u32, next: u32) -> bool {
        let end = (to_u32(index_of(place) + 1) << OFFSET_BITS) + to_u32(self.slab_len / UNIT);
        next < end
    }

    /// Makes a vacant block of so many units, and puts it into its list.
    fn link(&mut self, place: u32, len: usize) {
        let list = list_of(len);
        let head = self.heads[list];
        self.set_word(place, 0, to_u32(len) << 2 | VACANT);
        self.set_word(place, 4, head);
        self.set_word(place, 8, 0);
        let last = place + to_u32(len - 1);
        self.set_word(last, 12, to_u32(len));
        if head != 0 {
            self.set_word(head, 8, place);
        }
        self.heads[list] = place;
        self.filled |= 1 << list;
        self.set_after_vacant(place, len, true);
    }

    /// Takes a vacant block out of its list; returns its units.
    fn unlink(&mut self, place: u32) -> usize {
        let len = vacant_len(self.word(place, 0));
        let (next, previous) = (self.word(place, 4), self.word(place, 8));
        if next != 0 {
            self.set_word(next, 8, previous);
        }
        if previous != 0 {
            self.set_word(previous, 4, next);
        } else {
            let list = list_of(len);
            self.heads[list] = next;
            if next == 0 {
                self.filled &= !(1 << list);
            }
        }
        len
    }

    /// Tells the record behind a block whether that block is vacant.
    fn set_after_vacant(&mut self, place: u32, len: usize, vacant: bool) {
        let next = place + to_u32(len);
        if self.is_inside(place, next) && self.word(next, 0) & VACANT == 0 {
            self.mark_after_vacant(next, vacant);
        }
    }

    fn mark_after_vacant(&mut self, place: u32, vacant: bool) {
        let flag = to_u32(usize::try_from(AFTER_VACANT).unwrap_or(0));
        let word = self.word(place, 0);
        self.set_word(place, 0, if vacant { word | flag } else { word & !flag });
    }

    #[inline]
    fn bytes(&self, index: usize) -> &[u8] {
        self.maps[index].as_ref().map_or(&[], |slab| slab.map.as_slice())
    }

    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        self.maps[index].as_mut().map_or(&mut [], |slab| slab.map.as_mut_slice())
    }

    fn first_word(&self, place: u32) -> u64 {
        u64_at(&self.bytes(index_of(place))[offset_of(place)..], 0)
    }

    fn word(&self, place: u32, at: usize) -> u32 {
        u32_at(self.bytes(index_of(place)), offset_of(place) + at)
    }

    fn set_word(&mut self, place: u32, at: usize, word: u32) {
        let offset = offset_of(place) + at;
        self.bytes_mut(index_of(place))[offset..][..4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The list of vacant blocks of so many units: each length below 32, then eight a power of two.
fn list_of(units: usize) -> usize {
    if units < 32 {
        return units;
    }
    let power = to_usize(units.ilog2());
    (32 + (power - 5) * 8 + (units >> (power - 3) & 7)).min(LISTS - 1)
}

fn vacant_len(word: u32) -> usize {
    to_usize(word >> 2)
}

/// Deadlines that lie beyond what 46 bits of milliseconds reach (the year 4199) lie there.
fn deadline_bits(deadline_ms: u64) -> u64 {
    deadline_ms.min((1 << DEADLINE_BITS) - 1)
}

fn key_len_of(head: u64) -> usize {
    usize::try_from(head >> 48).unwrap_or(0)
}

#[inline]
fn index_of(place: u32) -> usize {
    to_usize(place >> OFFSET_BITS) - 1
}

#[inline]
fn offset_of(place: u32) -> usize {
    to_usize(place & ((1 << OFFSET_BITS) - 1)) * UNIT
}

#[inline]
fn to_usize(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
