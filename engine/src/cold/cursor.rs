//! Steps through an archive in key order, either way.
//! Knows one archive; knows nothing of other tiers, and of dead records only what it is told.

use std::ops::Range;
use std::sync::Arc;

use crate::cold::ColdRecord;
use crate::cold::reader::Archive;
use crate::error::Result;
use crate::format::block::{Block, EntryValue, RESTART_INTERVAL, put_sort_key, split_sort_key};
use crate::format::cursor::{Decoded, FieldError};
use crate::ids::{Incarnation, Seq};
use crate::value::Value;
use crate::vfs::view::Piece;

/// How far ahead of a forward step the file is read in.
const PREFETCH_LEN: u64 = 1 << 20;

/// A place between two records of an archive.
///
/// Memory: one block, and the keys of sixteen records. An error passes what is damaged: the next
/// step goes on behind it, so a caller that does not stop must say what is missing.
#[derive(Debug)]
pub(crate) struct Cursor {
    archive: Arc<Archive>,
    // The place: in front of record `index` of `block`; behind all when `block` is the count.
    block: u32,
    index: u32,
    // The block that is decompressed.
    loaded: Option<u32>,
    bytes: Vec<u8>,
    offset: u64,
    record_count: u32,
    first_ordinal: u32,
    // The group of sixteen that is decoded.
    group: Option<u32>,
    slots: Vec<Slot>,
    keys: Vec<u8>,
    /// The raw value of the record under the cursor, where the file is not mapped.
    raw: Vec<u8>,
    prefetched: u64,
}

/// One decoded record: where its key and value lie.
#[derive(Debug, Clone)]
struct Slot {
    key: Range<usize>,
    value: SlotValue,
    seq: Seq,
    deadline_ms: u64,
    body_crc: u32,
}

#[derive(Debug, Clone)]
enum SlotValue {
    /// In the block.
    Inline(Range<usize>),
    /// In the file, with its number.
    Raw(Range<usize>, u32),
}

/// A record under the cursor, verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CursorRecord<'a> {
    pub record: ColdRecord<'a>,
    archive: &'a Archive,
    raw: Option<(usize, usize)>,
}

impl CursorRecord<'_> {
    /// The value for keeps: a copy, or a share of the map when it lies outside of the blocks.
    pub(crate) fn value(&self) -> Value {
        match self.raw.filter(|_| self.archive.view().map().is_some()) {
            Some((start, end)) => {
                self.archive.raw_value(start..end).unwrap_or_else(|_| self.copy())
            }
            None => self.copy(),
        }
    }

    fn copy(&self) -> Value {
        Value::from(self.record.value)
    }

    /// Bytes of the value outside of the blocks.
    pub(crate) fn raw_len(&self) -> u64 {
        self.raw.map_or(0, |_| self.record.value.len() as u64)
    }
}

impl Archive {
    /// A cursor in front of the first record.
    pub(crate) fn cursor(self: &Arc<Self>) -> Cursor {
        Cursor {
            archive: Arc::clone(self),
            block: 0,
            index: 0,
            loaded: None,
            bytes: Vec::new(),
            offset: 0,
            record_count: 0,
            first_ordinal: 0,
            group: None,
            slots: Vec::new(),
            keys: Vec::new(),
            raw: Vec::new(),
            prefetched: 0,
        }
    }
}

impl Cursor {
    /// Goes behind the last record.
    pub(crate) fn seek_to_end(&mut self) {
        (self.block, self.index) = (self.archive.footer().block_count, 0);
    }

    /// Goes in front of the first record at or above this key.
    ///
    /// After an error the cursor stands in front of the damaged block.
    pub(crate) fn seek(&mut self, incarnation: Incarnation, key: &[u8]) -> Result<()> {
        let mut sort_key = Vec::with_capacity(key.len() + 4);
        put_sort_key(&mut sort_key, incarnation, key);
        let index = self.archive.index();
        let floor = index.and_then(|index| index.floor(&sort_key));
        let floor = floor.map_err(|error| self.archive.index_damage(error))?;
        (self.block, self.index) = (floor.unwrap_or(0), 0);
        if floor.is_none() {
            return Ok(());
        }
        self.load(self.block)?;
        let group = self.decoded().and_then(|block| block.group_of(&sort_key));
        let group = group.map_err(|error| self.archive.damage(self.offset, error))?;
        self.load_group(group)?;
        let below = self.slots.iter().take_while(|slot| {
            self.keys.get(slot.key.clone()).is_some_and(|key| key < sort_key.as_slice())
        });
        let below = u32::try_from(below.count()).unwrap_or(u32::MAX);
        self.index = group.saturating_mul(RESTART_INTERVAL).saturating_add(below);
        Ok(())
    }

