//! The index image that a close leaves: what the index, the accounts and the order of keys were, so
//! that the next opening need not ask the trailers. Pure bytes; the store never depends on them.
//! format-spec.md section 9.
//!
//! The file is a header, parts one behind the other, and tables that say what each part is.

use crate::format::checksum::{bound_crc, crc};
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::format::segment::FORMAT_VERSION;
use crate::ids::Seq;
use crate::limits::SEGMENT_COUNT_MAX;

/// First bytes of an index image.
pub(crate) const IMAGE_MAGIC: &[u8; 8] = b"TRCIMG02";
/// Bytes before the first part.
pub(crate) const IMAGE_HEADER_LEN: usize = 64;
/// Bytes of one part at which the next one begins.
pub(crate) const IMAGE_PART_LEN: usize = 512 << 10;
/// Deadline classes of one segment that an image tells at most.
const GROUP_COUNT_MAX: u64 = 1 << 20;

/// What stands in front, and what the manifest's checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageHeader {
    pub store: [u8; 16],
    /// Number of the file.
    pub id: u32,
    /// The highest `seq` that the image knows of.
    pub last_seq: Seq,
    pub tables_offset: u64,
    pub tables_len: u32,
    pub tables_crc: u32,
}

impl ImageHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(IMAGE_HEADER_LEN);
        out.put_bytes(IMAGE_MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(self.id);
        out.put_bytes(&self.store);
        out.put_u64(self.last_seq.0);
        out.put_u64(self.tables_offset);
        out.put_u32(self.tables_len);
        out.put_u32(self.tables_crc);
        out.put_u32(0);
        let crc = bound_crc(u64::from(self.id), 0, &out);
        out.put_u32(crc);
        out
    }

    /// The header, and the checksum that the manifest must know.
    pub(crate) fn decode(bytes: &[u8]) -> Decoded<(Self, u32)> {
        let header = Fields::new(bytes).bytes("image header", IMAGE_HEADER_LEN)?;
        let mut fields = Fields::new(header);
        fields.expect("magic", IMAGE_MAGIC)?;
        let version = fields.u32("format version")?;
        if version != FORMAT_VERSION {
            return Err(FieldError::new("format version", version, FORMAT_VERSION));
        }
        let id = fields.u32("file id")?;
        let store = fields.array16("store id")?;
        let last_seq = Seq(fields.u64("last seq")?);
        let tables_offset = fields.u64("tables offset")?;
        let tables_len = fields.u32("tables length")?;
        let tables_crc = fields.u32("tables checksum")?;
        fields.expect("reserved", &[0; 4])?;
        let crc = fields.u32("header checksum")?;
        let body = header.get(..IMAGE_HEADER_LEN - 4).unwrap_or(&[]);
        let expected = bound_crc(u64::from(id), 0, body);
        if crc != expected {
            return Err(FieldError::new("header checksum", crc, expected));
        }
        Ok((Self { store, id, last_seq, tables_offset, tables_len, tables_crc }, crc))
    }
}

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PartKind {
    /// Buckets of the point index, 64 bytes each, from the first to the last.
    Buckets = 1,
    /// Leaves of the order, in the order of their fences.
    Leaves = 2,
    /// Tags whose keys stand in no leaf, 4 bytes each.
    Loose = 3,
}

/// One part, as the tables tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImagePart {
    pub kind: PartKind,
    /// Buckets, leaves or tags.
    pub count: u32,
    pub offset: u64,
    pub len: u32,
    pub crc: u32,
}

/// Live records of one segment that share an incarnation and a deadline class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageGroup {
    pub incarnation: u32,
    pub class_end_ms: u64,
    pub bytes: u64,
    pub count: u64,
}

/// The account of one segment, and the slot by which buckets name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSegment {
    pub id: u32,
    pub slot: u32,
    pub trailer_crc: u32,
    pub tombstone_bytes: u64,
    pub tombstone_count: u64,
    pub groups: Vec<ImageGroup>,
}

/// Everything that stands behind the parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageTables {
    /// By their numbers, rising.
    pub segments: Vec<ImageSegment>,
    pub parts: Vec<ImagePart>,
    /// Homes of the point index; the tag `t` has the home `t * homes / 2^32`.
    pub homes: u64,
    /// Whether leaves and loose tags are the whole order; without it, the order is made anew.
    pub ordered: bool,
}

