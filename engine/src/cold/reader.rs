//! One archive, open for reading: filter, block index, block, key.
//! Knows one file; knows nothing of other archives or of which of its records are dead.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zstd::zstd_safe::DDict;

use crate::cold::ColdRecord;
use crate::cold::decode::{prepare_dictionary, unpack_block, with_block};
use crate::cold::filter::Filter;
use crate::error::{Damage, Error, Result};
use crate::format::archive::{
    ARCHIVE_FOOTER_LEN, ARCHIVE_HEADER_LEN, ARCHIVE_VERSION, ArchiveFooter, ArchiveHeader,
    FORMAT_VERSION_FIELD, Region, RegionLens, Tables, header_version,
};
use crate::format::block::{
    Block, BlockHeader, Entry, EntryValue, checksum_error, put_sort_key, split_sort_key,
};
use crate::format::block_index::BlockIndex;
use crate::format::cursor::{Decoded, FieldError};
use crate::format::record::encoded_len;
use crate::hash::{HashSeed, KeyHash};
use crate::ids::{ArchiveId, Incarnation, Seq};
use crate::value::pins::{FilePins, Pin, Pins, Site};
use crate::value::{Bytes, Value};
use crate::vfs::Dir;
use crate::vfs::map::Map;

const DOING: &str = "read archive";
pub(crate) const OPENING: &str = "open archive";

/// A record that was found, verified.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The record's place in the order of the archive; names its bit in the dead bitmap.
    pub ordinal: u32,
    pub seq: Seq,
    /// 0 for none.
    pub deadline_ms: u64,
    pub encoded_len: u64,
    pub value: Value,
}

/// A record that was found, its value not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub ordinal: u32,
    pub seq: Seq,
    /// 0 for none.
    pub deadline_ms: u64,
    pub encoded_len: u64,
}

/// The map, as what a [`Value`] pins.
struct Mapped {
    map: Arc<Map>,
    pins: FilePins,
}

impl Bytes for Mapped {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.map.slice(range).unwrap_or_default()
    }

    fn pin(&self, pins: &Pins, site: Site) -> Option<Arc<Pin>> {
        Some(self.pins.take(pins, site))
    }
}

/// One archive. Shared by all readers; takes no lock.
pub(crate) struct Archive {
    header: ArchiveHeader,
    footer: ArchiveFooter,
    tables: Tables,
    name: String,
    len: u64,
    mapped: Arc<Mapped>,
    filter: Filter,
    dictionary: Option<DDict<'static>>,
    seed: HashSeed,
    /// One bit a raw value: verified since it was mapped.
    raw_verified: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({}, {} records)", self.name, self.footer.record_count)
    }
}

/// What `open` has read before it knows whether the rest is sound.
struct Opening {
    name: String,
    path: PathBuf,
    len: u64,
    map: Arc<Map>,
}

impl Opening {
    fn read(dir: &dyn Dir, id: ArchiveId) -> Result<Self> {
        let name = id.to_string();
        let path = dir.path().join(&name);
        let io = |source| Error::io(OPENING, &path, source);
        let file = dir.open(&name).map_err(io)?;
        let len = file.len().map_err(io)?;
        let min = (ARCHIVE_HEADER_LEN + ARCHIVE_FOOTER_LEN) as u64;
        if len < min || !len.is_multiple_of(8) || usize::try_from(len).is_err() {
            let expected = format!("at least {min}, a multiple of 8");
            return Err(Damage::new(OPENING, name, 0, "file length", len, expected).into());
        }
        let map = file.map(len, len).map_err(io)?;
        Ok(Self { name, path, len, map })
    }

    fn slice(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.map.slice(start..start.checked_add(usize::try_from(len).ok()?)?)
    }

    fn header(&self, id: ArchiveId, store: [u8; 16]) -> Result<ArchiveHeader> {
        let bytes = self.slice(0, ARCHIVE_HEADER_LEN as u64).unwrap_or_default();
        let header = ArchiveHeader::decode(bytes).map_err(|error| {
            if error.field == FORMAT_VERSION_FIELD {
                let found = header_version(bytes).unwrap_or(0);
                return Error::Version {
                    file: self.path.clone(),
                    found,
                    supported: ARCHIVE_VERSION,
                };
            }
            error.at(OPENING, &self.name, 0).into()
        })?;
        let foreign = |reason: String| Error::Foreign { path: self.path.clone(), reason };
        if header.store != store {
            return Err(foreign("an archive of another store".into()));
        }
        if header.id != id {
            return Err(foreign(format!("holds archive {}", header.id)));
        }
        Ok(header)
    }

