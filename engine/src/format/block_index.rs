//! The block index of an archive: one row a block and a last row behind them, then the keys.
//! Searched in place, without decoding it all. format-spec.md 8, "Block index".

use crate::format::block::SORT_KEY_LEN_MAX;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};

/// Offset, end of the key, first ordinal.
pub(crate) const INDEX_ROW_LEN: usize = 16;

/// What the index says of one block; the row behind the last block ends the region of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexRow<'a> {
    /// Where the block begins, in bytes from the start of the file.
    pub offset: u64,
    /// Records in the blocks before it.
    pub first_ordinal: u32,
    /// Above every sort key of the block before and not above any of this block. The first row has
    /// the first sort key of the archive, the last row its last one.
    pub key: &'a [u8],
}

/// Collects the rows while blocks are written.
#[derive(Debug, Default)]
pub(crate) struct IndexWriter {
    rows: Vec<u8>,
    keys: Vec<u8>,
    block_count: u32,
}

impl IndexWriter {
    /// Enters a block. `last` is the last sort key of the block before, `first` the first of this.
    /// Returns `None` when the keys of the index no longer fit 32 bits.
    pub(crate) fn push(
        &mut self,
        offset: u64,
        first_ordinal: u32,
        last: &[u8],
        first: &[u8],
    ) -> Option<()> {
        let key = if self.block_count == 0 { first } else { separator(last, first) };
        self.push_row(offset, first_ordinal, key)?;
        self.block_count = self.block_count.checked_add(1)?;
        Some(())
    }

    fn push_row(&mut self, offset: u64, first_ordinal: u32, key: &[u8]) -> Option<()> {
        let key_end = u32::try_from(self.keys.len().checked_add(key.len())?).ok()?;
        self.keys.put_bytes(key);
        self.rows.put_u64(offset);
        self.rows.put_u32(key_end);
        self.rows.put_u32(first_ordinal);
        Some(())
    }

    /// Where the blocks so far begin.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.rows
            .chunks(INDEX_ROW_LEN)
            .filter_map(|row| row.first_chunk())
            .map(|o| u64::from_le_bytes(*o))
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.rows.len() + INDEX_ROW_LEN + self.keys.len()
    }

    pub(crate) fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Ends the index: where the data ends, how many records there are, the last sort key.
    pub(crate) fn finish(
        mut self,
        data_end: u64,
        record_count: u32,
        last: &[u8],
    ) -> Option<Vec<u8>> {
        self.push_row(data_end, record_count, last)?;
        self.rows.put_bytes(&self.keys);
        Some(self.rows)
    }
}

/// The shortest prefix of `first` that is above `last`.
fn separator<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    let shared = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    first.get(..=shared).unwrap_or(first)
}

/// The index in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockIndex<'a> {
    rows: &'a [u8],
    keys: &'a [u8],
    block_count: u32,
}

impl<'a> BlockIndex<'a> {
    /// Splits the region into rows and keys. Every row is checked when it is read.
    pub(crate) fn decode(bytes: &'a [u8], block_count: u32) -> Decoded<Self> {
        let rows_len = (block_count as usize).saturating_add(1).saturating_mul(INDEX_ROW_LEN);
        let mut fields = Fields::new(bytes);
        let rows = fields.bytes("index rows", rows_len)?;
        let keys = fields.bytes("index keys", fields.remaining())?;
        Ok(Self { rows, keys, block_count })
    }

