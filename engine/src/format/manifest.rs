//! The manifest file: a header, then frames, each one edit of the file set. Pure bytes.
//! Knows what an edit can say; knows nothing of what holds after it. format-spec.md section 7.

use bincode::{Decode, Encode};

use crate::codec;
use crate::format::checksum::bound_crc;
use crate::format::cursor::{Decoded, FieldError, Fields, Put};
use crate::format::segment::FORMAT_VERSION;
use crate::limits::EDIT_LEN_MAX;

/// First bytes of a manifest file.
pub(crate) const MANIFEST_MAGIC: &[u8; 8] = b"TRCMAN01";
/// Bytes before the first frame.
pub(crate) const MANIFEST_HEADER_LEN: usize = 64;
/// Bytes before a frame's payload: length and checksum.
pub(crate) const FRAME_HEADER_LEN: usize = 8;

/// What was settled when the store was created.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoreFacts {
    pub store: [u8; 16],
    pub hash_seed: [u8; 16],
    pub created_ms: u64,
    pub archive_dir: Option<String>,
}

/// What a keyspace is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct KeyspaceFacts {
    pub name: String,
    /// The life that the name means now.
    pub incarnation: u32,
    /// The last change of this entry in the order of mutations.
    pub seq: u64,
    pub volatile: bool,
    pub unordered: bool,
    /// 0: records of this keyspace have no default deadline.
    pub default_ttl_ms: u64,
    pub compression_level: i32,
}

/// One change of the file set. The order of variants is the format: never reorder, only append.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Op {
    /// The first op of the first edit of every manifest file.
    Facts(StoreFacts),
    /// Numbers below these may have been used.
    Counters { next_file: u32, next_incarnation: u32 },
    /// The drafted segment is a journal or attached one with a durable header and name; from now on
    /// it may hold records.
    OpenSegment { id: u32, kind: u8 },
    /// A segment may exist from now on; nothing in it counts yet.
    DraftSegment { id: u32 },
    /// The segment is sealed and never changes again. `len` ends with its footer.
    SealSegment { id: u32, kind: u8, len: u64, first_seq: u64, last_seq: u64, trailer_crc: u32 },
    /// An archive may exist from now on; nothing in it counts yet.
    DraftArchive { id: u32 },
    /// The archive counts.
    ListArchive { id: u32, len: u64 },
    /// A file of dead bitmaps may exist from now on.
    DraftBits { id: u32 },
    /// The current file of dead bitmaps; the one before it no longer counts.
    ListBits { id: u32, len: u64 },
    /// The file no longer counts and is being unlinked.
    Doom { id: u32 },
    /// The unlink was seen: the number names no file any more.
    Gone { id: u32 },
    /// Creates a keyspace or replaces what is known of it.
    SetKeyspace(KeyspaceFacts),
    /// The keyspace of this name is gone, as of `seq`.
    DropKeyspace { name: String, incarnation: u32, seq: u64 },
    /// The unsealed journal goes on at this sequence number.
    JournalAt { seq: u64 },
    /// Deadlines up to this moment have been judged.
    ClockAt { ms: u64 },
    /// Everything up to this sequence number is on stable storage.
    DurableAt { seq: u64 },
    /// An index image may exist from now on.
    DraftImage { id: u32 },
    /// The index image of this length and header checksum counts until anything else changes.
    ListImage { id: u32, len: u64, crc: u32 },
}

/// Who a manifest file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ManifestHeader {
    pub store: [u8; 16],
    /// Rises with every file; both copies of a generation share it.
    pub generation: u64,
    pub nonce: u64,
    /// 0 or 1: which of the two copies.
    pub copy: u32,
}

