//! The record of the log: a 40-byte header, the key, the value, zeros up to a multiple of 8.
//! Knows bytes; knows nothing of segments, of the index, or of which version is the newest.
//! format-spec.md section 3.

use crate::format::checksum::{Begun, crc_behind};
use crate::format::cursor::{Decoded, FieldError};
use crate::ids::{Incarnation, Seq};
use crate::limits::{KEY_LEN_MAX, VALUE_LEN_MAX};

/// Bytes in front of every key.
pub(crate) const RECORD_HEADER_LEN: usize = 40;
const _: () = assert!(RECORD_HEADER_LEN <= 40, "DESIGN section 5: at most 40 bytes of overhead");

/// Bytes of the header behind its checksum.
const SUMMED_LEN: usize = RECORD_HEADER_LEN - 4;

/// Bytes of the header's last word, which key and value follow.
const LAST_LEN: usize = 4;

/// Another record of the same batch follows directly.
const FLAG_MORE: u8 = 1;
/// The record belongs to a batch of more than one.
const FLAG_BATCH: u8 = 2;
/// A newer version exists; a snapshot kept this one when its segment was cleaned.
const FLAG_OLD: u8 = 4;
const FLAGS_KNOWN: u8 = FLAG_MORE | FLAG_BATCH | FLAG_OLD;

/// What a record says. 0 is reserved, so that zeros are never a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// The key has this value.
    Put = 1,
    /// The key is gone.
    Tombstone = 2,
    /// Records in a segment of their own belong here in the order.
    Attach = 3,
    /// An incarnation ended; the value names the next one, or 0 when the keyspace was dropped.
    Clear = 4,
}

/// Everything in front of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// CRC-32 of incarnation, key and value: computed once, copied by every move.
    pub body_crc: u32,
    pub seq: Seq,
    /// Milliseconds since 1970 at which the record expires; 0 for never.
    pub deadline_ms: u64,
    pub value_len: u32,
    pub key_len: u16,
    pub kind: RecordKind,
    /// Another record of the same batch follows directly.
    pub more: bool,
    /// One of several records that became visible at once.
    pub batch: bool,
    /// A newer version exists; recovery passes over this one.
    pub old: bool,
    pub incarnation: Incarnation,
    /// How far the durable watermark was behind `seq` when the record was written.
    pub watermark_lag: u32,
}

/// What a record occupies: header, key, value, padding to 8.
pub(crate) const fn encoded_len(key_len: usize, value_len: usize) -> u64 {
    ((RECORD_HEADER_LEN + key_len + value_len) as u64).next_multiple_of(8)
}