    /// The record behind the place, and steps over it.
    pub(crate) fn next(&mut self) -> Result<Option<CursorRecord<'_>>> {
        self.next_if(|_| true)
    }

    /// The record in front of the place, and steps back over it.
    pub(crate) fn prev(&mut self) -> Result<Option<CursorRecord<'_>>> {
        self.prev_if(|_| true)
    }

    /// As `next`, over the records whose ordinal is wanted; the others are not verified.
    pub(crate) fn next_if(
        &mut self,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Option<CursorRecord<'_>>> {
        loop {
            if self.block >= self.archive.footer().block_count {
                return Ok(None);
            }
            if let Err(error) = self.load(self.block) {
                (self.block, self.index) = (self.block.saturating_add(1), 0);
                return Err(error);
            }
            if self.index >= self.record_count {
                (self.block, self.index) = (self.block.saturating_add(1), 0);
                continue;
            }
            let index = self.index;
            self.index += 1;
            if wanted(self.first_ordinal.saturating_add(index)) {
                if let Err(error) = self.load_group(index / RESTART_INTERVAL) {
                    self.index = (index / RESTART_INTERVAL + 1).saturating_mul(RESTART_INTERVAL);
                    return Err(error);
                }
                return self.record(index).map(Some);
            }
        }
    }

    /// As `prev`, over the records whose ordinal is wanted; the others are not verified.
    pub(crate) fn prev_if(
        &mut self,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Option<CursorRecord<'_>>> {
        loop {
            if self.index == 0 {
                let Some(before) = self.block.checked_sub(1) else { return Ok(None) };
                self.block = before;
                self.load(before)?;
                self.index = self.record_count;
            }
            if let Err(error) = self.load(self.block) {
                self.index = 0;
                return Err(error);
            }
            let index = self.index.min(self.record_count).saturating_sub(1);
            self.index = index;
            if wanted(self.first_ordinal.saturating_add(index)) {
                if let Err(error) = self.load_group(index / RESTART_INTERVAL) {
                    self.index = index / RESTART_INTERVAL * RESTART_INTERVAL;
                    return Err(error);
                }
                return self.record(index).map(Some);
            }
        }
    }

    /// Decompresses a block unless it is loaded.
    fn load(&mut self, block: u32) -> Result<()> {
        if self.loaded == Some(block) {
            return Ok(());
        }
        (self.loaded, self.group) = (None, None);
        let (offset, header) = self.archive.read_block(block, &mut self.bytes)?;
        if offset >= self.prefetched {
            self.prefetched = offset.saturating_add(PREFETCH_LEN);
            self.archive.view().prefetch(offset..self.prefetched);
        }
        self.offset = offset;
        self.record_count = header.record_count;
        self.first_ordinal = header.first_ordinal;
        self.loaded = Some(block);
        Ok(())
    }

    fn decoded(&self) -> Decoded<Block<'_>> {
        Block::decode(&self.bytes, self.record_count, self.archive.header().created_ms)
    }

    /// Decodes a group of the loaded block unless it is there.
    fn load_group(&mut self, group: u32) -> Result<()> {
        if self.group == Some(group) {
            return Ok(());
        }
        self.group = None;
        let mut slots = std::mem::take(&mut self.slots);
        let mut keys = std::mem::take(&mut self.keys);
        let read = self.read_group(group, &mut slots, &mut keys);
        (self.slots, self.keys) = (slots, keys);
        read.map_err(|error| self.archive.damage(self.offset, error))?;
        self.group = Some(group);
        Ok(())
    }

    fn read_group(&self, group: u32, slots: &mut Vec<Slot>, keys: &mut Vec<u8>) -> Decoded<()> {
        slots.clear();
        keys.clear();
        let mut walk = self.decoded()?.group(group)?;
        while let Some((_, entry)) = walk.next()? {
            let key_start = keys.len();
            keys.extend_from_slice(walk.key());
            let value = match entry.value {
                EntryValue::Inline(bytes) => {
                    let end = walk.position();
                    SlotValue::Inline(end.saturating_sub(bytes.len())..end)
                }
                EntryValue::Raw { len, index, offset } => {
                    SlotValue::Raw(self.archive.raw_range(offset, len, index)?, index)
                }
            };
            slots.push(Slot {
                key: key_start..keys.len(),
                value,
                seq: entry.seq,
                deadline_ms: entry.deadline_ms,
                body_crc: entry.body_crc,
            });
        }
        Ok(())
    }

    /// Record `index` of the loaded block, whose group is decoded.
    fn record(&mut self, index: u32) -> Result<CursorRecord<'_>> {
        self.raw = Vec::new();
        if let Some(Slot { value: SlotValue::Raw(range, _), .. }) =
            self.slots.get((index % RESTART_INTERVAL) as usize)
            && let Piece::Read(bytes) = self.archive.raw_bytes(range)?
        {
            self.raw = bytes;
        }
        self.loaded_record(index)
    }

    fn loaded_record(&self, index: u32) -> Result<CursorRecord<'_>> {
        let read = || {
            let Some(slot) = self.slots.get((index % RESTART_INTERVAL) as usize) else {
                return Err(FieldError::new("records of a group", self.slots.len(), "more"));
            };
            let sort_key = self.keys.get(slot.key.clone()).unwrap_or_default();
            let (incarnation, key) = split_sort_key(sort_key)?;
            let (value, raw) = match &slot.value {
                SlotValue::Inline(range) => (self.bytes.get(range.clone()), None),
                SlotValue::Raw(range, number) => {
                    let mapped = self.archive.view().map();
                    let lent = mapped.map_or(Some(&self.raw[..]), |map| map.slice(range.clone()));
                    (lent, Some((range, *number)))
                }
            };
            let record = ColdRecord {
                incarnation,
                key,
                seq: slot.seq,
                deadline_ms: slot.deadline_ms,
                body_crc: slot.body_crc,
                value: value.unwrap_or_default(),
            };
            self.archive.check_body(&record, raw.map(|(_, number)| number))?;
            let raw = raw.map(|(range, _)| (range.start, range.end));
            Ok(CursorRecord { record, archive: &self.archive, raw })
        };
        read().map_err(|error| self.archive.damage(self.offset, error))
    }
}