impl ManifestHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MANIFEST_HEADER_LEN);
        out.put_bytes(MANIFEST_MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(self.copy);
        out.put_bytes(&self.store);
        out.put_u64(self.generation);
        out.put_u64(self.nonce);
        out.put_bytes(&[0; 12]);
        let crc = bound_crc(0, 0, &out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut fields = Fields::new(bytes);
        let header = fields.bytes("manifest header", MANIFEST_HEADER_LEN)?;
        let mut fields = Fields::new(header);
        fields.expect("magic", MANIFEST_MAGIC)?;
        let version = fields.u32("format version")?;
        if version != FORMAT_VERSION {
            return Err(FieldError::new("format version", version, FORMAT_VERSION));
        }
        let copy = fields.u32_at_most("copy", 1)?;
        let store = fields.array16("store id")?;
        let generation = fields.u64("generation")?;
        let nonce = fields.u64("nonce")?;
        fields.expect("reserved", &[0; 12])?;
        let crc = fields.u32("header checksum")?;
        let expected = bound_crc(0, 0, header.get(..MANIFEST_HEADER_LEN - 4).unwrap_or(&[]));
        if crc != expected {
            return Err(FieldError::new("header checksum", crc, expected));
        }
        Ok(Self { store, generation, nonce, copy })
    }
}

/// Encodes one edit as a frame for the place `offset`; `None` when it is over the limit.
pub(crate) fn encode_frame(ops: &Vec<Op>, nonce: u64, offset: u64) -> Option<Vec<u8>> {
    let payload = codec::encode(ops)?;
    let mut out = Vec::with_capacity(FRAME_HEADER_LEN + payload.len());
    out.put_u32(u32::try_from(payload.len()).ok()?);
    out.put_u32(bound_crc(nonce, offset, &payload));
    out.put_bytes(&payload);
    Some(out)
}

/// Decodes the frame that starts `bytes`: the edit and the frame's length.
/// `None` at the end: no bytes, or a length of zero.
pub(crate) fn decode_frame(
    bytes: &[u8],
    nonce: u64,
    offset: u64,
) -> Decoded<Option<(Vec<Op>, u64)>> {
    let mut fields = Fields::new(bytes);
    if fields.remaining() == 0 {
        return Ok(None);
    }
    let len = fields.u32_at_most("edit length", EDIT_LEN_MAX as u64)?;
    let crc = fields.u32("edit checksum")?;
    if len == 0 && crc == 0 {
        return Ok(None);
    }
    let payload = fields.bytes("edit", len as usize)?;
    let expected = bound_crc(nonce, offset, payload);
    if crc != expected {
        return Err(FieldError::new("edit checksum", crc, expected));
    }
    let edit = codec::decode(payload);
    let edit = edit.map_err(|found| FieldError::new("edit", found, "a manifest edit"))?;
    Ok(Some((edit, (FRAME_HEADER_LEN + payload.len()) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops() -> Vec<Op> {
        vec![
            Op::Facts(StoreFacts {
                store: [1; 16],
                hash_seed: [2; 16],
                created_ms: 3,
                archive_dir: Some("elsewhere".into()),
            }),
            Op::Counters { next_file: 9, next_incarnation: 4 },
            Op::SealSegment { id: 1, kind: 1, len: 9, first_seq: 1, last_seq: 2, trailer_crc: 3 },
            Op::SetKeyspace(KeyspaceFacts {
                name: "notes".into(),
                incarnation: 1,
                seq: 0,
                volatile: false,
                unordered: true,
                default_ttl_ms: 5,
                compression_level: 3,
            }),
        ]
    }

    #[test]
    fn an_edit_comes_back_from_its_place_and_every_flipped_bit_is_refused() {
        let bytes = encode_frame(&ops(), 7, 64).unwrap();
        let (read, len) = decode_frame(&bytes, 7, 64).unwrap().unwrap();
        assert_eq!((read, len), (ops(), bytes.len() as u64));
        assert!(decode_frame(&bytes, 7, 65).is_err());
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&flipped, 7, 64).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_claims_four_gigabytes_is_refused_before_anything_is_allocated() {
        let mut bytes = vec![0xFF; 16];
        assert!(decode_frame(&bytes, 0, 0).is_err());
        bytes.fill(0);
        assert_eq!(decode_frame(&bytes, 0, 0), Ok(None));
        for at in [0, 4] {
            bytes.fill(0);
            bytes[at] = 1;
            assert!(decode_frame(&bytes, 0, 0).is_err(), "only both zero are the end");
        }
    }

    #[test]
    fn a_manifest_header_comes_back_and_every_flipped_bit_is_refused() {
        let header = ManifestHeader { store: [9; 16], generation: 3, nonce: 8, copy: 1 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), MANIFEST_HEADER_LEN);
        assert_eq!(ManifestHeader::decode(&bytes), Ok(header));
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ManifestHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