/// The checksum that travels with a record through all tiers.
pub(crate) fn body_crc(incarnation: Incarnation, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&incarnation.0.to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// The same, with any checksum begun before: that saves the question what the processor has.
pub(crate) fn body_crc_in(
    begun: &Begun,
    incarnation: Incarnation,
    key: &[u8],
    value: &[u8],
) -> u32 {
    begun.anew_of(incarnation.0.to_le_bytes(), [key, value])
}

/// Bytes of an attach record's value: segment, record count, records end.
pub(crate) const ATTACH_LEN: usize = 16;

/// The value of an attach record.
pub(crate) fn attach_value(id: u32, count: u32, records_end: u64) -> [u8; ATTACH_LEN] {
    let mut value = [0; ATTACH_LEN];
    value[..4].copy_from_slice(&id.to_le_bytes());
    value[4..8].copy_from_slice(&count.to_le_bytes());
    value[8..].copy_from_slice(&records_end.to_le_bytes());
    value
}

/// How far the durable watermark is behind `seq`.
pub(crate) fn lag(seq: Seq, durable: Seq) -> u32 {
    u32::try_from(seq.0.saturating_sub(durable.0)).unwrap_or(u32::MAX)
}

impl RecordHeader {
    /// Bytes of the whole record.
    #[inline]
    pub(crate) fn encoded_len(&self) -> u64 {
        encoded_len(usize::from(self.key_len), self.value_len as usize)
    }

    /// The highest `seq` that was on stable storage when this record was written.
    pub(crate) fn watermark(&self) -> Seq {
        Seq(self.seq.0.saturating_sub(u64::from(self.watermark_lag)))
    }

    /// Encodes for one place: the segment's nonce and the offset in it.
    #[cfg(any(test, fuzzing, feature = "internals"))]
    pub(crate) fn encode(&self, nonce: u64, offset: u64) -> [u8; RECORD_HEADER_LEN] {
        self.encode_in(&Begun::bound(nonce), offset)
    }

    /// The same, with the file's nonce summed before.
    pub(crate) fn encode_in(&self, nonce: &Begun, offset: u64) -> [u8; RECORD_HEADER_LEN] {
        let mut out = [0; RECORD_HEADER_LEN];
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags =
            flag(self.more, FLAG_MORE) | flag(self.batch, FLAG_BATCH) | flag(self.old, FLAG_OLD);
        out[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        out[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.deadline_ms.to_le_bytes());
        out[24..28].copy_from_slice(&self.value_len.to_le_bytes());
        out[28..30].copy_from_slice(&self.key_len.to_le_bytes());
        out[30] = self.kind as u8;
        out[31] = flags;
        out[32..36].copy_from_slice(&self.incarnation.0.to_le_bytes());
        out[36..40].copy_from_slice(&self.watermark_lag.to_le_bytes());
        if let Some((crc, summed)) = out.split_first_chunk_mut::<4>()
            && let Some(summed) = summed.first_chunk::<SUMMED_LEN>()
        {
            *crc = nonce.at::<SUMMED_LEN, { SUMMED_LEN + 12 }>(offset, summed).to_le_bytes();
        }
        out
    }

    /// Decodes the header that starts `bytes`. Checks everything but the body.
    #[expect(clippy::inline_always, reason = "else a hundred bytes are copied for each read")]
    #[inline(always)]
    fn decode(bytes: &[u8], nonce: &Begun, offset: u64) -> Decoded<Self> {
        let parts = bytes.split_first_chunk::<4>();
        let parts = parts.and_then(|(crc, rest)| Some((crc, rest.first_chunk::<SUMMED_LEN>()?)));
        let Some((crc, summed)) = parts else {
            return Err(FieldError::new("record header", bytes.len(), RECORD_HEADER_LEN));
        };
        let crc = u32::from_le_bytes(*crc);
        let expected = nonce.at::<SUMMED_LEN, { SUMMED_LEN + 12 }>(offset, summed);
        if crc != expected {
            return Err(wrong_crc("header checksum", crc, expected));
        }
        Self::decode_words(summed.as_chunks::<4>().0)
    }

    #[expect(clippy::inline_always, reason = "else a hundred bytes are copied for each read")]
    #[inline(always)]
    fn decode_words(words: &[[u8; 4]]) -> Decoded<Self> {
        let &[body_crc, seq, seq_high, deadline, deadline_high, len, kinds, incarnation, lag] =
            words
        else {
            return Err(FieldError::new("record header", words.len(), "nine words"));
        };
        let long = |low: [u8; 4], high: [u8; 4]| {
            u64::from(u32::from_le_bytes(high)) << 32 | u64::from(u32::from_le_bytes(low))
        };
        let value_len = u32::from_le_bytes(len);
        if u64::from(value_len) > VALUE_LEN_MAX as u64 {
            let expected = format_args!("at most {VALUE_LEN_MAX}");
            return Err(FieldError::new("value length", value_len, expected));
        }
        let [key_len, key_len_high, kind, flags] = kinds;
        let kind = match kind {
            1 => RecordKind::Put,
            2 => RecordKind::Tombstone,
            3 => RecordKind::Attach,
            4 => RecordKind::Clear,
            other => return Err(FieldError::new("kind", other, "1 to 4")),
        };
        if flags & !FLAGS_KNOWN != 0 {
            return Err(FieldError::new("flags", flags, "no more than bits 0 to 2"));
        }
        Ok(Self {
            body_crc: u32::from_le_bytes(body_crc),
            seq: Seq(long(seq, seq_high)),
            deadline_ms: long(deadline, deadline_high),
            value_len,
            key_len: u16::from_le_bytes([key_len, key_len_high]),
            kind,
            more: flags & FLAG_MORE != 0,
            batch: flags & FLAG_BATCH != 0,
            old: flags & FLAG_OLD != 0,
            incarnation: Incarnation(u32::from_le_bytes(incarnation)),
            watermark_lag: u32::from_le_bytes(lag),
        })
    }
}

#[cold]
fn wrong_crc(field: &'static str, found: u32, expected: u32) -> FieldError {
    FieldError::new(field, format_args!("{found:08x}"), format_args!("{expected:08x}"))
}

const _: () = assert!(KEY_LEN_MAX <= u16::MAX as usize, "a key's length has 16 bits");

/// Incarnation and key of the record that starts `bytes`, as its header says; nothing is checked.
/// For a guess at an order, before the record is read in earnest.
#[inline]
pub(crate) fn peek_key(bytes: &[u8]) -> Option<(Incarnation, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER_LEN>()?;
    let key_len = u16::from_le_bytes([header[28], header[29]]);
    let incarnation = u32::from_le_bytes([header[32], header[33], header[34], header[35]]);
    Some((Incarnation(incarnation), rest.get(..key_len.into())?))
}

/// A record as it lies in the log: header, key and value, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub header: RecordHeader,
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// The last word of the header, key and value.
    tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// Decodes the record that starts `bytes`: header checked, lengths checked, body not.
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8], nonce: u64, offset: u64) -> Decoded<Self> {
        Self::decode_in(bytes, &Begun::bound(nonce), offset)
    }

    /// The same, with the file's nonce summed before.
    #[expect(clippy::inline_always, reason = "else a hundred bytes are copied for each read")]
    #[inline(always)]
    pub(crate) fn decode_in(bytes: &'a [u8], nonce: &Begun, offset: u64) -> Decoded<Self> {
        let header = RecordHeader::decode(bytes, nonce, offset)?;
        Self::with_header(header, bytes)
    }

    /// The record that starts `bytes`, whose header was decoded before.
    #[inline]
    pub(crate) fn with_header(header: RecordHeader, bytes: &'a [u8]) -> Decoded<Self> {
        let len = usize::from(header.key_len) + header.value_len as usize;
        let tail = bytes.get(RECORD_HEADER_LEN - LAST_LEN..);
        let tail = tail.and_then(|tail| tail.get(..LAST_LEN + len));
        let body = tail.and_then(|tail| tail.get(LAST_LEN..));
        let pair = body.and_then(|body| body.split_at_checked(header.key_len.into()));
        match tail.zip(pair) {
            Some((tail, (key, value))) => Ok(Self { header, key, value, tail }),
            None => Err(FieldError::new("record length", bytes.len(), RECORD_HEADER_LEN + len)),
        }
    }

    /// Checks key and value against the checksum that was computed at the put.
    #[inline]
    pub(crate) fn check_body(&self) -> Decoded<()> {
        let found = tail_crc(self.header.incarnation, self.tail);
        if found == self.header.body_crc {
            return Ok(());
        }
        Err(wrong_crc("body checksum", found, self.header.body_crc))
    }
}

