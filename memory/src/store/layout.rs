//! How the rows of a namespace lie in a keyspace of the engine, in bytes.
//! Pure functions over slices; knows nothing of commits or locks.
//!
//! Keys: the name of the namespace as a part (see `keys`), one byte of kind, then
//!
//! | kind | rest of the key | value |
//! |---|---|---|
//! | `c` change | `seq`, 8 bytes big-endian | kind (1: 1 put, 2 delete), moment in ms (8), key |
//! | `m` meta | nothing | `seq` up to which versions may have been given (8) |
//! | `r` record | the key | version (8), deadline in ms or 0 (8), the value |
//!
//! Numbers in values are little-endian. The key 00 00 holds the mark of the clock (8).

use bytes::Bytes;

use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::keys;
use crate::store::{Change, ChangeKind, Entry, Ns, Seq, Version};

/// Where the mark of the clock lies; no namespace begins so.
pub(crate) const CLOCK_KEY: &[u8] = &[0, 0];
const RECORD_HEADER_LEN: usize = 16;

/// The keys of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: Vec<u8>,
}

impl Keys {
    pub(crate) fn of(ns: &Ns) -> Self {
        Self { prefix: keys::join(&[ns.name().as_bytes()]) }
    }

    fn key(&self, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + rest.len());
        key.extend_from_slice(&self.prefix);
        key.push(kind);
        key.extend_from_slice(rest);
        key
    }

    pub(crate) fn record(&self, key: &[u8]) -> Vec<u8> {
        self.key(b'r', key)
    }

    /// Behind all records.
    pub(crate) fn records_end(&self) -> Vec<u8> {
        self.key(b'r' + 1, &[])
    }

    pub(crate) fn change(&self, seq: u64) -> Vec<u8> {
        self.key(b'c', &seq.to_be_bytes())
    }

    /// What all changes begin with.
    pub(crate) fn changes(&self) -> Vec<u8> {
        self.key(b'c', &[])
    }

    pub(crate) fn meta(&self) -> Vec<u8> {
        self.key(b'm', &[])
    }

    /// The key that a record's key holds.
    pub(crate) fn rest(&self, key: &[u8]) -> Bytes {
        Bytes::copy_from_slice(key.get(self.prefix.len() + 1..).unwrap_or(&[]))
    }
}

pub(crate) fn encode_record(
    version: Version,
    deadline: Option<Millis>,
    value: &[u8],
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&deadline.map_or(0, |deadline| deadline.0).to_le_bytes());
    out.extend_from_slice(value);
}

pub(crate) fn decode_record(stored: terrace::Value) -> Result<Entry> {
    let (version, deadline) = decode_record_header(&stored)?;
    let value = Bytes::from_owner(stored).slice(RECORD_HEADER_LEN..);
    Ok(Entry { value, version, deadline })
}

pub(crate) fn decode_record_header(stored: &[u8]) -> Result<(Version, Option<Millis>)> {
    let version = u64_at(stored, 0, "record")?;
    let deadline = u64_at(stored, 8, "record")?;
    Ok((Version(version), (deadline != 0).then_some(Millis(deadline))))
}

pub(crate) fn encode_change(kind: ChangeKind, at: Millis, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + key.len());
    out.push(if kind == ChangeKind::Put { 1 } else { 2 });
    out.extend_from_slice(&at.0.to_le_bytes());
    out.extend_from_slice(key);
    out
}

/// The change, and when it was made.
pub(crate) fn decode_change(key: &Bytes, stored: &[u8]) -> Result<(Change, Millis)> {
    let seq = keys::number(key)?;
    let kind = match stored.first() {
        Some(1) => ChangeKind::Put,
        Some(2) => ChangeKind::Delete,
        found => return Err(Error::corrupt("change", format!("kind {found:?}"))),
    };
    let at = Millis(u64_at(stored, 1, "change")?);
    let key = Bytes::copy_from_slice(stored.get(9..).unwrap_or(&[]));
    Ok((Change { seq: Seq(seq), key, version: Version(seq), kind }, at))
}

/// The number at this offset.
pub(crate) fn u64_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u64> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
    let short = || Error::corrupt(what, format!("{} bytes, no number at {at}", bytes.len()));
    field.map(|field| u64::from_le_bytes(*field)).ok_or_else(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_stored_bytes_never_panic(bytes in proptest::collection::vec(0_u8.., 0..40)) {
            let key = Bytes::copy_from_slice(&bytes);
            let _ = decode_change(&key, &bytes);
            let _ = decode_record(terrace::Value::from(bytes.as_slice()));
        }
    }

    #[test]
    fn records_and_changes_come_back_as_they_went() {
        let mut out = Vec::new();
        encode_record(Version(7), Some(Millis(9)), b"value", &mut out);
        let entry = decode_record(terrace::Value::from(out)).unwrap();
        assert_eq!((entry.version, entry.deadline), (Version(7), Some(Millis(9))));
        assert_eq!(entry.value, "value");
        let stored = encode_change(ChangeKind::Delete, Millis(5), b"k");
        let seq = Bytes::copy_from_slice(&3_u64.to_be_bytes());
        let (change, at) = decode_change(&seq, &stored).unwrap();
        assert_eq!((change.seq, change.kind, at), (Seq(3), ChangeKind::Delete, Millis(5)));
        assert_eq!(change.key, "k");
    }

    #[test]
    fn kinds_and_namespaces_do_not_overlap() {
        let a = Keys::of(&Ns::new("a").unwrap());
        let ab = Keys::of(&Ns::new("ab").unwrap());
        assert!(a.change(u64::MAX) < a.meta() && a.meta() < a.record(b""));
        assert!(a.record(&[0xFF; 100]) < a.records_end());
        assert!(!ab.record(b"x").starts_with(&a.prefix));
        assert!(a.meta().as_slice() > CLOCK_KEY);
        assert_eq!(a.rest(&a.record(b"key")), "key");
    }
}
