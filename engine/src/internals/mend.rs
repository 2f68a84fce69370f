//! Sets checksums right in bytes that were changed, as whoever writes a hostile file does: behind a
//! checksum stand the checks that fuzzing is for. Knows where checksums lie.

use crate::format::archive::ArchiveFooter;
use crate::format::block::BLOCK_HEADER_LEN;
use crate::format::checksum::{bound_crc, crc};
use crate::format::record::RECORD_HEADER_LEN;

/// The nonce that decoders are called with.
pub(super) const NONCE: u64 = 0x0123_4567_89AB_CDEF;
/// The place in the file that decoders are called with.
pub(super) const OFFSET: u64 = 4096;

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = word.to_le_bytes();
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |word| u32::from_le_bytes(*word) as usize)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |word| u64::from_le_bytes(*word))
}

/// The checksum at `at`, over everything before it.
pub(super) fn bound(bytes: &mut [u8], at: usize, nonce: u64, offset: u64) {
    let sum = bytes.get(..at).map(|head| bound_crc(nonce, offset, head));
    if let Some(sum) = sum {
        put(bytes, at, sum);
    }
}

/// Tables, then header of an index image.
pub(super) fn index_image(bytes: &mut [u8]) {
    let (at, len) = (usize::try_from(long(bytes, 40)).unwrap_or(usize::MAX), word(bytes, 48));
    let tables = bytes.get(at..).and_then(|rest| rest.get(..len)).map(crc);
    if let Some(tables) = tables {
        put(bytes, 52, tables);
    }
    let id = word(bytes, 12) as u64;
    bound(bytes, 60, id, 0);
}

/// Body, then header of the record that starts `bytes`.
pub(super) fn record(bytes: &mut [u8], nonce: u64, offset: u64) {
    let body_len = word(bytes, 24).saturating_add(word(bytes, 28) & 0xFFFF);
    let body = bytes.get(RECORD_HEADER_LEN..).and_then(|rest| rest.get(..body_len));
    if let (Some(body), Some(incarnation)) = (body, bytes.get(32..36)) {
        let sum = crc(&[incarnation, body].concat());
        put(bytes, 4, sum);
    }
    let sum = bytes.get(4..RECORD_HEADER_LEN).map(|head| bound_crc(nonce, offset, head));
    if let Some(sum) = sum {
        put(bytes, 0, sum);
    }
}

pub(super) fn dead_bits(bytes: &mut [u8], id: u32) {
    if let Some(at) = bytes.len().checked_sub(4) {
        bound(bytes, at, u64::from(id), 0);
    }
}

/// The same for bitmaps that were of another store.
pub(super) fn own_dead_bits(bytes: &mut [u8], store: [u8; 16], id: u32) {
    put(bytes, 12, id);
    if let Some(place) = bytes.get_mut(16..32) {
        place.copy_from_slice(&store);
    }
    dead_bits(bytes, id);
}

/// A footer that was of another archive; answers the offset at which it may stand.
pub(super) fn archive_footer(bytes: &mut [u8], id: u32, nonce: u64) -> u64 {
    put(bytes, 12, id);
    if let Some(place) = bytes.get_mut(16..24) {
        place.copy_from_slice(&nonce.to_le_bytes());
    }
    let end = long(bytes, 104).saturating_add(long(bytes, 112)) % (1 << 40);
    let offset = end.next_multiple_of(8);
    bound(bytes, 252, nonce, offset);
    offset
}

/// The sums that tables must agree with.
pub(super) fn footer_of_tables(bytes: &[u8]) -> ArchiveFooter {
    let mut footer = ArchiveFooter::default();
    let (incarnations, classes) = (word(bytes, 0), word(bytes, 4));
    for row in (0..incarnations.min(bytes.len() / 24)).map(|row| 8 + row * 24) {
        let count = u32::try_from(word(bytes, row + 4)).unwrap_or(0);
        footer.record_count = footer.record_count.wrapping_add(count);
        footer.encoded_len = footer.encoded_len.wrapping_add(long(bytes, row + 8));
        footer.body_len = footer.body_len.wrapping_add(long(bytes, row + 16));
    }
    footer.without_deadline_count = footer.record_count;
    for row in 0..classes.min(bytes.len() / 24) {
        let at = 8 + incarnations.min(bytes.len() / 24) * 24 + row * 24;
        let count = u32::try_from(word(bytes, at + 4)).unwrap_or(0);
        footer.without_deadline_count = footer.without_deadline_count.wrapping_sub(count);
    }
    footer
}

