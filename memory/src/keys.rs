//! Composite keys in bytes: parts of any bytes, in an order that is the order of the parts.
//! Knows bytes; knows nothing of what a part means.
//!
//! A part is written with 00 as 00 FF and ends with 00 01. So a part never begins another, no part
//! can leave its place, and bytewise order of keys is order of their parts, one after the other.

use crate::error::{Error, Result};

const END: [u8; 2] = [0x00, 0x01];
const ESCAPED: [u8; 2] = [0x00, 0xFF];

/// Appends one part.
pub(crate) fn push(out: &mut Vec<u8>, part: &[u8]) {
    for &byte in part {
        if byte == 0 {
            out.extend_from_slice(&ESCAPED);
        } else {
            out.push(byte);
        }
    }
    out.extend_from_slice(&END);
}

/// All parts as one key.
pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + END.len()).sum());
    for part in parts {
        push(&mut out, part);
    }
    out
}

/// Takes the first part off; what follows is returned with it.
pub(crate) fn split(key: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0x00, 0x01, after @ ..] => return Ok((part, after)),
            [0x00, 0xFF, after @ ..] => {
                part.push(0);
                rest = after;
            }
            [0x00, ..] | [] => {
                return Err(Error::corrupt("composite key", "a part without an end"));
            }
            [byte, after @ ..] => {
                part.push(*byte);
                rest = after;
            }
        }
    }
}

/// [`split`], with the part as text.
pub(crate) fn split_text(key: &[u8]) -> Result<(String, &[u8])> {
    let (part, rest) = split(key)?;
    let text = String::from_utf8(part)
        .map_err(|_| Error::corrupt("composite key", "a part that is not text"))?;
    Ok((text, rest))
}

/// The least key above every key that begins with `prefix`; `None` when there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// The last eight bytes of a key as a number.
pub(crate) fn number(bytes: &[u8]) -> Result<u64> {
    match bytes.last_chunk::<8>() {
        Some(number) if bytes.len() == 8 => Ok(u64::from_be_bytes(*number)),
        _ => Err(Error::corrupt("numbered key", format!("{} bytes, expected 8", bytes.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_of_keys_is_order_of_parts_and_parts_come_back(
            a in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..4), 3),
            b in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..4), 3),
        ) {
            let refs = |parts: &[Vec<u8>]| {
                join(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            prop_assert_eq!(refs(&a).cmp(&refs(&b)), a.cmp(&b));
            let key = refs(&a);
            let mut rest = key.as_slice();
            for part in &a {
                let (found, after) = split(rest).unwrap();
                prop_assert_eq!(&found, part);
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(0_u8.., 0..20)) {
            let _ = split(&bytes);
            let _ = split_text(&bytes);
            let _ = number(&bytes);
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_above_all_that_begin_with_it() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xFF]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xFF]), None);
        assert!(number(&[1; 9]).is_err());
    }
}
