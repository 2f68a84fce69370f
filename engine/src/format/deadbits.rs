//! The file of dead bitmaps: for each file with dead records, one bit a record.
//! Bits of a segment stand in trailer order, bits of an archive in key order. Pure bytes.
//! format-spec.md section 6.

use crate::format::checksum::bound_crc;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::format::segment::FORMAT_VERSION;
use crate::ids::Seq;

/// First bytes of a file of dead bitmaps.
pub(crate) const BITS_MAGIC: &[u8; 8] = b"TRCBIT01";
/// Most records of one file.
const RECORD_COUNT_MAX: u64 = 1 << 30;

/// The dead records of one segment or archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadBitmap {
    /// Number of the segment's or archive's file.
    pub file: u32,
    /// Records of that file.
    pub count: u32,
    /// Bit `i` is the bit `i % 8` of byte `i / 8`; unused bits are zero.
    pub bits: Vec<u8>,
}

impl DeadBitmap {
    pub(crate) fn new(file: u32, count: u32) -> Self {
        Self { file, count, bits: vec![0; (count as usize).div_ceil(8)] }
    }

    pub(crate) fn set(&mut self, index: u32) {
        if let Some(byte) = self.bits.get_mut(index as usize / 8) {
            *byte |= 1 << (index % 8);
        }
    }

    pub(crate) fn is_set(&self, index: u32) -> bool {
        self.bits.get(index as usize / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bits.iter().all(|&byte| byte == 0)
    }
}

/// All bitmaps of a store at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DeadBits {
    /// Everything at or below was durable, and judged, when these bits were set.
    pub as_of: Seq,
    pub bitmaps: Vec<DeadBitmap>,
}

impl DeadBits {
    pub(crate) fn of(&self, file: u32) -> Option<&DeadBitmap> {
        self.bitmaps.iter().find(|bitmap| bitmap.file == file)
    }

    pub(crate) fn encode(&self, store: [u8; 16], id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(BITS_MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(id);
        out.put_bytes(&store);
        out.put_u64(self.as_of.0);
        out.put_u32(u32::try_from(self.bitmaps.len()).unwrap_or(u32::MAX));
        out.put_u32(0);
        for bitmap in &self.bitmaps {
            out.put_u32(bitmap.file);
            out.put_u32(bitmap.count);
            out.put_bytes(&bitmap.bits);
        }
        let crc = bound_crc(u64::from(id), 0, &out);
        out.put_u32(crc);
        out
    }

    /// Decodes a whole file; `len` bytes are what it allocates at most.
    pub(crate) fn decode(bytes: &[u8], store: [u8; 16], id: u32) -> Decoded<Self> {
        let (body, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| FieldError::new("bitmap file", bytes.len(), "at least 52 bytes"))?;
        let crc = u32::from_le_bytes(*crc);
        let expected = bound_crc(u64::from(id), 0, body);
        let mut fields = Fields::new(body);
        fields.expect("magic", BITS_MAGIC)?;
        let version = fields.u32("format version")?;
        if version != FORMAT_VERSION {
            return Err(FieldError::new("format version", version, FORMAT_VERSION));
        }
        if crc != expected {
            return Err(FieldError::new("bitmap checksum", crc, expected));
        }
        fields.expect("file id", &id.to_le_bytes())?;
        fields.expect("store id", &store)?;
        let as_of = Seq(fields.u64("as of")?);
        let count = fields.u32("bitmap count")?;
        fields.expect("reserved", &[0; 4])?;
        let mut bitmaps = Vec::new();
        for _ in 0..count {
            let file = fields.u32("bitmap file")?;
            let count = fields.u32_at_most("bitmap length", RECORD_COUNT_MAX)?;
            let bits = fields.bytes("bits", (count as usize).div_ceil(8))?;
            bitmaps.push(DeadBitmap { file, count, bits: bits.to_vec() });
        }
        fields.finish("bitmap end")?;
        Ok(Self { as_of, bitmaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_come_back_and_every_flipped_bit_is_refused() {
        let mut bitmap = DeadBitmap::new(3, 13);
        bitmap.set(0);
        bitmap.set(12);
        assert!(bitmap.is_set(12) && !bitmap.is_set(11) && !bitmap.is_set(99));
        assert!(!bitmap.is_empty() && DeadBitmap::new(9, 0).is_empty());
        assert!(DeadBitmap::new(9, 70).is_empty());
        let bits = DeadBits { as_of: Seq(44), bitmaps: vec![bitmap, DeadBitmap::new(9, 0)] };
        assert_eq!(bits.of(3).map(|bitmap| bitmap.count), Some(13));
        assert_eq!((bits.of(9).map(|bitmap| bitmap.count), bits.of(4)), (Some(0), None));
        let bytes = bits.encode([5; 16], 7);
        assert_eq!(DeadBits::decode(&bytes, [5; 16], 7), Ok(bits));
        assert!(DeadBits::decode(&bytes, [6; 16], 7).is_err());
        assert!(DeadBits::decode(&bytes, [5; 16], 8).is_err());
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(DeadBits::decode(&flipped, [5; 16], 7).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(DeadBits::decode(&bytes[..len], [5; 16], 7).is_err());
        }
    }
}
