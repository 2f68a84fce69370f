//! Writes one archive: records in, in order; a synced file out.
//! Knows one file; knows nothing of the file set, of other archives, or of why these records.

use std::path::PathBuf;
use std::sync::Arc;

use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

use crate::cold::ColdRecord;
use crate::cold::hashes::{Hashes, Written};
use crate::cold::tally::Tally;
use crate::error::{Damage, Error, Result};
use crate::format::archive::{
    ARCHIVE_FOOTER_LEN, ARCHIVE_HEADER_LEN, ArchiveHeader, Region, align8,
};
use crate::format::block::{BlockHeader, BlockWriter, Codec, Entry, EntryValue, put_sort_key};
use crate::format::block_index::IndexWriter;
use crate::format::cursor::FieldError;
use crate::format::dictionary::check_dictionary;
use crate::hash::HashSeed;
use crate::ids::ArchiveId;
use crate::limits::{self, BLOCK_LEN_MAX, BLOCK_VALUE_LEN_MAX, KEY_LEN_MAX};
use crate::vfs::{Dir, File};

/// Bytes of a block at which the next record begins another one.
pub(crate) const BLOCK_LEN_TARGET: usize = 8 << 10;
/// Longer values lie outside of the blocks.
pub(crate) const INLINE_VALUE_LEN_MAX: usize = BLOCK_VALUE_LEN_MAX;
/// A block is stored compressed when that takes at most so many hundredths.
const COMPRESSED_PERCENT_MAX: usize = 88;
/// The level of blocks that are written in haste.
const LEVEL_IN_HASTE: i32 = 3;
/// Bytes that are collected before a write.
const WRITE_LEN_MIN: usize = 256 << 10;

const _: () = assert!(KEY_LEN_MAX + INLINE_VALUE_LEN_MAX + 64 <= BLOCK_LEN_MAX);

const DOING: &str = "write archive";

/// What an archive is made with.
#[derive(Debug, Clone)]
pub(crate) struct NewArchive {
    pub id: ArchiveId,
    pub store: [u8; 16],
    pub nonce: u64,
    pub created_ms: u64,
    /// Of zstd, 1 to 19.
    pub level: i32,
    pub seed: HashSeed,
    /// From [`crate::cold::dictionary::Sampler::finish`].
    pub dictionary: Option<Vec<u8>>,
    /// Hashes that are kept in memory for the filter; beyond it the blocks are read again.
    pub hashes_max: usize,
}

/// Writes one archive, streaming. Dropping it leaves an unfinished file behind.
///
/// Memory: 8 bytes for each of `hashes_max`, 2.5 bytes a record for the filter, the block index,
/// one block and 256 KiB.
pub(crate) struct ArchiveBuilder {
    header: ArchiveHeader,
    seed: HashSeed,
    output: Output,
    block: BlockWriter,
    compressor: Compressor<'static>,
    /// For blocks that are written in haste, once there was one.
    hasty: Option<Compressor<'static>>,
    in_haste: bool,
    packed: Vec<u8>,
    dictionary: Vec<u8>,
    index: IndexWriter,
    /// The sort key of the record that came last; empty before the first.
    last_key: Vec<u8>,
    /// The last sort key of the block before, and the first one of this block.
    block_before_key: Vec<u8>,
    block_first_key: Vec<u8>,
    sort_key: Vec<u8>,
    hashes: Hashes,
    tally: Tally,
    raw_count: u32,
    raw_len: u64,
    data_padding: u64,
}

impl ArchiveBuilder {
    /// Creates the file. The caller has named it in the manifest and syncs the directory later.
    pub(crate) fn new(dir: &dyn Dir, new: NewArchive) -> Result<Self> {
        let NewArchive { id, store, nonce, created_ms, level, seed, dictionary, hashes_max } = new;
        let dictionary = dictionary.unwrap_or_default();
        assert!(check_dictionary(&dictionary).is_ok(), "{DOING}: not a dictionary");
        let name = id.to_string();
        let path = dir.path().join(&name);
        let compressor = Compressor::with_dictionary(level, &dictionary)
            .map_err(|source| Error::io(DOING, &path, source))?;
        let file = dir.create(&name).map_err(|source| Error::io(DOING, &path, source))?;
        let header = ArchiveHeader { id, store, nonce, created_ms };
        Ok(Self {
            header,
            seed,
            output: Output { file, path, name, pending: header.encode(), flushed: 0 },
            block: BlockWriter::new(created_ms),
            compressor,
            hasty: None,
            in_haste: false,
            packed: Vec::new(),
            dictionary,
            index: IndexWriter::default(),
            last_key: Vec::new(),
            block_before_key: Vec::new(),
            block_first_key: Vec::new(),
            sort_key: Vec::new(),
            hashes: Hashes::new(hashes_max),
            tally: Tally::new(created_ms),
            raw_count: 0,
            raw_len: 0,
            data_padding: 0,
        })
    }

