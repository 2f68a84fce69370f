//! Every cap in one place, and the relations between them.
//! Knows numbers; knows nothing of what they bound.

use crate::error::{Error, Result};

/// Longest key, in bytes.
pub const KEY_LEN_MAX: usize = 64 * 1024 - 1;
/// Longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 256 << 20;
/// Largest batch, in encoded bytes (a 40-byte header a record, keys, values, padding to 8).
pub const BATCH_LEN_MAX: usize = 256 << 20;
/// Longest name of a keyspace, in bytes of UTF-8.
pub const KEYSPACE_NAME_LEN_MAX: usize = 255;
/// Most keyspaces of a store, dropped ones not counted.
pub(crate) const KEYSPACE_COUNT_MAX: usize = 1 << 20;

/// Smallest segment; also the first one of a new store.
pub(crate) const SEGMENT_LEN_MIN: u64 = 1 << 20;
/// Largest journal or survivor segment.
pub(crate) const SEGMENT_LEN_MAX: u64 = 64 << 20;
/// Records above this length get a segment of their own.
pub(crate) const INLINE_RECORD_LEN_MAX: u64 = 1 << 20;
/// Longest segment of any kind: one batch, one record and the headers.
pub(crate) const SEGMENT_FILE_LEN_MAX: u64 = 512 << 20;
/// Most segments at one time: a location holds 20 bits of them.
pub(crate) const SEGMENT_COUNT_MAX: usize = 1 << 20;

/// Most bytes of an archive file that merging writes.
pub(crate) const ARCHIVE_LEN_MAX: u64 = 1 << 30;
/// Most bytes of a decompressed block that a reader accepts.
pub(crate) const BLOCK_LEN_MAX: usize = 1 << 20;
/// Values above this length stay raw and mapped in the archive.
pub(crate) const BLOCK_VALUE_LEN_MAX: usize = 256 << 10;
/// Largest zstd dictionary.
pub(crate) const DICTIONARY_LEN_MAX: usize = 16 << 10;
/// Largest manifest edit, in encoded bytes.
pub(crate) const EDIT_LEN_MAX: usize = 64 << 20;

/// Bytes that were written and not flushed at which puts wait.
pub(crate) const UNFLUSHED_LEN_MAX: u64 = 64 << 20;
/// Bytes that were written and not flushed at which a flush starts.
pub(crate) const UNFLUSHED_LEN_START: u64 = 8 << 20;
/// Age of the oldest unflushed write at which a flush starts, in milliseconds.
pub(crate) const UNFLUSHED_AGE_MS: u64 = 1000;
/// Bytes of the disk budget that only deletes and cleaning may use.
pub(crate) const DISK_RESERVE: u64 = 1 << 20;

const _: () = assert!(SEGMENT_LEN_MIN <= SEGMENT_LEN_MAX && SEGMENT_LEN_MAX < SEGMENT_FILE_LEN_MAX);
const _: () = assert!((BATCH_LEN_MAX + VALUE_LEN_MAX) as u64 <= SEGMENT_FILE_LEN_MAX);
const _: () = assert!(BLOCK_VALUE_LEN_MAX < BLOCK_LEN_MAX);

/// Refuses a key that no record can hold.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    at_most("key length", key.len(), KEY_LEN_MAX)
}

/// Refuses a value that no record can hold.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    at_most("value length", value.len(), VALUE_LEN_MAX)
}

/// Refuses a batch that no segment can hold.
pub(crate) fn check_batch(encoded_len: usize) -> Result<()> {
    at_most("batch length", encoded_len, BATCH_LEN_MAX)
}

/// Refuses an empty or over-long name of a keyspace.
pub(crate) fn check_keyspace_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("keyspace name", "an empty string", "1 to 255 bytes"));
    }
    at_most("keyspace name length", name.len(), KEYSPACE_NAME_LEN_MAX)
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<()> {
    if found > max {
        return Err(Error::Limit { what, max: max as u64, found: found as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() {
        assert!(check_key(&vec![0; KEY_LEN_MAX]).is_ok());
        let error = check_key(&vec![0; KEY_LEN_MAX + 1]);
        assert!(matches!(error, Err(Error::Limit { max: 65_535, found: 65_536, .. })));
    }

    #[test]
    fn an_empty_keyspace_name_is_invalid_and_a_long_one_is_over_the_limit() {
        assert!(matches!(check_keyspace_name(""), Err(Error::Invalid { .. })));
        assert!(matches!(check_keyspace_name(&"x".repeat(256)), Err(Error::Limit { .. })));
        assert!(check_keyspace_name("notes").is_ok());
    }
}
