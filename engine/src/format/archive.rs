//! The fixed parts of an archive: header, footer with the regions, and the two tables of sums.
//! Knows bytes; knows nothing of blocks, filters or which record is live. format-spec.md 8.

use crate::format::block::checksum_error;
use crate::format::checksum::bound_crc;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::ids::{ArchiveId, Incarnation};

/// First bytes of an archive.
pub(crate) const ARCHIVE_MAGIC: &[u8; 8] = b"TRCARC01";
/// First bytes of an archive's footer.
pub(crate) const ARCHIVE_FOOTER_MAGIC: &[u8; 8] = b"TRCARF01";
/// The version that this build writes and the newest that it reads.
pub(crate) const ARCHIVE_VERSION: u32 = 1;
/// Bytes before the first block.
pub(crate) const ARCHIVE_HEADER_LEN: usize = 64;
/// Bytes at the end of the file.
pub(crate) const ARCHIVE_FOOTER_LEN: usize = 256;
/// Bytes of a row of either table.
const TABLE_ROW_LEN: usize = 24;

/// Who an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArchiveHeader {
    pub id: ArchiveId,
    pub store: [u8; 16],
    /// Binds every checksum to this file.
    pub nonce: u64,
    /// Deadlines are stored, and grouped in classes, relative to this moment.
    pub created_ms: u64,
}

impl ArchiveHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ARCHIVE_HEADER_LEN);
        out.put_bytes(ARCHIVE_MAGIC);
        out.put_u32(ARCHIVE_VERSION);
        out.put_u32(self.id.0);
        out.put_bytes(&self.store);
        out.put_u64(self.nonce);
        out.put_u64(self.created_ms);
        out.put_bytes(&[0; 12]);
        let crc = bound_crc(self.nonce, 0, &out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut whole = Fields::new(bytes);
        let summed = whole.bytes("archive header", ARCHIVE_HEADER_LEN - 4)?;
        let crc = whole.u32("header checksum")?;
        let mut fields = Fields::new(summed);
        fields.expect("magic", ARCHIVE_MAGIC)?;
        let version = fields.u32("format version")?;
        let id = ArchiveId(fields.u32("archive id")?);
        let store = fields.array16("store id")?;
        let nonce = fields.u64("nonce")?;
        let created_ms = fields.u64("created")?;
        let expected = bound_crc(nonce, 0, summed);
        if crc != expected {
            return Err(checksum_error("header checksum", crc, expected));
        }
        if version != ARCHIVE_VERSION {
            return Err(FieldError::new(FORMAT_VERSION_FIELD, version, ARCHIVE_VERSION));
        }
        fields.expect("reserved", &[0; 12])?;
        Ok(Self { id, store, nonce, created_ms })
    }
}

/// The field that a reader turns into "a newer version".
pub(crate) const FORMAT_VERSION_FIELD: &str = "format version";

/// The version in a header whose checksum held.
pub(crate) fn header_version(bytes: &[u8]) -> Option<u32> {
    bytes.get(8..12)?.try_into().ok().map(u32::from_le_bytes)
}

/// A run of bytes of the file with a checksum bound to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Region {
    pub offset: u64,
    pub len: u64,
    pub crc: u32,
}

impl Region {
    pub(crate) fn of(bytes: &[u8], nonce: u64, offset: u64) -> Self {
        Self { offset, len: bytes.len() as u64, crc: bound_crc(nonce, offset, bytes) }
    }

    /// The region's bytes in the file, with the checksum verified.
    pub(crate) fn verified<'a>(
        &self,
        field: &'static str,
        bytes: Option<&'a [u8]>,
        nonce: u64,
    ) -> Decoded<&'a [u8]> {
        let Some(bytes) = bytes else {
            return Err(FieldError::new(field, "a region outside of the file", "one inside"));
        };
        let found = bound_crc(nonce, self.offset, bytes);
        if found != self.crc {
            return Err(checksum_error(field, found, self.crc));
        }
        Ok(bytes)
    }
}