    pub(crate) fn record_count(&self) -> u32 {
        self.tally.record_count()
    }

    /// About how long the file would be if it ended now; blocks that wait count as they are.
    pub(crate) fn estimated_len(&self) -> u64 {
        let waiting = self.block.len_bytes() + self.index.len_bytes() + self.hashes.count() * 5 / 4;
        let fixed = self.dictionary.len() + self.tally.tables_len() + ARCHIVE_FOOTER_LEN + 64;
        self.output.position() + (waiting + fixed) as u64
    }

    /// Compresses the blocks to come fast rather than well, or as the level says again.
    pub(crate) fn set_haste(&mut self, in_haste: bool) -> Result<()> {
        self.in_haste = in_haste;
        if in_haste && self.hasty.is_none() {
            let made = Compressor::with_dictionary(LEVEL_IN_HASTE, &self.dictionary);
            let made = made.map_err(|source| Error::io(DOING, &self.output.path, source))?;
            self.hasty = Some(made);
        }
        Ok(())
    }

    /// Appends a record. Asserts that its incarnation and key are above the last ones.
    ///
    /// Errors: [`Error::Corrupt`] when the body checksum does not hold: rot is never copied.
    pub(crate) fn add(&mut self, record: &ColdRecord<'_>) -> Result<()> {
        limits::check_key(record.key)?;
        limits::check_value(record.value)?;
        self.sort_key.clear();
        put_sort_key(&mut self.sort_key, record.incarnation, record.key);
        assert!(self.sort_key > self.last_key, "{DOING}: records come in the order of their keys");
        record.check_body().map_err(|found| self.output.corrupt(found, record.body_crc))?;
        if self.tally.record_count() == u32::MAX {
            let max = u64::from(u32::MAX);
            return Err(Error::Limit { what: "records of an archive", max, found: max + 1 });
        }
        self.cut_block(record)?;
        let value = self.place_value(record.value)?;
        let entry = Entry {
            seq: record.seq,
            deadline_ms: record.deadline_ms,
            body_crc: record.body_crc,
            value,
        };
        if self.block.count() == 0 {
            self.block_first_key.clone_from(&self.sort_key);
        }
        self.block.push(&self.sort_key, &entry);
        self.hashes.push(self.seed.hash(record.incarnation, record.key).0);
        self.tally.add(record);
        std::mem::swap(&mut self.last_key, &mut self.sort_key);
        Ok(())
    }

    /// Ends the block before a record that would make it longer than the target.
    fn cut_block(&mut self, record: &ColdRecord<'_>) -> Result<()> {
        let inline = if record.value.len() > INLINE_VALUE_LEN_MAX { 0 } else { record.value.len() };
        let with = self.block.len_bytes() + record.key.len() + inline + 16;
        if self.block.count() > 0 && with > BLOCK_LEN_TARGET {
            return self.write_block();
        }
        Ok(())
    }