    fn footer(&self, header: &ArchiveHeader) -> Result<ArchiveFooter, Damage> {
        let offset = self.len - ARCHIVE_FOOTER_LEN as u64;
        let bytes = self.slice(offset, ARCHIVE_FOOTER_LEN as u64).unwrap_or_default();
        ArchiveFooter::decode(bytes, header, offset)
            .map_err(|error| error.at(OPENING, &self.name, offset))
    }

    /// Verifies a region and decodes it; what fails is damage at the region's place.
    fn region<'a, T>(
        &'a self,
        field: &'static str,
        region: &Region,
        nonce: u64,
        decode: impl FnOnce(&'a [u8]) -> Decoded<T>,
    ) -> Result<T, Damage> {
        let bytes = self.slice(region.offset, region.len);
        let decoded = region.verified(field, bytes, nonce).and_then(decode);
        decoded.map_err(|error| error.at(OPENING, &self.name, region.offset))
    }
}

impl Archive {
    /// Opens an archive and verifies all of it but blocks and raw values.
    ///
    /// Errors: [`Error::Corrupt`] with the first damage, [`Error::Version`], [`Error::Foreign`] for
    /// a file of another store or another number.
    pub(crate) fn open(
        dir: &dyn Dir,
        id: ArchiveId,
        store: [u8; 16],
        seed: HashSeed,
    ) -> Result<Arc<Self>> {
        let (archive, damage) = Self::open_degraded(dir, id, store, seed)?;
        match damage.into_iter().next() {
            None => Ok(archive),
            Some(damage) => Err(damage.into()),
        }
    }

    /// Opens an archive even when filter or dictionary are damaged: without the filter every search
    /// reads a block, without the dictionary the blocks that need it are damaged.
    pub(crate) fn open_degraded(
        dir: &dyn Dir,
        id: ArchiveId,
        store: [u8; 16],
        seed: HashSeed,
    ) -> Result<(Arc<Self>, Vec<Damage>)> {
        let opening = Opening::read(dir, id)?;
        let header = opening.header(id, store)?;
        let footer = opening.footer(&header)?;
        let nonce = header.nonce;
        let tables =
            opening.region("tables", &footer.tables, nonce, |b| Tables::decode(b, &footer))?;
        opening.region("block index", &footer.index, nonce, |bytes| {
            let index = BlockIndex::decode(bytes, footer.block_count)?;
            index.check(ARCHIVE_HEADER_LEN as u64, footer.data_end, footer.record_count)
        })?;
        let mut damage = Vec::new();
        let filter = opening.region("filter", &footer.filter, nonce, |bytes| {
            Filter::decode(bytes, footer.record_count)
        });
        let filter = filter.unwrap_or_else(|found| {
            damage.push(found);
            Filter::open()
        });
        let dictionary =
            opening.region("dictionary", &footer.dictionary, nonce, prepare_dictionary);
        let dictionary = dictionary.unwrap_or_else(|found| {
            damage.push(found);
            None
        });
        let Opening { name, len, map, .. } = opening;
        map.advise_random();
        let words = (footer.raw_count as usize).div_ceil(64);
        let raw_verified = (0..words).map(|_| AtomicU64::new(0)).collect();
        let pins = FilePins::new(name.clone(), Arc::clone(&map));
        let mapped = Arc::new(Mapped { map, pins });
        let archive = Self {
            header,
            footer,
            tables,
            name,
            len,
            mapped,
            filter,
            dictionary,
            seed,
            raw_verified,
        };
        Ok((Arc::new(archive), damage))
    }

    pub(crate) fn id(&self) -> ArchiveId {
        self.header.id
    }

    pub(crate) fn header(&self) -> &ArchiveHeader {
        &self.header
    }