/// The end of an archive: where everything is, and the sums over all records.
///
/// ```text
/// 0        64                    data_end                                    len - 256
/// | header | blocks and raw values | dictionary | filter | index | tables | footer |
/// ```
/// Blocks, raw values and regions begin at multiples of 8; the dictionary may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ArchiveFooter {
    pub data_end: u64,
    pub dictionary: Region,
    pub filter: Region,
    pub index: Region,
    pub tables: Region,
    pub record_count: u32,
    pub block_count: u32,
    /// Values that lie outside of the blocks.
    pub raw_count: u32,
    /// Bytes of all keys and values.
    pub body_len: u64,
    /// Sum of the records' encoded lengths in the log.
    pub encoded_len: u64,
    /// Bytes of the values outside of the blocks.
    pub raw_len: u64,
    /// Zeros between header and `data_end`.
    pub data_padding: u64,
    /// Over the records that have a deadline; both 0 when none has.
    pub deadline_min_ms: u64,
    pub deadline_max_ms: u64,
    /// Records without a deadline.
    pub without_deadline_count: u32,
    pub seq_min: u64,
    pub seq_max: u64,
}

/// The next multiple of 8.
pub(crate) fn align8(offset: u64) -> u64 {
    offset.checked_next_multiple_of(8).unwrap_or(u64::MAX)
}

impl ArchiveFooter {
    fn regions(&self) -> [Region; 4] {
        [self.dictionary, self.filter, self.index, self.tables]
    }

    /// Encodes the footer that begins at `offset`.
    pub(crate) fn encode(&self, id: ArchiveId, nonce: u64, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(ARCHIVE_FOOTER_LEN);
        out.put_bytes(ARCHIVE_FOOTER_MAGIC);
        out.put_u32(ARCHIVE_VERSION);
        out.put_u32(id.0);
        out.put_u64(nonce);
        out.put_u64(self.data_end);
        for region in self.regions() {
            out.put_u64(region.offset);
            out.put_u64(region.len);
            out.put_u32(region.crc);
            out.put_u32(0);
        }
        out.put_u32(self.record_count);
        out.put_u32(self.block_count);
        out.put_u32(self.raw_count);
        out.put_u32(self.without_deadline_count);
        out.put_u64(self.body_len);
        out.put_u64(self.encoded_len);
        out.put_u64(self.raw_len);
        out.put_u64(self.data_padding);
        out.put_u64(self.deadline_min_ms);
        out.put_u64(self.deadline_max_ms);
        out.put_u64(self.seq_min);
        out.put_u64(self.seq_max);
        out.resize(ARCHIVE_FOOTER_LEN - 4, 0);
        let crc = bound_crc(nonce, offset, &out);
        out.put_u32(crc);
        out
    }

    /// Decodes the footer that begins at `offset` and checks it against the header and itself.
    pub(crate) fn decode(bytes: &[u8], header: &ArchiveHeader, offset: u64) -> Decoded<Self> {
        let mut whole = Fields::new(bytes);
        let summed = whole.bytes("archive footer", ARCHIVE_FOOTER_LEN - 4)?;
        let crc = whole.u32("footer checksum")?;
        whole.finish("footer end")?;
        let mut fields = Fields::new(summed);
        fields.expect("footer magic", ARCHIVE_FOOTER_MAGIC)?;
        let expected = bound_crc(header.nonce, offset, summed);
        if crc != expected {
            return Err(checksum_error("footer checksum", crc, expected));
        }
        fields.expect("footer version", &ARCHIVE_VERSION.to_le_bytes())?;
        fields.expect("footer archive id", &header.id.0.to_le_bytes())?;
        fields.expect("footer nonce", &header.nonce.to_le_bytes())?;
        let footer = Self::decode_fields(&mut fields)?;
        footer.check(offset)?;
        Ok(footer)
    }