/// The body checksum by the last word of the header, key and value as they lie in the log: the word
/// stands where the checksum wants the incarnation.
#[inline]
fn tail_crc(incarnation: Incarnation, tail: &[u8]) -> u32 {
    crc_behind(incarnation.0, tail)
}

/// What a walk needs to know of a put or a tombstone to show it: a part of [`Record`], as sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub seq: Seq,
    pub deadline_ms: u64,
    pub incarnation: Incarnation,
    pub is_put: bool,
    body_crc: u32,
    key_len: u16,
    /// The last word of the header, key and value.
    tail: &'a [u8],
}

impl<'a> Shown<'a> {
    /// Decodes the record that starts `bytes`: header checked, lengths checked, body not. `None`
    /// for damage, and for what only [`Record`] knows.
    #[expect(clippy::inline_always, reason = "once a row of a walk")]
    #[inline(always)]
    pub(crate) fn decode_in(bytes: &'a [u8], nonce: &Begun, offset: u64) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        let summed = rest.first_chunk::<SUMMED_LEN>()?;
        let tail = bytes.get(RECORD_HEADER_LEN - LAST_LEN..)?;
        let expected = nonce.at::<SUMMED_LEN, { SUMMED_LEN + 12 }>(offset, summed);
        let &[body_crc, seq, seq_high, deadline, deadline_high, len, kinds, incarnation, _] =
            summed.as_chunks::<4>().0
        else {
            return None;
        };
        let long = |low: [u8; 4], high: [u8; 4]| {
            u64::from(u32::from_le_bytes(high)) << 32 | u64::from(u32::from_le_bytes(low))
        };
        let [key_len, key_len_high, kind, flags] = kinds;
        let key_len = u16::from_le_bytes([key_len, key_len_high]);
        let is_put = kind == RecordKind::Put as u8;
        let is_known = is_put || kind == RecordKind::Tombstone as u8;
        if u32::from_le_bytes(*crc) != expected || !is_known || flags & !FLAGS_KNOWN != 0 {
            return None;
        }
        Some(Self {
            seq: Seq(long(seq, seq_high)),
            deadline_ms: long(deadline, deadline_high),
            incarnation: Incarnation(u32::from_le_bytes(incarnation)),
            is_put,
            body_crc: u32::from_le_bytes(body_crc),
            key_len,
            tail: tail.get(..LAST_LEN + usize::from(key_len) + u32::from_le_bytes(len) as usize)?,
        })
    }

    #[inline]
    pub(crate) fn pair(&self) -> (&'a [u8], &'a [u8]) {
        let body = self.tail.get(LAST_LEN..).unwrap_or(&[]);
        body.split_at_checked(self.key_len.into()).unwrap_or((body, &[]))
    }