impl ImageTables {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        out.put_u32(len(self.segments.len()));
        for segment in &self.segments {
            out.put_u32(segment.id);
            out.put_u32(segment.slot);
            out.put_u32(segment.trailer_crc);
            out.put_u64(segment.tombstone_bytes);
            out.put_u64(segment.tombstone_count);
            out.put_u32(len(segment.groups.len()));
            for group in &segment.groups {
                out.put_u32(group.incarnation);
                out.put_u64(group.class_end_ms);
                out.put_u64(group.bytes);
                out.put_u64(group.count);
            }
        }
        out.put_u64(self.homes);
        out.put_u8(u8::from(self.ordered));
        out.put_u32(len(self.parts.len()));
        for part in &self.parts {
            out.put_u8(part.kind as u8);
            out.put_u32(part.count);
            out.put_u32(part.len);
            out.put_u32(part.crc);
        }
        out
    }

    /// Decodes the tables of an image whose header was checked; parts follow each other without
    /// gaps from behind the header to the tables.
    pub(crate) fn decode(header: &ImageHeader, bytes: &[u8]) -> Decoded<Self> {
        let found = crc(bytes);
        if found != header.tables_crc {
            return Err(FieldError::new("tables checksum", found, header.tables_crc));
        }
        let mut fields = Fields::new(bytes);
        let mut tables = Self::default();
        for _ in 0..fields.u32_at_most("segment count", SEGMENT_COUNT_MAX as u64)? {
            tables.segments.push(segment(&mut fields)?);
        }
        tables.homes = fields.u64("homes")?;
        tables.ordered = fields.u8("ordered")? == 1;
        let mut offset = IMAGE_HEADER_LEN as u64;
        for _ in 0..fields.u32("part count")? {
            let part = part(&mut fields, offset)?;
            offset += u64::from(part.len);
            tables.parts.push(part);
        }
        if offset != header.tables_offset {
            return Err(FieldError::new("end of the parts", offset, header.tables_offset));
        }
        fields.finish("tables end")?;
        Ok(tables)
    }
}

fn segment(fields: &mut Fields<'_>) -> Decoded<ImageSegment> {
    let id = fields.u32("segment id")?;
    let slot = fields.u32_at_most("slot", SEGMENT_COUNT_MAX as u64 - 1)?;
    let trailer_crc = fields.u32("trailer checksum")?;
    let tombstone_bytes = fields.u64("tombstone bytes")?;
    let tombstone_count = fields.u64("tombstone count")?;
    let mut groups = Vec::new();
    for _ in 0..fields.u32_at_most("group count", GROUP_COUNT_MAX)? {
        groups.push(ImageGroup {
            incarnation: fields.u32("incarnation")?,
            class_end_ms: fields.u64("class end")?,
            bytes: fields.u64("live bytes")?,
            count: fields.u64("live records")?,
        });
    }
    Ok(ImageSegment { id, slot, trailer_crc, tombstone_bytes, tombstone_count, groups })
}

fn part(fields: &mut Fields<'_>, offset: u64) -> Decoded<ImagePart> {
    let kind = match fields.u8("part kind")? {
        1 => PartKind::Buckets,
        2 => PartKind::Leaves,
        3 => PartKind::Loose,
        other => return Err(FieldError::new("part kind", other, "1 to 3")),
    };
    let (count, len) = (fields.u32("count")?, fields.u32("part length")?);
    Ok(ImagePart { kind, count, offset, len, crc: fields.u32("part checksum")? })
}

/// One leaf of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageLeaf<'a> {
    pub fence: &'a [u8],
    pub shared: u16,
    entries: &'a [[u8; IMAGE_ENTRY_LEN]],
}

/// Bytes of one entry of a leaf.
const IMAGE_ENTRY_LEN: usize = 12;

/// One key of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageEntry {
    pub discriminator: u32,
    pub tag: u32,
    /// Where its record is: slot x 2^23 + offset / 8; all ones where that is not known.
    pub hint: u32,
}

impl ImageLeaf<'_> {
    /// The entries, in order.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = ImageEntry> + Clone {
        self.entries.iter().map(|&[a, b, c, d, e, f, g, h, hint @ ..]| ImageEntry {
            discriminator: u32::from_le_bytes([a, b, c, d]),
            tag: u32::from_le_bytes([e, f, g, h]),
            hint: u32::from_le_bytes(hint),
        })
    }
}

/// Appends one leaf.
pub(crate) fn put_leaf(
    out: &mut Vec<u8>,
    fence: &[u8],
    shared: u16,
    entries: impl ExactSizeIterator<Item = ImageEntry>,
) {
    out.put_varint(fence.len() as u64);
    out.put_bytes(fence);
    out.put_varint(u64::from(shared));
    out.put_varint(entries.len() as u64);
    for ImageEntry { discriminator, tag, hint } in entries {
        out.put_u32(discriminator);
        out.put_u32(tag);
        out.put_u32(hint);
    }
}

