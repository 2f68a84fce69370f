//! From a block's payload to its bytes: zstd with caps, one buffer a thread.
//! Knows codecs; knows nothing of records or files.

use std::cell::Cell;

use zstd::zstd_safe::{DCtx, DDict, find_frame_compressed_size, get_error_name};

use crate::format::block::{BlockHeader, Codec};
use crate::format::cursor::{Decoded, FieldError};
use crate::format::dictionary::check_dictionary;

/// Buffers above this length are given back after use.
const KEPT_LEN_MAX: usize = 64 << 10;

thread_local! {
    /// The decoder of this thread, unless it is in use further up the stack.
    static DECODER: Cell<Option<Decoder>> = const { Cell::new(None) };
}

/// A decompression context and the buffer of the last block.
pub(crate) struct Decoder {
    context: DCtx<'static>,
    bytes: Vec<u8>,
}

/// Digests an archive's dictionary once for all blocks. `None` for an absent one.
pub(crate) fn prepare_dictionary(region: &[u8]) -> Decoded<Option<DDict<'static>>> {
    let Some(bytes) = check_dictionary(region)? else { return Ok(None) };
    match DDict::try_create(bytes) {
        Some(dictionary) => Ok(Some(dictionary)),
        None => Err(FieldError::new("dictionary", "refused by zstd", "a sound one")),
    }
}

/// Calls `read` with the decompressed bytes of a block, which live in this thread's buffer.
///
/// The length was checked against `limits::BLOCK_LEN_MAX` with the header, before this allocates.
pub(crate) fn with_block<T>(
    header: &BlockHeader,
    payload: &[u8],
    dictionary: Option<&DDict<'static>>,
    read: impl FnOnce(&[u8]) -> T,
) -> Decoded<T> {
    if header.codec == Codec::Raw {
        return Ok(read(payload));
    }
    let mut decoder = match DECODER.take() {
        Some(decoder) => decoder,
        None => Decoder::new()?,
    };
    let mut bytes = std::mem::take(&mut decoder.bytes);
    let unpacked = decoder.unpack(header, payload, dictionary, &mut bytes);
    let answer = unpacked.map(|()| read(&bytes));
    if bytes.capacity() <= KEPT_LEN_MAX {
        decoder.bytes = bytes;
    }
    DECODER.set(Some(decoder));
    answer
}

/// Decompresses a block into `out`, for who keeps it longer than one call.
pub(crate) fn unpack_block(
    header: &BlockHeader,
    payload: &[u8],
    dictionary: Option<&DDict<'static>>,
    out: &mut Vec<u8>,
) -> Decoded<()> {
    with_block(header, payload, dictionary, |bytes| {
        out.clear();
        out.extend_from_slice(bytes);
    })
}

impl Decoder {
    fn new() -> Decoded<Self> {
        match DCtx::try_create() {
            Some(context) => Ok(Self { context, bytes: Vec::new() }),
            None => Err(FieldError::new("zstd context", "no memory", "a context")),
        }
    }

    /// One frame, exactly as long as the payload, into exactly as many bytes as the header says.
    fn unpack(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        dictionary: Option<&DDict<'static>>,
        out: &mut Vec<u8>,
    ) -> Decoded<()> {
        let frame =
            find_frame_compressed_size(payload).map_err(|code| zstd_error("frame", code))?;
        if frame != payload.len() {
            return Err(FieldError::new("frame length", frame, payload.len()));
        }
        let raw_len = header.raw_len as usize;
        out.resize(raw_len, 0);
        let target = out.as_mut_slice();
        let written = match (header.codec, dictionary) {
            (Codec::ZstdDictionary, Some(dictionary)) => {
                self.context.decompress_using_ddict(target, payload, dictionary)
            }
            (Codec::ZstdDictionary, None) => {
                return Err(FieldError::new("dictionary", "none", "one that the block needs"));
            }
            _ => self.context.decompress(target, payload),
        };
        let written = written.map_err(|code| zstd_error("block payload", code))?;
        if written != raw_len {
            return Err(FieldError::new("block raw length", raw_len, written));
        }
        Ok(())
    }
}

fn zstd_error(field: &'static str, code: usize) -> FieldError {
    FieldError::new(field, get_error_name(code), "a zstd frame")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(codec: Codec, stored: usize, raw_len: usize) -> BlockHeader {
        BlockHeader {
            stored_len: u32::try_from(stored).unwrap(),
            raw_len: u32::try_from(raw_len).unwrap(),
            first_ordinal: 0,
            record_count: 1,
            codec,
        }
    }

    fn unpack(codec: Codec, payload: &[u8], raw_len: usize) -> Decoded<Vec<u8>> {
        with_block(&header(codec, payload.len(), raw_len), payload, None, <[u8]>::to_vec)
    }

    #[test]
    fn a_frame_must_fill_exactly_what_the_header_declares() {
        let raw = b"abc".repeat(100);
        let payload = zstd::bulk::compress(&raw, 3).unwrap();
        assert_eq!(unpack(Codec::Zstd, &payload, 300), Ok(raw.clone()));
        assert!(unpack(Codec::Zstd, &payload, 299).is_err());
        assert!(unpack(Codec::Zstd, &payload, 301).is_err());
        assert!(unpack(Codec::ZstdDictionary, &payload, 300).is_err());
        let mut longer = payload.clone();
        longer.push(0);
        assert_eq!(unpack(Codec::Zstd, &longer, 300).unwrap_err().field, "frame length");
        let twice = [payload.clone(), payload].concat();
        assert_eq!(unpack(Codec::Zstd, &twice, 600).unwrap_err().field, "frame length");
        assert!(unpack(Codec::Zstd, b"", 1).is_err());
        assert_eq!(unpack(Codec::Raw, b"xy", 2), Ok(b"xy".to_vec()));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_declared_length() {
        let payload = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        assert!(payload.len() < 16 << 10);
        assert!(unpack(Codec::Zstd, &payload, 4096).is_err());
    }
}