    /// Bytes of header, key and value.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        (RECORD_HEADER_LEN - LAST_LEN + self.tail.len()) as u64
    }

    /// Whether key and value are what was put.
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        tail_crc(self.incarnation, self.tail) == self.body_crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(key: &[u8], value: &[u8]) -> RecordHeader {
        RecordHeader {
            body_crc: body_crc(Incarnation(7), key, value),
            seq: Seq(99),
            deadline_ms: 1_234_567,
            value_len: u32::try_from(value.len()).unwrap(),
            key_len: u16::try_from(key.len()).unwrap(),
            kind: RecordKind::Put,
            more: true,
            batch: true,
            old: false,
            incarnation: Incarnation(7),
            watermark_lag: 9,
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_its_place_and_from_nowhere_else(
            key in proptest::collection::vec(any::<u8>(), 0..80),
            value in proptest::collection::vec(any::<u8>(), 0..200),
            nonce: u64, offset: u64,
        ) {
            let header = header(&key, &value);
            let mut bytes = header.encode(nonce, offset).to_vec();
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&value);
            let record = Record::decode(&bytes, nonce, offset).unwrap();
            prop_assert_eq!(record.header, header);
            prop_assert_eq!((record.key, record.value), (&key[..], &value[..]));
            prop_assert_eq!(peek_key(&bytes), Some((header.incarnation, &key[..])));
            prop_assert!(record.check_body().is_ok());
            let shown = Shown::decode_in(&bytes, &Begun::bound(nonce), offset).unwrap();
            prop_assert_eq!(shown.pair(), (&key[..], &value[..]));
            prop_assert!(shown.is_sound() && shown.is_put);
            prop_assert_eq!((shown.seq, shown.deadline_ms), (header.seq, header.deadline_ms));
            prop_assert_eq!(shown.incarnation, header.incarnation);
            prop_assert!(Record::decode(&bytes, nonce ^ 1, offset).is_err());
            prop_assert!(Record::decode(&bytes, nonce, offset ^ 8).is_err());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(Record::decode(&bytes, 1, 2).is_err());
            prop_assert!(Shown::decode_in(&bytes, &Begun::bound(1), 2).is_none());
        }
    }

    #[test]
    fn every_flipped_bit_is_found_by_the_header_or_the_body_checksum() {
        let (key, value) = (b"key".as_slice(), b"some value".as_slice());
        let mut bytes = header(key, value).encode(5, 64).to_vec();
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        for bit in crate::format::every_bit(&bytes) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let sound = Record::decode(&flipped, 5, 64).and_then(|record| record.check_body());
            assert!(sound.is_err(), "bit {bit}");
            let shown = Shown::decode_in(&flipped, &Begun::bound(5), 64);
            assert!(!shown.is_some_and(|shown| shown.is_sound()), "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_never_a_record_and_lengths_round_up_to_eight() {
        assert!(Record::decode(&[0; 64], 0, 0).is_err());
        assert_eq!(encoded_len(0, 0), 40);
        assert_eq!(encoded_len(1, 0), 48);
        assert_eq!(encoded_len(24, 100), 168);
        assert_eq!(header(b"four", b"five5").encoded_len(), 56);
        let plain = RecordHeader { more: false, batch: false, ..header(b"", b"") };
        let seq = Seq(0x0102_0304_0506_0708);
        let large = RecordHeader { seq, deadline_ms: 9 << 33, old: true, ..plain };
        for one in [plain, large] {
            let bytes = one.encode(1, 2);
            let read = Record::decode(&bytes, 1, 2).map(|record| record.header);
            assert_eq!(read, Ok(one));
            let shown = Shown::decode_in(&bytes, &Begun::bound(1), 2).unwrap();
            assert_eq!((shown.seq, shown.deadline_ms), (one.seq, one.deadline_ms));
        }
        use RecordKind::{Attach, Clear, Put, Tombstone};
        for kind in [Put, Tombstone, Attach, Clear] {
            let bytes = RecordHeader { kind, ..plain }.encode(1, 2);
            let shown = Shown::decode_in(&bytes, &Begun::bound(1), 2).map(|shown| shown.is_put);
            let expected = matches!(kind, Put | Tombstone).then_some(kind == Put);
            assert_eq!(shown, expected, "walks show keys alone: {kind:?}");
        }
        let longest = u32::try_from(VALUE_LEN_MAX).unwrap();
        for (value_len, field) in [(longest, "record length"), (longest + 1, "value length")] {
            let bytes = RecordHeader { value_len, ..plain }.encode(1, 2);
            assert_eq!(Record::decode(&bytes, 1, 2).unwrap_err().field, field);
        }
        let bytes = RecordHeader { value_len: 9, ..plain }.encode(1, 2);
        let short = Record::decode(&bytes, 1, 2).unwrap_err();
        assert_eq!((short.found.as_str(), short.expected.as_str()), ("40", "49"));
        assert_eq!(header(b"", b"").watermark(), Seq(90));
        assert_eq!(RecordHeader { seq: Seq(3), ..header(b"", b"") }.watermark(), Seq(0));
    }
}
