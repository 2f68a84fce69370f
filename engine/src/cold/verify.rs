//! Reads all of an archive and names everything that does not hold.
//! Knows one file; repairs nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::cold::ColdRecord;
use crate::cold::decode::prepare_dictionary;
use crate::cold::filter::Filter;
use crate::cold::reader::{Archive, Located};
use crate::cold::tally::Tally;
use crate::error::{Damage, Error};
use crate::format::archive::{
    ARCHIVE_FOOTER_LEN, ARCHIVE_HEADER_LEN, ArchiveFooter, ArchiveHeader, Region, Tables,
};
use crate::format::block::{Block, BlockHeader, Entry, EntryValue, split_sort_key};
use crate::format::block_index::BlockIndex;
use crate::format::cursor::{Decoded, FieldError};
use crate::format::record::encoded_len;
use crate::ids::Incarnation;
use crate::vfs::view::Piece;

const DOING: &str = "verify archive";

impl Archive {
    /// Verifies header, regions, every block, every record, the order, the filter and the sums.
    /// `progress` is told bytes as they are done; they sum to the file's length.
    pub(crate) fn verify(self: &Arc<Self>, progress: &mut dyn FnMut(u64)) -> Vec<Damage> {
        let mut check = Verify {
            archive: self,
            damage: Vec::new(),
            tally: Tally::new(self.header().created_ms),
            last_key: Vec::new(),
            raw_left: self.footer().raw_len,
        };
        check.regions();
        let data_end = self.footer().data_end;
        progress(self.file_len().saturating_sub(data_end));
        let mut done = 0;
        for block in 0..self.footer().block_count {
            let end = check.block(block);
            progress(end.saturating_sub(done));
            done = done.max(end);
        }
        progress(data_end.saturating_sub(done));
        check.sums();
        check.damage
    }

    /// Walks the records of the blocks whose ordinals are wanted, without their values.
    pub(crate) fn walk_locations(
        &self,
        wanted: impl Fn(Range<u32>) -> bool,
        mut each: impl FnMut(Incarnation, Located),
    ) -> Vec<Damage> {
        let mut damage = Vec::new();
        let mut bytes = Vec::new();
        for block in 0..self.footer().block_count {
            let rows = self.index().and_then(|index| {
                Ok(index.row(block)?.first_ordinal..index.row(block + 1)?.first_ordinal)
            });
            if rows.is_ok_and(|ordinals| !wanted(ordinals)) {
                continue;
            }
            let walked = self.read_block(block, &mut bytes).and_then(|(offset, header)| {
                walk(self, &bytes, &header, |ordinal, sort_key, entry| {
                    let (incarnation, key) = split_sort_key(sort_key)?;
                    let located = Located {
                        ordinal,
                        seq: entry.seq,
                        deadline_ms: entry.deadline_ms,
                        encoded_len: encoded_len(key.len(), entry.value.len_bytes() as usize),
                    };
                    each(incarnation, located);
                    Ok(())
                })
                .map_err(|error| self.damage(offset, error))
            });
            if let Err(error) = walked {
                damage.push(damage_of(self, self.footer().index.offset, error));
            }
        }
        damage
    }
}

/// Damage as it was found; bytes that cannot be read are damage at `offset`.
fn damage_of(archive: &Archive, offset: u64, error: Error) -> Damage {
    match error {
        Error::Corrupt(found) => *found,
        other => FieldError::new("bytes", other, "some that can be read").at(
            DOING,
            archive.name(),
            offset,
        ),
    }
}

/// Calls `each` with ordinal, sort key and entry of every record of a block.
fn walk(
    archive: &Archive,
    bytes: &[u8],
    header: &BlockHeader,
    mut each: impl FnMut(u32, &[u8], &Entry<'_>) -> Decoded<()>,
) -> Decoded<()> {
    let block = Block::decode(bytes, header.record_count, archive.header().created_ms)?;
    for group in 0..block.group_count() {
        let mut walk = block.group(group)?;
        while let Some((index, entry)) = walk.next()? {
            each(header.first_ordinal.saturating_add(index), walk.key(), &entry)?;
        }
    }
    Ok(())
}

struct Verify<'a> {
    archive: &'a Arc<Archive>,
    damage: Vec<Damage>,
    tally: Tally,
    last_key: Vec<u8>,
    /// Bytes of raw values that were not read yet, if the footer is right.
    raw_left: u64,
}

impl<'a> Verify<'a> {
    fn note(&mut self, offset: u64, checked: Decoded<()>) {
        if let Err(error) = checked {
            self.damage.push(error.at(DOING, self.archive.name(), offset));
        }
    }

