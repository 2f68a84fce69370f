//! The block: records in the order of their sort keys, prefixes shared, every sixteenth key whole.
//! Knows bytes; knows nothing of zstd, of files, or of which record is live.
//! format-spec.md 8, "Block".

use crate::format::checksum::bound_crc;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::ids::{Incarnation, Seq};
use crate::limits::{BLOCK_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};

/// Bytes before a block's payload.
pub(crate) const BLOCK_HEADER_LEN: usize = 24;
/// Every so many records the key stands whole.
pub(crate) const RESTART_INTERVAL: u32 = 16;
/// Incarnation and key.
pub(crate) const SORT_KEY_LEN_MAX: usize = KEY_LEN_MAX + 4;
/// The shortest entry: three lengths, the sequence number, the checksum.
const ENTRY_LEN_MIN: usize = 8;

/// Value bits of an entry's tag.
const TAG_RAW: u64 = 1;
const TAG_DEADLINE: u64 = 2;
const TAG_BITS: u32 = 2;

/// How the payload of a block is stored. 0 is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As it is.
    Raw = 1,
    /// One zstd frame.
    Zstd = 2,
    /// One zstd frame that needs the archive's dictionary.
    ZstdDictionary = 3,
}

/// What stands before a block's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    /// Bytes of the payload in the file.
    pub stored_len: u32,
    /// Bytes of the block when it is decompressed.
    pub raw_len: u32,
    /// Records of the archive before this block.
    pub first_ordinal: u32,
    pub record_count: u32,
    pub codec: Codec,
}

impl BlockHeader {
    /// Encodes the header of `payload`, bound to its place.
    pub(crate) fn encode(&self, nonce: u64, offset: u64, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(0);
        out.put_u32(self.stored_len);
        out.put_u32(self.raw_len);
        out.put_u32(self.first_ordinal);
        out.put_u32(self.record_count);
        out.put_u8(self.codec as u8);
        out.put_bytes(&[0; 3]);
        out.put_bytes(payload);
        let crc = bound_crc(nonce, offset, out.get(start + 4..).unwrap_or_default());
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Decodes header and payload from bytes that begin at `offset`, and checks both. Bytes behind
    /// the payload are ignored.
    pub(crate) fn decode(bytes: &[u8], nonce: u64, offset: u64) -> Decoded<(Self, &[u8])> {
        let mut fields = Fields::new(bytes);
        let crc = fields.u32("block checksum")?;
        let len_max = BLOCK_LEN_MAX as u64;
        let stored_len = fields.u32_at_most("block stored length", len_max)?;
        let raw_len = fields.u32_at_most("block raw length", len_max)?;
        let first_ordinal = fields.u32("first ordinal")?;
        let records_max = u64::from(raw_len) / ENTRY_LEN_MIN as u64;
        let record_count = fields.u32_at_most("block records", records_max)?;
        let codec = decode_codec(fields.u8("codec")?)?;
        fields.expect("reserved", &[0; 3])?;
        let payload = fields.bytes("block payload", stored_len as usize)?;
        let summed = bytes.get(4..BLOCK_HEADER_LEN + stored_len as usize).unwrap_or_default();
        let expected = bound_crc(nonce, offset, summed);
        if crc != expected {
            return Err(checksum_error("block checksum", crc, expected));
        }
        if record_count == 0 || (codec == Codec::Raw) != (stored_len == raw_len) {
            return Err(FieldError::new(
                "block lengths",
                format_args!("{stored_len} stored of {raw_len}, {record_count} records"),
                "records, and fewer bytes stored only when compressed",
            ));
        }
        Ok((Self { stored_len, raw_len, first_ordinal, record_count, codec }, payload))
    }
}

fn decode_codec(value: u8) -> Decoded<Codec> {
    match value {
        1 => Ok(Codec::Raw),
        2 => Ok(Codec::Zstd),
        3 => Ok(Codec::ZstdDictionary),
        _ => Err(FieldError::new("codec", value, "1 to 3")),
    }
}

/// A checksum that does not hold.
pub(crate) fn checksum_error(field: &'static str, found: u32, expected: u32) -> FieldError {
    FieldError::new(field, format_args!("{found:08x}"), format_args!("{expected:08x}"))
}

/// Appends what records are sorted by: the incarnation, highest byte first, then the key.
pub(crate) fn put_sort_key(out: &mut Vec<u8>, incarnation: Incarnation, key: &[u8]) {
    out.put_bytes(&incarnation.0.to_be_bytes());
    out.put_bytes(key);
}

/// The mirror of [`put_sort_key`].
pub(crate) fn split_sort_key(sort_key: &[u8]) -> Decoded<(Incarnation, &[u8])> {
    let Some((incarnation, key)) = sort_key.split_first_chunk::<4>() else {
        return Err(FieldError::new("sort key length", sort_key.len(), "at least 4"));
    };
    Ok((Incarnation(u32::from_be_bytes(*incarnation)), key))
}

/// Where an entry's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryValue<'a> {
    /// In the block.
    Inline(&'a [u8]),
    /// Outside of the blocks: the `index`th such value of the archive, at this file offset.
    Raw { len: u32, index: u32, offset: u64 },
}

impl EntryValue<'_> {
    pub(crate) fn len_bytes(&self) -> u32 {
        match self {
            Self::Inline(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Self::Raw { len, .. } => *len,
        }
    }
}

/// A record in a block, without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub seq: Seq,
    /// 0 for none.
    pub deadline_ms: u64,
    pub body_crc: u32,
    pub value: EntryValue<'a>,
}