    fn decode_fields(fields: &mut Fields<'_>) -> Decoded<Self> {
        let footer = Self {
            data_end: fields.u64("data end")?,
            dictionary: decode_region(fields)?,
            filter: decode_region(fields)?,
            index: decode_region(fields)?,
            tables: decode_region(fields)?,
            record_count: fields.u32("record count")?,
            block_count: fields.u32("block count")?,
            raw_count: fields.u32("raw value count")?,
            without_deadline_count: fields.u32("records without deadline")?,
            body_len: fields.u64("body bytes")?,
            encoded_len: fields.u64("encoded bytes")?,
            raw_len: fields.u64("raw value bytes")?,
            data_padding: fields.u64("padding bytes")?,
            deadline_min_ms: fields.u64("least deadline")?,
            deadline_max_ms: fields.u64("greatest deadline")?,
            seq_min: fields.u64("least sequence number")?,
            seq_max: fields.u64("greatest sequence number")?,
        };
        let rest = fields.remaining();
        if fields.bytes("reserved", rest)?.iter().any(|&byte| byte != 0) {
            return Err(FieldError::new("footer reserved", "other bytes", "zeros"));
        }
        Ok(footer)
    }

    /// Regions follow each other without gaps above 7 bytes and end at the footer; counts fit into
    /// bytes that are really there.
    fn check(&self, offset: u64) -> Decoded<()> {
        let mut end = self.data_end;
        if end < ARCHIVE_HEADER_LEN as u64 || end > offset || !end.is_multiple_of(8) {
            return Err(FieldError::new("data end", end, format_args!("64 to {offset}")));
        }
        for region in self.regions() {
            if region.offset != end || region.len > offset.saturating_sub(end) {
                return Err(FieldError::new(
                    "region",
                    format_args!("{} bytes at {}", region.len, region.offset),
                    format_args!("begins at {end}, ends before {offset}"),
                ));
            }
            end = align8(end.saturating_add(region.len));
        }
        let data_len = self.data_end - ARCHIVE_HEADER_LEN as u64;
        let outside = self.raw_len.checked_add(self.data_padding);
        let sound = end == offset
            && self.record_count > 0
            && self.block_count > 0
            && self.block_count <= self.record_count
            && u64::from(self.record_count) <= self.filter.len
            && u64::from(self.raw_count) <= self.raw_len
            && self.raw_count <= self.record_count
            && self.without_deadline_count <= self.record_count
            && outside.is_some_and(|outside| outside < data_len);
        if sound {
            return Ok(());
        }
        Err(FieldError::new(
            "footer counts",
            format_args!(
                "{} records in {} blocks, {} outside, regions to {end}",
                self.record_count, self.block_count, self.raw_count
            ),
            format_args!("counts that fit, regions to {offset}"),
        ))
    }

    /// Bytes of the file by kind; they sum to its length.
    pub(crate) fn lens(&self) -> RegionLens {
        let regions = self.regions();
        let gaps = regions.iter().map(|one| align8(one.len).saturating_sub(one.len)).sum::<u64>();
        let data_len = self.data_end.saturating_sub(ARCHIVE_HEADER_LEN as u64);
        RegionLens {
            header: ARCHIVE_HEADER_LEN as u64,
            blocks: data_len.saturating_sub(self.raw_len).saturating_sub(self.data_padding),
            raw_values: self.raw_len,
            padding: self.data_padding.saturating_add(gaps),
            dictionary: self.dictionary.len,
            filter: self.filter.len,
            index: self.index.len,
            tables: self.tables.len,
            footer: ARCHIVE_FOOTER_LEN as u64,
        }
    }
}

fn decode_region(fields: &mut Fields<'_>) -> Decoded<Region> {
    let (offset, len) = (fields.u64("region offset")?, fields.u64("region length")?);
    let crc = fields.u32("region checksum")?;
    fields.expect("region reserved", &[0; 4])?;
    Ok(Region { offset, len, crc })
}

/// Bytes of an archive's file by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RegionLens {
    pub header: u64,
    /// Blocks with their headers.
    pub blocks: u64,
    /// Values outside of the blocks.
    pub raw_values: u64,
    pub padding: u64,
    pub dictionary: u64,
    pub filter: u64,
    pub index: u64,
    pub tables: u64,
    pub footer: u64,
}

impl RegionLens {
    pub(crate) fn sum(&self) -> u64 {
        [self.header, self.blocks, self.raw_values, self.padding, self.dictionary]
            .into_iter()
            .chain([self.filter, self.index, self.tables, self.footer])
            .fold(0, u64::saturating_add)
    }
}

