//! The dictionary region of an archive: what a reader checks before zstd sees it.
//! Knows the length and the magic; training lives in `cold`. format-spec.md 8, "Dictionary".

use crate::format::cursor::{Decoded, FieldError};
use crate::limits::DICTIONARY_LEN_MAX;

/// First bytes of a dictionary with entropy tables, as zstd defines them.
pub(crate) const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xA4, 0x30, 0xEC];
/// Magic and dictionary id.
const DICTIONARY_LEN_MIN: usize = 8;

/// Accepts an absent dictionary (no bytes) or one of an acceptable length that begins as zstd's do.
pub(crate) fn check_dictionary(bytes: &[u8]) -> Decoded<Option<&[u8]>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !(DICTIONARY_LEN_MIN..=DICTIONARY_LEN_MAX).contains(&bytes.len()) {
        let expected = format_args!("{DICTIONARY_LEN_MIN} to {DICTIONARY_LEN_MAX}").to_string();
        return Err(FieldError::new("dictionary length", bytes.len(), expected));
    }
    if !bytes.starts_with(&DICTIONARY_MAGIC) {
        return Err(FieldError::new("dictionary magic", "other bytes", "zstd's"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_absent_or_bounded_and_begins_with_the_magic() {
        assert_eq!(check_dictionary(&[]), Ok(None));
        let mut bytes = DICTIONARY_MAGIC.to_vec();
        assert!(check_dictionary(&bytes).is_err());
        bytes.resize(DICTIONARY_LEN_MAX, 0);
        assert_eq!(check_dictionary(&bytes), Ok(Some(&bytes[..])));
        bytes.push(0);
        assert_eq!(check_dictionary(&bytes).unwrap_err().field, "dictionary length");
        assert_eq!(check_dictionary(&[0; 64]).unwrap_err().field, "dictionary magic");
    }
}