/// Builds the raw bytes of one block after another.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    created_ms: u64,
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    last_key: Vec<u8>,
    last_seq: u64,
    count: u32,
}

impl BlockWriter {
    /// `created_ms` of the archive's header: deadlines are stored relative to it.
    pub(crate) fn new(created_ms: u64) -> Self {
        let (bytes, restarts, last_key) = (Vec::new(), Vec::new(), Vec::new());
        Self { created_ms, bytes, restarts, last_key, last_seq: 0, count: 0 }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the block if it ended now.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len()
    }

    /// Appends a record. The caller keeps the order.
    pub(crate) fn push(&mut self, sort_key: &[u8], entry: &Entry<'_>) {
        if self.count.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
            self.last_key.clear();
            self.last_seq = 0;
        }
        let shared = self.last_key.iter().zip(sort_key).take_while(|(a, b)| a == b).count();
        let unshared = sort_key.get(shared..).unwrap_or_default();
        let mut tag = u64::from(entry.value.len_bytes()) << TAG_BITS;
        tag |= if matches!(entry.value, EntryValue::Raw { .. }) { TAG_RAW } else { 0 };
        tag |= if entry.deadline_ms == 0 { 0 } else { TAG_DEADLINE };
        self.bytes.put_varint(shared as u64);
        self.bytes.put_varint(unshared.len() as u64);
        self.bytes.put_varint(tag);
        self.bytes.put_bytes(unshared);
        self.bytes.put_varint(zigzag(entry.seq.0.wrapping_sub(self.last_seq)));
        if entry.deadline_ms != 0 {
            self.bytes.put_varint(zigzag(entry.deadline_ms.wrapping_sub(self.created_ms)));
        }
        self.bytes.put_u32(entry.body_crc);
        match entry.value {
            EntryValue::Inline(value) => self.bytes.put_bytes(value),
            EntryValue::Raw { index, offset, .. } => {
                self.bytes.put_varint(u64::from(index));
                self.bytes.put_varint(offset / 8);
            }
        }
        self.last_key.truncate(shared);
        self.last_key.put_bytes(unshared);
        self.last_seq = entry.seq.0;
        self.count += 1;
    }

    /// Ends the block and returns its bytes; `clear` begins the next one.
    pub(crate) fn finish(&mut self) -> &[u8] {
        for restart in self.restarts.drain(..) {
            self.bytes.put_u32(restart);
        }
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.last_key.clear();
        self.last_seq = 0;
        self.count = 0;
    }
}

/// Small numbers of either sign become small numbers.
fn zigzag(value: u64) -> u64 {
    let sign = if value >> 63 == 1 { u64::MAX } else { 0 };
    value << 1 ^ sign
}

fn unzigzag(value: u64) -> u64 {
    let sign = if value & 1 == 1 { u64::MAX } else { 0 };
    value >> 1 ^ sign
}

/// A decompressed block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    entries: &'a [u8],
    restarts: &'a [u8],
    record_count: u32,
    created_ms: u64,
}

impl<'a> Block<'a> {
    pub(crate) fn decode(bytes: &'a [u8], record_count: u32, created_ms: u64) -> Decoded<Self> {
        let tail = 4 * record_count.div_ceil(RESTART_INTERVAL) as usize;
        let Some(at) = bytes.len().checked_sub(tail).filter(|_| record_count > 0) else {
            return Err(FieldError::new("block length", bytes.len(), "room for the restarts"));
        };
        let (entries, restarts) = bytes.split_at(at);
        Ok(Self { entries, restarts, record_count, created_ms })
    }

    /// How many restarts there are; each begins a group of sixteen records, the last of fewer.
    pub(crate) fn group_count(&self) -> u32 {
        self.record_count.div_ceil(RESTART_INTERVAL)
    }