/// The leaf that `fields` begins with. Shared bytes are bytes of the fence, entries rise.
pub(crate) fn leaf<'a>(fields: &mut Fields<'a>) -> Decoded<ImageLeaf<'a>> {
    let len = fields.varint32("fence length")? as usize;
    let fence = fields.bytes("fence", len)?;
    let shared = fields.varint32("shared bytes")?;
    let shared = u16::try_from(shared).ok().filter(|&shared| usize::from(shared) <= len);
    let shared = shared.ok_or_else(|| FieldError::new("shared bytes", "more", len))?;
    let count = fields.varint32("entry count")? as usize;
    let len = count.saturating_mul(IMAGE_ENTRY_LEN);
    let (entries, _) = fields.bytes("leaf", len)?.as_chunks::<IMAGE_ENTRY_LEN>();
    let leaf = ImageLeaf { fence, shared, entries };
    if !leaf.entries().is_sorted_by_key(|entry| entry.discriminator) {
        return Err(FieldError::new("leaf", "entries out of order", "rising discriminators"));
    }
    Ok(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ImageHeader {
        ImageHeader {
            store: [7; 16],
            id: 12,
            last_seq: Seq(99),
            tables_offset: IMAGE_HEADER_LEN as u64 + 30,
            tables_len: 5,
            tables_crc: 6,
        }
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_refused() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), IMAGE_HEADER_LEN);
        assert_eq!(ImageHeader::decode(&bytes).unwrap().0, header());
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ImageHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn tables_come_back_and_parts_must_end_where_the_tables_begin() {
        let group = ImageGroup { incarnation: 1, class_end_ms: u64::MAX, bytes: 5, count: 1 };
        let (tombstone_bytes, tombstone_count) = (40, 1);
        let groups = vec![group];
        let segment = ImageSegment {
            id: 3,
            slot: 9,
            trailer_crc: 4,
            tombstone_bytes,
            tombstone_count,
            groups,
        };
        let part = |kind, offset, len| ImagePart { kind, count: 2, offset, len, crc: 9 };
        let tables = ImageTables {
            segments: vec![segment],
            parts: vec![part(PartKind::Buckets, 64, 20), part(PartKind::Loose, 84, 10)],
            homes: 64,
            ordered: true,
        };
        let bytes = tables.encode();
        let mut header = ImageHeader { tables_crc: crc(&bytes), ..header() };
        assert_eq!(ImageTables::decode(&header, &bytes), Ok(tables));
        let slot = |slot| {
            let mut tables = ImageTables::decode(&header, &bytes).unwrap();
            tables.segments[0].slot = slot;
            let bytes = tables.encode();
            let header = ImageHeader { tables_crc: crc(&bytes), ..header };
            ImageTables::decode(&header, &bytes).map(drop).map_err(|error| error.field)
        };
        let last = u32::try_from(SEGMENT_COUNT_MAX).unwrap() - 1;
        assert_eq!((slot(last), slot(last + 1)), (Ok(()), Err("slot")));
        header.tables_offset += 1;
        assert_eq!(ImageTables::decode(&header, &bytes).unwrap_err().field, "end of the parts");
        header.tables_crc ^= 1;
        assert_eq!(ImageTables::decode(&header, &bytes).unwrap_err().field, "tables checksum");
    }

    #[test]
    fn a_leaf_comes_back_and_entries_out_of_order_are_refused() {
        let mut bytes = Vec::new();
        let entry = |discriminator, tag, hint| ImageEntry { discriminator, tag, hint };
        let entries = [entry(1, 10, 5), entry(1, 11, u32::MAX), entry(2, 7, 1 << 23)];
        put_leaf(&mut bytes, b"fence", 3, entries.into_iter());
        let read = leaf(&mut Fields::new(&bytes)).unwrap();
        assert_eq!((read.fence, read.shared), (&b"fence"[..], 3));
        assert_eq!(read.entries().collect::<Vec<_>>(), entries);
        bytes.clear();
        put_leaf(&mut bytes, b"fence", 6, [entry(1, 10, 0)].into_iter());
        assert_eq!(leaf(&mut Fields::new(&bytes)).unwrap_err().field, "shared bytes");
        bytes.clear();
        put_leaf(&mut bytes, b"fence", 5, [entry(2, 10, 0), entry(1, 10, 0)].into_iter());
        assert_eq!(leaf(&mut Fields::new(&bytes)).unwrap_err().field, "leaf");
    }
}
