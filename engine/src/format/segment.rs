//! The two fixed ends of a segment file: the header at 0 and, once sealed, the footer.
//! Knows bytes; knows nothing of the records between them. format-spec.md section 4.

use crate::format::checksum::bound_crc;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::ids::{SegmentId, Seq};
use crate::limits::SEGMENT_FILE_LEN_MAX;

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"TRCSEG01";
/// First bytes of a sealed segment's footer.
pub(crate) const FOOTER_MAGIC: &[u8; 8] = b"TRCEND01";
/// The version that this build writes and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes before the first record.
pub(crate) const SEGMENT_HEADER_LEN: usize = 64;
/// Bytes at the end of a sealed segment.
pub(crate) const SEGMENT_FOOTER_LEN: usize = 64;

/// What a segment is for. 0 is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Takes new mutations in the order of `seq`.
    Journal = 1,
    /// Written by cleaning; its records keep their `seq`.
    Survivor = 2,
    /// One batch or one large record, entered into the journal by an attach record.
    Attached = 3,
}

impl SegmentKind {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Journal),
            2 => Some(Self::Survivor),
            3 => Some(Self::Attached),
            _ => None,
        }
    }
}

/// Who a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub store: [u8; 16],
    pub id: SegmentId,
    pub kind: SegmentKind,
    pub created_ms: u64,
    /// Binds every record to this life of this file.
    pub nonce: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN);
        out.put_bytes(SEGMENT_MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(u32::from(self.kind as u8));
        out.put_bytes(&self.store);
        out.put_u32(self.id.0);
        out.put_u32(0);
        out.put_u64(self.created_ms);
        out.put_u64(self.nonce);
        out.put_u32(0);
        let crc = bound_crc(0, 0, &out);
        out.put_u32(crc);
        out
    }

    /// The version stands first, so that a newer file is told from a damaged one.
    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut fields = Fields::new(bytes);
        let header = fields.bytes("segment header", SEGMENT_HEADER_LEN)?;
        let mut fields = Fields::new(header);
        fields.expect("magic", SEGMENT_MAGIC)?;
        let version = fields.u32("format version")?;
        if version != FORMAT_VERSION {
            return Err(FieldError::new("format version", version, FORMAT_VERSION));
        }
        let kind = fields.u32("kind")?;
        let store = fields.array16("store id")?;
        let id = SegmentId(fields.u32("segment id")?);
        fields.expect("reserved", &[0; 4])?;
        let created_ms = fields.u64("created")?;
        let nonce = fields.u64("nonce")?;
        fields.expect("reserved", &[0; 4])?;
        let crc = fields.u32("header checksum")?;
        let expected = bound_crc(0, 0, header.get(..SEGMENT_HEADER_LEN - 4).unwrap_or(&[]));
        if crc != expected {
            return Err(FieldError::new("header checksum", crc, expected));
        }
        let kind = u8::try_from(kind).ok().and_then(SegmentKind::from_u8);
        let kind = kind.ok_or_else(|| FieldError::new("kind", "another", "1 to 3"))?;
        Ok(Self { store, id, kind, created_ms, nonce })
    }
}

/// The fixed end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFooter {
    /// Where records end: the first byte that is none of theirs.
    pub records_end: u64,
    pub trailer_offset: u64,
    pub trailer_len: u32,
    pub trailer_crc: u32,
    pub first_seq: Seq,
    pub last_seq: Seq,
}

impl SegmentFooter {
    /// Encodes for the place `offset`, where the footer starts.
    pub(crate) fn encode(&self, nonce: u64, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_FOOTER_LEN);
        out.put_bytes(FOOTER_MAGIC);
        out.put_u64(self.records_end);
        out.put_u64(self.trailer_offset);
        out.put_u32(self.trailer_len);
        out.put_u32(self.trailer_crc);
        out.put_u64(self.first_seq.0);
        out.put_u64(self.last_seq.0);
        out.put_bytes(&[0; 12]);
        let crc = bound_crc(nonce, offset, &out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8], nonce: u64, offset: u64) -> Decoded<Self> {
        let mut fields = Fields::new(bytes);
        fields.expect("footer magic", FOOTER_MAGIC)?;
        let records_end = fields.u64_at_most("records end", SEGMENT_FILE_LEN_MAX)?;
        let trailer_offset = fields.u64_at_most("trailer offset", SEGMENT_FILE_LEN_MAX)?;
        let trailer_len = fields.u32_at_most("trailer length", SEGMENT_FILE_LEN_MAX)?;
        let trailer_crc = fields.u32("trailer checksum")?;
        let first_seq = Seq(fields.u64("first seq")?);
        let last_seq = Seq(fields.u64("last seq")?);
        fields.expect("reserved", &[0; 12])?;
        let crc = fields.u32("footer checksum")?;
        let body = bytes.get(..SEGMENT_FOOTER_LEN - 4).unwrap_or(&[]);
        let expected = bound_crc(nonce, offset, body);
        if crc != expected {
            return Err(FieldError::new("footer checksum", crc, expected));
        }
        if trailer_offset < records_end || trailer_offset + u64::from(trailer_len) > offset {
            return Err(FieldError::new("trailer offset", trailer_offset, "records..footer"));
        }
        Ok(Self { records_end, trailer_offset, trailer_len, trailer_crc, first_seq, last_seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store: *b"sixteen bytes id",
            id: SegmentId(17),
            kind: SegmentKind::Survivor,
            created_ms: 1_700_000_000_000,
            nonce: 0x0123_4567_89AB_CDEF,
        }
    }

    #[test]
    fn a_segment_header_comes_back_and_every_flipped_bit_is_refused() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_LEN);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_footer_comes_back_from_its_place_only_and_every_flipped_bit_is_refused() {
        let footer = SegmentFooter {
            records_end: 200,
            trailer_offset: 200,
            trailer_len: 40,
            trailer_crc: 7,
            first_seq: Seq(1),
            last_seq: Seq(9),
        };
        let bytes = footer.encode(5, 240);
        assert_eq!(bytes.len(), SEGMENT_FOOTER_LEN);
        assert_eq!(SegmentFooter::decode(&bytes, 5, 240), Ok(footer));
        assert!(SegmentFooter::decode(&bytes, 5, 248).is_err());
        let refused =
            |footer: SegmentFooter| SegmentFooter::decode(&footer.encode(5, 240), 5, 240).is_err();
        assert!(refused(SegmentFooter { trailer_len: 41, ..footer }));
        assert!(refused(SegmentFooter { trailer_offset: 208, ..footer }));
        assert!(refused(SegmentFooter { records_end: 208, ..footer }));
        assert!(!refused(SegmentFooter { records_end: 200, ..footer }));
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentFooter::decode(&flipped, 5, 240).is_err(), "bit {bit}");
        }
    }
}