    /// Bytes of the file. That they cannot be read is damage as well.
    fn piece(&mut self, offset: u64, len: u64) -> Option<Piece<'a>> {
        let archive: &'a Arc<Archive> = self.archive;
        let piece = archive.piece(offset, len);
        piece.unwrap_or_else(|error| {
            self.damage.push(damage_of(archive, offset, error));
            None
        })
    }

    fn regions(&mut self) {
        let archive = self.archive;
        let (header, footer) = (archive.header(), archive.footer());
        let bytes = self.piece(0, ARCHIVE_HEADER_LEN as u64);
        let bytes = bytes.as_deref().unwrap_or_default();
        self.note(0, ArchiveHeader::decode(bytes).map(drop));
        let offset = archive.file_len().saturating_sub(ARCHIVE_FOOTER_LEN as u64);
        let bytes = self.piece(offset, ARCHIVE_FOOTER_LEN as u64);
        let bytes = bytes.as_deref().unwrap_or_default();
        self.note(offset, ArchiveFooter::decode(bytes, header, offset).map(drop));
        type Check<'a> = (&'static str, Region, &'a dyn Fn(&[u8]) -> Decoded<()>);
        let checks: [Check<'_>; 4] = [
            ("dictionary", footer.dictionary, &|bytes| prepare_dictionary(bytes).map(drop)),
            ("filter", footer.filter, &|bytes| {
                Filter::decode(bytes, footer.record_count).map(drop)
            }),
            ("block index", footer.index, &|bytes| {
                let index = BlockIndex::decode(bytes, footer.block_count)?;
                index.check(ARCHIVE_HEADER_LEN as u64, footer.data_end, footer.record_count)
            }),
            ("tables", footer.tables, &|bytes| Tables::decode(bytes, footer).map(drop)),
        ];
        for (field, region, check) in checks {
            let bytes = self.piece(region.offset, region.len);
            let checked = region.verified(field, bytes.as_deref(), header.nonce).and_then(check);
            self.note(region.offset, checked);
        }
    }

    /// Verifies one block; returns where the next one begins.
    fn block(&mut self, block: u32) -> u64 {
        let archive = self.archive;
        let rows = archive.index().and_then(|index| Ok((index.row(block)?, index.row(block + 1)?)));
        let (row, next) = match rows {
            Ok(rows) => rows,
            Err(error) => {
                self.note(archive.footer().index.offset, Err(error));
                return 0;
            }
        };
        let mut bytes = Vec::new();
        match archive.read_block(block, &mut bytes) {
            Ok((offset, header)) => {
                let walked = walk(archive, &bytes, &header, |_, sort_key, entry| {
                    self.record(offset, row.key, sort_key, entry)
                });
                self.note(offset, walked);
            }
            Err(error) => {
                let found = damage_of(archive, row.offset, error);
                self.damage.push(Damage { doing: DOING, ..found });
            }
        }
        let last = block.saturating_add(1) >= archive.footer().block_count;
        let order = self.last_key.as_slice().cmp(next.key);
        if order.is_gt() || last != order.is_eq() {
            let found = FieldError::new("index key", "another key", "one above the block before");
            self.note(archive.footer().index.offset, Err(found));
        }
        next.offset
    }

    /// Verifies a record's order; damage of its body costs only this record.
    fn record(
        &mut self,
        offset: u64,
        separator: &[u8],
        sort_key: &[u8],
        entry: &Entry<'_>,
    ) -> Decoded<()> {
        if sort_key <= self.last_key.as_slice() || sort_key < separator {
            return Err(FieldError::new("key", "not above the one before", "rising keys"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(sort_key);
        let checked = self.body(sort_key, entry);
        self.note(offset, checked);
        Ok(())
    }

    fn body(&mut self, sort_key: &[u8], entry: &Entry<'_>) -> Decoded<()> {
        let archive = self.archive;
        let (incarnation, key) = split_sort_key(sort_key)?;
        let value = match entry.value {
            EntryValue::Inline(bytes) => Piece::Lent(bytes),
            EntryValue::Raw { len, index, offset } => {
                // Each lies in the file once, but entries that somebody forged may share one.
                let left = self.raw_left.checked_sub(u64::from(len));
                let raw_len = archive.footer().raw_len;
                self.raw_left =
                    left.ok_or_else(|| FieldError::new("raw values", "more bytes", raw_len))?;
                let range = archive.raw_range(offset, len, index)?;
                let bytes = archive.raw_bytes(&range);
                bytes.map_err(|error| FieldError::new("raw value", error, "one to be read"))?
            }
        };
        let (seq, deadline_ms, body_crc) = (entry.seq, entry.deadline_ms, entry.body_crc);
        let value = &*value;
        let record = ColdRecord { incarnation, key, seq, deadline_ms, body_crc, value };
        self.tally.add(&record);
        archive.check_body(&record, None)?;
        if !archive.may_contain(archive.hash(incarnation, key)) {
            return Err(FieldError::new("filter", "a key that it excludes", "every key"));
        }
        Ok(())
    }

    /// Compares the sums; pointless when a block could not be counted.
    fn sums(&mut self) {
        if !self.damage.is_empty() {
            return;
        }
        let footer = self.archive.footer();
        let counted = ArchiveFooter {
            data_end: footer.data_end,
            dictionary: footer.dictionary,
            filter: footer.filter,
            index: footer.index,
            tables: footer.tables,
            block_count: footer.block_count,
            raw_count: footer.raw_count,
            raw_len: footer.raw_len,
            data_padding: footer.data_padding,
            ..self.tally.footer()
        };
        if counted != *footer || self.tally.tables() != *self.archive.tables() {
            let found = format_args!("{} records", counted.record_count).to_string();
            let error = FieldError::new("sums", found, "what the footer and the tables say");
            let offset = self.archive.file_len().saturating_sub(ARCHIVE_FOOTER_LEN as u64);
            self.note(offset, Err(error));
        }
    }
}