    /// Walks from the first record of a group to the end of the group.
    pub(crate) fn group(&self, group: u32) -> Decoded<Walk<'a>> {
        let start = self.restart(group)?;
        let end = if group + 1 < self.group_count() {
            self.restart(group + 1)?
        } else {
            self.entries.len()
        };
        let Some(bytes) = self.entries.get(start..end).filter(|_| group > 0 || start == 0) else {
            return Err(FieldError::new("restart", start, format_args!("at most {end}")));
        };
        let first = group.saturating_mul(RESTART_INTERVAL);
        let left = self.record_count.saturating_sub(first).min(RESTART_INTERVAL);
        let fields = Fields::new(bytes);
        let created_ms = self.created_ms;
        Ok(Walk { fields, end, key: Vec::new(), seq: 0, index: first, left, created_ms })
    }

    fn restart(&self, group: u32) -> Decoded<usize> {
        let at = (group as usize).saturating_mul(4);
        let mut fields = Fields::new(self.restarts.get(at..).unwrap_or_default());
        fields.u32_at_most("restart", self.entries.len() as u64).map(|at| at as usize)
    }

    /// The whole key at the start of a group, in place.
    fn group_key(&self, group: u32) -> Decoded<&'a [u8]> {
        let rest = self.entries.get(self.restart(group)?..).unwrap_or_default();
        let mut fields = Fields::new(rest);
        let (shared, unshared) = (fields.varint32("shared")?, fields.varint32("unshared")?);
        if shared != 0 {
            return Err(FieldError::new("shared at a restart", shared, 0));
        }
        fields.varint("tag")?;
        fields.bytes("key", unshared as usize)
    }

    /// The last group whose first key is not above `sort_key`; the first group when there is none.
    pub(crate) fn group_of(&self, sort_key: &[u8]) -> Decoded<u32> {
        let (mut low, mut high) = (0, self.group_count());
        while low < high {
            let middle = low.midpoint(high);
            if self.group_key(middle)? <= sort_key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// The record with exactly this sort key and its index in the block.
    pub(crate) fn find(&self, sort_key: &[u8]) -> Decoded<Option<(u32, Entry<'a>)>> {
        let mut walk = self.group(self.group_of(sort_key)?)?;
        while let Some((index, entry)) = walk.next()? {
            match walk.key().cmp(sort_key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some((index, entry))),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Steps through one group; holds one key.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    fields: Fields<'a>,
    /// Where the group ends in the block.
    end: usize,
    key: Vec<u8>,
    seq: u64,
    index: u32,
    left: u32,
    created_ms: u64,
}

impl<'a> Walk<'a> {
    /// The sort key of the record that `next` returned last.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Where the record that `next` returned last ends in the block.
    pub(crate) fn position(&self) -> usize {
        self.end.saturating_sub(self.fields.remaining())
    }

    /// The next record and its index in the block. Keys rise strictly; the group ends where the
    /// next one begins.
    pub(crate) fn next(&mut self) -> Decoded<Option<(u32, Entry<'a>)>> {
        if self.left == 0 {
            return self.fields.clone().finish("end of a group").map(|()| None);
        }
        let shared = self.fields.varint32("shared")? as usize;
        let unshared_len = self.fields.varint32("unshared")? as usize;
        let tag = self.fields.varint("tag")?;
        self.step_key(shared, unshared_len)?;
        self.seq = self.seq.wrapping_add(unzigzag(self.fields.varint("sequence number")?));
        let deadline_ms = self.deadline(tag)?;
        let body_crc = self.fields.u32("body checksum")?;
        let value = self.value(tag)?;
        let index = self.index;
        self.index += 1;
        self.left -= 1;
        Ok(Some((index, Entry { seq: Seq(self.seq), deadline_ms, body_crc, value })))
    }

    fn step_key(&mut self, shared: usize, unshared_len: usize) -> Decoded<()> {
        let first = self.index.is_multiple_of(RESTART_INTERVAL);
        let whole = shared.saturating_add(unshared_len);
        if shared > self.key.len() || !(4..=SORT_KEY_LEN_MAX).contains(&whole) {
            return Err(FieldError::new(
                "key lengths",
                format_args!("{shared} shared, {unshared_len} more"),
                format_args!("at most {} shared, 4 to {SORT_KEY_LEN_MAX} in all", self.key.len()),
            ));
        }
        let unshared = self.fields.bytes("key", unshared_len)?;
        let rises = unshared.first() > self.key.get(shared);
        if !first && !rises {
            return Err(FieldError::new("key", "not above the one before", "rising keys"));
        }
        self.key.truncate(shared);
        self.key.put_bytes(unshared);
        Ok(())
    }

    fn deadline(&mut self, tag: u64) -> Decoded<u64> {
        if tag & TAG_DEADLINE == 0 {
            return Ok(0);
        }
        let left_ms = unzigzag(self.fields.varint("deadline")?);
        match self.created_ms.wrapping_add(left_ms) {
            0 => Err(FieldError::new("deadline", 0, "a moment")),
            deadline_ms => Ok(deadline_ms),
        }
    }

    fn value(&mut self, tag: u64) -> Decoded<EntryValue<'a>> {
        let len_bytes = tag >> TAG_BITS;
        if len_bytes > VALUE_LEN_MAX as u64 {
            return Err(FieldError::new(
                "value length",
                len_bytes,
                format_args!("at most {VALUE_LEN_MAX}"),
            ));
        }
        let len = u32::try_from(len_bytes).unwrap_or(u32::MAX);
        if tag & TAG_RAW == 0 {
            return self.fields.bytes("value", len as usize).map(EntryValue::Inline);
        }
        let index = self.fields.varint32("raw value index")?;
        let offset = self.fields.varint("raw value offset")?;
        let Some(offset) = offset.checked_mul(8) else {
            return Err(FieldError::new("raw value offset", offset, "inside the file"));
        };
        Ok(EntryValue::Raw { len, index, offset })
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