/// The records of one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IncarnationSum {
    pub incarnation: Incarnation,
    pub record_count: u32,
    pub encoded_len: u64,
    /// Bytes of keys and values.
    pub body_len: u64,
}

/// The records of one incarnation whose deadlines fall in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassSum {
    pub incarnation: Incarnation,
    pub record_count: u32,
    /// All of them have expired when this moment has passed.
    pub end_ms: u64,
    pub encoded_len: u64,
}

/// Both tables, each sorted and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tables {
    /// By incarnation.
    pub incarnations: Vec<IncarnationSum>,
    /// By incarnation and end; records without a deadline are in none.
    pub classes: Vec<ClassSum>,
}

impl Tables {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(u32::try_from(self.incarnations.len()).unwrap_or(u32::MAX));
        out.put_u32(u32::try_from(self.classes.len()).unwrap_or(u32::MAX));
        for sum in &self.incarnations {
            out.put_u32(sum.incarnation.0);
            out.put_u32(sum.record_count);
            out.put_u64(sum.encoded_len);
            out.put_u64(sum.body_len);
        }
        for sum in &self.classes {
            out.put_u32(sum.incarnation.0);
            out.put_u32(sum.record_count);
            out.put_u64(sum.end_ms);
            out.put_u64(sum.encoded_len);
        }
        out
    }

    /// Decodes the region and checks it against the footer's sums.
    pub(crate) fn decode(bytes: &[u8], footer: &ArchiveFooter) -> Decoded<Self> {
        let mut fields = Fields::new(bytes);
        let counts = (fields.u32("incarnation rows")?, fields.u32("class rows")?);
        let rows_max = fields.remaining() / TABLE_ROW_LEN;
        if (counts.0 as usize).saturating_add(counts.1 as usize) > rows_max {
            return Err(FieldError::new(
                "table rows",
                format_args!("{} and {}", counts.0, counts.1),
                format_args!("{rows_max} in all"),
            ));
        }
        let mut tables = Self::default();
        for _ in 0..counts.0 {
            tables.incarnations.push(IncarnationSum {
                incarnation: Incarnation(fields.u32("incarnation")?),
                record_count: fields.u32("incarnation records")?,
                encoded_len: fields.u64("incarnation bytes")?,
                body_len: fields.u64("incarnation body bytes")?,
            });
        }
        for _ in 0..counts.1 {
            tables.classes.push(ClassSum {
                incarnation: Incarnation(fields.u32("class incarnation")?),
                record_count: fields.u32("class records")?,
                end_ms: fields.u64("class end")?,
                encoded_len: fields.u64("class bytes")?,
            });
        }
        fields.finish("tables end")?;
        tables.check(footer)?;
        Ok(tables)
    }

    fn check(&self, footer: &ArchiveFooter) -> Decoded<()> {
        let incarnations_rise =
            self.incarnations.is_sorted_by(|a, b| a.incarnation < b.incarnation);
        let classes_rise =
            self.classes.is_sorted_by(|a, b| (a.incarnation, a.end_ms) < (b.incarnation, b.end_ms));
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        let records = sum(&mut self.incarnations.iter().map(|one| u64::from(one.record_count)));
        let encoded = sum(&mut self.incarnations.iter().map(|one| one.encoded_len));
        let body = sum(&mut self.incarnations.iter().map(|one| one.body_len));
        let classed = sum(&mut self.classes.iter().map(|one| u64::from(one.record_count)));
        let with = footer.record_count.saturating_sub(footer.without_deadline_count);
        let expected = (u64::from(footer.record_count), footer.encoded_len, footer.body_len);
        let sound = (records, encoded, body) == expected && classed == u64::from(with);
        if incarnations_rise && classes_rise && sound {
            return Ok(());
        }
        Err(FieldError::new(
            "tables",
            format_args!("{records} records, {classed} in classes, {encoded} bytes"),
            format_args!("{} records, {with} in classes, {} bytes", expected.0, expected.1),
        ))
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