    /// Counts, bytes, deadlines, sequence numbers, regions.
    pub(crate) fn footer(&self) -> &ArchiveFooter {
        &self.footer
    }

    /// Sums by incarnation and by deadline class.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn record_count(&self) -> u32 {
        self.footer.record_count
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.len
    }

    /// The file's bytes by kind; they sum to its length.
    pub(crate) fn lens(&self) -> RegionLens {
        self.footer.lens()
    }

    /// Anonymous memory that the open archive takes: filter, dictionary, tables, bits.
    pub(crate) fn anonymous_len(&self) -> u64 {
        let dictionary = self.dictionary.as_ref().map_or(0, DDict::sizeof);
        let tables = size_of_val(&*self.tables.incarnations) + size_of_val(&*self.tables.classes);
        let bits = size_of_val(&*self.raw_verified);
        (self.filter.charged_len() + dictionary + tables + bits + size_of::<Self>()) as u64
    }

    pub(crate) fn hash(&self, incarnation: Incarnation, key: &[u8]) -> KeyHash {
        self.seed.hash(incarnation, key)
    }

    /// `false` only when no record has this hash. Reads no file.
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        self.filter.may_contain(hash)
    }

    /// The least and the greatest key, with their incarnations.
    pub(crate) fn bounds(&self) -> Result<[(Incarnation, &[u8]); 2]> {
        let index = self.index().map_err(|error| self.index_damage(error))?;
        let key = |row: u32| index.row(row).and_then(|row| split_sort_key(row.key));
        let both = key(0).and_then(|least| Ok([least, key(self.footer.block_count)?]));
        both.map_err(|error| self.index_damage(error))
    }

    /// The record of a key, its value verified.
    ///
    /// Cost: one look at the filter, usually; else one block is read and decompressed.
    /// Errors: [`Error::Corrupt`] when the block that may hold the key, or the record, is damaged.
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Result<Option<Found>> {
        self.search(hash, incarnation, key, |located, entry| {
            let (bytes, raw) = match entry.value {
                EntryValue::Inline(bytes) => (bytes, None),
                EntryValue::Raw { len, index, offset } => {
                    let range = self.raw_range(offset, len, index)?;
                    (self.mapped.bytes(range.clone()), Some((range, index)))
                }
            };
            let (Located { seq, deadline_ms, .. }, body_crc) = (located, entry.body_crc);
            let record = ColdRecord { incarnation, key, seq, deadline_ms, body_crc, value: bytes };
            self.check_body(&record, raw.as_ref().map(|(_, index)| *index))?;
            let value = match raw {
                None => Value::from(bytes),
                Some((range, _)) => self.mapped_value(range),
            };
            let Located { ordinal, encoded_len, .. } = located;
            Ok(Found { ordinal, seq, deadline_ms, encoded_len, value })
        })
    }

    /// The record of a key without its value.
    pub(crate) fn locate(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Result<Option<Located>> {
        self.search(hash, incarnation, key, |located, _| Ok(located))
    }

    fn search<T>(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        read: impl FnOnce(Located, &Entry<'_>) -> Decoded<T>,
    ) -> Result<Option<T>> {
        if !self.may_contain(hash) {
            return Ok(None);
        }
        let mut sort_key = Vec::with_capacity(key.len() + 4);
        put_sort_key(&mut sort_key, incarnation, key);
        let block = self.index().and_then(|index| index.find(&sort_key));
        let Some(block) = block.map_err(|error| self.index_damage(error))? else {
            return Ok(None);
        };
        let stored = self.stored_block(block)?;
        let found = with_block(&stored.header, stored.payload, self.dictionary.as_ref(), |bytes| {
            let header = &stored.header;
            let decoded = Block::decode(bytes, header.record_count, self.header.created_ms)?;
            let Some((index, entry)) = decoded.find(&sort_key)? else { return Ok(None) };
            let located = Located {
                ordinal: header.first_ordinal.saturating_add(index),
                seq: entry.seq,
                deadline_ms: entry.deadline_ms,
                encoded_len: encoded_len(key.len(), entry.value.len_bytes() as usize),
            };
            read(located, &entry).map(Some)
        });
        found.and_then(|found| found).map_err(|error| self.damage(stored.offset, error))
    }

    pub(crate) fn index(&self) -> Decoded<BlockIndex<'_>> {
        let region = &self.footer.index;
        let bytes = self.slice(region.offset, region.len).unwrap_or_default();
        BlockIndex::decode(bytes, self.footer.block_count)
    }

    pub(crate) fn slice(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.mapped.map.slice(start..start.checked_add(usize::try_from(len).ok()?)?)
    }

    pub(crate) fn prefetch(&self, range: Range<u64>) {
        self.mapped.map.prefetch(range);
    }

    /// A block as it is stored, its checksum and its ordinals verified.
    pub(crate) fn stored_block(&self, block: u32) -> Result<StoredBlock<'_>> {
        let rows = self
            .index()
            .and_then(|index| Ok((index.row(block)?, index.row(block.saturating_add(1))?)));
        let (row, next) = rows.map_err(|error| self.index_damage(error))?;
        let offset = row.offset;
        let bytes = self.slice(offset, next.offset.saturating_sub(offset)).unwrap_or_default();
        let (header, payload) = BlockHeader::decode(bytes, self.header.nonce, offset)
            .map_err(|error| self.damage(offset, error))?;
        let record_count = next.first_ordinal.saturating_sub(row.first_ordinal);
        if (header.first_ordinal, header.record_count) != (row.first_ordinal, record_count) {
            let found = format!("{} from {}", header.record_count, header.first_ordinal);
            let expected = format!("{record_count} from {}", row.first_ordinal);
            let error = FieldError { field: "records of a block", found, expected };
            return Err(self.damage(offset, error));
        }
        Ok(StoredBlock { offset, header, payload })
    }

    /// Decompresses a block into a buffer of the caller's.
    pub(crate) fn read_block(&self, block: u32, out: &mut Vec<u8>) -> Result<(u64, BlockHeader)> {
        let stored = self.stored_block(block)?;
        unpack_block(&stored.header, stored.payload, self.dictionary.as_ref(), out)
            .map_err(|error| self.damage(stored.offset, error))?;
        Ok((stored.offset, stored.header))
    }

    /// Where a raw value lies, inside the data.
    pub(crate) fn raw_range(&self, offset: u64, len: u32, index: u32) -> Decoded<Range<usize>> {
        let end = offset.saturating_add(u64::from(len));
        let inside = offset >= ARCHIVE_HEADER_LEN as u64 && end <= self.footer.data_end;
        if !inside || index >= self.footer.raw_count {
            return Err(FieldError::new(
                "raw value",
                format_args!("number {index}, {len} bytes at {offset}"),
                format_args!("{} inside the data", self.footer.raw_count),
            ));
        }
        Ok(usize::try_from(offset).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(0))
    }

    pub(crate) fn mapped_bytes(&self, range: Range<usize>) -> &[u8] {
        self.mapped.bytes(range)
    }

    /// A value that borrows the map and pins the archive's file.
    pub(crate) fn mapped_value(&self, range: Range<usize>) -> Value {
        Value::mapped(Arc::clone(&self.mapped) as Arc<dyn Bytes>, range)
    }

    /// Verifies a record's body; that of a raw value once since it was mapped.
    pub(crate) fn check_body(&self, record: &ColdRecord<'_>, raw: Option<u32>) -> Decoded<()> {
        let bit = raw.and_then(|index| {
            Some((self.raw_verified.get(index as usize / 64)?, 1_u64 << (index % 64)))
        });
        if bit.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0) {
            return Ok(());
        }
        let checked = record.check_body();
        checked.map_err(|found| checksum_error("body checksum", found, record.body_crc))?;
        if let Some((word, bit)) = bit {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The file is unlinked; values may hold it still.
    pub(crate) fn retire(&self) {
        self.mapped.pins.retire(self.len);
    }

    pub(crate) fn damage(&self, offset: u64, error: FieldError) -> Error {
        error.at(DOING, &self.name, offset).into()
    }

    pub(crate) fn index_damage(&self, error: FieldError) -> Error {
        self.damage(self.footer.index.offset, error)
    }
}

/// A block in the map.
pub(crate) struct StoredBlock<'a> {
    pub offset: u64,
    pub header: BlockHeader,
    pub payload: &'a [u8],
}
