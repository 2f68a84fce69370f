//! The dictionary region of an archive: what a reader checks before zstd sees it.
//! Knows the length and the magic; what is in it, `cold` chooses. format-spec.md 8, "Dictionary".

use crate::format::cursor::{Decoded, FieldError};
use crate::limits::DICTIONARY_LEN_MAX;

/// First bytes of a dictionary with entropy tables, as zstd defines them.
const TABLES_MAGIC: [u8; 4] = [0x37, 0xA4, 0x30, 0xEC];
/// What is shorter, zstd takes for none.
const DICTIONARY_LEN_MIN: usize = 8;

/// Accepts an absent dictionary (no bytes) or one of an acceptable length.
pub(crate) fn check_dictionary(bytes: &[u8]) -> Decoded<Option<&[u8]>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !(DICTIONARY_LEN_MIN..=DICTIONARY_LEN_MAX).contains(&bytes.len()) {
        let expected = format_args!("{DICTIONARY_LEN_MIN} to {DICTIONARY_LEN_MAX}").to_string();
        return Err(FieldError::new("dictionary length", bytes.len(), expected));
    }
    Ok(Some(bytes))
}

/// This content as a dictionary, unless it is too short or zstd would look for tables in it.
pub(crate) fn content_only(content: Vec<u8>) -> Option<Vec<u8>> {
    let sound = check_dictionary(&content).ok()?.is_some() && !content.starts_with(&TABLES_MAGIC);
    sound.then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_absent_or_bounded() {
        assert_eq!(check_dictionary(&[]), Ok(None));
        assert!(check_dictionary(&[1; DICTIONARY_LEN_MIN - 1]).is_err());
        let mut bytes = vec![7; DICTIONARY_LEN_MAX];
        assert_eq!(check_dictionary(&bytes), Ok(Some(&bytes[..])));
        bytes.push(0);
        assert_eq!(check_dictionary(&bytes).unwrap_err().field, "dictionary length");
    }

    #[test]
    fn content_that_zstd_would_read_as_tables_is_no_dictionary() {
        assert_eq!(content_only(vec![7; 64]), Some(vec![7; 64]));
        assert_eq!(content_only([&TABLES_MAGIC[..], &[7; 60]].concat()), None);
        assert_eq!(content_only(Vec::new()), None);
        assert_eq!(content_only(vec![7; DICTIONARY_LEN_MIN - 1]), None);
    }
}
