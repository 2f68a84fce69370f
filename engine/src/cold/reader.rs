//! One archive, open for reading: filter, block index, block, key.
//! Knows one file; knows nothing of other archives or of which of its records are dead.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zstd::zstd_safe::DDict;

use crate::cold::ColdRecord;
use crate::cold::decode::{prepare_dictionary, unpack_block, with_block};
use crate::cold::filter::Filter;
use crate::cold::opening::Opening;
use crate::error::{Damage, Error, Result};
use crate::format::archive::{
    ARCHIVE_HEADER_LEN, ArchiveFooter, ArchiveHeader, RegionLens, Tables,
};
use crate::format::block::{
    BLOCK_HEADER_LEN, Block, BlockHeader, Entry, EntryValue, checksum_error, put_sort_key,
    split_sort_key,
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
use crate::vfs::view::{Piece, View};

const DOING: &str = "read archive";

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

/// The map, where there is one, as what a [`Value`] pins.
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
    view: View,
    mapped: Option<Arc<Mapped>>,
    /// The block index, where the file is not mapped.
    index: Option<Box<[u8]>>,
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
            opening.region("tables", &footer.tables, nonce, |b| Tables::decode(b, &footer))??;
        let in_memory = opening.view.map().is_none();
        let index = opening.region("block index", &footer.index, nonce, |bytes| {
            let index = BlockIndex::decode(bytes, footer.block_count)?;
            index.check(ARCHIVE_HEADER_LEN as u64, footer.data_end, footer.record_count)?;
            Ok(in_memory.then(|| Box::from(bytes)))
        })??;
        let mut damage = Vec::new();
        let filter = opening.region("filter", &footer.filter, nonce, |bytes| {
            Filter::decode(bytes, footer.record_count)
        })?;
        let filter = filter.unwrap_or_else(|found| {
            damage.push(found);
            Filter::open()
        });
        let dictionary =
            opening.region("dictionary", &footer.dictionary, nonce, prepare_dictionary)?;
        let dictionary = dictionary.unwrap_or_else(|found| {
            damage.push(found);
            None
        });
        let Opening { name, len, view, .. } = opening;
        let mapped = view.map().map(|map| {
            map.advise_random();
            let pins = FilePins::new(name.clone(), Arc::clone(map));
            Arc::new(Mapped { map: Arc::clone(map), pins })
        });
        let words = (footer.raw_count as usize).div_ceil(64);
        let raw_verified = (0..words).map(|_| AtomicU64::new(0)).collect();
        let archive = Self {
            header,
            footer,
            tables,
            name,
            len,
            view,
            mapped,
            index,
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

    /// Anonymous memory that the open archive takes: filter, dictionary, tables, bits, and, where
    /// the file is not mapped, the block index.
    pub(crate) fn anonymous_len(&self) -> u64 {
        let dictionary = self.dictionary.as_ref().map_or(0, DDict::sizeof);
        let tables = size_of_val(&*self.tables.incarnations) + size_of_val(&*self.tables.classes);
        let bits = size_of_val(&*self.raw_verified);
        let index = self.index.as_ref().map_or(0, |index| index.len());
        let all = self.filter.charged_len() + dictionary + tables + bits + index;
        (all + size_of::<Self>()) as u64
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
            let (value, raw) = match entry.value {
                EntryValue::Inline(bytes) => (Value::from(bytes), None),
                EntryValue::Raw { len, index, offset } => {
                    match self.raw_range(offset, len, index) {
                        Ok(range) => (self.raw_value(range)?, Some(index)),
                        Err(error) => return Ok(Err(error)),
                    }
                }
            };
            let (Located { seq, deadline_ms, .. }, body_crc) = (located, entry.body_crc);
            let record = ColdRecord { incarnation, key, seq, deadline_ms, body_crc, value: &value };
            let checked = self.check_body(&record, raw);
            let Located { ordinal, encoded_len, .. } = located;
            Ok(checked.map(|()| Found { ordinal, seq, deadline_ms, encoded_len, value }))
        })
    }

    /// The record of a key without its value.
    pub(crate) fn locate(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Result<Option<Located>> {
        self.search(hash, incarnation, key, |located, _| Ok(Ok(located)))
    }

    fn search<T>(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        read: impl FnOnce(Located, &Entry<'_>) -> Result<Decoded<T>>,
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
        let damage = |error| self.damage(stored.offset, error);
        let dictionary = self.dictionary.as_ref();
        let found = with_block(&stored.header, stored.payload(), dictionary, |bytes| {
            let header = &stored.header;
            let decoded = Block::decode(bytes, header.record_count, self.header.created_ms);
            let found = decoded.and_then(|decoded| decoded.find(&sort_key)).map_err(damage)?;
            let Some((index, entry)) = found else { return Ok(None) };
            let located = Located {
                ordinal: header.first_ordinal.saturating_add(index),
                seq: entry.seq,
                deadline_ms: entry.deadline_ms,
                encoded_len: encoded_len(key.len(), entry.value.len_bytes() as usize),
            };
            read(located, &entry)?.map(Some).map_err(damage)
        });
        found.map_err(damage)?
    }

    pub(crate) fn index(&self) -> Decoded<BlockIndex<'_>> {
        let region = &self.footer.index;
        let bytes = match (&self.index, &self.mapped) {
            (Some(bytes), _) => bytes,
            (None, Some(mapped)) => mapped.bytes(
                usize::try_from(region.offset).unwrap_or(usize::MAX)
                    ..usize::try_from(region.offset.saturating_add(region.len)).unwrap_or(0),
            ),
            (None, None) => &[],
        };
        BlockIndex::decode(bytes, self.footer.block_count)
    }

    /// The file, to be read as it lies.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Bytes of the file; `None` unless all of them are inside.
    pub(crate) fn piece(&self, offset: u64, len: u64) -> Result<Option<Piece<'_>>> {
        self.view.piece(offset, len).map_err(|source| Error::io(DOING, &self.name, source))
    }

    /// A block as it is stored, its checksum and its ordinals verified.
    pub(crate) fn stored_block(&self, block: u32) -> Result<StoredBlock<'_>> {
        let rows = self
            .index()
            .and_then(|index| Ok((index.row(block)?, index.row(block.saturating_add(1))?)));
        let (row, next) = rows.map_err(|error| self.index_damage(error))?;
        let offset = row.offset;
        let piece = self.piece(offset, next.offset.saturating_sub(offset))?;
        let piece = piece.unwrap_or(Piece::Lent(&[]));
        let (header, payload) = BlockHeader::decode(&piece, self.header.nonce, offset)
            .map_err(|error| self.damage(offset, error))?;
        let payload_len = payload.len();
        let record_count = next.first_ordinal.saturating_sub(row.first_ordinal);
        if (header.first_ordinal, header.record_count) != (row.first_ordinal, record_count) {
            let found = format!("{} from {}", header.record_count, header.first_ordinal);
            let expected = format!("{record_count} from {}", row.first_ordinal);
            let error = FieldError { field: "records of a block", found, expected };
            return Err(self.damage(offset, error));
        }
        Ok(StoredBlock { offset, header, piece, payload_len })
    }

    /// Decompresses a block into a buffer of the caller's.
    pub(crate) fn read_block(&self, block: u32, out: &mut Vec<u8>) -> Result<(u64, BlockHeader)> {
        let stored = self.stored_block(block)?;
        unpack_block(&stored.header, stored.payload(), self.dictionary.as_ref(), out)
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

    /// The bytes of a raw value.
    pub(crate) fn raw_bytes(&self, range: &Range<usize>) -> Result<Piece<'_>> {
        let piece = self.piece(range.start as u64, range.len() as u64)?;
        Ok(piece.unwrap_or(Piece::Lent(&[])))
    }

    /// A raw value to keep: it borrows the map and pins the archive's file, where there is a map.
    pub(crate) fn raw_value(&self, range: Range<usize>) -> Result<Value> {
        if let Some(mapped) = &self.mapped {
            return Ok(Value::mapped(Arc::clone(mapped) as Arc<dyn Bytes>, range));
        }
        Ok(Value::from(&*self.raw_bytes(&range)?))
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
        if let Some(mapped) = &self.mapped {
            mapped.pins.retire(self.len);
        }
    }

    pub(crate) fn damage(&self, offset: u64, error: FieldError) -> Error {
        error.at(DOING, &self.name, offset).into()
    }

    pub(crate) fn index_damage(&self, error: FieldError) -> Error {
        self.damage(self.footer.index.offset, error)
    }
}

/// A block as it lies in the file.
pub(crate) struct StoredBlock<'a> {
    pub offset: u64,
    pub header: BlockHeader,
    piece: Piece<'a>,
    payload_len: usize,
}

impl StoredBlock<'_> {
    /// What stands behind its header.
    pub(crate) fn payload(&self) -> &[u8] {
        let rest = self.piece.get(BLOCK_HEADER_LEN..).unwrap_or_default();
        rest.get(..self.payload_len).unwrap_or_default()
    }
}