    /// Row `block`; `block_count` names the last one.
    pub(crate) fn row(&self, block: u32) -> Decoded<IndexRow<'a>> {
        let (offset, key_end, first_ordinal) = self.numbers(block)?;
        let key_start = match block.checked_sub(1) {
            Some(before) => self.numbers(before)?.1,
            None => 0,
        };
        let key = self.keys.get(key_start as usize..key_end as usize);
        let key = key.filter(|key| key.len() <= SORT_KEY_LEN_MAX).ok_or_else(|| {
            FieldError::new("index key", format_args!("{key_start} to {key_end}"), "a key")
        })?;
        Ok(IndexRow { offset, first_ordinal, key })
    }

    fn numbers(&self, block: u32) -> Decoded<(u64, u32, u32)> {
        let start = (block as usize).saturating_mul(INDEX_ROW_LEN);
        let rest = self.rows.get(start..).unwrap_or_default();
        let mut fields = Fields::new(rest);
        let offset = fields.u64("block offset")?;
        let key_end = fields.u32("index key end")?;
        Ok((offset, key_end, fields.u32("first ordinal")?))
    }

    /// The only block that may hold this sort key, or `None` outside the first and the last key.
    pub(crate) fn find(&self, sort_key: &[u8]) -> Decoded<Option<u32>> {
        if sort_key > self.row(self.block_count)?.key {
            return Ok(None);
        }
        self.floor(sort_key)
    }

    /// The last block whose row is not above the sort key.
    pub(crate) fn floor(&self, sort_key: &[u8]) -> Decoded<Option<u32>> {
        let (mut low, mut high) = (0, self.block_count);
        while low < high {
            let middle = low.midpoint(high);
            if self.row(middle)?.key <= sort_key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1))
    }

    /// Checks every row against its neighbours: offsets, ordinals and ends of keys rise, blocks lie
    /// between `data_start` and `data_end`, the last row says what the footer says.
    pub(crate) fn check(&self, data_start: u64, data_end: u64, record_count: u32) -> Decoded<()> {
        let mut before: Option<IndexRow<'_>> = None;
        for block in 0..=self.block_count {
            let row = self.row(block)?;
            let rises = before.is_none_or(|before| {
                before.offset < row.offset && before.first_ordinal < row.first_ordinal
            });
            if !rises || row.offset < data_start || !row.offset.is_multiple_of(8) {
                return Err(FieldError::new(
                    "index row",
                    format_args!("{block}: block at {}, record {}", row.offset, row.first_ordinal),
                    "rising offsets and ordinals",
                ));
            }
            if block == 0 && row.first_ordinal != 0 {
                return Err(FieldError::new("first ordinal", row.first_ordinal, 0));
            }
            before = Some(row);
        }
        let (offset, key_end, ordinal) = self.numbers(self.block_count)?;
        if (offset, ordinal) != (data_end, record_count) || key_end as usize != self.keys.len() {
            return Err(FieldError::new(
                "last index row",
                format_args!("{offset}, {ordinal}, {key_end}"),
                format_args!("{data_end}, {record_count}, {}", self.keys.len()),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_blocks() -> Vec<u8> {
        let mut writer = IndexWriter::default();
        writer.push(64, 0, b"", b"apple").unwrap();
        writer.push(128, 5, b"badge", b"banana").unwrap();
        writer.push(256, 9, b"cat", b"cats").unwrap();
        assert_eq!(writer.block_count(), 3);
        let len = writer.len_bytes() + b"zebra".len();
        let bytes = writer.finish(512, 20, b"zebra").unwrap();
        assert_eq!(bytes.len(), len);
        bytes
    }

    #[test]
    fn a_key_is_found_in_the_only_block_that_may_hold_it() {
        let bytes = three_blocks();
        let index = BlockIndex::decode(&bytes, 3).unwrap();
        assert_eq!(index.check(64, 512, 20), Ok(()));
        assert_eq!(index.row(1).unwrap().key, b"ban");
        for (key, block) in [
            ("a", None),
            ("apple", Some(0)),
            ("badge", Some(0)),
            ("banana", Some(1)),
            ("cat", Some(1)),
            ("cats", Some(2)),
            ("zebra", Some(2)),
            ("zebras", None),
        ] {
            assert_eq!(index.find(key.as_bytes()), Ok(block), "{key}");
        }
        assert_eq!(index.floor(b"zz"), Ok(Some(2)));
    }

    #[test]
    fn rows_that_do_not_rise_or_end_elsewhere_are_refused() {
        let bytes = three_blocks();
        for at in 0..4 * INDEX_ROW_LEN {
            let mut bent = bytes.clone();
            bent[at] ^= 0x80;
            let index = BlockIndex::decode(&bent, 3).unwrap();
            drop(index.find(b"banana"));
            let checked = index.check(64, 512, 20);
            if matches!(at % INDEX_ROW_LEN, 7 | 11 | 15) {
                assert!(checked.is_err(), "byte {at}");
            }
        }
        assert!(BlockIndex::decode(&bytes, u32::MAX).is_err());
        let index = BlockIndex::decode(&bytes, 3).unwrap();
        assert!(index.check(64, 512, 21).is_err() && index.check(72, 512, 20).is_err());
        for (offset, ordinal) in [(128, 5), (128, 9), (256, 5)] {
            let mut writer = IndexWriter::default();
            writer.push(64, 0, b"", b"apple").unwrap();
            writer.push(128, 5, b"badge", b"banana").unwrap();
            writer.push(offset, ordinal, b"cat", b"cats").unwrap();
            let bytes = writer.finish(512, 20, b"zebra").unwrap();
            let checked = BlockIndex::decode(&bytes, 3).unwrap().check(64, 512, 20);
            assert!(checked.is_err(), "a row at {offset}, {ordinal}");
        }
    }
}