    /// Writes a long value at once, in front of its block.
    fn place_value<'a>(&mut self, value: &'a [u8]) -> Result<EntryValue<'a>> {
        if value.len() <= INLINE_VALUE_LEN_MAX {
            return Ok(EntryValue::Inline(value));
        }
        let (index, offset) = (self.raw_count, self.output.position());
        self.output.write(value)?;
        self.data_padding += self.output.pad()?;
        self.raw_count += 1;
        self.raw_len += value.len() as u64;
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Ok(EntryValue::Raw { len, index, offset })
    }

    fn write_block(&mut self) -> Result<()> {
        let record_count = self.block.count();
        let first_ordinal = self.tally.record_count() - record_count;
        let raw = self.block.finish();
        self.packed.clear();
        self.packed.reserve(compress_bound(raw.len()));
        let hasty = self.hasty.as_mut().filter(|_| self.in_haste);
        let compressor = hasty.unwrap_or(&mut self.compressor);
        let packed = compressor.compress_to_buffer(raw, &mut self.packed);
        let packed = packed.map_err(|source| Error::io(DOING, &self.output.path, source))?;
        let pays = packed * 100 <= raw.len() * COMPRESSED_PERCENT_MAX;
        let (codec, payload) = match (pays, self.dictionary.is_empty()) {
            (false, _) => (Codec::Raw, raw),
            (true, true) => (Codec::Zstd, self.packed.as_slice()),
            (true, false) => (Codec::ZstdDictionary, self.packed.as_slice()),
        };
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (stored_len, raw_len) = (len(payload), len(raw));
        let header = BlockHeader { stored_len, raw_len, first_ordinal, record_count, codec };
        let offset = self.output.position();
        header.encode(self.header.nonce, offset, payload, &mut self.output.pending);
        self.data_padding += self.output.pad()?;
        let entered =
            self.index.push(offset, first_ordinal, &self.block_before_key, &self.block_first_key);
        entered.ok_or_else(index_is_full)?;
        self.block_before_key.clone_from(&self.last_key);
        self.block.clear();
        Ok(())
    }

    /// Writes what follows the blocks and syncs the file. Returns its length. The name is durable
    /// once the caller has synced the directory.
    ///
    /// Asserts that there is at least one record.
    pub(crate) fn finish(mut self) -> Result<u64> {
        assert!(self.record_count() > 0, "{DOING}: an archive has records");
        self.write_block()?;
        let mut footer = self.tally.footer();
        footer.data_end = self.output.position();
        footer.data_padding = self.data_padding;
        footer.block_count = self.index.block_count();
        (footer.raw_count, footer.raw_len) = (self.raw_count, self.raw_len);
        let nonce = self.header.nonce;
        footer.dictionary = self.output.region(&self.dictionary, nonce)?;
        self.output.flush()?;
        let hashes = std::mem::replace(&mut self.hashes, Hashes::new(0));
        let filter = hashes.into_filter(&self.written());
        let filter = filter.map_err(|found| self.output.damage(found))?;
        footer.filter = self.output.region(&filter, nonce)?;
        let index = self.index.finish(footer.data_end, footer.record_count, &self.last_key);
        footer.index = self.output.region(&index.ok_or_else(index_is_full)?, nonce)?;
        footer.tables = self.output.region(&self.tally.tables().encode(), nonce)?;
        let offset = self.output.position();
        self.output.write(&footer.encode(self.header.id, nonce, offset))?;
        self.output.finish()
    }

    fn written(&self) -> Written<'_> {
        Written {
            file: &*self.output.file,
            nonce: self.header.nonce,
            created_ms: self.header.created_ms,
            seed: self.seed,
            dictionary: &self.dictionary,
            index: &self.index,
        }
    }

    /// Gives up and unlinks the file.
    pub(crate) fn abandon(self, dir: &dyn Dir) -> Result<()> {
        let Output { name, path, .. } = self.output;
        dir.unlink(&name).map_err(|source| Error::io("unlink archive", path, source))
    }
}

fn index_is_full() -> Error {
    let max = u64::from(u32::MAX);
    Error::Limit { what: "keys of a block index", max, found: max + 1 }
}

/// The file that grows, in pieces of at least 256 KiB.
struct Output {
    file: Arc<dyn File>,
    path: PathBuf,
    name: String,
    pending: Vec<u8>,
    flushed: u64,
}

impl Output {
    fn position(&self) -> u64 {
        self.flushed + self.pending.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.pending.len() + bytes.len() < WRITE_LEN_MIN {
            self.pending.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() < WRITE_LEN_MIN {
            self.pending.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_through(bytes)
    }

    /// Zeros up to the next multiple of 8; returns how many.
    fn pad(&mut self) -> Result<u64> {
        let padding = align8(self.position()) - self.position();
        self.pending.resize(self.pending.len() + usize::try_from(padding).unwrap_or(0), 0);
        if self.pending.len() >= WRITE_LEN_MIN {
            self.flush()?;
        }
        Ok(padding)
    }

    fn region(&mut self, bytes: &[u8], nonce: u64) -> Result<Region> {
        let region = Region::of(bytes, nonce, self.position());
        self.write(bytes)?;
        self.pad()?;
        Ok(region)
    }

    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.write_through(&pending)?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.flushed);
        written.map_err(|source| Error::io(DOING, &self.path, source))?;
        self.flushed += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.flush()?;
        self.file.sync().map_err(|source| Error::io("sync archive", &self.path, source))?;
        Ok(self.flushed)
    }

    fn damage(&self, found: FieldError) -> Error {
        let FieldError { field, found, expected } = found;
        Damage::new(DOING, &self.name, self.position(), field, found, expected).into()
    }

    fn corrupt(&self, found: u32, expected: u32) -> Error {
        let (found, expected) = (format!("{found:08x}"), format!("{expected:08x}"));
        let offset = self.position();
        Damage::new(DOING, &self.name, offset, "body checksum", found, expected).into()
    }
}

const _: () = assert!(ARCHIVE_HEADER_LEN.is_multiple_of(8));