/// The records that the rows of a filter name.
pub(super) fn filter_record_count(bytes: &[u8]) -> u32 {
    let rows = word(bytes, 0).min(bytes.len() / 24);
    let counts = (0..rows).map(|row| word(bytes, 8 + row * 24 + 20));
    u32::try_from(counts.fold(0_usize, usize::wrapping_add)).unwrap_or(u32::MAX)
}

/// The header, then frame after frame.
pub(super) fn manifest(bytes: &mut [u8]) {
    bound(bytes, 60, 0, 0);
    let nonce = long(bytes, 40);
    let mut at = 64_usize;
    while at + 8 < bytes.len() {
        let end = at.saturating_add(8).saturating_add(word(bytes, at));
        let Some(payload) = bytes.get(at + 8..end).filter(|payload| !payload.is_empty()) else {
            return;
        };
        let sum = bound_crc(nonce, at as u64, payload);
        put(bytes, at + 4, sum);
        at = end;
    }
}

pub(super) fn archive_header(bytes: &mut [u8]) {
    let nonce = long(bytes, 32);
    bound(bytes, 60, nonce, 0);
}

pub(super) fn block(bytes: &mut [u8], nonce: u64, offset: u64) {
    let end = word(bytes, 4).saturating_add(BLOCK_HEADER_LEN);
    let sum = bytes.get(4..end).map(|summed| bound_crc(nonce, offset, summed));
    if let Some(sum) = sum {
        put(bytes, 0, sum);
    }
}

/// A segment: header, records one behind the other, footer at the end with the trailer's checksum.
pub(super) fn segment(bytes: &mut [u8]) {
    bound(bytes, 60, 0, 0);
    let nonce = long(bytes, 48);
    let mut at = 64_usize;
    while at + RECORD_HEADER_LEN <= bytes.len() && bytes.get(at + 30).is_some_and(|&kind| kind != 0)
    {
        let len = word(bytes, at + 24).saturating_add(word(bytes, at + 28) & 0xFFFF);
        if let Some(rest) = bytes.get_mut(at..) {
            record(rest, nonce, at as u64);
        }
        at = at.saturating_add(len).saturating_add(RECORD_HEADER_LEN).next_multiple_of(8);
    }
    let Some(footer) = bytes.windows(8).rposition(|window| window == b"TRCEND01") else { return };
    let start = usize::try_from(long(bytes, footer + 16)).unwrap_or(usize::MAX);
    let end = start.saturating_add(word(bytes, footer + 24));
    let sum = bytes.get(start..end).map(crc);
    if let Some(sum) = sum {
        put(bytes, footer + 28, sum);
    }
    if let Some(tail) = bytes.get_mut(footer..) {
        bound(tail, 60, nonce, footer as u64);
    }
}

/// An archive: header, footer with its regions, and every block that follows the one before.
pub(super) fn archive(bytes: &mut [u8]) {
    archive_header(bytes);
    let nonce = long(bytes, 32);
    let Some(footer) = bytes.len().checked_sub(256) else { return };
    for region in 0..4 {
        let at = footer + 32 + region * 24;
        let start = usize::try_from(long(bytes, at)).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(long(bytes, at + 8)).unwrap_or(usize::MAX));
        let sum = bytes.get(start..end).map(|region| bound_crc(nonce, start as u64, region));
        if let Some(sum) = sum {
            put(bytes, at + 16, sum);
        }
    }
    if let Some(tail) = bytes.get_mut(footer..) {
        bound(tail, 252, nonce, footer as u64);
    }
    let mut at = 64_usize;
    while at + BLOCK_HEADER_LEN < footer {
        let len = word(bytes, at + 4);
        let Some(rest) = bytes.get_mut(at..footer) else { return };
        block(rest, nonce, at as u64);
        at = at.saturating_add(len).saturating_add(BLOCK_HEADER_LEN).next_multiple_of(8);
    }
}
